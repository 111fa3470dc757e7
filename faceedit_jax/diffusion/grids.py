"""Which steps a sampler visits, as host-side float64 tables.

A grid is computed once while tracing; the samplers only scan over its rows.
"""

import dataclasses
from typing import Literal, get_args

import numpy as np

from faceedit_jax.diffusion.schedules import Schedule

Spacing = Literal[
  "ldm",
  "leading",
  "trailing",
  "linspace",
  "quadratic",
  "respaced",
]
DDIM_SPACINGS = get_args(Spacing)
CONTINUOUS_SPACINGS = ("time_uniform", "log_snr", "time_quadratic")
DPM_SPACINGS = (
  *CONTINUOUS_SPACINGS,
  "linspace",
  "leading",
  "trailing",
  "karras",
)


@dataclasses.dataclass(frozen=True)
class Grid:
  """The states a sampler passes through, in the order of sampling.

  Attributes:
    t: (S,) timesteps handed to the net, one per evaluation.
    alpha: (S + 1,) signal scales, the last one after the last step.
    sigma: (S + 1,) noise scales.
  """

  t: np.ndarray
  alpha: np.ndarray
  sigma: np.ndarray


def timesteps(total: int, steps: int, spacing: str = "ldm") -> np.ndarray:
  """Rising integer timesteps visited by DDIM.

  Args:
    total: number T of steps of the schedule.
    steps: number S of wanted evaluations, at most T.
    spacing: "ldm" range(0, T, T // S) + 1 (latent diffusion; gives more than
      S steps when S does not divide T); "leading" arange(S) * (T // S) + 1
      and "trailing" T, T - T/S, ... minus 1 (diffusers); "linspace" from 0 to
      T - 1; "quadratic" dense at the clean end (DDIM section D.2);
      "respaced" an integer stride from 0 with exactly S values (DiffAE).

  Raises:
    ValueError: when the spacing is unknown or cannot give those steps.
  """
  if not 1 <= steps <= total:
    raise ValueError(
      f"{steps} sampling steps asked of a schedule with {total}; use 1..{total}"
    )
  if spacing == "ldm":
    t = np.arange(0, total, total // steps) + 1
  elif spacing == "leading":
    t = np.arange(steps) * (total // steps) + 1
  elif spacing == "trailing":
    t = np.round(total - np.arange(steps) * (total / steps))[::-1] - 1
  elif spacing == "linspace":
    t = np.round(np.linspace(0, total - 1, steps))
  elif spacing == "quadratic":
    t = np.floor(np.linspace(0, np.sqrt(total * 0.8), steps) ** 2) + 1
  elif spacing == "respaced":
    strides = [s for s in range(1, total + 1) if -(-total // s) == steps]
    if not strides:
      raise ValueError(
        f"no integer stride gives {steps} of {total} steps; choose a divisor "
        "of the schedule's length or another spacing"
      )
    t = np.arange(0, total, strides[0])
  else:
    raise ValueError(f"spacing {spacing!r} is not one of {DDIM_SPACINGS}")
  t = t.astype(np.int64)
  if t[-1] >= total:
    raise ValueError(
      f"spacing {spacing!r} with {steps} of {total} steps reaches step "
      f"{t[-1]}, past the last one; use fewer steps or spacing 'respaced'"
    )
  return t


def ddim_grid(
  schedule: Schedule, steps: int, spacing: str = "ldm", final: str = "first"
) -> Grid:
  """Rows of DDIM from noisy to clean.

  Args:
    schedule: noise schedule.
    steps: number of evaluations.
    spacing: see `timesteps`.
    final: the level after the last step: "first" the schedule's first
      alpha_bar (latent diffusion), "one" no noise (DDPM, DiffAE).
  """
  if final not in ("first", "one"):
    raise ValueError(f"final {final!r} is not 'first' or 'one'")
  t = timesteps(schedule.steps, steps, spacing)[::-1]
  last = 1.0 if final == "one" else schedule.alpha_bar[0]
  alpha_bar = np.append(schedule.alpha_bar[t], last)
  return Grid(t, np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar))


def ddim_noise(grid: Grid, eta: float) -> np.ndarray:
  """(S,) deviations of the noise that DDIM adds, Eq. (16) of its paper."""
  # The last level may equal the current one, hence the clip at 0.
  kept = np.maximum(1 - (grid.alpha[:-1] / grid.alpha[1:]) ** 2, 0)
  return eta * grid.sigma[1:] / grid.sigma[:-1] * np.sqrt(kept)


def log_alpha_at(schedule: Schedule, time: np.ndarray) -> np.ndarray:
  """log alpha at continuous times; discrete step n sits at (n + 1) / T."""
  nodes = np.arange(1, schedule.steps + 1) / schedule.steps
  return _along(nodes, schedule.log_alpha, time)


def time_at(schedule: Schedule, half_log_snr: np.ndarray) -> np.ndarray:
  """Continuous time at lambda = log(alpha / sigma): the schedule inverted."""
  log_alpha = -0.5 * np.logaddexp(0.0, -2.0 * np.asarray(half_log_snr))
  nodes = np.arange(1, schedule.steps + 1) / schedule.steps
  return _along(schedule.log_alpha[::-1], nodes[::-1], log_alpha)


def _along(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
  """y at `at` by straight lines, the outer ones prolonged; x rises."""
  i = np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2)
  share = (at - x[i]) / (x[i + 1] - x[i])
  return y[i] + share * (y[i + 1] - y[i])


def continuous_times(
  schedule: Schedule, steps: int, spacing: str, first: float, last: float
) -> np.ndarray:
  """(steps + 1,) continuous times from `first` down to `last`.

  Args:
    schedule: noise schedule.
    steps: number of intervals.
    spacing: even in time ("time_uniform"), in its root ("time_quadratic") or
      in log(alpha / sigma) ("log_snr"), DPM-Solver section 3.4.
    first: in (0, 1].
    last: below `first`.
  """
  if spacing == "time_uniform":
    return np.linspace(first, last, steps + 1)
  if spacing == "time_quadratic":
    return np.linspace(first**0.5, last**0.5, steps + 1) ** 2
  ends = log_alpha_at(schedule, np.array([first, last]))
  levels = ends - 0.5 * np.log(-np.expm1(2 * ends))
  return time_at(schedule, np.linspace(levels[0], levels[1], steps + 1))


def grid_at(schedule: Schedule, time: np.ndarray) -> Grid:
  """Rows at continuous times, the last one after the last step."""
  log_alpha = log_alpha_at(schedule, time)
  alpha, sigma = np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))
  return Grid(time[:-1] * schedule.steps - 1, alpha, sigma)


def dpm_grid(
  schedule: Schedule, steps: int, spacing: str, final: str | None = None
) -> Grid:
  """Rows of multistep DPM-Solver++ from noisy to clean.

  Args:
    schedule: noise schedule.
    steps: number of solver steps.
    spacing: "time_uniform", "log_snr" and "time_quadratic" use continuous
      time from 1 to 1/T (see `continuous_times`); "linspace", "leading",
      "trailing" and "karras" are the integer grids of diffusers, "leading"
      with its offset of 1.
    final: "last" stops at the schedule's first step, "zero" at no noise;
      default "zero" for the integer grids and "last" for the others.
  """
  if spacing not in DPM_SPACINGS:
    raise ValueError(f"spacing {spacing!r} is not one of {DPM_SPACINGS}")
  discrete = spacing not in CONTINUOUS_SPACINGS
  final = final or ("zero" if discrete else "last")
  if final not in ("last", "zero"):
    raise ValueError(f"final {final!r} is not 'last' or 'zero'")
  check_steps(schedule, steps)
  if discrete:
    t, noise = _discrete_noise(schedule, steps, spacing)
    noise = np.append(noise, 0.0 if final == "zero" else _ratio(schedule)[0])
    alpha = 1 / np.sqrt(1 + noise**2)
    return Grid(t, alpha, noise * alpha)
  time = continuous_times(schedule, steps, spacing, 1.0, 1 / schedule.steps)
  grid = grid_at(schedule, time)
  if final == "zero":
    grid.alpha[-1], grid.sigma[-1] = 1.0, 0.0
  return grid


def check_steps(schedule: Schedule, steps: int) -> None:
  """Raises a ValueError for a number of steps that no solver can take."""
  if not 1 <= steps < schedule.steps:
    raise ValueError(
      f"{steps} solver steps asked of a schedule with {schedule.steps}; use "
      f"1..{schedule.steps - 1}"
    )


def _ratio(schedule: Schedule) -> np.ndarray:
  return np.sqrt((1 - schedule.alpha_bar) / schedule.alpha_bar)


def _discrete_noise(schedule: Schedule, steps: int, spacing: str):
  total, ratio = schedule.steps, _ratio(schedule)
  if spacing != "karras":
    if spacing == "linspace":
      grid = np.round(np.linspace(0, total - 1, steps + 1))[:0:-1]
    elif spacing == "leading":
      grid = np.arange(steps, 0, -1) * (total // (steps + 1)) + 1
    else:
      grid = np.round(total - np.arange(steps) * (total / steps)) - 1
    t = grid.astype(np.int64)
    return t, ratio[t]
  # Karras et al. 2022, Eq. (5), rho = 7.
  ramp = np.linspace(0, 1, steps)
  low, high = ratio[0] ** (1 / 7), ratio[-1] ** (1 / 7)
  noise = (high + ramp * (low - high)) ** 7
  index = np.arange(total)
  t = np.round(np.interp(np.log(noise), np.log(ratio), index))
  return t.astype(np.int64), noise
