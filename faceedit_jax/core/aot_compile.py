"""Compiles on a second thread what is called later.

XLA's compiler keeps about one core busy, for a minute or two where a network is
large. Meanwhile the first thread can read pictures or train.
"""

import concurrent.futures
from collections.abc import Callable, Hashable
from typing import Any

import jax
from absl import logging

from faceedit_jax.core.typing import PyTree


class CompileAhead:
  """Jitted functions on their way to being compiled, in the order given.

  A call of such a function with arguments of the same shapes, types and
  shardings finds the result. One with others compiles as it would have done
  anyway, so that nothing but time depends on this class.
  """

  def __init__(self, mesh: jax.sharding.Mesh, enabled: bool = True):
    self._mesh, self._enabled = mesh, enabled
    self._pool = concurrent.futures.ThreadPoolExecutor(1, "compile-ahead")
    self._jobs: dict[Hashable, concurrent.futures.Future] = {}

  def __enter__(self) -> "CompileAhead":
    return self

  def __exit__(self, *error: object) -> None:
    # Not waited for: whoever leaves because of an error says so first. The
    # interpreter itself ends after a compilation under way.
    self._pool.shutdown(wait=False, cancel_futures=True)

  def add(
    self, name: Hashable, fn: Callable[..., Any], *args: PyTree, **static: Any
  ) -> None:
    """Begins to compile a function, after those that were added before.

    Args:
      name: for `wait`.
      fn: from `jax.jit`.
      *args: as it will be called; arrays, or their shapes and types. Arrays may
        be deleted afterwards.
      **static: its static arguments.
    """
    if self._enabled and name not in self._jobs:
      args = jax.tree.map(_described, args)
      self._jobs[name] = self._pool.submit(self._compile, fn, args, static)

  def wait(self, name: Hashable) -> None:
    """Returns when a function is compiled; at once if it was never added."""
    if name in self._jobs:
      concurrent.futures.wait([self._jobs[name]])

  def _compile(self, fn, args, static):
    try:
      with jax.set_mesh(self._mesh):
        fn.lower(*args, **static).compile()
    except Exception as e:  # noqa: BLE001  (the call itself will raise it)
      logging.warning("not compiled ahead of its call: %s", e)


def _described(leaf: Any) -> Any:
  """An array's shape, type and place, without its numbers."""
  if not isinstance(leaf, jax.Array):
    return leaf
  return jax.ShapeDtypeStruct(
    leaf.shape,
    leaf.dtype,
    sharding=leaf.sharding if leaf.committed else None,
    weak_type=leaf.aval.weak_type,
  )
