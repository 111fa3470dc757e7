"""One training step for every recipe: phases in order, then the averages.

The phase list is stylegan3's idea (training_loop.py); here each phase carries
its own loss, so the step has no branch on a phase's or a method's name.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import rng as rng_lib
from faceedit_jax.core.recipe import Aux, Ctx, Phase, Recipe
from faceedit_jax.core.state import TrainState
from faceedit_jax.core.typing import Array, PyTree

Step = Callable[..., tuple[TrainState, dict[str, Array], dict[str, Array]]]


def init_state(recipe: Recipe, rng: Array) -> TrainState:
  """The state at step 0; pure, so it runs under `eval_shape` and `jit`.

  Args:
    recipe: nets, groups and averages.
    rng: () typed key; nets are initialised from a key folded from it.

  Returns:
    The state, with every average equal to its parameters.

  Raises:
    ValueError: groups, phases or averages do not fit the nets.
  """
  variables = recipe.init(rng_lib.key(rng, 0, "init"))
  for net, collections in variables.items():
    if "params" not in collections:
      raise ValueError(
        f"{type(recipe).__name__}.init: net {net!r} has no collection 'params'"
        f", it has {sorted(collections)}; nets without parameters belong in "
        "Recipe.init_frozen or in another net's collections"
      )
  params = {net: dict(v)["params"] for net, v in variables.items()}
  stats = {
    net: {name: tree for name, tree in v.items() if name != "params"}
    for net, v in variables.items()
  }
  check_recipe(recipe, params)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    stats=stats,
    opt={
      name: group.tx.init({net: params[net] for net in group.nets})
      for name, group in recipe.groups().items()
    },
    # Copied, because the step donates the state and no buffer may be in it
    # twice.
    ema={
      name: {net: jax.tree.map(jnp.copy, params[net]) for net in ema.nets}
      for name, ema in recipe.ema().items()
    },
    rng=rng,
  )


def check_recipe(recipe: Recipe, nets: Iterable[str]) -> None:
  """Checks that groups, phases and averages fit the nets.

  Args:
    recipe: the recipe to check.
    nets: names of its trained nets.

  Raises:
    ValueError: one line that names both sides.
  """
  nets, groups, phases = set(nets), recipe.groups(), recipe.phases()
  where = type(recipe).__name__
  owned = [net for group in groups.values() for net in group.nets]
  if set(owned) != nets:
    raise ValueError(
      f"{where}: init makes nets {sorted(nets)}, groups own "
      f"{sorted(set(owned))}; not owned: {sorted(nets - set(owned))}, "
      f"not made: {sorted(set(owned) - nets)} (Recipe.groups)"
    )
  twice = sorted({net for net in owned if owned.count(net) > 1})
  if twice:
    raise ValueError(f"{where}: nets {twice} are in several groups")
  names = [phase.name for phase in phases]
  if len(set(names)) != len(names):
    raise ValueError(f"{where}: phase names repeat: {names} (Recipe.phases)")
  used = {group for phase in phases for group in phase.groups}
  if used != set(groups):
    raise ValueError(
      f"{where}: groups are {sorted(groups)}, phases update {sorted(used)}; "
      "each group needs a phase and each phase known groups (Recipe.phases)"
    )
  for name, ema in recipe.ema().items():
    if not set(ema.nets) <= nets:
      raise ValueError(
        f"{where}: EMA {name!r} averages {sorted(ema.nets)}, trained nets are "
        f"{sorted(nets)} (Recipe.ema)"
      )


def due_phases(phases: Sequence[Phase], step: int) -> tuple[str, ...]:
  """Names of the phases that run at `step`, in order; computed on the host.

  A phase runs at the steps from `start` up to `stop` that `every` divides.
  """
  step = int(step)
  return tuple(
    phase.name
    for phase in phases
    if step >= phase.start
    and (phase.stop is None or step < phase.stop)
    and step % phase.every == 0
  )


def due_sets(
  phases: Sequence[Phase], start: int, stop: int
) -> dict[tuple[str, ...], int]:
  """Which phases run together from step `start` up to `stop`.

  Args:
    phases: of the recipe.
    start: first step.
    stop: one more than the last step.

  Returns:
    {names of phases, see `due_phases`: the first step they run at}.
  """
  sets: dict[tuple[str, ...], int] = {}
  for step in range(start, stop):
    sets.setdefault(due_phases(phases, step), step)
  return sets


def make_step(recipe: Recipe, accumulate: int = 1) -> Step:
  """Builds the pure training step of a recipe.

  Args:
    recipe: nets, groups, phases and averages.
    accumulate: micro-batches per phase. Gradients and metrics are averaged
      over them, which equals the whole batch for losses that are means over
      examples. Statistics pass from one micro-batch to the next, random
      streams differ between them, and images are those of the first.

  Returns:
    step(state, frozen, batch, *, due) -> (state, metrics, images). `due` is
    the tuple of phase names from `due_phases` and must be static under `jit`;
    each distinct tuple compiles once. metrics are () float32: `phase/loss`,
    `phase/grad_norm`, `phase/<term>` and `param_norm/<net>`; images are
    `phase/<name>`.

  Raises:
    ValueError: from the step while tracing: a phase, net, collection or metric
      that does not fit, or a batch that micro-batches do not divide.
  """
  if accumulate < 1:
    raise ValueError(f"accumulate is {accumulate}, wanted 1 or more")
  groups, averages = recipe.groups(), recipe.ema()
  phases = {phase.name: phase for phase in recipe.phases()}

  def step(
    state: TrainState,
    frozen: Mapping[str, PyTree],
    batch: Mapping[str, Array],
    *,
    due: tuple[str, ...],
  ) -> tuple[TrainState, dict[str, Array], dict[str, Array]]:
    check_recipe(recipe, state.params)
    unknown = [name for name in due if name not in phases]
    if unknown:
      raise ValueError(
        f"due phases {unknown} are unknown; the recipe has {list(phases)}"
      )
    params, stats, opt = dict(state.params), state.stats, dict(state.opt)
    metrics: dict[str, Array] = {}
    images: dict[str, Array] = {}
    for name, phase in phases.items():
      if name not in due:
        continue
      nets = [net for group in phase.groups for net in groups[group].nets]
      ctx = Ctx(
        batch=batch,
        frozen=frozen,
        stats=stats,
        ema=state.ema,
        step=state.step,
        rng=state.rng,
      )
      grads, stats, terms, pictures = _gradient(
        phase, nets, params, ctx, accumulate
      )
      for group in phase.groups:
        own = groups[group].nets
        old = {net: params[net] for net in own}
        tx = optax.with_extra_args_support(groups[group].tx)
        updates, opt[group] = tx.update(
          {net: grads[net] for net in own}, opt[group], old, step=state.step
        )
        params.update(optax.apply_updates(old, updates))
      terms["grad_norm"] = optax.tree.norm(grads)
      metrics.update({f"{name}/{k}": v for k, v in terms.items()})
      images.update({f"{name}/{k}": v for k, v in pictures.items()})
    for net, tree in params.items():
      metrics[f"param_norm/{net}"] = optax.tree.norm(tree)
    metrics = {k: jnp.asarray(v, jnp.float32) for k, v in metrics.items()}
    state = state.replace(
      step=state.step + 1,
      params=params,
      stats=stats,
      opt=opt,
      ema={
        name: _average(ema, state.ema[name], params, state.step)
        for name, ema in averages.items()
      },
    )
    return state, metrics, images

  return step


def finite_check(
  metrics: Mapping[str, Any], phases: Sequence[Phase | str]
) -> None:
  """Stops a run whose numbers are no longer numbers; for the host.

  Args:
    metrics: the step's metrics, as fetched for logging.
    phases: the recipe's phases in order; those that did not run are skipped.

  Raises:
    FloatingPointError: names the first phase with a loss or a gradient norm
      that is not finite.
  """
  for phase in phases:
    name = phase if isinstance(phase, str) else phase.name
    for term in ("loss", "grad_norm"):
      value = float(metrics.get(f"{name}/{term}", 0.0))
      if not math.isfinite(value):
        raise FloatingPointError(
          f"{name}/{term} is {value}: phase {name!r} is the first to fail; "
          "lower its learning rate or clip its gradient (optimizer.lr, "
          "optimizer.clip)"
        )


def _gradient(
  phase: Phase,
  nets: Sequence[str],
  params: Mapping[str, PyTree],
  ctx: Ctx,
  accumulate: int,
) -> tuple[PyTree, PyTree, dict[str, Array], dict[str, Array]]:
  """Gradient of a phase's loss by `nets`, with its stats, metrics, images."""
  # Keeps the order of `params`, so that recipes see one tree in every phase.
  still = {
    net: tree if net in nets else jax.lax.stop_gradient(tree)
    for net, tree in params.items()
  }

  def loss_fn(trained, ctx):
    loss, aux = phase.loss({**still, **trained}, ctx)
    _check_loss(phase.name, loss, aux)
    return loss, aux

  slope = jax.value_and_grad(loss_fn, has_aux=True)
  trained = {net: params[net] for net in params if net in nets}

  def micro(ctx):
    (loss, aux), grads = slope(trained, ctx)
    metrics = {"loss": loss, **aux.metrics}
    metrics = {k: jnp.asarray(v, jnp.float32) for k, v in metrics.items()}
    stats = _merge_stats(phase.name, ctx.stats, aux.stats)
    return grads, stats, metrics, dict(aux.images)

  if accumulate == 1:
    return micro(ctx)
  batches = {
    name: _split(name, value, accumulate) for name, value in ctx.batch.items()
  }

  def body(carry, inputs):
    total, stats, images = carry
    index, batch = inputs
    rng = jax.random.fold_in(ctx.rng, index)
    grads, stats, metrics, now = micro(
      ctx.replace(batch=batch, stats=stats, rng=rng)
    )
    total = jax.tree.map(jnp.add, total, grads)
    images = jax.tree.map(lambda a, b: jnp.where(index == 0, b, a), images, now)
    return (total, stats, images), metrics

  first = ctx.replace(batch={k: v[0] for k, v in batches.items()})
  shapes = jax.eval_shape(micro, first)
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0], shapes[3])
  )
  (total, stats, images), metrics = jax.lax.scan(
    body,
    (zeros[0], ctx.stats, zeros[1]),
    (jnp.arange(accumulate), batches),
  )
  grads = jax.tree.map(lambda x: x / accumulate, total)
  metrics = {k: v.mean(axis=0) for k, v in metrics.items()}
  return grads, stats, metrics, images


def _split(name: str, value: Array, parts: int) -> Array:
  """(b, ...) to (parts, b / parts, ...), row i going to part i mod parts.

  Interleaved, so that a batch split over devices stays where it is.
  """
  size = value.shape[0]
  if size % parts:
    raise ValueError(
      f"batch of {size} ({name}) does not divide into {parts} micro-batches "
      "(stage.<name>.data.batch_size, stage.<name>.accumulate)"
    )
  split = value.reshape(size // parts, parts, *value.shape[1:])
  return split.swapaxes(0, 1)


def _check_loss(phase: str, loss: Array, aux: Any) -> None:
  """Raises unless a loss function returned a (scalar, Aux)."""
  if not isinstance(aux, Aux):
    raise ValueError(
      f"loss of phase {phase!r} returned {type(aux).__name__} beside its "
      "value, wanted recipe.Aux"
    )
  for term, value in {"loss": loss, **aux.metrics}.items():
    if jnp.shape(value):
      raise ValueError(
        f"{phase}/{term} has shape {jnp.shape(value)}, wanted a scalar; reduce "
        "over the batch"
      )
  taken = {"loss", "grad_norm"} & set(aux.metrics)
  if taken:
    raise ValueError(
      f"loss of phase {phase!r} reports {sorted(taken)}, which the step "
      "reports itself; name the term otherwise"
    )


def _merge_stats(
  phase: str, old: Mapping[str, PyTree], new: Mapping[str, PyTree]
) -> dict[str, dict[str, PyTree]]:
  """`old` with the collections in `new` replaced; shapes must stay."""
  merged = {net: dict(collections) for net, collections in old.items()}
  for net, collections in new.items():
    for name, tree in collections.items():
      if name not in merged.get(net, {}):
        known = {k: sorted(v) for k, v in old.items()}
        raise ValueError(
          f"phase {phase!r} returned stats {net}/{name}; the state has {known} "
          "(Recipe.init)"
        )
      before, after = (
        jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), t)
        for t in (merged[net][name], tree)
      )
      if before != after:
        raise ValueError(
          f"phase {phase!r} returned stats {net}/{name} as {after}, the state "
          f"has {before}"
        )
      merged[net][name] = tree
  return merged


def _average(
  ema: recipe_lib.Ema,
  old: Mapping[str, PyTree],
  params: Mapping[str, PyTree],
  step: Array,
) -> dict[str, PyTree]:
  """old + (1 - decay) (params - old) for the nets of one average."""
  rate = 1.0 - recipe_lib.at(ema.decay, step)
  return {
    net: jax.tree.map(
      lambda a, b: a + jnp.asarray(rate, a.dtype) * (b - a),
      old[net],
      params[net],
    )
    for net in ema.nets
  }
