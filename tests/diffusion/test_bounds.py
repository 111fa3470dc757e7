"""The variational bound and the loss of latent diffusion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from faceedit_jax import diffusion
from faceedit_jax.diffusion import bounds, predictions
from faceedit_jax.diffusion.schedules import expand

# One program for each set of options, rather than one for each operation.
bound_term = jax.jit(
  bounds.bound_term, static_argnames=("schedule", "kind", "variance", "clip")
)
convert = jax.jit(
  predictions.convert, static_argnames=("source", "destination")
)
SCHEDULE = diffusion.make_schedule(steps=50, start=0.01, end=0.2)


def tables(mix=0.0):
  """alpha_bar, its predecessor, betas and the reverse variance."""
  betas = np.linspace(0.01**0.5, 0.2**0.5, 50) ** 2
  bar = np.cumprod(1 - betas)
  before = np.append(1.0, bar[:-1])
  variance = (1 - mix) * betas * (1 - before) / (1 - bar) + mix * betas
  return bar, before, betas, variance


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_published_weights(mix):
  bar, _, betas, variance = tables(mix)
  np.testing.assert_allclose(bounds.reverse_variance(SCHEDULE, mix), variance)
  eps = bounds.bound_weights(SCHEDULE, "eps", mix)
  for t in (1, 7, 49):
    wanted = betas[t] ** 2 / (2 * variance[t] * (1 - betas[t]) * (1 - bar[t]))
    np.testing.assert_allclose(eps[t], wanted)
    x0 = bounds.bound_weights(SCHEDULE, "x0", mix)[t]
    np.testing.assert_allclose(x0, 0.5 * np.sqrt(bar[t]) / (2 * 1 - bar[t]))
  for kind in predictions.KINDS:
    table = bounds.bound_weights(SCHEDULE, kind, mix)
    assert table.shape == (50,) and table[0] == table[1]
  assert set(bounds.bound_weights(SCHEDULE, "v")) == {1.0}
  with pytest.raises(ValueError, match="'mu'"):
    bounds.bound_weights(SCHEDULE, "mu")


def test_the_weight_of_noise_is_that_of_the_exact_bound():
  t = jnp.arange(50)
  exact = diffusion.loss_weight(SCHEDULE, t, "eps", "vlb")
  table = bounds.bound_weights(SCHEDULE, "eps")
  np.testing.assert_allclose(exact, table, rtol=1e-5)
  # That of a clean picture is not.
  exact = diffusion.loss_weight(SCHEDULE, t, "x0", "vlb")
  assert np.abs(exact / bounds.bound_weights(SCHEDULE, "x0") - 1).min() > 0.01


def test_latent_loss(rng):
  errors, t = rng.uniform(size=3), np.array([0, 4, 49])
  logvar = rng.normal(size=50)
  weights = bounds.bound_weights(SCHEDULE, "x0")[t]
  given = [jnp.asarray(v, jnp.float32) for v in (errors, logvar)]
  options = {"kind": "x0", "simple_weight": 0.5, "bound_weight": 2.0}
  found = bounds.latent_loss(given[0], jnp.asarray(t), SCHEDULE, **options)
  bound = (weights * errors).mean()
  np.testing.assert_allclose(found.simple, errors.mean(), rtol=1e-5)
  np.testing.assert_allclose(found.bound, bound, rtol=1e-5)
  wanted = 0.5 * errors.mean() + 2 * bound
  np.testing.assert_allclose(found.loss, wanted, rtol=1e-5)
  found = bounds.latent_loss(
    given[0], jnp.asarray(t), SCHEDULE, logvar=given[1], **options
  )
  likely = (errors / np.exp(logvar[t]) + logvar[t]).mean()
  np.testing.assert_allclose(found.loss, 0.5 * likely + 2 * bound, rtol=1e-5)
  np.testing.assert_allclose(found.simple, errors.mean(), rtol=1e-5)


def test_divergence_by_integration():
  x = np.linspace(-20, 20, 200_001)
  p, q = stats.norm(0.4, np.exp(0.15)), stats.norm(-0.3, np.exp(0.4))
  wanted = np.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x)
  np.testing.assert_allclose(
    bounds.normal_kl(0.4, 0.3, -0.3, 0.8), wanted, rtol=1e-4
  )


@pytest.mark.parametrize("mean, deviation", [(0.2, 0.1), (-0.97, 0.3)])
def test_levels_share_the_whole_probability(mean, deviation):
  levels = np.arange(256) / 127.5 - 1
  found = jax.jit(bounds.levels_log_likelihood)(
    jnp.asarray(levels, jnp.float32), mean, np.log(deviation)
  )
  np.testing.assert_allclose(np.exp(found).sum(), 1, atol=1e-4)
  normal = stats.norm(mean, deviation)
  mass = normal.cdf(levels + 1 / 255) - normal.cdf(levels - 1 / 255)
  mass[0], mass[-1] = normal.cdf(-1 + 1 / 255), normal.sf(1 - 1 / 255)
  np.testing.assert_allclose(np.exp(found), mass, atol=5e-4)


@pytest.fixture
def noised(rng):
  """Clean, noise, steps, noisy, and what a net predicts for the noise."""
  x0 = jnp.asarray(rng.uniform(-1, 1, (4, 3, 3, 2)), jnp.float32)
  noise, wrong = jnp.asarray(rng.normal(size=(2, 4, 3, 3, 2)), jnp.float32)
  t = jnp.array([1, 9, 30, 49])
  return x0, noise, t, SCHEDULE.q_sample(x0, noise, t), noise + 0.2 * wrong


@pytest.mark.parametrize("kind", predictions.KINDS)
def test_the_bound_is_a_weighted_error(noised, kind):
  x0, noise, t, x_t, eps = noised
  a, s = (expand(f(t), x0) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
  given = convert(eps, x_t, a, s, "eps", kind)
  found = bound_term(given, x0, x_t, t, SCHEDULE, kind)
  error = np.square(np.asarray(eps) - noise).mean((1, 2, 3))
  weights = bounds.bound_weights(SCHEDULE, "eps")[t]
  np.testing.assert_allclose(found * np.log(2), weights * error, rtol=2e-3)


@pytest.mark.parametrize(
  "variance", ["fixed_large", "learned", "learned_range"]
)
def test_variances(noised, rng, variance):
  x0, noise, t, x_t, eps = noised
  bar, _, betas, posterior = (v[np.asarray(t)] for v in tables())
  values = None
  log = np.broadcast_to(np.log(betas)[:, None, None, None], x0.shape)
  if variance != "fixed_large":
    part = rng.uniform(-1, 1, x0.shape)
    low = np.log(posterior)[:, None, None, None]
    log = (part + 1) / 2 * log + (1 - part) / 2 * low
    values = jnp.asarray(log if variance == "learned" else part, jnp.float32)
  found = bound_term(
    eps, x0, x_t, t, SCHEDULE, variance=variance, values=values
  )
  scale = betas**2 / ((1 - betas) * (1 - bar))
  apart = scale[:, None, None, None] * np.square(np.asarray(eps) - noise)
  small = np.log(posterior)[:, None, None, None]
  nats = 0.5 * (log - small - 1 + np.exp(small - log) + apart * np.exp(-log))
  wanted = nats.mean((1, 2, 3)) / np.log(2)
  np.testing.assert_allclose(found, wanted, rtol=2e-3)


def test_the_first_step_is_a_likelihood(noised):
  x0, noise, _, _, _ = noised
  t = jnp.zeros(4, int)
  x_t = SCHEDULE.q_sample(x0, noise, t)
  # The estimate of step 0 is the mean itself; here it is clipped.
  found = bound_term(3 * x0, x0, x_t, t, SCHEDULE, "x0", clip=True)
  _, _, _, variance = tables()
  nats = -jax.jit(bounds.levels_log_likelihood)(
    x0, jnp.clip(3 * x0, -1, 1), 0.5 * np.log(variance[1])
  )
  np.testing.assert_allclose(found, nats.mean((1, 2, 3)) / np.log(2), rtol=1e-4)


def test_the_prior_is_nearly_noise(noised):
  x0 = noised[0]
  bar = tables()[0][-1]
  nats = 0.5 * (
    bar * np.square(np.asarray(x0, np.float64)) - bar - np.log1p(-bar)
  )
  found = jax.jit(lambda x: bounds.prior_term(x, SCHEDULE))(x0)
  np.testing.assert_allclose(
    found, nats.mean((1, 2, 3)) / np.log(2), rtol=1e-3, atol=1e-7
  )


def test_values_belong_to_a_learned_variance(noised):
  x0, _, t, x_t, eps = noised
  with pytest.raises(ValueError, match="'learned' without values"):
    bounds.bound_term(eps, x0, x_t, t, SCHEDULE, variance="learned")
  with pytest.raises(ValueError, match="'fixed_small' with values"):
    bounds.bound_term(eps, x0, x_t, t, SCHEDULE, values=eps)
