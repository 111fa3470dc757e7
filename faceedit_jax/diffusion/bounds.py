"""Terms of the variational bound, and the loss of latent diffusion with it.

DDPM Eq. (5), improved DDPM Sec. 3.1 (learned variances); the weights and the
loss are those of CompVis/latent-diffusion, ldm/models/diffusion/ddpm.py.
"""

import math
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, Int, typechecked
from faceedit_jax.diffusion.schedules import Schedule, expand
from faceedit_jax.diffusion.training import predicted_x0

Variance = Literal["fixed_small", "fixed_large", "learned", "learned_range"]
VARIANCES = get_args(Variance)
BITS = 1 / math.log(2)


def reverse_variance(schedule: Schedule, mix: float = 0.0) -> np.ndarray:
  """Variance of a reverse step, between its two bounds.

  Args:
    schedule: noise schedule.
    mix: 0 for the variance of the posterior, which is 0 at the first step; 1
      for beta (`v_posterior` of latent diffusion).

  Returns:
    (T,) float64.
  """
  return (1 - mix) * schedule.posterior_variance + mix * schedule.betas


def bound_weights(
  schedule: Schedule, kind: str, mix: float = 0.0
) -> np.ndarray:
  """Latent diffusion's weights of an error in the variational bound.

  Args:
    schedule: noise schedule.
    kind: what the net predicts. "eps": DDPM Eq. (12); "x0": the published
      expression, which is not the bound's (that has a square of the posterior
      mean's factor; see `loss_weight` for the exact one); "v": 1, as in
      Stability-AI/stablediffusion.
    mix: see `reverse_variance`.

  Returns:
    (T,) float64; the first step borrows the weight of the second.

  Raises:
    ValueError: another kind.
  """
  bar = schedule.alpha_bar
  if kind == "eps":
    # The first step has no posterior variance; its weight is replaced below.
    variance = np.append(1.0, reverse_variance(schedule, mix)[1:])
    alphas = 1 - schedule.betas
    table = schedule.betas**2 / (2 * variance * alphas * (1 - bar))
  elif kind == "x0":
    table = 0.5 * np.sqrt(bar) / (2 - bar)
  elif kind == "v":
    table = np.ones_like(bar)
  else:
    raise ValueError(f"prediction kind {kind!r} is not 'eps', 'x0' or 'v'")
  return np.append(table[1], table[1:])


class LatentLoss(NamedTuple):
  """The loss of latent diffusion and its two parts, scalars."""

  loss: Array
  simple: Array  # mean error
  bound: Array  # mean error with the weights of the bound


@typechecked
def latent_loss(
  errors: Float[Array, "b"],
  t: Int[Array, "b"],
  schedule: Schedule,
  kind: str = "eps",
  simple_weight: float = 1.0,
  bound_weight: float = 0.0,
  mix: float = 0.0,
  logvar: Float[Array, "steps"] | None = None,
) -> LatentLoss:
  """Sum of the mean error and of its part in the variational bound.

  Args:
    errors: (b,) mean error of each example, see `diffusion_loss`.
    t: steps 0..T-1.
    schedule: noise schedule.
    kind: what the net predicts.
    simple_weight: of the mean error (`l_simple_weight`).
    bound_weight: of the bound's term (`original_elbo_weight`).
    mix: see `reverse_variance`.
    logvar: (T,) logarithms of the variance of an error at every step, which
      make the mean error a likelihood; None: plain errors.
  """
  table = jnp.asarray(bound_weights(schedule, kind, mix), jnp.float32)
  simple, bound = errors.mean(), (table[t] * errors).mean()
  likelihood = errors
  if logvar is not None:
    likelihood = errors / jnp.exp(logvar[t]) + logvar[t]
  loss = simple_weight * likelihood.mean() + bound_weight * bound
  return LatentLoss(loss, simple, bound)


def normal_kl(mean, logvar, other_mean, other_logvar) -> Array:
  """Elementwise KL divergence of two normal distributions, in nats."""
  ratio = jnp.exp(logvar - other_logvar)
  apart = jnp.square(mean - other_mean) * jnp.exp(-other_logvar)
  return 0.5 * (other_logvar - logvar - 1.0 + ratio + apart)


def levels_log_likelihood(x: Array, mean: Array, log_scale: Array) -> Array:
  """Elementwise log-likelihood of 8-bit levels under a normal distribution.

  Args:
    x: levels scaled to [-1, 1].
    mean: of the distribution.
    log_scale: logarithm of its standard deviation.

  Returns:
    Nats; the outer levels take the tails. Source: openai/improved-diffusion,
    losses.py, with its approximation of the normal distribution function.
  """

  def below(value):
    cubed = value + 0.044715 * value**3
    return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * cubed))

  def log(value):
    return jnp.log(jnp.maximum(value, 1e-12))

  inverse = jnp.exp(-log_scale)
  upper = below(inverse * (x - mean + 1 / 255))
  lower = below(inverse * (x - mean - 1 / 255))
  inner = jnp.where(x > 0.999, log(1 - lower), log(upper - lower))
  return jnp.where(x < -0.999, log(upper), inner)


@typechecked
def bound_term(
  prediction: Float[Array, "b *d"],
  x0: Float[Array, "b *d"],
  x_t: Float[Array, "b *d"],
  t: Int[Array, "b"],
  schedule: Schedule,
  kind: str = "eps",
  variance: Variance = "fixed_small",
  values: Float[Array, "b *d"] | None = None,
  clip: bool = False,
) -> Float[Array, "b"]:
  """One term of the variational bound, in bits per dimension.

  Args:
    prediction: the net's output.
    x0: clean examples in [-1, 1].
    x_t: noisy ones, `schedule.q_sample(x0, noise, t)`.
    t: steps 0..T-1.
    schedule: noise schedule.
    kind: what the net predicts, "eps", "x0" or "v".
    variance: of the reverse step. "fixed_small": the posterior's;
      "fixed_large": beta; "learned": `values` are its logarithm;
      "learned_range": they lead from the first, -1, to the second, 1.
    values: the net's further output, with a learned variance.
    clip: whether the clean estimate is clipped to [-1, 1].

  Returns:
    (b,) L_{t-1}, the divergence of the reverse step from the posterior; at
    step 0 L_0, the negative log-likelihood of the 8-bit levels.

  Raises:
    ValueError: a learned variance without values, or a fixed one with them.
  """
  if variance.startswith("learned") != (values is not None):
    raise ValueError(
      f"bound_term: got variance {variance!r} "
      f"{'without' if values is None else 'with'} values; give values with a "
      "learned variance only"
    )
  estimate = predicted_x0(prediction, x_t, t, schedule, kind)
  if clip:
    estimate = jnp.clip(estimate, -1, 1)
  mean, _ = schedule.q_posterior(estimate, x_t, t)
  true_mean, _ = schedule.q_posterior(x0, x_t, t)
  posterior = schedule.posterior_variance
  # The variance of step 0 is 0; that of step 1 stands in.
  small = np.log(np.append(posterior[1], posterior[1:]))

  def at(table):
    return expand(jnp.asarray(table, jnp.float32)[t], x0)

  if variance == "fixed_small":
    logvar = at(small)
  elif variance == "fixed_large":
    logvar = at(np.log(np.append(posterior[1], schedule.betas[1:])))
  elif variance == "learned":
    logvar = values
  else:
    part = (values + 1) / 2
    logvar = part * at(np.log(schedule.betas)) + (1 - part) * at(small)
  divergence = normal_kl(true_mean, at(small), mean, logvar)
  first = -levels_log_likelihood(x0, mean, 0.5 * logvar)
  term = jnp.where(expand(t == 0, x0), first, divergence)
  return BITS * jnp.broadcast_to(term, x0.shape).reshape(len(x0), -1).mean(1)


@typechecked
def prior_term(
  x0: Float[Array, "b *d"], schedule: Schedule
) -> Float[Array, "b"]:
  """L_T: divergence of the last step from pure noise, in bits per dimension."""
  left = 1 - schedule.alpha_bar[-1]
  mean = math.sqrt(schedule.alpha_bar[-1]) * x0
  term = normal_kl(mean, jnp.log(jnp.float32(left)), 0.0, 0.0)
  return BITS * term.reshape(len(x0), -1).mean(1)
