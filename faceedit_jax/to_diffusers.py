"""Writes a net of ours as a folder that diffusers' `from_pretrained` loads.

  python -m faceedit_jax.convert to_diffusers FORMAT FILE --output=FOLDER

FILE is a converted `.safetensors`, or the directory of a trained stage.
"""

import argparse
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from faceedit_jax import net_sizes
from faceedit_jax.core import checkpoint, partial_restore
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.core.recipe import WeightSource
from faceedit_jax.weights import diffusers_names
from faceedit_jax.weights.checkpoint_formats import FORMATS
from faceedit_jax.weights.format import Sizes

WEIGHTS = "diffusion_pytorch_model.safetensors"
_VERSION = "0.42.1"  # of diffusers, with which the tests load such folders


def export(
  name: str,
  source: str | pathlib.Path,
  nets: Sizes | None = None,
  ema: str = "ema",
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """One net under diffusers' names.

  Args:
    name: a format that diffusers has a class for.
    source: `.safetensors` with names like "params/conv_in/kernel", or the
      directory of a trained stage.
    nets: other sizes than the published ones, as a config's `nets`.
    ema: of a trained stage: the average to take; "" for raw parameters.

  Returns:
    Arrays by diffusers' key, and the content of `config.json`.

  Raises:
    UserError: one line: diffusers has no such net, or the source does not
      hold it.
  """
  _check_able(name)
  made = FORMATS[name]
  theirs = made.diffusers
  with as_user_error(f"to_diffusers {name}: --config.nets"):
    net, inputs = made.net(nets)
    wanted = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  with as_user_error(f"to_diffusers {name}"):
    options = theirs.options(net)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    variables = partial_restore.load_net(
      theirs.net,
      WeightSource(path=str(source), ema=ema),
      partial_restore.place_on(device)(wanted),
      pathlib.Path(),
    )
  arrays = flax.traverse_util.flatten_dict(jax.device_get(variables), sep="/")
  rows = diffusers_names.table(theirs.naming(net), wanted)
  config = {
    "_class_name": theirs.cls,
    "_diffusers_version": _VERSION,
    **options,
  }
  return diffusers_names.rename(arrays, rows), config


def write(
  arrays: Mapping[str, np.ndarray],
  config: Mapping[str, Any],
  output: str | pathlib.Path,
) -> None:
  """Writes a folder with `config.json` and the weights, whole or not at all.

  Raises:
    UserError: one line: it is there already, or cannot be written.
  """
  output = pathlib.Path(output)
  _check_new(output)
  with as_user_error(f"--output={output}"):
    output.parent.mkdir(parents=True, exist_ok=True)
    part = tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.")
    try:
      text = json.dumps(config, indent=2) + "\n"
      pathlib.Path(part, "config.json").write_text(text)
      # diffusers and transformers want to know whose layout it is.
      safetensors.numpy.save_file(
        dict(arrays), os.path.join(part, WEIGHTS), metadata={"format": "pt"}
      )
      os.chmod(part, 0o755)
      os.rename(part, output)
    except safetensors.SafetensorError as e:
      raise ValueError(str(e)) from e
    finally:
      shutil.rmtree(part, ignore_errors=True)


def _able() -> list[str]:
  """Formats that diffusers has a class for."""
  return sorted(name for name, made in FORMATS.items() if made.diffusers)


def _check_able(name: str) -> None:
  if name not in _able():
    raise UserError(
      f"to_diffusers: format {name!r} has no class in diffusers, wanted one of "
      f"{_able()}"
    )


def _check_new(output: pathlib.Path) -> None:
  if output.exists():
    raise UserError(f"--output={output} is there already; wanted a new folder")


def recorded_nets(source: pathlib.Path) -> Sizes:
  """The `nets` that a file or a stage was made with, as far as it says so."""
  for folder in (source / "checkpoints", source):
    if checkpoint.steps_in(folder):
      return checkpoint.read_record(folder).config.get("nets", {})
  if source.is_file():
    try:
      with safetensors.safe_open(source, "numpy") as file:
        notes = file.metadata() or {}
    except safetensors.SafetensorError:
      return {}  # `load_net` says so
    return json.loads(notes["nets"]) if "nets" in notes else {}
  return {}


def run(arguments: Sequence[str]) -> None:
  """The command; it prints what it wrote.

  Args:
    arguments: of the command line, after `to_diffusers`.

  Raises:
    UserError: one line.
  """
  parser = argparse.ArgumentParser(
    prog="python -m faceedit_jax.convert to_diffusers",
    description="Writes a net as a folder that diffusers loads.",
  )
  parser.add_argument(
    "format", metavar="FORMAT", help=f"one of {', '.join(_able())}"
  )
  parser.add_argument(
    "source", metavar="FILE", help="converted .safetensors, or a trained stage"
  )
  parser.add_argument("--output", required=True, help="a new folder")
  parser.add_argument(
    "--config",
    metavar="FILE[:VARIANT]",
    help="config whose `nets` give the sizes; by default those that the file "
    "or the stage was made with, or the published ones",
  )
  parser.add_argument(
    "--ema", default="ema", help="average of a stage, '' for raw (%(default)s)"
  )
  overrides, arguments = config_lib.split_args(arguments)
  options = parser.parse_args(arguments)
  _check_new(pathlib.Path(options.output))
  _check_able(options.format)
  nets = FORMATS[options.format].published
  if not options.config:
    nets = {**nets, **recorded_nets(pathlib.Path(options.source))}
  nets = net_sizes.of_command(nets, options.config, overrides)
  arrays, config = export(options.format, options.source, nets, options.ema)
  write(arrays, config, options.output)
  size = sum(array.size for array in arrays.values())
  print(
    f"wrote {options.output}: {config['_class_name']}, {len(arrays)} tensors, "
    f"{size:,} numbers",
    flush=True,
  )
