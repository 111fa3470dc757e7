"""Stages of a config: which to run, what each trains, whether it is done."""

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from faceedit_jax import recipes
from faceedit_jax.core import checkpoint
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import UserError, WorkdirError

# Entries of a stage that may change between a run and its resumption: none of
# them changes what a step computes.
_FREE = (
  "steps",
  "log_every",
  "preview_every",
  "preview_count",
  "checkpoint_every",
  "keep",
  "keep_every",
  "evaluate",
)


@dataclasses.dataclass
class Stage:
  """What one stage of a config trains, read out of the config once.

  Attributes:
    name: name of the stage.
    recipe: the built recipe.
    options: the stage's section of the config.
    seed: of parameters, noise and data order.
    directory: `<workdir>/<name>`.
    workdir: directory of all stages.
    data_dir: directory of prepared data.
    identity: the part of the config that a resumed run must share.
  """

  name: str
  recipe: recipe_lib.Recipe
  options: Mapping[str, Any]
  seed: int
  directory: pathlib.Path
  workdir: pathlib.Path
  data_dir: pathlib.Path
  identity: dict[str, Any]

  @property
  def checkpoints(self) -> pathlib.Path:
    return self.directory / "checkpoints"

  @property
  def steps(self) -> int:
    return int(self.options["steps"])


def pick_stages(config: Mapping[str, Any], only: str | None) -> list[str]:
  """The stages to run, in order.

  Raises:
    UserError: `only` is not a stage, with the nearest name.
  """
  names = list(config["stages"])
  missing = [n for n in names if n not in config["stage"]]
  if missing:
    raise UserError(
      f"config.stages lists {missing}, config.stage has {list(config['stage'])}"
    )
  if not only:
    return names
  names += [n for n in config.get("scoring_stages", ()) if n not in names]
  if only not in names:
    near = difflib.get_close_matches(only, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"no stage {only!r} in {names}{hint} (--stage)")
  return [only]


def make_stage(
  config: Mapping[str, Any],
  name: str,
  workdir: str | pathlib.Path,
  data_dir: str | pathlib.Path | None = None,
) -> Stage:
  """Builds the recipe of a stage and gathers what its run needs.

  Args:
    config: the whole config.
    name: stage.
    workdir: directory of all stages.
    data_dir: directory of prepared data; `config.data_dir` when None.

  Returns:
    The stage.

  Raises:
    UserError: one line.
  """
  options = config["stage"][name].to_dict()
  if options["data"].get("size") is None:
    options["data"]["size"] = config["image_size"]
  recipe_options = dict(options["recipe"])
  registered = recipe_options.pop("name")
  nets = config["nets"]
  dtype = config.get("compute_dtype", "float32")
  if dtype == "auto":
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  recipe = recipes.build(
    registered,
    nets=nets,
    options=config_lib.from_dict(recipe_options),
    image_size=config["image_size"],
    dtype=dtype,
  )
  seed = options.get("seed")
  seed = int(config.get("seed", 0) if seed is None else seed)
  # Nets that other stages train may change without touching this one.
  key = jax.random.key(0)
  used = set(jax.eval_shape(recipe.init, key))
  used |= set(jax.eval_shape(recipe.init_frozen, key))
  nets = nets.to_dict()
  identity = {
    "nets": {k: v for k, v in nets.items() if k in used} or nets,
    "image_size": config["image_size"],
    "compute_dtype": config.get("compute_dtype", "float32"),
    "seed": seed,
    "stage": {k: v for k, v in options.items() if k not in (*_FREE, "seed")},
  }
  identity["stage"]["data"] = {
    k: v for k, v in options["data"].items() if k != "num_threads"
  }
  return Stage(
    name=name,
    recipe=recipe,
    options=options,
    seed=seed,
    directory=pathlib.Path(workdir).absolute() / name,
    workdir=pathlib.Path(workdir).absolute(),
    data_dir=pathlib.Path(data_dir or config.get("data_dir") or "data"),
    identity=json.loads(json.dumps(identity)),
  )


def finished_step(stage: Stage) -> int | None:
  """The last step of a finished stage, or None while it is not finished."""
  marker = stage.directory / "finished.json"
  steps = checkpoint.steps_in(stage.checkpoints)
  if not steps or not marker.is_file():
    return None
  done = json.loads(marker.read_text())["step"]
  return done if done == steps[-1] and done >= stage.steps else None


def check_same_run(stage: Stage) -> None:
  """Refuses a directory whose checkpoints another config made.

  Raises:
    WorkdirError: one line with the differences.
  """
  if not checkpoint.steps_in(stage.checkpoints):
    return
  there = checkpoint.read_record(stage.checkpoints).config
  lines = config_lib.diff(there, stage.identity).splitlines()
  if lines:
    more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
    raise WorkdirError(
      f"{stage.directory} was made with another config: "
      f"{'; '.join(lines[:5])}{more}; choose another --workdir or restore "
      "these values"
    )
