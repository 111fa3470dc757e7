"""Named random streams: fold in the step, then a name; never split.

Adding a stream therefore never shifts another one, and a resumed run draws
what the uninterrupted run would have drawn.
"""

import zlib

import jax

from faceedit_jax.core.typing import Int, PRNGKey, typechecked


def name_hash(name: str) -> int:
  """A 32-bit number for a name, the same in every process and session.

  Args:
    name: any text. Python's own `hash` is salted per process, and hosts of one
      run would then draw different noise.

  Returns:
    CRC-32 of the UTF-8 text.
  """
  return zlib.crc32(name.encode("utf-8"))


@typechecked
def key(rng: PRNGKey, step: int | Int[jax.Array, ""], name: str) -> PRNGKey:
  """The key of stream `name` at `step`.

  Args:
    rng: the root key of the run.
    step: training step, a number or a traced scalar.
    name: name of the stream, such as "noise".

  Returns:
    fold_in(fold_in(rng, step), name_hash(name)).
  """
  return jax.random.fold_in(jax.random.fold_in(rng, step), name_hash(name))
