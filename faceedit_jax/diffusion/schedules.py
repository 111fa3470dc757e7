"""Noise schedules as exact float64 tables (DiffFAE section 3; DDPM Eq. 4).

`x_t = alpha(t) * x_0 + sigma(t) * noise` with `alpha**2 + sigma**2 == 1`.
Tables are NumPy float64 on the host; samplers take their coefficients from
them before anything is traced, so no precision is lost to float32 products.
"""

import dataclasses
import functools
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, typechecked

Kind = Literal[
  "linear",
  "scaled_linear",
  "true_linear",
  "sqrt",
  "cosine",
]
KINDS = get_args(Kind)


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
  """A discrete variance-preserving schedule.

  Attributes:
    alpha_bar: (T,) products of `1 - beta` up to and including each step,
      strictly falling, inside (0, 1).
  """

  alpha_bar: np.ndarray

  def __post_init__(self):
    table = np.asarray(self.alpha_bar, np.float64)
    falling = table.ndim == 1 and len(table) and np.all(np.diff(table) < 0)
    if not falling or not 0 < table[-1] <= table[0] < 1:
      raise ValueError(
        "alpha_bar must be a falling vector inside (0, 1); got "
        f"shape {table.shape}; see make_schedule for valid kinds"
      )
    object.__setattr__(self, "alpha_bar", table)

  @property
  def steps(self) -> int:
    """Number T of discrete steps."""
    return len(self.alpha_bar)

  @functools.cached_property
  def betas(self) -> np.ndarray:
    """(T,) per-step noise variances."""
    previous = np.concatenate([[1.0], self.alpha_bar[:-1]])
    return 1 - self.alpha_bar / previous

  @functools.cached_property
  def log_alpha(self) -> np.ndarray:
    """(T,) natural logarithm of the signal scale."""
    return 0.5 * np.log(self.alpha_bar)

  @functools.cached_property
  def posterior_variance(self) -> np.ndarray:
    """(T,) variance of q(x_{t-1} | x_t, x_0), DDPM Eq. (7)."""
    previous = np.concatenate([[1.0], self.alpha_bar[:-1]])
    return self.betas * (1 - previous) / (1 - self.alpha_bar)

  @functools.cached_property
  def posterior_mean(self) -> tuple[np.ndarray, np.ndarray]:
    """(T,) factors of x_0 and of x_t in the mean of q(x_{t-1} | x_t, x_0).

    DDPM Eq. (7).
    """
    previous = np.concatenate([[1.0], self.alpha_bar[:-1]])
    left = 1 - self.alpha_bar
    of_clean = self.betas * np.sqrt(previous) / left
    return of_clean, np.sqrt(1 - self.betas) * (1 - previous) / left

  @property
  def terminal_snr(self) -> float:
    """Signal-to-noise ratio of the last step; near 0 when all is noise."""
    return float(self.alpha_bar[-1] / (1 - self.alpha_bar[-1]))

  def _look_up(self, table: np.ndarray, t) -> Array:
    table = jnp.asarray(table, jnp.float32)
    t = jnp.asarray(t)
    if jnp.issubdtype(t.dtype, jnp.integer):
      return table[t]
    # Continuous time: linear between the discrete steps.
    return jnp.interp(t, jnp.arange(self.steps, dtype=jnp.float32), table)

  def alpha(self, t) -> Array:
    """Signal scale at steps t (any shape, 0..T-1), float32."""
    t = jnp.asarray(t)
    if jnp.issubdtype(t.dtype, jnp.integer):
      return self._look_up(np.sqrt(self.alpha_bar), t)
    return jnp.exp(self._look_up(self.log_alpha, t))

  def sigma(self, t) -> Array:
    """Noise scale at steps t (any shape, 0..T-1), float32."""
    t = jnp.asarray(t)
    if jnp.issubdtype(t.dtype, jnp.integer):
      return self._look_up(np.sqrt(1 - self.alpha_bar), t)
    # -expm1 keeps the small sigmas of the first steps accurate.
    return jnp.sqrt(-jnp.expm1(2 * self._look_up(self.log_alpha, t)))

  def log_snr(self, t) -> Array:
    """Natural logarithm of alpha^2 / sigma^2 at steps t, float32."""
    ratio = np.log(self.alpha_bar) - np.log1p(-self.alpha_bar)
    return self._look_up(ratio, t)

  def snr(self, t) -> Array:
    """alpha^2 / sigma^2 at steps t, float32."""
    return jnp.exp(self.log_snr(t))

  def q_sample(
    self, x0: Float[Array, "b *d"], noise: Float[Array, "b *d"], t
  ) -> Float[Array, "b *d"]:
    """Noisy examples at steps t (b,), DDPM Eq. (4)."""
    alpha = expand(self.alpha(t), x0)
    sigma = expand(self.sigma(t), x0)
    return (alpha * x0 + sigma * noise).astype(x0.dtype)

  def q_posterior(
    self, x0: Float[Array, "b *d"], x_t: Float[Array, "b *d"], t
  ) -> tuple[Float[Array, "b *d"], Float[Array, "b"]]:
    """Mean and variance of q(x_{t-1} | x_t, x_0) at steps t (b,), DDPM Eq. (7).

    The variance of step 0 is 0.
    """
    of_clean, of_noisy = (
      expand(self._look_up(table, t), x_t) for table in self.posterior_mean
    )
    mean = (of_clean * x0 + of_noisy * x_t).astype(x_t.dtype)
    return mean, self._look_up(self.posterior_variance, t)


def expand(values: Array, like: Array) -> Array:
  """Appends axes of size 1 to per-example values until `like`'s rank."""
  values = jnp.asarray(values)
  return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


@functools.lru_cache(maxsize=64)
def make_schedule(
  kind: str = "linear",
  steps: int = 1000,
  start: float = 0.0015,
  end: float = 0.0195,
) -> Schedule:
  """Builds a schedule; equal arguments give the very same object.

  Args:
    kind: "linear" is the form of latent diffusion, linear in sqrt(beta) and
      called "scaled_linear" in diffusers (both names are accepted);
      "true_linear" is linear in beta (DDPM); "sqrt" is sqrt of "true_linear";
      "cosine" is improved DDPM Eq. (17), with no use of `start` and `end`.
    steps: number T of discrete steps.
    start: beta of the first step.
    end: beta of the last step.

  Raises:
    ValueError: for an unknown kind or impossible betas.

  Source: CompVis/latent-diffusion make_beta_schedule; defaults are its values
  for latents of a vector-quantised first stage.
  """
  # Roots of negative numbers would be complex ones.
  if kind != "cosine" and not (0 < start < 1 and 0 < end < 1):
    raise ValueError(
      f"betas run from {start:.3g} to {end:.3g}, want values inside (0, 1); "
      "change start and end of the schedule"
    )
  if kind in ("linear", "scaled_linear"):
    betas = np.linspace(start**0.5, end**0.5, steps, dtype=np.float64) ** 2
  elif kind == "true_linear":
    betas = np.linspace(start, end, steps, dtype=np.float64)
  elif kind == "sqrt":
    betas = np.linspace(start, end, steps, dtype=np.float64) ** 0.5
  elif kind == "cosine":
    offset = 8e-3
    grid = np.arange(steps + 1, dtype=np.float64) / steps + offset
    curve = np.cos(grid / (1 + offset) * np.pi / 2) ** 2
    betas = np.clip(1 - curve[1:] / curve[:-1], 0, 0.999)
  else:
    raise ValueError(f"schedule kind {kind!r} is not one of {KINDS}")
  return Schedule(np.cumprod(1 - betas))


@typechecked
def timestep_embedding(
  t: Float[Array, "b"], size: int, max_period: float = 1e4
) -> Float[Array, "b {size}"]:
  """Sinusoidal features of timesteps, cosines first (latent diffusion).

  Args:
    t: timesteps, 0..T-1, may be fractional.
    size: number of features; an odd size ends in a zero column.
    max_period: longest period of the sinusoids, in steps.

  Returns:
    (b, size) float32.
  """
  half = size // 2
  rates = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / half)
  angles = t[:, None].astype(jnp.float32) * rates[None]
  features = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
  return jnp.pad(features, ((0, 0), (0, size - 2 * half)))
