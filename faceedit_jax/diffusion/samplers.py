"""DDPM, DDIM, DDIM inversion and DPM-Solver(++) (DiffFAE appendix E).

A denoiser is a function `denoise(x, t) -> prediction` with x (b, ...) and t
(b,) float32; samplers know no network. Every loop is a `lax.scan` over a
host-side table of coefficients, and no example looks at another one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array
from faceedit_jax.diffusion import grids, predictions, solver_tables
from faceedit_jax.diffusion.schedules import Schedule

Denoise = Callable[[Array, Array], Array]
Transform = Callable[[Array], Array]


@flax.struct.dataclass
class Trace:
  """What happened at each of S steps.

  Attributes:
    x: (S, b, ...) state after each step.
    x0: (S, b, ...) clean estimate used by each step.
    t: (S,) timestep handed to the net.
  """

  x: Array
  x0: Array
  t: Array


class Watched:
  """A denoiser that shows more than its prediction, say attention maps.

  A sampler given one returns (samples, what is seen there): after its last
  step it looks at the samples once more, at time 0, and changes nothing. All
  looks are one piece of the traced and compiled program.

  Args:
    look: (x, t) -> (prediction, tree of arrays). What it shows at each step
      stays in memory until the last, so it should be small.
  """

  def __init__(self, look: Callable[[Array, Array], tuple[Array, Any]]):
    self._look, self.seen = look, None

  def __call__(self, x: Array, t: Array) -> Array:
    prediction, self.seen = self._look(x, t)
    return prediction


def _rows(**columns: np.ndarray) -> dict[str, Array]:
  return {k: jnp.asarray(v, jnp.float32) for k, v in columns.items()}


def _full_precision(x: Array) -> Array:
  # Sampling states lose too much in bfloat16, whatever the net computes in.
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _estimate(denoise, x, row, kind, x0_transform, rederive):
  """Clean and noise estimates at one step, after the caller's transform."""
  t = jnp.broadcast_to(row["t"], x.shape[:1])
  prediction = denoise(x, t).astype(x.dtype)
  if prediction.shape != x.shape:
    raise ValueError(
      f"the denoiser returned shape {prediction.shape} for an input of shape "
      f"{x.shape}; it must return the prediction alone"
    )
  x0 = predictions.to_x0(prediction, x, row["a"], row["s"], kind)
  eps = predictions.to_eps(prediction, x, row["a"], row["s"], kind)
  if x0_transform is not None:
    x0 = x0_transform(x0)
    if rederive:
      eps = (x - row["a"] * x0) / row["s"]
  return x0, eps


def _noise(rng: Array, index: Array, x: Array) -> Array:
  """Normal noise of one step; example i never depends on the batch size.

  One key serves the batch by position; a key per example (b,) makes it
  independent of the position too.
  """
  if rng.ndim:
    keys = jax.vmap(lambda key: jax.random.fold_in(key, index))(rng)
  else:
    step = jax.random.fold_in(rng, index)
    keys = jax.vmap(lambda i: jax.random.fold_in(step, i))(
      jnp.arange(x.shape[0])
    )
  return jax.vmap(lambda k: jax.random.normal(k, x.shape[1:], x.dtype))(keys)


def _scan(step, x: Array, rows: dict[str, Array], trace: bool, denoise=None):
  if isinstance(denoise, Watched):
    return _watched_scan(step, x, rows, trace, denoise)

  def body(carry, row):
    carry, x0 = step(carry, row)
    return carry, Trace(_state(carry), x0, row["t"]) if trace else None

  carry, history = jax.lax.scan(body, x, rows)
  return (_state(carry), history) if trace else _state(carry)


def _state(carry) -> Array:
  return carry[0] if isinstance(carry, tuple) else carry


def _watched_scan(step, x, rows, trace: bool, denoise: Watched):
  """The steps, then a look at time 0, as one loop."""
  if trace:
    raise ValueError("a watched denoiser goes without trace=True")
  rows = {k: jnp.concatenate([v, v[-1:]]) for k, v in rows.items()}
  rows["t"] = rows["t"].at[-1].set(0.0)
  looks = jnp.arange(len(rows["t"])) == len(rows["t"]) - 1

  def body(before, row):
    after, _ = step(before, row[0])
    carry = jax.tree.map(lambda a, b: jnp.where(row[1], a, b), before, after)
    return carry, denoise.seen

  carry, seen = jax.lax.scan(body, x, (rows, looks))
  return _state(carry), jax.tree.map(lambda leaf: leaf[-1], seen)


def ddim(
  denoise: Denoise,
  x: Array,
  schedule: Schedule,
  steps: int,
  *,
  kind: str = "eps",
  eta: float = 0.0,
  rng: Array | None = None,
  spacing: str = "ldm",
  final: str = "first",
  x0_transform: Transform | None = None,
  rederive: bool = False,
  trace: bool = False,
):
  """DDIM sampling, Eq. (12) of the DDIM paper.

  Args:
    denoise: (x, t) -> prediction.
    x: (b, ...) normal noise.
    schedule: noise schedule.
    steps: number of evaluations.
    kind: what the net predicts, "eps", "x0" or "v".
    eta: 0 deterministic, 1 ancestral.
    rng: key, or a key per example (b,); needed when eta is not 0.
    spacing: see `grids.timesteps`.
    final: see `grids.ddim_grid`.
    x0_transform: applied to the clean estimate of every step, e.g. clipping
      or quantisation.
    rederive: recomputes the noise estimate from the transformed clean one
      (DiffAE) instead of keeping the net's (latent diffusion).
    trace: also returns a `Trace`.

  Returns:
    (b, ...) samples, or (samples, Trace).
  """
  if eta and rng is None:
    raise ValueError(f"ddim with eta={eta} draws noise: pass rng=")
  grid = grids.ddim_grid(schedule, steps, spacing, final)
  fresh = grids.ddim_noise(grid, eta)
  rows = _rows(
    t=grid.t,
    a=grid.alpha[:-1],
    s=grid.sigma[:-1],
    to_x0=grid.alpha[1:],
    to_eps=np.sqrt(np.maximum(grid.sigma[1:] ** 2 - fresh**2, 0)),
    fresh=fresh,
    index=np.arange(len(grid.t)),
  )

  def step(x, row):
    x0, eps = _estimate(denoise, x, row, kind, x0_transform, rederive)
    x_next = row["to_x0"] * x0 + row["to_eps"] * eps
    if eta:
      index = row["index"].astype(jnp.int32)
      x_next = x_next + row["fresh"] * _noise(rng, index, x)
    return x_next, x0

  return _scan(step, _full_precision(x), rows, trace, denoise)


def ddim_invert(
  denoise: Denoise,
  x0: Array,
  schedule: Schedule,
  steps: int,
  *,
  kind: str = "eps",
  spacing: str = "respaced",
  last: str = "zero",
  x0_transform: Transform | None = None,
  rederive: bool = True,
  trace: bool = False,
):
  """Runs DDIM backwards, from a clean example to its noise (DiffAE Eq. 8).

  Args:
    denoise: (x, t) -> prediction.
    x0: (b, ...) clean examples.
    schedule: noise schedule.
    steps: number of evaluations.
    kind: what the net predicts.
    spacing: see `grids.timesteps`.
    last: the level reached: "zero" pure noise (DiffAE) or "last" the last
      visited step, which is where `ddim` starts; "last" needs one evaluation
      less.
    x0_transform: applied to the clean estimate of every step.
    rederive: recomputes the noise estimate after the transform.
    trace: also returns a `Trace`.

  Returns:
    (b, ...) noise, or (noise, Trace).
  """
  if last not in ("zero", "last"):
    raise ValueError(f"last {last!r} is not 'zero' or 'last'")
  t = grids.timesteps(schedule.steps, steps, spacing)
  alpha_bar = schedule.alpha_bar[t]
  reached = np.append(alpha_bar[1:], 0.0)
  if last == "last":
    t, alpha_bar, reached = t[:-1], alpha_bar[:-1], reached[:-1]
  rows = _rows(
    t=t,
    a=np.sqrt(alpha_bar),
    s=np.sqrt(1 - alpha_bar),
    to_x0=np.sqrt(reached),
    to_eps=np.sqrt(1 - reached),
  )

  def step(x, row):
    clean, eps = _estimate(denoise, x, row, kind, x0_transform, rederive)
    return row["to_x0"] * clean + row["to_eps"] * eps, clean

  return _scan(step, _full_precision(x0), rows, trace, denoise)


def ddpm(
  denoise: Denoise,
  x: Array,
  schedule: Schedule,
  rng: Array,
  steps: int | None = None,
  *,
  kind: str = "eps",
  variance: str = "posterior",
  x0_transform: Transform | None = None,
  trace: bool = False,
):
  """Ancestral sampling, DDPM Algorithm 2, on all or on respaced steps.

  Args:
    denoise: (x, t) -> prediction.
    x: (b, ...) normal noise.
    schedule: noise schedule.
    rng: key, or a key per example (b,), of the noise added at every step
      but the last.
    steps: number of evaluations with an integer stride; all T when None.
    kind: what the net predicts.
    variance: "posterior" (exact for one point) or "beta" (exact for normal
      data), the two choices of DDPM section 3.2.
    x0_transform: applied to the clean estimate of every step.
    trace: also returns a `Trace`.

  Returns:
    (b, ...) samples, or (samples, Trace).
  """
  if variance not in ("posterior", "beta"):
    raise ValueError(f"variance {variance!r} is not 'posterior' or 'beta'")
  steps = steps or schedule.steps
  t = grids.timesteps(schedule.steps, steps, "respaced")
  visited = Schedule(schedule.alpha_bar[t])
  noise = visited.posterior_variance
  if variance == "beta":
    noise = np.where(np.arange(len(t)) == 0, 0.0, visited.betas)
  from_x0, from_x = visited.posterior_mean
  rows = _rows(
    t=t[::-1],
    a=np.sqrt(visited.alpha_bar)[::-1],
    s=np.sqrt(1 - visited.alpha_bar)[::-1],
    from_x0=from_x0[::-1],
    from_x=from_x[::-1],
    fresh=np.sqrt(noise)[::-1],
    index=np.arange(len(t)),
  )

  def step(x, row):
    x0, _ = _estimate(denoise, x, row, kind, x0_transform, False)
    fresh = row["fresh"] * _noise(rng, row["index"].astype(jnp.int32), x)
    return row["from_x0"] * x0 + row["from_x"] * x + fresh, x0

  return _scan(step, _full_precision(x), rows, trace, denoise)


def dpm_solver_pp(
  denoise: Denoise,
  x: Array,
  schedule: Schedule,
  steps: int,
  *,
  kind: str = "eps",
  order: int = 2,
  method: str = "multistep",
  estimate: str = "x0",
  correction: str = "midpoint",
  spacing: str = "time_uniform",
  final: str | None = None,
  lower_order_final: bool | None = None,
  x0_transform: Transform | None = None,
  trace: bool = False,
):
  """DPM-Solver++ (Algorithms 1 and 2) and DPM-Solver.

  Args:
    denoise: (x, t) -> prediction; t is fractional on continuous grids.
    x: (b, ...) normal noise.
    schedule: noise schedule.
    steps: number of evaluations.
    kind: what the net predicts.
    order: 1 (equals deterministic DDIM on the same grid), 2 or 3.
    method: "multistep" remembers earlier evaluations, "singlestep" spends up
      to `order` of them on each step.
    estimate: what is followed between two steps: "x0" (DPM-Solver++) or "eps"
      (DPM-Solver).
    correction: see `solver_tables.multistep`.
    spacing: see `grids.dpm_grid`; "singlestep" takes continuous ones.
    final: see `grids.dpm_grid`, or "denoise": the clean estimate at the last
      level of a continuous grid is the result, for one more evaluation.
    lower_order_final: takes the last steps with lower orders; by default
      below 10 steps, and always the very last one when it ends without noise.
    x0_transform: applied to the clean estimate of every step.
    trace: also returns a `Trace`.

  Returns:
    (b, ...) samples, or (samples, Trace).
  """
  if estimate not in ("x0", "eps"):
    raise ValueError(f"estimate {estimate!r} is not 'x0' or 'eps'")
  shape = {"order": order, "correction": correction, "estimate": estimate}
  end = None if final == "denoise" else final
  if method == "multistep":
    grid = grids.dpm_grid(schedule, steps, spacing, end)
    if lower_order_final is None:
      lower_order_final = steps < 10
    table = solver_tables.multistep(grid, lower_order_final, **shape)
  elif method == "singlestep":
    if end not in (None, "last"):
      raise ValueError(f"final {final!r} does not go with singlestep steps")
    table = solver_tables.singlestep(schedule, steps, spacing, **shape)
  else:
    raise ValueError(f"method {method!r} is not 'multistep' or 'singlestep'")
  if final == "denoise":
    table = solver_tables.with_denoising(table, schedule)
  rows = _rows(**dataclasses.asdict(table))

  def step(carry, row):
    x, start, *earlier = carry
    # The transformed clean estimate is what the noise is taken from.
    x0, eps = _estimate(denoise, x, row, kind, x0_transform, True)
    found = [x0 if estimate == "x0" else eps, *earlier]
    x = row["keep"] * start
    for factor, value in zip(row["weights"], found, strict=True):
      x = x + factor * value
    x = row["clean"] * x0 + (1 - row["clean"]) * x
    start = jnp.where(row["ends"] > 0, x, start)
    return (x, start, *found[:-1]), x0

  x = _full_precision(x)
  none = jnp.zeros_like(x)
  return _scan(step, (x, x, none, none), rows, trace, denoise)


Name = Literal["ddim", "ddpm", "dpm_solver_pp"]


def sample(
  name: Name,
  denoise: Denoise,
  x: Array,
  schedule: Schedule,
  steps: int,
  rng: Array | None = None,
  **options,
):
  """Runs the sampler called `name`: "ddim", "ddpm" or "dpm_solver_pp".

  Args:
    name, x, schedule, steps, rng, **options: of that sampler.
    denoise: (x, t) -> prediction, or a `Watched`.

  Returns:
    (b, ...) samples, or (samples, what is seen of them).
  """
  if name == "ddim":
    return ddim(denoise, x, schedule, steps, rng=rng, **options)
  if name == "dpm_solver_pp":
    return dpm_solver_pp(denoise, x, schedule, steps, **options)
  if name == "ddpm":
    if rng is None:
      raise ValueError("ddpm draws noise at every step: pass rng=")
    return ddpm(denoise, x, schedule, rng, steps, **options)
  raise ValueError(f"sampler {name!r} is not one of {get_args(Name)}")
