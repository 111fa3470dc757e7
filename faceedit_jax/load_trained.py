"""Loads a trained stage for inference: its recipe, its nets, nothing else."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from faceedit_jax import recipes
from faceedit_jax import stages as stages_lib
from faceedit_jax.core import (
  checkpoint,
  compile_cache,
  editing,
  inference_record,
  partial_restore,
  run_cache,
)
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.core.typing import Variables


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained stage.

  Attributes:
    recipe: its recipe.
    variables: {net: variables} of the trained nets.
    frozen: {net: variables} of the pretrained nets that its edit reads.
    image_size: side of its pictures in pixels.
    info: {"stage", "step", "identity"}: what was loaded, as JSON values.
    cache: keeps what is compiled for it.
  """

  recipe: recipe_lib.Recipe
  variables: Mapping[str, Variables]
  frozen: Mapping[str, Variables]
  image_size: int
  info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  cache: run_cache.RunCache = dataclasses.field(
    default_factory=run_cache.RunCache
  )


def load(
  workdir: str | os.PathLike,
  config: Mapping[str, Any] | None = None,
  stage: str | None = None,
  ema: str | None = None,
  step: int | None = None,
) -> Trained:
  """Loads a stage onto the first device.

  Args:
    workdir: directory of a run of `faceedit_jax.main`.
    config: from `core.config.load`; by default what the run has recorded.
    stage: the last of the config when None.
    ema: average to read; the recipe's main one when None, raw parameters
      when "".
    step: which checkpoint; the newest when None.

  Returns:
    The recipe and its nets.

  Raises:
    UserError: one line, when a directory, stage or checkpoint is missing or
      does not fit.
  """
  root = compile_cache.enable()
  config, built = find_stage(workdir, config, stage)
  stages_lib.check_trained(built, step)
  if step is None:
    step = checkpoint.steps_in(built.checkpoints)[-1]
  recipe, skip = built.recipe, built.recipe.loss_nets()

  def nets():
    place = partial_restore.place_on(
      jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    )
    return (
      partial_restore.load_view(
        recipe, built.checkpoints, place, ema, step, as_stored=True
      ),
      partial_restore.load_frozen(
        recipe, built.workdir, place, skip, as_stored=True
      ),
    )

  cache = run_cache.RunCache.of(
    root,
    config.to_dict(),
    [
      built.checkpoints / str(step),
      *partial_restore.origins(recipe, built.workdir, skip),
    ],
    (built.name, ema, inference_record.read(built.directory)),
  )
  variables, frozen = cache.nets(nets)
  info = {"stage": built.name, "step": step, "identity": built.identity}
  return Trained(
    recipe, variables, frozen, int(config["image_size"]), info, cache
  )


def find_stage(
  workdir: str | os.PathLike,
  config: Mapping[str, Any] | None = None,
  stage: str | None = None,
) -> tuple[Mapping[str, Any], stages_lib.Stage]:
  """The config and the stage that `load` would load; arguments as there."""
  workdir = pathlib.Path(workdir)
  if not workdir.is_dir():
    raise UserError(f"--workdir={workdir}: no such directory")
  if config is None:
    config = recorded_config(workdir)
  name = stages_lib.pick_stages(config, stage or config["stages"][-1])[0]
  folder, nets = workdir / name / "checkpoints", None
  if checkpoint.steps_in(folder):
    nets = checkpoint.read_record(folder).config.get("nets")
  return config, stages_lib.make_stage(config, name, workdir, nets_used=nets)


def recorded_config(workdir: pathlib.Path) -> config_lib.ConfigDict:
  """The config of a run, put together from the records of its checkpoints.

  Args:
    workdir: directory of the stages.

  Returns:
    A config whose last stage is the one to edit with: of the stages that edit
    pictures, the one finished last. It computes in float32.

  Raises:
    UserError: no stage there has a checkpoint, or it holds no config.
  """
  records = {
    path.name: checkpoint.read_record(path / "checkpoints").config
    for path in sorted(pathlib.Path(workdir).iterdir())
    if checkpoint.steps_in(path / "checkpoints")
  }
  if not records:
    raise UserError(
      f"--workdir={workdir} holds no trained stage; wanted the directory of a "
      "run of faceedit_jax.main"
    )
  for name, record in records.items():
    if not {"nets", "image_size", "stage"} <= set(record):
      raise UserError(
        f"the checkpoint of stage {name!r} in {workdir} holds no config; give "
        "the one it was made with (--config)"
      )

  def order(name):
    recipe = recipes.load(records[name]["stage"]["recipe"]["name"])
    marker = workdir / name / "finished.json"
    when = json.loads(marker.read_text())["time"] if marker.is_file() else None
    return (
      # Protocols look at names alone, so a class does for its values.
      isinstance(recipe, editing.Editable),
      math.inf if when is None else when,
    )

  def steps_of(name):
    return checkpoint.steps_in(workdir / name / "checkpoints")[-1]

  names = sorted(records, key=order)
  nets: dict[str, Any] = {}
  for name in names:
    nets |= records[name]["nets"]
  last = records[names[-1]]
  return config_lib.from_dict(
    {
      "seed": last.get("seed", 0),
      "image_size": last["image_size"],
      "compute_dtype": "float32",
      "nets": nets,
      "stages": names,
      "stage": {
        # A record does not say how long the run was meant to go on.
        name: {**record["stage"], "steps": steps_of(name)}
        for name, record in records.items()
      },
    }
  )
