"""Schedules, predictions and the training loss against closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax import diffusion
from faceedit_jax.diffusion import grids, predictions, schedules


@pytest.mark.parametrize("kind", schedules.KINDS)
def test_signal_to_noise_falls_at_every_step(kind):
  schedule = diffusion.make_schedule(kind, 50, 1e-3, 0.02)
  assert np.all(np.diff(schedule.alpha_bar) < 0)
  t = jnp.arange(50)
  assert np.all(np.diff(np.asarray(schedule.log_snr(t))) < 0)
  total = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
  np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize(
  "kind, start, end, terminal",
  [
    ("linear", 0.00085, 0.012, 4.66e-3),
    ("true_linear", 0.00085, 0.012, 1.58e-3),
    ("linear", 0.0015, 0.0195, 1.42e-4),
    ("true_linear", 1e-4, 0.02, 4.04e-5),
  ],
)
def test_published_terminal_signal(kind, start, end, terminal):
  schedule = diffusion.make_schedule(kind, 1000, start, end)
  np.testing.assert_allclose(schedule.alpha_bar[-1], terminal, rtol=5e-3)


def test_equal_arguments_give_one_object():
  assert diffusion.make_schedule("cosine", 10) is diffusion.make_schedule(
    "cosine", 10
  )


def test_bad_arguments_are_named():
  with pytest.raises(ValueError, match="'quartic' is not one of"):
    diffusion.make_schedule("quartic")
  with pytest.raises(ValueError, match="change start and end"):
    diffusion.make_schedule("true_linear", 10, 0.5, 1.5)
  with pytest.raises(ValueError, match="falling"):
    diffusion.Schedule(np.array([0.5, 0.9]))


@pytest.mark.parametrize("kind", ["linear", "true_linear", "sqrt"])
@pytest.mark.parametrize("start, end", [(-0.1, 0.02), (0.0, 0.02), (0.1, -1.0)])
def test_impossible_betas_are_named(kind, start, end, recwarn):
  with pytest.raises(ValueError, match="start and end of the schedule"):
    diffusion.make_schedule(kind, 10, start, end)
  assert not recwarn.list


def test_continuous_time_meets_the_steps():
  schedule = diffusion.make_schedule(steps=100)
  t = jnp.arange(100)
  whole = schedule.alpha(t)
  np.testing.assert_allclose(
    schedule.alpha(t.astype(jnp.float32)), whole, rtol=1e-6
  )
  between = schedule.alpha(jnp.array([41.5]))
  assert whole[42] < between[0] < whole[41]
  np.testing.assert_allclose(
    schedule.sigma(t.astype(jnp.float32)), schedule.sigma(t), rtol=1e-4
  )


def test_times_and_levels_invert_each_other():
  schedule = diffusion.make_schedule(steps=100)
  # Also between the steps, and before the first one at 0.01.
  time = np.array([1.0, 0.505, 0.0142, 0.01, 0.008])
  log_alpha = grids.log_alpha_at(schedule, time)
  np.testing.assert_allclose(log_alpha[[0, 3]], schedule.log_alpha[[-1, 0]])
  np.testing.assert_allclose(log_alpha[1], schedule.log_alpha[49:51].mean())
  level = log_alpha - 0.5 * np.log(-np.expm1(2 * log_alpha))
  np.testing.assert_allclose(grids.time_at(schedule, level), time)
  assert np.all(np.diff(level) > 0)


def test_posterior_by_bayes_rule():
  """q(x_{t-1} | x_t, x_0) from the two normal densities it is a product of."""
  schedule = diffusion.make_schedule(steps=20, start=0.01, end=0.3)
  x0, x_t = jax.random.normal(jax.random.key(0), (2, 3, 4))
  t = np.array([1, 7, 19])
  mean, variance = schedule.q_posterior(x0, x_t, jnp.asarray(t))
  before = schedule.alpha_bar[t - 1][:, None]
  beta = schedule.betas[t][:, None]
  precision = 1 / (1 - before) + (1 - beta) / beta
  pull = np.sqrt(before) / (1 - before) * x0 + np.sqrt(1 - beta) / beta * x_t
  np.testing.assert_allclose(variance, 1 / precision[:, 0], rtol=1e-5)
  np.testing.assert_allclose(mean, pull / precision, rtol=1e-4, atol=1e-6)
  assert float(schedule.q_posterior(x0, x_t, jnp.zeros(3, int))[1][0]) == 0


@pytest.mark.parametrize("source", predictions.KINDS)
@pytest.mark.parametrize("destination", predictions.KINDS)
def test_predictions_convert(source, destination):
  key = jax.random.key(0)
  x0, noise = jax.random.normal(key, (2, 3, 4, 4, 2))
  schedule = diffusion.make_schedule(steps=100)
  t = jnp.array([3, 50, 80])
  a = schedules.expand(schedule.alpha(t), x0)
  s = schedules.expand(schedule.sigma(t), x0)
  x = schedule.q_sample(x0, noise, t)
  given = predictions.target(x0, noise, a, s, source)
  wanted = predictions.target(x0, noise, a, s, destination)
  actual = predictions.convert(given, x, a, s, source, destination)
  np.testing.assert_allclose(actual, wanted, atol=2e-5)
  np.testing.assert_allclose(
    diffusion.predicted_x0(given, x, t, schedule, source), x0, atol=2e-5
  )


@pytest.mark.parametrize("weighting", ["simple", "p2", "min_snr", "vlb"])
def test_loss_is_the_same_whatever_the_net_predicts(weighting):
  x0, noise, wrong = jax.random.normal(jax.random.key(1), (3, 4, 5, 5, 2))
  schedule = diffusion.make_schedule(steps=100)
  t = jnp.array([1, 20, 60, 99])
  a = schedules.expand(schedule.alpha(t), x0)
  s = schedules.expand(schedule.sigma(t), x0)
  x = schedule.q_sample(x0, noise, t)
  eps = noise + 0.1 * wrong
  losses = {
    kind: diffusion.diffusion_loss(
      predictions.convert(eps, x, a, s, "eps", kind),
      x0,
      noise,
      t,
      schedule,
      kind,
      weighting=weighting,
    )
    for kind in predictions.KINDS
  }
  assert losses["eps"].shape == (4,)
  if weighting == "simple":
    wanted = 0.01 * jnp.mean(wrong**2, axis=(1, 2, 3))
    np.testing.assert_allclose(losses["eps"], wanted, rtol=1e-3)
    return
  for kind in ("x0", "v"):
    np.testing.assert_allclose(losses[kind], losses["eps"], rtol=2e-3)


def test_loss_keeps_examples_apart():
  x0, noise, eps = jax.random.normal(jax.random.key(2), (3, 3, 4, 4, 1))
  schedule = diffusion.make_schedule(steps=10)
  t = jnp.array([1, 5, 9])
  alone = diffusion.diffusion_loss(
    eps[1:2], x0[1:2], noise[1:2], t[1:2], schedule, norm="l1"
  )
  together = diffusion.diffusion_loss(eps, x0, noise, t, schedule, norm="l1")
  np.testing.assert_allclose(alone[0], together[1], rtol=1e-6)
  with pytest.raises(ValueError, match="norm 'l3'"):
    diffusion.diffusion_loss(eps, x0, noise, t, schedule, norm="l3")
  with pytest.raises(ValueError, match="weighting"):
    diffusion.diffusion_loss(eps, x0, noise, t, schedule, weighting="no")


@pytest.mark.parametrize("antithetic", [False, True])
def test_timesteps_are_uniform(antithetic):
  draw = jax.jit(
    lambda k: diffusion.draw_timesteps(k, 8, 10, antithetic=antithetic)
  )
  keys = jax.random.split(jax.random.key(3), 500)
  t = np.asarray(jax.vmap(draw)(keys))
  assert t.min() == 0 and t.max() == 9
  counts = np.bincount(t.ravel(), minlength=10) / t.size
  np.testing.assert_allclose(counts, 0.1, atol=0.02)


@pytest.mark.parametrize("antithetic", [False, True])
def test_timesteps_with_a_power_are_late(antithetic):
  keys = jax.random.split(jax.random.key(3), 500)
  draw = functools.partial(
    diffusion.draw_timesteps,
    batch=8,
    steps=10,
    antithetic=antithetic,
    power=3.0,
  )
  t = np.asarray(jax.vmap(draw)(keys))
  counts = np.bincount(t.ravel(), minlength=10) / t.size
  wanted = np.diff((np.arange(11) / 10) ** 3.0)
  np.testing.assert_allclose(counts, wanted, atol=0.02)
  with pytest.raises(ValueError, match="wanted above 0"):
    draw(keys[0], power=0.0)


def test_timestep_embedding_starts_with_cosines():
  features = diffusion.timestep_embedding(jnp.array([0.0, 2.0]), 7)
  np.testing.assert_allclose(features[0], [1, 1, 1, 0, 0, 0, 0], atol=1e-6)
  np.testing.assert_allclose(features[1, 0], np.cos(2.0), rtol=1e-5)
  np.testing.assert_allclose(features[1, 3], np.sin(2.0), rtol=1e-5)
