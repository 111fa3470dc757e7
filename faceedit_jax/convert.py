"""Turns a published weight file into weights that a config can name.

  python -m faceedit_jax.convert FORMAT FILE... --output=NET.safetensors

Every key of the file is accounted for; see `weights/key_report.py`.
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

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from faceedit_jax import net_sizes, to_diffusers
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import partial_restore
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.morphable import flame_files
from faceedit_jax.weights import diffusers_names, key_report, parts, reader
from faceedit_jax.weights.checkpoint_formats import FORMATS
from faceedit_jax.weights.format import CheckpointFormat, Sizes
from faceedit_jax.weights.keymap import KeyMap


def convert(
  name: str,
  files: str | pathlib.Path | Sequence[str | pathlib.Path],
  nets: Sizes | None = None,
  seed: int = 0,
  weights: str | None = None,
) -> tuple[dict[str, np.ndarray], key_report.Report]:
  """Converts a published net.

  Args:
    name: one of FORMATS, or of `flame_files.READERS`.
    files: the published file, or the files that hold it together.
    nets: other sizes than the published ones, as a config's `nets`.
    seed: of what starts untrained.
    weights: "raw", "ema", or None for the average where the file has one.

  Returns:
    Arrays by "/"-joined path ("params/conv_in/kernel"; FLAME's files keep
    their names), and the report.

  Raises:
    UserError: one line: the file cannot be read, holds no such net, or has
      keys that do not fit; the first five of each sort are named.
  """
  _check_known(name)
  paths = [files] if isinstance(files, str | pathlib.Path) else list(files)
  if name in flame_files.READERS:
    if weights:
      raise UserError(
        f"--weights={weights}: {name} is a table of numbers, without averages"
      )
    return _convert_tables(name, paths)
  made, files_named = FORMATS[name], " and ".join(map(str, paths))
  with as_user_error(f"convert {name}"):
    raw = reader.read_all(paths)
  with as_user_error(f"convert {name}: --config.nets"):
    try:
      net, inputs = made.net(nets)
    except TypeError as e:  # a field that the net does not have
      raise ValueError(str(e)) from e
    init = functools.partial(net.init, jax.random.key(seed))
    wanted = jax.eval_shape(init, *inputs)
  keymaps = [made.keymap(net)]
  if made.diffusers:
    names = made.diffusers.naming(net)
    table = diffusers_names.table(names, wanted)
    keymaps.append(diffusers_names.keymap(table))
  with as_user_error(f"convert {name}: {files_named}"):
    part = parts.find(
      raw,
      made.places,
      functools.partial(_known, keymaps),
      len(jax.tree.leaves(wanted)),
      weights,
      made.dotted,
    )
  state = part.state
  theirs = made.diffusers and diffusers_names.recognised(state)
  keymap = keymaps[1 if theirs else 0]
  arrays, report = key_report.fit(
    state, keymap, wanted, made.fresh, made.widened, made.renewed
  )
  report.elsewhere, report.note = part.total - len(state), part.note
  if report.faults:
    raise UserError(
      f"convert {name}: {files_named} does not fit this net: {report} "
      f"({_advice(made, state)})"
    )
  return {**arrays, **_untrained(init, inputs, report.fresh)}, report


def _known(keymaps: Sequence[KeyMap], key: str) -> str | None:
  """What `parts.find` asks of a key."""
  for keymap in keymaps:
    try:
      goal = keymap(key)
    except KeyError:
      continue
    return "/".join((goal.collection, *goal.path)) if goal else ""
  return None


def _advice(made: CheckpointFormat, state: Mapping[str, np.ndarray]) -> str:
  """What a file that does not fit says of itself."""
  try:
    said = made.hint(state)
  except (ValueError, LookupError):  # tensors of other shapes than any net's
    said = ""
  return said or "another FORMAT, or other --config.nets?"


def _check_known(name: str) -> None:
  known = {**FORMATS, **flame_files.READERS}
  if name not in known:
    raise UserError(
      f"format {name!r} is unknown, wanted one of {sorted(known)}"
    )


def _convert_tables(name: str, paths: Sequence[str | pathlib.Path]):
  """`convert` of what is no net."""
  with as_user_error(f"convert {name}"):
    if len(paths) > 1:
      raise ValueError(f"got {len(paths)} files, wanted one")
    arrays = flame_files.READERS[name][1](paths[0])
    left = flame_files.unread(paths[0])
  return arrays, key_report.Report(used=sorted(arrays), dead=left)


def _untrained(init, inputs, paths: Sequence[str]) -> dict[str, np.ndarray]:
  """First values of some parameters; the others are not computed."""
  if not paths:
    return {}

  def some():
    zeros = [jnp.zeros(x.shape, x.dtype) for x in inputs]
    flat = flax.traverse_util.flatten_dict(init(*zeros), sep="/")
    return {path: flat[path] for path in paths}

  once = jax.jit(some, compiler_options=partial_restore.run_once())
  return jax.device_get(once())


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
    except safetensors.SafetensorError as e:
      raise ValueError(str(e)) from e
    finally:
      part.unlink(missing_ok=True)


def _digest(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
  """Entry point of the command line; returns the exit code."""
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  try:
    if arguments[:1] == ["to_diffusers"]:
      to_diffusers.run(arguments[1:])
    else:
      run(arguments)
  except UserError as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return 2
  return 0


def run(arguments: Sequence[str]) -> None:
  """The command; it prints the report.

  Raises:
    UserError: one line.
  """
  lines = {name: made.what for name, made in FORMATS.items()}
  lines |= {name: what for name, (what, _) in flame_files.READERS.items()}
  formats = "\n".join(f"  {name:20} {what}" for name, what in lines.items())
  parser = argparse.ArgumentParser(
    prog="python -m faceedit_jax.convert",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    description="Converts a published weight file. The way back: FORMAT "
    f"is to_diffusers.\n\nFORMAT is one of\n{formats}",
  )
  parser.add_argument("format", metavar="FORMAT")
  parser.add_argument(
    "files",
    metavar="FILE",
    nargs="+",
    help="as published; several when a net comes in parts",
  )
  parser.add_argument("--output", required=True, help="NAME.safetensors")
  parser.add_argument(
    "--config",
    metavar="FILE[:VARIANT]",
    help="config whose `nets` give the sizes, in place of the published ones; "
    "--config.nets.unet.context_dim=128 and so on change either",
  )
  parser.add_argument(
    "--weights",
    choices=parts.WEIGHTS,
    help="raw weights, or their average over the training (ema); without it "
    "the average where FILE has one",
  )
  parser.add_argument("--seed", type=int, default=0, help="of untrained parts")
  overrides, arguments = config_lib.split_args(arguments)
  options = parser.parse_args(arguments)
  _check_known(options.format)
  made = FORMATS.get(options.format)
  published = made.published if made else {}
  nets = net_sizes.of_command(published, options.config, overrides)
  arrays, report = convert(
    options.format, options.files, nets, options.seed, options.weights
  )
  files = [pathlib.Path(name) for name in options.files]
  notes = {
    "format": options.format,
    "source": ", ".join(file.name for file in files),
    "sha256": ", ".join(map(_digest, files)),
    "report": json.dumps(dataclasses.asdict(report)),
    "nets": json.dumps(nets),  # read by to_diffusers
  }
  write(arrays, options.output, notes)
  size = sum(a.size for a in arrays.values())
  print(f"{options.format}: {report}", flush=True)
  print(f"wrote {options.output}: {size:,} numbers", flush=True)


if __name__ == "__main__":
  sys.exit(main())
