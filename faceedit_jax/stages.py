"""Stages of a config: which to run, what each trains, whether it is done."""

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax

from data_pipelines import align
from faceedit_jax import evaluators, input_pipeline, recipes, run_options
from faceedit_jax.core import (
  checkpoint,
  editing,
  inference_record,
  net_shapes,
  partial_restore,
)
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import (
  CheckpointError,
  UserError,
  WorkdirError,
  as_user_error,
)

# Entries of a stage that may change between a run and its resumption: none of
# them changes what a step computes, and a trained stage may be evaluated in
# other ways than the config that trained it says.
_FREE = (
  "steps",
  "log_every",
  "preview_every",
  "preview_count",
  "checkpoint_every",
  "max_to_keep",
  "keep_period",
  "evaluate",
  "evaluators",
)
# Fields of nets that say how they are computed, not what. A trained net may be
# used, and go on training, with others: on another machine, say.
_HOW = ("remat", "attention_kernel")


@dataclasses.dataclass
class Stage:
  """What one stage of a config trains, read out of the config once.

  Attributes:
    name: name of the stage.
    recipe: the built recipe.
    evaluators: {name: evaluator} of the trained stage.
    options: the stage's section of the config, typed.
    data: its data section, typed.
    run: the config's top, typed.
    seed: of parameters, noise and data order.
    directory: `<workdir>/<name>`.
    workdir: directory of all stages.
    data_dir: directory of prepared data.
    identity: the part of the config that a resumed run must share.
  """

  name: str
  recipe: recipe_lib.Recipe
  evaluators: Mapping[str, evaluators.Evaluator]
  options: run_options.StageOptions
  data: input_pipeline.Data
  run: run_options.RunOptions
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
    return self.options.steps


def pick_stages(config: Mapping[str, Any], only: str | None) -> list[str]:
  """The stages to run, in order.

  Raises:
    UserError: `only` is not a stage, with the nearest name.
  """
  run = run_options.read(config)
  names = list(run.stages)
  missing = [n for n in names if n not in run.stage]
  if missing:
    raise UserError(
      f"config.stages lists {missing}, config.stage has {list(run.stage)}"
    )
  if not only:
    return names
  names += [n for n in eval_stages(config) if n not in names]
  if only not in names:
    near = difflib.get_close_matches(only, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"no stage {only!r} in {names}{hint} (--stage)")
  return [only]


def eval_stages(config: Mapping[str, Any]) -> list[str]:
  """The stages of nets that only evaluate; --mode=evaluate trains them."""
  return list(run_options.read(config).eval_stages)


def size_of(config: Mapping[str, Any], name: str) -> int:
  """Side of a stage's pictures: its own `image_size`, or the config's."""
  return config["stage"][name].get("image_size") or config["image_size"]


def make_stage(
  config: Mapping[str, Any],
  name: str,
  workdir: str | pathlib.Path,
  data_dir: str | pathlib.Path | None = None,
  nets_used: Collection[str] | None = None,
) -> Stage:
  """Builds recipe and evaluators of a stage, gathers what its run needs.

  Args:
    config: the whole config.
    name: stage.
    workdir: directory of all stages.
    data_dir: directory of prepared data; `config.data_dir` when None.
    nets_used: names of the recipe's nets, where a trained stage has recorded
      them; they are found by tracing it when None.

  Returns:
    The stage.

  Raises:
    UserError: one line.
  """
  run = run_options.read(config)
  options = config["stage"][name].to_dict()
  image_size = size_of(config, name)
  stage_options = run_options.read_stage(options, name)
  options.pop("image_size", None)
  recipe_options = dict(options["recipe"])
  registered = recipe_options.pop("name")
  nets = config["nets"]
  dtype = run.compute_dtype
  if dtype == "auto":
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  where = f"config.stage.{name}.recipe"
  directory = pathlib.Path(workdir).absolute() / name
  if checkpoint.steps_in(directory / "checkpoints"):
    recipe_options = inference_record.fill(
      recipe_options,
      directory,
      editing.inference_options(recipes.load(registered)),
    )
  recipe = recipes.build(
    registered,
    nets=nets,
    options=recipe_options,
    image_size=image_size,
    dtype=dtype,
    where=where,
  )
  data = input_pipeline.build_data(
    options["data"],
    f"config.stage.{name}.data",
    image_size,
    options["recipe"].get("attributes"),
  )
  if isinstance(recipe, editing.Editable):
    with as_user_error(where):
      align.template(recipe.alignment)  # there is one
  known = dict(
    recipe=recipe,
    nets=nets,
    data=stage_options.data,
    image_size=image_size,
    dtype=dtype,
  )
  for label, section in stage_options.evaluators.items():
    if section.get("data"):
      input_pipeline.check_source(
        section["data"],
        f"config.stage.{name}.evaluators.{label}.data",
        image_size,
      )
  built = {
    label: evaluators.build(
      section,
      evaluators.Setup(
        where=f"config.stage.{name}.evaluators.{label}", **known
      ),
    )
    for label, section in stage_options.evaluators.items()
  }
  seed = run.seed if stage_options.seed is None else stage_options.seed
  # Nets that other stages train may change without touching this one.
  used = _nets_used(recipe, where) if nets_used is None else nets_used
  nets = {
    net: {name: value for name, value in fields.items() if name not in _HOW}
    for net, fields in nets.to_dict().items()
  }
  identity = {
    "nets": {k: v for k, v in nets.items() if k in used} or nets,
    "image_size": image_size,
    "compute_dtype": dtype,
    "seed": seed,
    "stage": {k: v for k, v in options.items() if k not in (*_FREE, "seed")},
  }
  loader = {
    k: v for k, v in options["data"]["loader"].items() if k != "num_threads"
  }
  source = {
    # A run goes on without the pictures that have broken meanwhile.
    k: v
    for k, v in options["data"]["source"].items()
    if k != "broken"
  }
  parts = {"loader": loader, "source": source}
  identity["stage"]["data"] = {**options["data"], **parts}
  return Stage(
    name=name,
    recipe=recipe,
    evaluators=built,
    options=stage_options,
    data=data,
    run=run,
    seed=seed,
    directory=directory,
    workdir=pathlib.Path(workdir).absolute(),
    data_dir=pathlib.Path(data_dir or run.data_dir),
    identity=json.loads(json.dumps(identity)),
  )


def _nets_used(recipe: recipe_lib.Recipe, where: str) -> set[str]:
  """Names of the nets of a recipe, trained or frozen.

  Raises:
    UserError: one line: they cannot be made with these sizes.
  """
  try:
    made = [net_shapes.trained(recipe), net_shapes.frozen(recipe)]
  except UserError:
    raise
  # Sizes that fit no net make the layers raise whatever there is.
  except Exception as error:
    text = (str(error).strip() or "no message").splitlines()[0]
    raise UserError(
      f"{where}: its nets cannot be made with these sizes (config.nets): "
      f"{type(error).__name__}: {text}"
    ) from error
  return set().union(*made)


def check_files(stage: Stage) -> None:
  """Refuses a stage whose weight files or pictures cannot be read.

  Raises:
    CheckpointError: one line, of weights.
    UserError: one line, of folders of pictures.
  """
  recipe = stage.recipe
  if finished_step(stage) is None:
    partial_restore.check_files(recipe.init_from())
    partial_restore.check_files(recipe.frozen())
    if stage.steps:
      input_pipeline.check_pictures(stage.data, stage.data_dir)
  if stage.options.evaluate:
    for evaluator in stage.evaluators.values():
      partial_restore.check_files(evaluator.eval_nets())


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
  lines = _differences(stage, tuple(stage.identity))
  if lines:
    raise WorkdirError(
      f"{stage.directory} was made with another config: {_listed(lines)}; "
      "choose another --workdir or restore these values"
    )
  check_sources(stage)


def check_trained(stage: Stage, step: int | None = None) -> None:
  """Refuses a config that reads a trained stage as what it is not.

  Sizes, nets and the recipe's options must be those of the training, but for
  the recipe's inference options. Options that leave every array's shape as it
  is (heads of an attention, what a net predicts) would give garbage in silence.

  Args:
    stage: from `make_stage`.
    step: which checkpoint; the newest when None.

  Raises:
    CheckpointError: there is no checkpoint.
    UserError: one line with the differences.
  """
  if not checkpoint.steps_in(stage.checkpoints):
    raise CheckpointError(
      f"stage {stage.name!r} has no checkpoint in {stage.checkpoints}; train "
      "it first (python -m faceedit_jax.main), or choose another --workdir or "
      "--stage"
    )
  lines = _differences(stage, ("nets", "image_size", "stage.recipe"), step)
  if lines:
    raise UserError(
      f"{stage.directory} was trained with other settings: {_listed(lines)}; "
      "give the config and overrides that it was trained with (--config)"
    )
  check_sources(stage, step)


def check_sources(stage: Stage, step: int | None = None) -> None:
  """Refuses nets that went on training after this stage had taken them over.

  Raises:
    WorkdirError: one line with both steps.
  """
  record = checkpoint.read_record(stage.checkpoints, step)
  for name, then in record.meta.get("sources", {}).items():
    steps = checkpoint.steps_in(stage.workdir / name / "checkpoints")
    if steps and steps[-1] != then:
      raise WorkdirError(
        f"stage {stage.name!r} in {stage.workdir} was trained with "
        f"{name!r} at step {then}, which stands at step {steps[-1]} now; "
        f"remove {stage.directory} to train it anew, or use another --workdir"
      )


def source_steps(stage: Stage) -> dict[str, int]:
  """Newest step of every stage whose nets this one reads, frozen."""
  found = {}
  for source in stage.recipe.frozen().values():
    folder = stage.workdir / (source.stage or "") / "checkpoints"
    steps = checkpoint.steps_in(folder) if source.stage else []
    if steps:
      found[source.stage] = steps[-1]
  return found


def _differences(
  stage: Stage, parts: Sequence[str], step: int | None = None
) -> list[str]:
  """Lines "name: there -> here" of the parts of a run's identity."""
  there = checkpoint.read_record(stage.checkpoints, step).config
  both = []
  for identity in (there, stage.identity):
    flat = config_lib.flatten(identity)
    both.append(
      {
        name: value
        for name, value in flat.items()
        if any(name == p or name.startswith(f"{p}.") for p in parts)
        and not any(
          name == f"stage.recipe.{o}" or name.startswith(f"stage.recipe.{o}.")
          for o in editing.inference_options(stage.recipe)
        )
      }
    )
  return config_lib.diff(*both).splitlines()


def _listed(lines: Sequence[str]) -> str:
  """The first few lines in one."""
  more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
  return "; ".join(lines[:5]) + more
