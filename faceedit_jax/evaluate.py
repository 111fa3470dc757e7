"""Evaluates a trained stage: checkpoint -> evaluators -> tables, sheets."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Mapping

import jax

from faceedit_jax import evaluators
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
    ema: average to evaluate; the recipe's main one when None, raw parameters
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
  if not stage.evaluators:
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
  """Runs all evaluators of a stage, prints the results, writes the JSON.

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
  # Evaluators share nets: what one lacks is said once.
  say_once = functools.cache(_say)
  for name, evaluator in stage.evaluators.items():
    folder = out / name
    files.check_writable(folder)
    ctx = evaluators.EvalContext(
      recipe=stage.recipe,
      variables=variables,
      frozen=frozen,
      data_dir=pathlib.Path(stage.data_dir),
      out_dir=folder,
      log=lambda text, name=name: print(f"{name}: {text}", flush=True),
      eval_nets=load_eval_nets(evaluator, stage, say_once),
      quick=quick,
      stage_dir=stage.directory,
    )
    with as_user_error(f"evaluator {name!r}"):
      scores = evaluator.run(ctx)
    results[name] = {k: float(v) for k, v in scores.items()}
    with contextlib.suppress(OSError):  # it holds something
      folder.rmdir()
    # Written after each one: a long evaluation that fails keeps the others.
    files.write_json(out / "results.json", results)
  print(evaluators.overview(results), flush=True)
  return results


def _say(text: str) -> None:
  print(text, flush=True)


def load_eval_nets(
  evaluator: evaluators.Evaluator,
  stage: Stage,
  say: Callable[[str], None] = _say,
) -> dict[str, Variables] | None:
  """Loads the nets that only evaluate, or says that they are not there yet.

  Args:
    evaluator: one of the stage's.
    stage: whose workdir holds the stages that train such nets.
    say: is told what is not there.

  Returns:
    {net: variables}; None while one of them is not trained.
  """
  sources = evaluator.eval_nets()
  for net, source in sources.items():
    folder = stage.workdir / source.stage / "checkpoints"
    if source.stage and not checkpoint.steps_in(folder):
      say(
        f"measures that need the net {net!r} are left out: stage "
        f"{source.stage!r} is not trained; --mode=evaluate trains it"
      )
      return None
  place = partial_restore.place_on(
    jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  )
  fresh = jax.eval_shape(evaluator.init_eval_nets, jax.random.key(0))
  return partial_restore.load_nets(sources, place(fresh), stage.workdir)
