"""Optimisers, learning-rate schedules and averaging rates from plain values."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import muon
from faceedit_jax.core import options as options_lib
from faceedit_jax.core.typing import Array, Float, Int, typechecked

KINDS = ("adam", "adamw", "adam_l2", "muon")
SCHEDULES = ("constant", "cosine")


def make_schedule(
  lr: float,
  schedule: str = "constant",
  warmup_steps: int = 0,
  total_steps: int = 0,
  final: float = 0.0,
  decay_start: int = 0,
) -> Callable[[Any], Any]:
  """A learning rate as a function of the stage's step.

  Args:
    lr: highest rate.
    schedule: "constant", or "cosine" down to `final * lr`.
    warmup_steps: steps of linear rise from 0.
    total_steps: steps until the end of the cosine, warm-up included.
    final: last rate as a share of `lr`.
    decay_start: step at which the cosine begins, for nets that start late; 0
      for the end of the warm-up. Until then the rate is the highest.

  Returns:
    step -> rate.

  Raises:
    ValueError: unknown schedule, or a cosine without its length.
  """
  if schedule not in SCHEDULES:
    raise ValueError(
      f"schedule {schedule!r} is unknown, wanted one of {SCHEDULES} "
      "(optimizer.schedule)"
    )
  if schedule == "cosine":
    if total_steps <= warmup_steps:
      raise ValueError(
        f"cosine schedule with total_steps={total_steps} and warmup_steps="
        f"{warmup_steps}, wanted total_steps > warmup_steps "
        "(optimizer.total_steps)"
      )
    begin = decay_start or warmup_steps
    if not warmup_steps <= begin < total_steps:
      raise ValueError(
        f"cosine schedule with decay_start={decay_start}, warmup_steps="
        f"{warmup_steps} and total_steps={total_steps}, wanted warmup_steps <= "
        "decay_start < total_steps (optimizer.decay_start)"
      )
    fall = optax.cosine_decay_schedule(lr, total_steps - begin, final)

    def body(step):  # counted from the end of the warm-up
      return fall(jnp.maximum(step - (begin - warmup_steps), 0))
  else:
    body = optax.constant_schedule(lr)
  if not warmup_steps:
    return body
  rise = optax.linear_schedule(0.0, lr, warmup_steps)
  return optax.join_schedules([rise, body], [warmup_steps])


def make_tx(
  kind: str = "adam",
  lr: float | Callable[[Any], Any] = 1e-4,
  schedule: str = "constant",
  warmup_steps: int = 0,
  total_steps: int = 0,
  final: float = 0.0,
  decay_start: int = 0,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  clip: float = 0.0,
) -> optax.GradientTransformation:
  """An optimiser: clip by global norm, Adam, weight decay, learning rate.

  Args:
    kind: "adam"; "adamw", decay beside the gradient; "adam_l2", decay inside
      the gradient, which is what torch's Adam(weight_decay=...) does; "muon",
      orthogonal momentum for kernels and Adam for the rest.
    lr: highest rate, or a function of the stage's step.
    schedule: "constant" or "cosine"; see `make_schedule`.
    warmup_steps: steps of linear rise from 0.
    total_steps: length of the cosine in steps, warm-up included.
    final: last rate as a share of `lr`.
    decay_start: step at which the cosine begins; see `make_schedule`.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: 0 for none; plain "adam" and "muon" take none.
    clip: largest global norm of the gradient; 0 for no limit.

  Returns:
    An optax transformation. A rate that changes is that of the stage's step,
    which `update` takes as the keyword `step`: in a stage of several phases an
    optimiser is updated more or less often than once per step.

  Raises:
    ValueError: unknown kind or schedule, or a weight decay without effect.
  """
  if kind not in KINDS:
    raise ValueError(
      f"optimiser {kind!r} is unknown, wanted one of {KINDS} (optimizer.kind)"
    )
  if kind in ("adam", "muon") and weight_decay:
    raise ValueError(
      f"weight_decay={weight_decay} with kind={kind!r}; wanted kind='adamw' or "
      "'adam_l2' (torch's Adam) (optimizer.kind)"
    )
  if callable(lr):
    if schedule != "constant" or warmup_steps:
      raise ValueError(
        f"lr is a function of the step and schedule={schedule!r}, warmup_steps="
        f"{warmup_steps} are set too; wanted one of them (optimizer.schedule)"
      )
    rate = lr
  else:
    rate = make_schedule(
      lr, schedule, warmup_steps, total_steps, final, decay_start
    )
  links = []
  if clip:
    links.append(optax.clip_by_global_norm(clip))
  if kind == "adam_l2" and weight_decay:
    links.append(optax.add_decayed_weights(weight_decay))
  adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
  if kind == "muon":
    parts = {"kernels": muon.scale_by_muon(), "rest": adam}
    links.append(optax.partition(parts, _parts))
  else:
    links.append(adam)
  if kind == "adamw" and weight_decay:
    links.append(optax.add_decayed_weights(weight_decay))
  links.append(_scale_by_stage_rate(rate))
  return optax.chain(*links)


def _scale_by_stage_rate(
  rate: Callable[[Any], Any],
) -> optax.GradientTransformationExtraArgs:
  """Multiplies updates by -rate(step); holds no count of its own."""

  def update(updates, state, params=None, *, step, **others):
    del params, others
    scale = -rate(step)
    return jax.tree.map(
      lambda u: jnp.asarray(scale, u.dtype) * u, updates
    ), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
  """An optimiser's section of a config; fields are `make_tx`'s arguments."""

  kind: Literal["adam", "adamw", "adam_l2", "muon"] = "adam"
  lr: float = 1e-4
  schedule: Literal["constant", "cosine"] = "constant"
  warmup_steps: int = 0
  total_steps: int = 0
  final: float = 0.0
  decay_start: int = 0
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  weight_decay: float = 0.0
  clip: float = 0.0

  def make(self) -> optax.GradientTransformation:
    """The optimiser, see `make_tx`."""
    return make_tx(**dataclasses.asdict(self))

  def changed(
    self, changes: Mapping[str, Any], where: str
  ) -> "OptimizerOptions":
    """These options with some replaced; an unknown one is a UserError."""
    values = {**dataclasses.asdict(self), **changes}
    return options_lib.build(OptimizerOptions, values, where)


def _parts(params):
  """What takes which step of kind "muon"."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: "kernels" if muon.is_kernel(path, leaf) else "rest",
    params,
  )


def lazy(options: Mapping[str, Any], every: int) -> dict[str, Any]:
  """`make_tx` options for a net with a regulariser every `every` steps.

  The optimiser then steps (every + 1) / every times as often, so its rate and
  memories are corrected by c = every / (every + 1). The regulariser's loss is
  to be multiplied by `every`; that is the phase's part.

  Args:
    options: arguments of `make_tx`; `lr` must be a number.
    every: the regulariser's interval in steps.

  Returns:
    The options with lr c, b1^c and b2^c.

  Source: StyleGAN2 appendix B; stylegan3: training/training_loop.py.
  """
  if every < 1:
    raise ValueError(f"lazy regulariser every {every} steps, wanted 1 or more")
  share = every / (every + 1)
  options = dict(options)
  return {
    **options,
    "lr": options.get("lr", 1e-4) * share,
    "b1": options.get("b1", 0.9) ** share,
    "b2": options.get("b2", 0.999) ** share,
  }


@dataclasses.dataclass(frozen=True)
class Ramp:
  """A loss weight that changes linearly; called with a step, () float32.

  Attributes:
    start: weight until step `begin`.
    end: weight from `steps` steps later on.
    steps: length of the change in steps.
    begin: step at which it begins.
  """

  start: float
  end: float
  steps: int
  begin: int = 0

  def __post_init__(self):
    if self.steps < 1:
      raise ValueError(f"steps is {self.steps}, wanted 1 or more")

  def __call__(self, step: Any) -> Any:
    ramp = optax.linear_schedule(self.start, self.end, self.steps, self.begin)
    return ramp(step)


# A loss weight; `core.recipe.at` gives its value at a step.
Weight = float | Ramp


@typechecked
def ema_warmup(
  max_decay: float,
) -> Callable[[int | Int[Array, ""]], Float[Array, ""]]:
  """A decay that starts low: min(max_decay, (1 + n) / (10 + n)) at step n.

  Args:
    max_decay: the decay that is reached in the end.

  Returns:
    step -> () float32 decay, for `Ema.decay`.
  """

  def decay(step):
    n = jnp.asarray(step, jnp.float32)
    return jnp.minimum(max_decay, (1.0 + n) / (10.0 + n))

  return decay
