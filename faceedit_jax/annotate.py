"""Prepares videos together with features that frozen nets compute of them.

  python -m faceedit_jax.annotate voxceleb1 --config=configs/NAME.py:VARIANT \
    --workdir=runs/NAME --input=VIDEOS --output=data/voxceleb1

Takes the options of `python -m data_pipelines.prepare voxceleb1` (or `videos`)
besides. Stages whose nets are needed and not trained yet are trained first. It
can be stopped at any time; the same command goes on where it was.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.videos import command
from faceedit_jax import feature_cache, train
from faceedit_jax import main as main_lib
from faceedit_jax import stages as stages_lib
from faceedit_jax.core import (
  cached_features,
  compile_cache,
  net_shapes,
  partial_restore,
  sharding,
)
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.config import ConfigDict
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.core.typing import Variables
from faceedit_jax.stages import Stage

BATCH = 16  # frames, or as many more as divide among the devices
POINTS68 = "landmarks68"


def _mesh() -> jax.sharding.Mesh:
  return sharding.make_mesh({"data": -1, "fsdp": 1}, jax.local_devices())


def load_nets(stage: Stage, config: ConfigDict) -> dict[str, Variables] | None:
  """Loads the nets that a stage's recipe reads faces with.

  Args:
    stage: from `stages.make_stage`.
    config: the whole config; stages that are not trained yet are trained.

  Returns:
    {net: variables} on every local device; None when the training was stopped.

  Raises:
    UserError: the recipe prepares no features, or a net cannot be loaded.
  """
  compile_cache.enable()
  names = cached_features.prepared_nets(stage.recipe)
  if not names:
    raise UserError(
      f"config.stage.{stage.name}.recipe.prepared_features is empty: "
      "this config stores no features; `python -m data_pipelines.prepare` "
      "makes sets without"
    )
  partial_restore.check_files(stage.recipe.frozen())
  sources = {name: stage.recipe.frozen()[name] for name in names}
  for name in dict.fromkeys(s.stage for s in sources.values() if s.stage):
    data_dir = str(stage.data_dir)
    needed = stages_lib.make_stage(config, name, stage.workdir, data_dir)
    main_lib.prepare_data([needed], data_dir)
    if not train.run(config, stage.workdir, "train", name, data_dir):
      return None
  place = partial_restore.place_on(sharding.replicated(_mesh()))
  fresh = net_shapes.frozen(stage.recipe)
  abstract = place({name: fresh[name] for name in names})
  return partial_restore.load_nets(sources, abstract, stage.workdir)


def make_annotator(
  stage: Stage,
  frozen: Mapping[str, Variables],
  landmarks: bool = False,
  least: float = 0.0,
) -> Callable[..., dict[str, np.ndarray]]:
  """The recipe's `prepare_features` in the form that `prepare_videos` takes.

  Args:
    stage: whose recipe prepares features.
    frozen: from `load_nets`.
    landmarks: whether frames come with 68 points of their own.
    least: face logit below which a frame is left out.

  Returns:
    uint8 (n, s, s, 3) -> {field: (n, ...)}, n its attribute `batch`.
  """
  rows = sharding.batch_sharding(_mesh())

  @jax.jit
  def compute(frozen, frames, points68):
    image = frames.astype(jnp.float32) / 127.5 - 1
    return stage.recipe.prepare_features(frozen, image, points68)

  def annotate(frames: np.ndarray, landmarks68: Any = None):
    given = jax.device_put((frames, landmarks68), rows)
    found = jax.device_get(compute(frozen, *given))
    out = {name: np.asarray(rows) for name, rows in found.items()}
    if "face" in out:
      out["valid"] = out.pop("face") > least
    return out

  count = jax.local_device_count()
  annotate.batch = -(-BATCH // count) * count
  annotate.needs = (POINTS68,) if landmarks else ()
  # A set begun with other nets is another set.
  fields = ",".join(sorted(stage.options.recipe.get("prepared_features", ())))
  said = f"{fields} {feature_cache.digest(frozen)} {least:g}"
  annotate.version = f"{feature_cache.PREPARED} {said}"
  return annotate


class _Parser(argparse.ArgumentParser):
  """Raises its errors as UserErrors."""

  def error(self, message):
    raise UserError(message)


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog="python -m faceedit_jax.annotate",
    description=__doc__.splitlines()[0],
  )
  kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
  command.add_kinds(kinds)
  for kind in kinds.choices.values():
    kind.add_argument("--config", required=True, help="configs/NAME.py:VARIANT")
    kind.add_argument("--workdir", required=True, help="of the run to come")
    kind.add_argument(
      "--data_dir", default=None, help="where stages that train find data"
    )
    kind.add_argument("--stage", default=None, help="by default the last")
    kind.add_argument(
      "--least_face",
      type=float,
      default=0.0,
      help="leave out frames whose face logit is not above",
    )
  return parser


def run(arguments: Sequence[str]) -> int:
  """The command; returns the exit code.

  Raises:
    UserError: one line.
  """
  overrides, arguments = config_lib.split_args(arguments)
  options = _parser().parse_args(arguments)
  with as_user_error("--config"):
    config = config_lib.override(config_lib.load(options.config), overrides)
  name = stages_lib.pick_stages(config, options.stage or config["stages"][-1])
  stage = stages_lib.make_stage(
    config, name[0], options.workdir, options.data_dir
  )
  size = int(config["image_size"])
  if options.size != size:
    raise UserError(
      f"--size={options.size}, but {options.config} has pictures of {size} px; "
      f"give --size={size}"
    )
  if not pathlib.Path(options.input).is_dir():
    raise UserError(f"--input={options.input}: no such folder of videos")
  frozen = load_nets(stage, config)
  if frozen is None:
    return 130
  annotator = make_annotator(
    stage, frozen, options.landmarks, options.least_face
  )
  with as_user_error(f"annotate {options.kind}"):
    command.run(options, {name[0]: annotator})
  return 0


def main(arguments: Sequence[str] | None = None) -> int:
  """Entry point of the command line; returns the exit code."""
  try:
    return run(list(sys.argv[1:] if arguments is None else arguments))
  except UserError as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return 2
  except KeyboardInterrupt:
    print("stopped; the same command continues here", file=sys.stderr)
    return 130


if __name__ == "__main__":
  sys.exit(main())
