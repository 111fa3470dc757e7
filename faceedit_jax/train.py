"""The training loop, one for all recipes: stages in order, each resumable.

mesh -> state -> data -> step -> metrics, previews, checkpoints -> evaluation.
Big_vision's order of sections; everything that differs between methods is in
the recipe and the config.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from clu import parameter_overview

import faceedit_jax
from faceedit_jax import evaluate, feature_cache
from faceedit_jax import input_pipeline as batches_lib
from faceedit_jax import stages as stages_lib
from faceedit_jax.core import (
  cached_features,
  checkpoint,
  distributed,
  files,
  partial_restore,
  sharding,
)
from faceedit_jax.core import state as state_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.aot_compile import CompileAhead
from faceedit_jax.core.errors import UserError, WorkdirError, as_user_error
from faceedit_jax.core.preemption import StopRequest
from faceedit_jax.core.progress import Progress
from faceedit_jax.core.typing import PyTree
from faceedit_jax.core.writers import Writer
from faceedit_jax.stages import Stage
from faceedit_jax.train_loop import Loop


def run(
  config: Mapping[str, Any],
  workdir: str | pathlib.Path,
  mode: str = "train",
  stage: str | None = None,
  data_dir: str | pathlib.Path | None = None,
) -> bool:
  """Trains, or evaluates, the stages of a config.

  Args:
    config: the config, see `configs/`.
    workdir: where stages keep checkpoints, metrics and previews.
    mode: "train" or "evaluate".
    stage: this stage only.
    data_dir: directory of prepared data, instead of `config.data_dir`.

  Returns:
    False when a signal to stop came before everything was done.

  Raises:
    UserError: one line: what was got, what was wanted, where to change it.
  """
  names = stages_lib.pick_stages(config, stage)
  if mode not in ("train", "evaluate"):
    raise UserError(f"--mode={mode}, wanted train or evaluate")
  order = list(config["stages"])
  with StopRequest() as stop:
    # All of them first: what the last one lacks is said before days of work.
    wanted = [
      stages_lib.make_stage(config, name, workdir, data_dir) for name in names
    ]
    for built in wanted:
      stages_lib.check_files(built)
    if mode == "evaluate":
      for name in stages_lib.eval_stages(config):
        built = stages_lib.make_stage(config, name, workdir, data_dir)
        if not train_stage(built, f"{name} (for evaluation)", stop):
          return False
    for name, built in zip(names, wanted, strict=True):
      at = f"{order.index(name) + 1}/{len(order)}" if name in order else "extra"
      if mode == "train":
        if not train_stage(built, f"{name} ({at})", stop):
          return False
        continue
      with stop.at_once():
        evaluate.evaluate_stage(built)
      if stop.asked:
        print(f"{name}: stopped before its evaluation was done", flush=True)
        return False
  return True


def train_stage(stage: Stage, title: str, stop: StopRequest) -> bool:
  """Trains one stage from its newest checkpoint, or from the start.

  Args:
    stage: from `stages.make_stage`.
    title: shown by the progress bar.

  Returns:
    False when a signal to stop came first; the state was saved then.

  Raises:
    UserError: one line.
  """
  first = jax.process_index() == 0
  say = functools.partial(print, flush=True) if first else (lambda *_: None)
  stages_lib.check_same_run(stage)
  if (done := stages_lib.finished_step(stage)) is not None:
    say(f"{title}: finished at step {done}")
    return True
  with contextlib.ExitStack() as held:
    return _train(stage, title, stop, say, held)


def _train(stage, title, stop, say, held) -> bool:
  """`train_stage` of a stage that is not finished; `held` holds its folder."""
  options, recipe, first = stage.options, stage.recipe, jax.process_index() == 0

  # Mesh and shardings.
  accumulate = options.accumulate
  where = f"config.stage.{stage.name}.data"
  with as_user_error(f"stage {stage.name!r}"):
    mesh = sharding.make_mesh(dataclasses.asdict(stage.run.mesh))
    sharding.check_batch_divides(
      stage.data.loader.batch_size,
      mesh,
      accumulate,
      f"{where}.loader.batch_size",
    )
    init = functools.partial(step_lib.init_state, recipe)
    abstract = jax.eval_shape(init, jax.random.key(0))
    shardings = sharding.infer(abstract, sharding.DEFAULT_RULES, mesh)
  place = functools.partial(_place, mesh=mesh)

  if first:
    held.enter_context(files.claim(stage.directory))

  store = checkpoint.Checkpoints(
    stage.checkpoints, options.max_to_keep, options.keep_period
  )
  frozen = partial_restore.load_frozen(recipe, stage.workdir, place)
  start = store.latest or 0

  # The step, compiled while the state is made and pictures are read.
  step_fn = jax.jit(
    step_lib.make_step(recipe, accumulate),
    static_argnames="due",
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh), None),
  )
  ahead = held.enter_context(CompileAhead(mesh, jax.process_count() == 1))
  expected = (
    _with_shardings(abstract, shardings),
    frozen,
    batches_lib.abstract_batch(
      recipe, stage.data, sharding.batch_sharding(mesh)
    ),
  )
  if start < stage.steps:
    due = step_lib.due_phases(recipe.phases(), start)
    ahead.add(due, step_fn, *expected, due=due)

  # State: restored, or fresh with pretrained nets put in.
  if start:
    state, _ = store.restore(expected[0])
  else:
    for line in recipe.notes():
      say(f"{title}: {line}")
    # The key is made inside, so that no process hands in an array of its own.
    state = jax.jit(
      lambda: init(jax.random.key(stage.seed)),
      out_shardings=shardings,
      compiler_options=partial_restore.run_once(),
    )()
    sources = recipe.init_from()
    if sources:
      nets = place(
        {
          net: {"params": abstract.params[net], **abstract.stats[net]}
          for net in abstract.params
        }
      )
      loaded = partial_restore.load_nets(sources, nets, stage.workdir)
      state = partial_restore.start_from(state, loaded, shardings)
  if first:
    files.write_json(stage.directory / "config.json", stage.identity)
    _describe(stage.directory, abstract, frozen, say, title)

  # Features that frozen nets compute of the pictures.
  features = {}
  if cached_features.prepared_nets(recipe):
    local = distributed.to_local(frozen, mesh)
    if first:
      feature_cache.check_prepared(stage, local)
  if cached_features.feature_spec(recipe):
    local = distributed.to_local(frozen, mesh)
    done = not first or feature_cache.prepare(
      stage, local, title, lambda: stop.asked
    )
    distributed.barrier(f"features-{stage.name}")
    if stop.asked or not done:
      say(f"{title}: stopped while computing features; rerun to resume")
      return False
    features = feature_cache.load(stage)

  # Data and outputs.
  writer = Writer(stage.directory, stage.run.tensorboard, start, enabled=first)
  if not start:
    writer.write_hparams(stage.identity)
  batches = None
  if start < stage.steps:  # a stage that hands nets on needs no data
    batches = batches_lib.train_batches(
      recipe,
      stage.data,
      stage.data_dir,
      sharding.batch_sharding(mesh),
      stage.seed,
      start,
      where,
      features,
    )
  bar = Progress(title, start, stage.steps, enabled=first)
  record = functools.partial(
    _record,
    stage,
    stages_lib.source_steps(stage),
    checkpoint.tree_hash(abstract),
  )
  try:
    with jax.set_mesh(mesh):
      loop = Loop(
        stage, mesh, state, frozen, batches, step_fn, store, features, ahead
      )
      del state  # the step donates it
      done = loop.run(start, stop, writer, bar, record)
      state = loop.state
  finally:
    if batches is not None:
      batches.close()
    bar.close()
    try:
      store.close()
    finally:
      writer.close()
  if done < stage.steps:
    say(f"{title}: stopped and saved at step {done}")
    return False
  if first:
    files.write_json(
      stage.directory / "finished.json", {"step": done, "time": time.time()}
    )
  distributed.barrier(f"finished-{stage.name}")
  if loop.stopped or stop.asked:
    say(f"{title}: finished and stopped before what comes next")
    return False
  if options.evaluate and stage.evaluators:
    ema = partial_restore.main_ema(recipe)
    variables = distributed.to_local(state_lib.view(state, ema or None), mesh)
    frozen = distributed.to_local(frozen, mesh)
    if first:
      with stop.at_once():
        evaluate.run_evaluators(stage, variables, frozen, done, quick=True)
    distributed.barrier(f"evaluated-{stage.name}")
  if stop.asked:
    say(f"{title}: finished; stopped before its evaluation was done")
    return False
  return True


def _record(
  stage: Stage, sources: Mapping[str, int], tree_hash: str, done: int
) -> checkpoint.Record:
  return checkpoint.Record(
    step=done,
    data={"batches": done, "seed": stage.seed},
    config=stage.identity,
    meta={
      "version": faceedit_jax.__version__,
      "recipe": type(stage.recipe).__name__,
      "stage": stage.name,
      "tree_hash": tree_hash,
      "jax": jax.__version__,
      "sources": sources,
    },
  )


def _with_shardings(abstract: PyTree, shardings: PyTree) -> PyTree:
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=s, weak_type=x.weak_type
    ),
    abstract,
    shardings,
  )


def _place(abstract: PyTree, *, mesh: jax.sharding.Mesh) -> PyTree:
  shardings = sharding.infer(abstract, sharding.NET_RULES, mesh)
  return _with_shardings(abstract, shardings)


def _describe(directory, abstract, frozen, say, title) -> None:
  """Lists all parameters in a file, and their number on the screen."""
  tables = []
  sizes = {"trained": abstract.params, "frozen": frozen}
  for kind, nets in sizes.items():
    for net, tree in nets.items():
      tree = tree["params"] if kind == "frozen" else tree
      leaves = jax.tree.leaves(tree)
      count = sum(int(np.prod(leaf.shape)) for leaf in leaves)
      say(f"{title}: {kind} net {net!r}, {count:,} parameters")
      # What is frozen may be no net but arrays in a class of their own.
      if leaves and isinstance(tree, Mapping):
        table = parameter_overview.get_parameter_overview(
          tree, include_stats=False
        )
        tables.append(f"{kind} net {net!r}\n{table}\n")
  try:
    (directory / "parameters.txt").write_text("\n".join(tables))
  except OSError as e:
    raise WorkdirError(f"cannot write to {directory}: {e.strerror}") from e
