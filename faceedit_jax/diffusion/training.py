"""The per-example training loss of a diffusion net (DiffFAE Eq. 1)."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Int, PRNGKey, typechecked
from faceedit_jax.diffusion import predictions
from faceedit_jax.diffusion.schedules import Schedule, expand

Weighting = Literal["simple", "p2", "min_snr", "vlb"]
WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)


@typechecked
def draw_timesteps(
  key: PRNGKey,
  batch: int,
  steps: int,
  antithetic: bool = False,
  power: float = 1.0,
) -> Int[Array, "{batch}"]:
  """Timesteps in [0, steps) to train on.

  Args:
    key: random key.
    batch: number of timesteps to draw.
    steps: number T of steps of the schedule.
    antithetic: spreads one draw evenly over the batch, which lowers the
      variance of the loss; the distribution of every timestep stays the same.
    power: 1 draws uniformly; p draws t with a density of t^(p - 1), so that
      training sees noisier pictures more often.

  Raises:
    ValueError: the power is not positive.
  """
  if power <= 0:
    raise ValueError(f"power of the timesteps is {power}, wanted above 0")
  if not antithetic and power == 1:
    return jax.random.randint(key, (batch,), 0, steps)
  if antithetic:
    offset = jax.random.uniform(key)
    points = (offset + jnp.arange(batch) / batch) % 1.0
  else:
    points = jax.random.uniform(key, (batch,))
  points = points ** (1 / power)
  return jnp.minimum((points * steps).astype(jnp.int32), steps - 1)


def loss_weight(
  schedule: Schedule, t: Array, kind: str, weighting: str
) -> Float[Array, "b"]:
  """Weight of each example's loss, as a factor on the given kind's error.

  Args:
    schedule: noise schedule.
    t: (b,) integer steps.
    kind: what the net predicts.
    weighting: "simple" 1; "p2" 1 / (1 + SNR) on the noise error (P2 with
      k = gamma = 1); "min_snr" min(SNR, 5) on the x0 error; "vlb" the
      variational bound of DDPM Eq. (12) with the posterior variance.
  """
  if weighting not in WEIGHTINGS:
    raise ValueError(f"weighting {weighting!r} is not one of {WEIGHTINGS}")
  if weighting == "simple":
    return jnp.ones(t.shape, jnp.float32)
  snr = schedule.snr(t)
  if weighting == "p2":
    on_eps = 1 / (1 + snr)
  elif weighting == "min_snr":
    on_eps = jnp.minimum(snr, 5.0) / snr
  else:
    variance = schedule.posterior_variance.copy()
    alphas = 1 - schedule.betas
    # The first step has no posterior; it borrows the second one's weight.
    variance[0] = variance[1]
    table = schedule.betas**2 / (
      2 * variance * alphas * (1 - schedule.alpha_bar)
    )
    table[0] = table[1]
    on_eps = jnp.asarray(table, jnp.float32)[t]
  # |eps error|^2 = SNR |x0 error|^2 and |v error|^2 = |x0 error|^2 / sigma^2.
  if kind == "x0":
    return on_eps * snr
  if kind == "v":
    return on_eps * schedule.alpha(t) ** 2
  return on_eps


@typechecked
def diffusion_loss(
  prediction: Float[Array, "b *d"],
  x0: Float[Array, "b *d"],
  noise: Float[Array, "b *d"],
  t: Int[Array, "b"],
  schedule: Schedule,
  kind: str = "eps",
  norm: str = "l2",
  weighting: str = "simple",
) -> Float[Array, "b"]:
  """Weighted error of a prediction at `schedule.q_sample(x0, noise, t)`.

  Args:
    prediction: the net's output.
    x0: clean examples.
    noise: the normal noise that was mixed in.
    t: steps 0..T-1.
    schedule: noise schedule.
    kind: what the net predicts, "eps", "x0" or "v".
    norm: "l2" squared or "l1" absolute error.
    weighting: see `loss_weight`.

  Returns:
    (b,) mean over all but the first axis; never mixed between examples.
  """
  a, s = expand(schedule.alpha(t), x0), expand(schedule.sigma(t), x0)
  wanted = predictions.target(x0, noise, a, s, kind)
  error = prediction.astype(jnp.float32) - wanted.astype(jnp.float32)
  if norm not in ("l1", "l2"):
    raise ValueError(f"norm {norm!r} is not 'l1' or 'l2'")
  error = jnp.abs(error) if norm == "l1" else jnp.square(error)
  per_example = jnp.mean(error.reshape(error.shape[0], -1), axis=1)
  return per_example * loss_weight(schedule, t, kind, weighting)


def predicted_x0(
  prediction: Array, x_t: Array, t: Array, schedule: Schedule, kind="eps"
) -> Array:
  """Clean estimate behind a prediction at steps t (b,)."""
  a, s = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
  return predictions.to_x0(prediction, x_t, a, s, kind)
