"""Scores a trained stage: checkpoint -> recipe.edit -> table, JSON, sheets."""

import pathlib
from collections.abc import Mapping

import jax

from faceedit_jax import stages as stages_lib
from faceedit_jax.core import checkpoint, files, partial_restore
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.core.typing import Variables
from faceedit_jax.stages import Stage

Results = dict[str, dict[str, float]]


def evaluate_stage(
  stage: Stage, ema: str | None = None, step: int | None = None
) -> Results:
  """Restores a stage and runs its evaluators.

  Args:
    stage: from `stages.make_stage`.
    ema: average to score; the recipe's main one when None, raw parameters
      when "".
    step: which checkpoint; the newest when None.

  Returns:
    {evaluator: {metric: value}}; also written below
    `<workdir>/<stage>/evaluation/<step>/`.

  Raises:
    UserError: one line, when there is no checkpoint or it does not fit.
  """
  if jax.process_count() > 1:
    raise UserError("--mode=evaluate runs on one process; drop --distributed")
  if not stage.recipe.evaluators():
    print(f"{stage.name}: nothing to evaluate", flush=True)
    return {}
  stages_lib.check_trained(stage, step)
  if step is None:
    step = checkpoint.steps_in(stage.checkpoints)[-1]
  place = partial_restore.place_on(
    jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  )
  variables = partial_restore.load_view(
    stage.recipe, stage.checkpoints, place, ema, step
  )
  frozen = partial_restore.load_frozen(
    stage.recipe, stage.workdir, place, skip=stage.recipe.loss_nets()
  )
  return run_evaluators(stage, variables, frozen, step)


def run_evaluators(
  stage: Stage,
  variables: Mapping[str, Variables],
  frozen: Mapping[str, Variables],
  step: int,
  quick: bool = False,
) -> Results:
  """Runs all evaluators of a recipe, prints the table, writes the JSON.

  Args:
    stage: from `stages.make_stage`.
    variables: {net: variables} of the trained nets.
    frozen: {net: variables} of the frozen nets.
    step: step of the checkpoint, for the name of the folder.
    quick: a short look, as at the end of training.

  Returns:
    {evaluator: {metric: value}}.
  """
  out = stage.directory / "evaluation" / f"{step:08d}"
  results: Results = {}
  for name, evaluator in stage.recipe.evaluators().items():
    folder = out / name
    files.check_writable(folder)
    scoring = load_scoring(evaluator, stage)
    with as_user_error(f"evaluator {name!r}"):
      scores = evaluator.run(
        recipe=stage.recipe,
        variables=variables,
        frozen=frozen,
        data_dir=pathlib.Path(stage.data_dir),
        out_dir=folder,
        log=lambda text, name=name: print(f"{name}: {text}", flush=True),
        scoring=scoring,
        quick=quick,
      )
    results[name] = {k: float(v) for k, v in scores.items()}
    # Written after each one: a long evaluation that fails keeps the others.
    files.write_json(out / "results.json", results)
  print(table(results), flush=True)
  return results


def load_scoring(evaluator, stage: "Stage") -> dict[str, Variables] | None:
  """Loads the nets that only score, or says that they are not there yet.

  Args:
    evaluator: one of the recipe's.
    stage: whose workdir holds the stages that train such nets.

  Returns:
    {net: variables}; None for an evaluator without such nets, or while one
    of them is not trained.
  """
  if not hasattr(evaluator, "scoring"):
    return None
  sources = evaluator.scoring()
  for net, source in sources.items():
    folder = stage.workdir / source.stage / "checkpoints"
    if source.stage and not checkpoint.steps_in(folder):
      print(
        f"scores that need the net {net!r} are left out: stage "
        f"{source.stage!r} is not trained; --mode=evaluate trains it",
        flush=True,
      )
      return None
  place = partial_restore.place_on(
    jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  )
  fresh = jax.eval_shape(evaluator.init_scoring, jax.random.key(0))
  return partial_restore.load_nets(sources, place(fresh), stage.workdir)


def table(results: Results) -> str:
  """Formats results: one line per metric, values aligned.

  Args:
    results: {evaluator: {metric: value}}.

  Returns:
    The table as text.
  """
  rows = [
    (f"{name}/{metric}", f"{value:.4f}")
    for name, scores in results.items()
    for metric, value in scores.items()
  ]
  if not rows:
    return "no metrics"
  left = max(len(r[0]) for r in rows)
  right = max(len(r[1]) for r in rows)
  return "\n".join(f"{k:<{left}}  {v:>{right}}" for k, v in rows)
