"""Coefficients of DPM-Solver and DPM-Solver++ as host-side float64 tables.

Lu et al. 2022, DPM-Solver (section 3) and DPM-Solver++ (section 4). Between two
levels the solution is an integral of the net's estimate against an
exponential; every solver here is a polynomial through a few estimates put into
that integral, and so a weighted sum of them.
"""

import dataclasses

import numpy as np

from faceedit_jax.diffusion import grids
from faceedit_jax.diffusion.schedules import Schedule

CORRECTIONS = ("midpoint", "taylor")
ORDERS = (1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Table:
  """One row per evaluation of the net, in the order of sampling.

  The new state is `keep * start + sum(weights * estimates)`, the newest
  estimate first, where `start` is the state in which the present step began.

  Attributes:
    t: (S,) timesteps handed to the net.
    a: (S,) signal scales of the state that the net sees.
    s: (S,) noise scales of that state.
    keep: (S,) see above.
    weights: (S, 3) see above.
    ends: (S,) 1 where a step ends: its state is the next one's start.
    clean: (S,) 1 where the clean estimate takes the place of the new state.
  """

  t: np.ndarray
  a: np.ndarray
  s: np.ndarray
  keep: np.ndarray
  weights: np.ndarray
  ends: np.ndarray
  clean: np.ndarray


class _Integral:
  """The integral from one level to another, of lambda = log(alpha / sigma)."""

  def __init__(self, start, end, estimate: str):
    (alpha, sigma), (alpha_end, sigma_end) = start, end
    with np.errstate(divide="ignore"):
      self.h = np.log(alpha_end / sigma_end) - np.log(alpha / sigma)
    if estimate == "x0":
      self.keep, self.scale, self.k = sigma_end / sigma, alpha_end, -self.h
    else:
      self.keep, self.scale, self.k = alpha_end / alpha, sigma_end, self.h

  def sum(self, estimate, slope=0.0, bend=0.0, correction="taylor"):
    """Weights of the estimates.

    Args:
      estimate: weights of the value at the start.
      slope: weights of its first derivative times h.
      bend: weights of half its second derivative times h^2.
      correction: "taylor" integrates the slope, "midpoint" puts its value in
        the middle under the integral.
    """
    first = np.expm1(self.k)
    second = first / 2 if correction == "midpoint" else first / self.k - 1
    third = (first / self.k - 1) / self.k - 0.5
    # An end without noise is infinitely far; only the value reaches it.
    weights = first * np.asarray(estimate, np.float64)
    if np.any(slope):
      weights = weights + second * slope
    if np.any(bend):
      weights = weights + third * bend
    return -self.scale * weights


def _check(order: int, correction: str) -> None:
  if order not in ORDERS:
    raise ValueError(f"order {order} is not one of {ORDERS}")
  if correction not in CORRECTIONS:
    raise ValueError(f"correction {correction!r} is not one of {CORRECTIONS}")


def multistep(
  grid: grids.Grid,
  lower_order_final: bool,
  order: int = 2,
  correction: str = "midpoint",
  estimate: str = "x0",
) -> Table:
  """Steps that remember the estimates of the steps before.

  Args:
    grid: levels to pass through.
    lower_order_final: takes the last steps with falling orders; the very last
      one has order 1 in any case where it ends without noise.
    order: 1, 2 or 3; the first steps have lower ones.
    correction: of order 2: "midpoint" or "taylor", see `_Integral.sum`.
    estimate: "x0" (DPM-Solver++, Algorithm 2) or "eps" (DPM-Solver).

  Raises:
    ValueError: an unknown option, or "eps" down to a level without noise.
  """
  _check(order, correction)
  if estimate == "eps" and grid.sigma[-1] == 0:
    raise ValueError(
      "estimate 'eps' cannot be followed to a level without noise; use final="
      "'last' or 'denoise', or estimate 'x0'"
    )
  steps = len(grid.t)
  levels = list(zip(grid.alpha, grid.sigma, strict=True))
  parts = [
    _Integral(a, b, estimate)
    for a, b in zip(levels[:-1], levels[1:], strict=True)
  ]
  newest = np.eye(3)[0]
  weights = np.zeros((steps, 3))
  for i, part in enumerate(parts):
    most = min(order, i + 1)
    if lower_order_final or np.isinf(part.h):
      most = min(most, steps - i)
    if most == 1:
      weights[i] = part.sum(newest)
      continue
    near = parts[i - 1].h / part.h
    slope = np.array([1, -1, 0]) / near
    if most == 2:
      weights[i] = part.sum(newest, slope, correction=correction)
      continue
    far = parts[i - 2].h / part.h
    # Newton's form of the parabola through three estimates. The published
    # solver halves its second derivative, and with it loses an order.
    bend = (slope - np.array([0, 1, -1]) / far) / (near + far)
    weights[i] = part.sum(newest, slope + near * bend, bend)
  return Table(
    t=grid.t,
    a=grid.alpha[:-1],
    s=grid.sigma[:-1],
    keep=np.array([part.keep for part in parts]),
    weights=weights,
    ends=np.ones(steps),
    clean=np.zeros(steps),
  )


def _orders(steps: int, order: int) -> list[int]:
  """Orders of singlestep steps that cost `steps` evaluations together."""
  whole, rest = divmod(steps, order)
  if order == 3 and rest == 0:
    return [3] * (whole - 1) + [2, 1]
  return [order] * whole + [rest] * (rest > 0)


def singlestep(
  schedule: Schedule,
  steps: int,
  spacing: str,
  order: int = 2,
  correction: str = "midpoint",
  estimate: str = "x0",
) -> Table:
  """Steps that evaluate the net up to three times, from time 1 to 1/T.

  Args:
    schedule: noise schedule.
    steps: number of evaluations, not of steps ("DPM-Solver-fast").
    spacing: of the steps and of the evaluations inside a step, see
      `grids.continuous_times`.
    order: 1, 2 or 3; what is left over is spent on steps of lower order.
    correction: "midpoint"; the estimates inside a step are centred already.
    estimate: "x0" (DPM-Solver++, Algorithm 1) or "eps" (DPM-Solver).

  Raises:
    ValueError: an unknown option.
  """
  _check(order, correction)
  if correction != "midpoint":
    raise ValueError("singlestep steps know the correction 'midpoint' only")
  if spacing not in grids.CONTINUOUS_SPACINGS:
    raise ValueError(
      f"spacing {spacing!r} of singlestep steps is not one of "
      f"{grids.CONTINUOUS_SPACINGS}"
    )
  grids.check_steps(schedule, steps)
  orders = _orders(steps, order)
  ends = (1.0, 1 / schedule.steps)
  if spacing == "log_snr":
    outer = grids.continuous_times(schedule, len(orders), spacing, *ends)
  else:
    every = grids.continuous_times(schedule, steps, spacing, *ends)
    outer = every[np.cumsum([0, *orders])]
  t, a, s, keep, weights = [], [], [], [], []
  for first, last, most in zip(outer[:-1], outer[1:], orders, strict=True):
    inner = grids.continuous_times(schedule, most, spacing, first, last)
    grid = grids.grid_at(schedule, inner)
    levels = list(zip(grid.alpha, grid.sigma, strict=True))
    parts = [_Integral(levels[0], level, estimate) for level in levels[1:]]
    t.extend(grid.t)
    a.extend(grid.alpha[:-1])
    s.extend(grid.sigma[:-1])
    keep.extend(part.keep for part in parts)
    weights.extend(_inside(parts))
  done = np.zeros(steps)
  done[np.cumsum(orders) - 1] = 1
  columns = (np.array(column) for column in (t, a, s, keep, weights))
  return Table(*columns, ends=done, clean=np.zeros(steps))


def _inside(parts: list[_Integral]) -> list[np.ndarray]:
  """Weights of the evaluations of one step, newest estimate first."""
  now, before, first = np.eye(3)
  out = [parts[0].sum(now)]
  if len(parts) == 2:
    slope = (now - before) * parts[1].h / parts[0].h
    out.append(parts[1].sum(before, slope, correction="midpoint"))
  if len(parts) == 3:
    slope = (now - before) * parts[1].h / parts[0].h
    out.append(parts[1].sum(before, slope))
    slope = (now - first) * parts[2].h / parts[1].h
    out.append(parts[2].sum(first, slope))
  return out


def with_denoising(table: Table, schedule: Schedule) -> Table:
  """The table with one more row: the clean estimate at time 1/T."""
  row = Table(
    t=0.0,
    a=schedule.alpha_bar[0] ** 0.5,
    s=(1 - schedule.alpha_bar[0]) ** 0.5,
    keep=0.0,
    weights=np.zeros(3),
    ends=1.0,
    clean=1.0,
  )
  columns = {
    field.name: np.concatenate(
      [getattr(table, field.name), [getattr(row, field.name)]]
    )
    for field in dataclasses.fields(Table)
  }
  return Table(**columns)
