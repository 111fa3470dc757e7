"""Turns a published weight file into weights that a config can name.

  python -m faceedit_jax.convert KIND FILE --output=NET.safetensors

Every key of the file is accounted for; see `weights/account.py`.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.weights import account, reader
from faceedit_jax.weights.kinds import KINDS

DEFAULT_CONFIG = "configs/difffae.py:voxceleb256"


def convert(
  kind: str, path: str | pathlib.Path, nets: Mapping[str, Any], seed: int = 0
) -> tuple[dict[str, np.ndarray], account.Report]:
  """Converts a file.

  Args:
    kind: one of KINDS.
    path: the published file.
    nets: sizes of the nets, as a config's `nets`.
    seed: of what starts untrained.

  Returns:
    Arrays by "/"-joined path ("params/conv_in/kernel"), and the report.

  Raises:
    UserError: one line: the file cannot be read, holds no such net, or has
      keys that do not fit; the first five of each sort are named.
  """
  if kind not in KINDS:
    raise UserError(f"kind {kind!r} is unknown, wanted one of {sorted(KINDS)}")
  made = KINDS[kind]
  with as_user_error(f"convert {kind}"):
    raw = reader.read(path)
    parts = (reader.section(raw, name) for name in made.sections)
    state = next(filter(None, parts), {})
  net, inputs = made.net(nets)
  init = functools.partial(net.init, jax.random.key(seed))
  wanted = jax.eval_shape(init, *inputs)
  arrays, report = account.fit(
    state, made.keymap, wanted, made.fresh, made.widened
  )
  if report.faults:
    raise UserError(
      f"convert {kind}: {path} does not fit this net: {report} (another KIND, "
      "or --config with other nets?)"
    )
  return {**arrays, **_untrained(init, inputs, report.fresh)}, report


def _untrained(init, inputs, paths: Sequence[str]) -> dict[str, np.ndarray]:
  """First values of some parameters; the others are not computed."""
  if not paths:
    return {}

  @jax.jit
  def some():
    zeros = [jnp.zeros(x.shape, x.dtype) for x in inputs]
    flat = flax.traverse_util.flatten_dict(init(*zeros), sep="/")
    return {path: flat[path] for path in paths}

  return jax.device_get(some())


def write(
  arrays: Mapping[str, np.ndarray],
  output: str | pathlib.Path,
  notes: Mapping[str, str],
) -> None:
  """Writes a .safetensors file, whole or not at all."""
  output = pathlib.Path(output)
  if output.suffix != ".safetensors":
    raise UserError(f"--output={output}: wanted a name ending in .safetensors")
  with as_user_error(f"--output={output}"):
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(output.name + ".part")
    try:
      safetensors.numpy.save_file(dict(arrays), part, metadata=dict(notes))
      os.replace(part, output)
    finally:
      part.unlink(missing_ok=True)


def _digest(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
  """Entry point of the command line; returns the exit code."""
  kinds = "\n".join(f"  {name:20} {k.what}" for name, k in KINDS.items())
  parser = argparse.ArgumentParser(
    prog="python -m faceedit_jax.convert",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    description=f"Converts a published weight file.\n\nKIND is one of\n{kinds}",
  )
  parser.add_argument("kind", metavar="KIND")
  parser.add_argument("file", metavar="FILE", help=".safetensors or torch's")
  parser.add_argument("--output", required=True, help="NAME.safetensors")
  parser.add_argument(
    "--config",
    default=DEFAULT_CONFIG,
    help="whose `nets` give the sizes (%(default)s); --config.nets.unet."
    "context_dim=128 and so on change them",
  )
  parser.add_argument("--seed", type=int, default=0, help="of untrained parts")
  arguments = sys.argv[1:] if arguments is None else arguments
  overrides, arguments = config_lib.split_args(arguments)
  options = parser.parse_args(arguments)
  try:
    with as_user_error("--config"):
      config = config_lib.override(config_lib.load(options.config), overrides)
    arrays, report = convert(
      options.kind, options.file, config.nets.to_dict(), options.seed
    )
    notes = {
      "kind": options.kind,
      "source": pathlib.Path(options.file).name,
      "sha256": _digest(pathlib.Path(options.file)),
      "report": json.dumps(dataclasses.asdict(report)),
    }
    write(arrays, options.output, notes)
  except UserError as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return 2
  size = sum(a.size for a in arrays.values())
  print(f"{options.kind}: {report}", flush=True)
  print(f"wrote {options.output}: {size:,} numbers", flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
