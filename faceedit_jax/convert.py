"""Turns a published weight file into weights that a config can name.

  python -m faceedit_jax.convert KIND FILE... --output=NET.safetensors

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
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from faceedit_jax import to_diffusers
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import partial_restore
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.morphable import flame_files
from faceedit_jax.weights import diffusers_names, key_report, reader
from faceedit_jax.weights.checkpoint_formats import KINDS, Kind


def convert(
  kind: str,
  files: str | pathlib.Path | Sequence[str | pathlib.Path],
  nets: Mapping[str, Any],
  seed: int = 0,
) -> tuple[dict[str, np.ndarray], key_report.Report]:
  """Converts a published net.

  Args:
    kind: one of KINDS, or of `flame_files.READERS`.
    files: the published file, or the files that hold it together.
    nets: sizes of the nets, as a config's `nets`.
    seed: of what starts untrained.

  Returns:
    Arrays by "/"-joined path ("params/conv_in/kernel"; FLAME's files keep
    their names), and the report.

  Raises:
    UserError: one line: the file cannot be read, holds no such net, or has
      keys that do not fit; the first five of each sort are named.
  """
  known = {**KINDS, **flame_files.READERS}
  if kind not in known:
    raise UserError(f"kind {kind!r} is unknown, wanted one of {sorted(known)}")
  paths = [files] if isinstance(files, str | pathlib.Path) else list(files)
  if kind in flame_files.READERS:
    return _convert_tables(kind, paths)
  made = KINDS[kind]
  with as_user_error(f"convert {kind}"):
    raw = reader.read_all(paths)
    parts = (reader.section(raw, name) for name in made.sections)
    state = next(filter(None, parts), {})
  with as_user_error(f"convert {kind}: nets of the config"):
    try:
      net, inputs = made.net(nets)
    except TypeError as e:  # a field that the net does not have
      raise ValueError(str(e)) from e
    init = functools.partial(net.init, jax.random.key(seed))
    wanted = jax.eval_shape(init, *inputs)
  keymap = made.keymap_of(net)
  if made.rival and diffusers_names.recognised(state):
    names = made.rival.naming(net)
    keymap = diffusers_names.keymap(diffusers_names.table(names, wanted))
  arrays, report = key_report.fit(
    state, keymap, wanted, made.fresh, made.widened, made.renewed
  )
  report.elsewhere = reader.count(raw) - len(state)
  if report.faults:
    advice = made.hint(state) or "another KIND, or --config with other nets?"
    raise UserError(
      f"convert {kind}: {' and '.join(map(str, paths))} does not fit this net: "
      f"{report} ({advice})"
    )
  return {**arrays, **_untrained(init, inputs, report.fresh)}, report


def _convert_tables(kind: str, paths: Sequence[str | pathlib.Path]):
  """`convert` of what is no net."""
  with as_user_error(f"convert {kind}"):
    if len(paths) > 1:
      raise ValueError(f"got {len(paths)} files, wanted one")
    arrays = flame_files.READERS[kind][1](paths[0])
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


def _nets(config, section: str, fields: Sequence[str]):
  """`nets` of a config, a section with what is said once for all nets."""
  nets = config_lib.net_fields(config)
  if fields:
    recipe = config.stage[config.stages[-1]].recipe
    known = {"image_size": config.image_size}
    if "attributes" in recipe:  # each makes two
      known["domains"] = 2 * len(recipe.attributes)
    said = {field: known[field] for field in fields if field in known}
    nets[section] = said | nets.get(section, {})
  return nets


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
      to_diffusers.run(arguments[1:], Kind.config)
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
  lines = {name: kind.what for name, kind in KINDS.items()}
  lines |= {name: what for name, (what, _) in flame_files.READERS.items()}
  kinds = "\n".join(f"  {name:20} {what}" for name, what in lines.items())
  parser = argparse.ArgumentParser(
    prog="python -m faceedit_jax.convert",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    description="Converts a published weight file. The way back: KIND is "
    f"to_diffusers.\n\nKIND is one of\n{kinds}",
  )
  parser.add_argument("kind", metavar="KIND")
  parser.add_argument(
    "files",
    metavar="FILE",
    nargs="+",
    help="as published; several when a net comes in parts",
  )
  parser.add_argument("--output", required=True, help="NAME.safetensors")
  parser.add_argument(
    "--config",
    help="whose `nets` give the sizes (one with the published ones); "
    "--config.nets.unet.context_dim=128 and so on change them",
  )
  parser.add_argument("--seed", type=int, default=0, help="of untrained parts")
  overrides, arguments = config_lib.split_args(arguments)
  options = parser.parse_args(arguments)
  made = KINDS.get(options.kind, Kind)
  with as_user_error("--config"):
    source = options.config or made.config
    config = config_lib.override(config_lib.load(source), overrides)
  nets = _nets(config, *made.shared)
  arrays, report = convert(options.kind, options.files, nets, options.seed)
  files = [pathlib.Path(name) for name in options.files]
  notes = {
    "kind": options.kind,
    "source": ", ".join(file.name for file in files),
    "sha256": ", ".join(map(_digest, files)),
    "report": json.dumps(dataclasses.asdict(report)),
    "nets": json.dumps(nets),  # read by to_diffusers
  }
  write(arrays, options.output, notes)
  size = sum(a.size for a in arrays.values())
  print(f"{options.kind}: {report}", flush=True)
  print(f"wrote {options.output}: {size:,} numbers", flush=True)


if __name__ == "__main__":
  sys.exit(main())
