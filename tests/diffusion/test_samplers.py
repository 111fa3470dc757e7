"""Samplers against the exact solution for normal data.

For data N(m, c^2) the best noise estimate is known in closed form, and the
deterministic flow maps x_T to m * a + (x_T - m * a_T) * (scale / scale_T),
with scale^2 = a^2 c^2 + s^2.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax import diffusion
from faceedit_jax.diffusion import grids, predictions

MEAN, SPREAD = 0.7, 0.4


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _levels(schedule, t):
  time = (t + 1) / schedule.steps
  nodes = jnp.arange(1, schedule.steps + 1) / schedule.steps
  log_alpha = jnp.interp(time, nodes, jnp.asarray(schedule.log_alpha))
  return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))


def gaussian(schedule, kind="eps"):
  """The optimal denoiser of N(MEAN, SPREAD^2)."""

  def denoise(x, t):
    a, s = _levels(schedule, t.astype(jnp.float64))
    a = a.reshape((-1,) + (1,) * (x.ndim - 1))
    s = s.reshape((-1,) + (1,) * (x.ndim - 1))
    eps = s * (x - a * MEAN) / (a**2 * SPREAD**2 + s**2)
    return predictions.convert(eps, x, a, s, "eps", kind)

  return denoise


def flow(x, a, s, a_end, s_end):
  scale = np.sqrt(a**2 * SPREAD**2 + s**2)
  scale_end = np.sqrt(a_end**2 * SPREAD**2 + s_end**2)
  return MEAN * a_end + (x - MEAN * a) * scale_end / scale


def noise(shape=(3, 4, 4, 2)):
  return jax.random.normal(jax.random.key(0), shape, jnp.float64)


@pytest.mark.parametrize("kind", predictions.KINDS)
def test_ddim_follows_the_flow(kind):
  schedule = diffusion.make_schedule()
  x = noise()
  grid = grids.ddim_grid(schedule, 200, "ldm")
  wanted = flow(x, grid.alpha[0], grid.sigma[0], grid.alpha[-1], grid.sigma[-1])
  actual = diffusion.ddim(gaussian(schedule, kind), x, schedule, 200, kind=kind)
  assert np.abs(actual - wanted).max() < 0.03


def _error(schedule, steps, sampler):
  x = noise()
  grid = grids.dpm_grid(schedule, steps, "log_snr")
  wanted = flow(x, grid.alpha[0], grid.sigma[0], grid.alpha[-1], grid.sigma[-1])
  return float(np.abs(sampler(x, steps) - wanted).max())


SOLVERS = [
  (1, {}),
  (2, {}),
  (2, {"correction": "taylor"}),
  (2, {"estimate": "eps"}),
  (2, {"method": "singlestep"}),
  (3, {"method": "singlestep"}),
  (3, {"method": "singlestep", "estimate": "eps"}),
  # The published form of three remembered estimates is of second order.
  (2, {"order": 3}),
]


@pytest.mark.parametrize("rate, options", SOLVERS)
def test_dpm_solver_converges_at_its_order(rate, options):
  schedule = diffusion.make_schedule()
  options = {"order": rate, "spacing": "log_snr"} | options

  def sampler(x, steps):
    return diffusion.dpm_solver_pp(
      gaussian(schedule), x, schedule, steps, lower_order_final=False, **options
    )

  # Counts that leave only the last steps to lower orders.
  coarse, fine = (_error(schedule, n, sampler) for n in (18, 36))
  assert fine < 0.06
  assert coarse / fine > 0.7 * 2**rate


def test_denoising_adds_the_clean_estimate():
  schedule = diffusion.make_schedule(steps=50)
  denoise, x = gaussian(schedule), noise()
  shared = {"schedule": schedule, "steps": 6, "trace": True}
  y, short = diffusion.dpm_solver_pp(denoise, x, **shared)
  z, trace = diffusion.dpm_solver_pp(denoise, x, final="denoise", **shared)
  np.testing.assert_allclose(trace.x[:-1], short.x, atol=1e-12)
  wanted = diffusion.predicted_x0(
    denoise(y, jnp.zeros((3,))), y, jnp.zeros((3,), int), schedule
  )
  np.testing.assert_allclose(z, wanted, atol=1e-6)


def test_one_point_of_data_is_hit_exactly():
  """With all data at one point every sampler ends there in any few steps."""
  schedule = diffusion.make_schedule(steps=20, start=0.01, end=0.3)
  x = noise()
  point = jnp.full_like(x, 0.25)
  rng = jax.random.key(1)

  def denoise(x, t):
    return jnp.full_like(x, 0.25)

  options = {"kind": "x0"}
  for actual in (
    diffusion.ddim(denoise, x, schedule, 4, final="one", **options),
    diffusion.ddim(
      denoise, x, schedule, 4, final="one", eta=1.0, rng=rng, **options
    ),
    diffusion.ddpm(denoise, x, schedule, rng, 5, **options),
    diffusion.dpm_solver_pp(denoise, x, schedule, 5, final="zero", **options),
    diffusion.dpm_solver_pp(
      denoise, x, schedule, 5, spacing="karras", **options
    ),
  ):
    np.testing.assert_allclose(actual, point, atol=1e-6)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ddpm_gives_the_data_distribution(variance):
  schedule = diffusion.make_schedule("true_linear", 250, 4e-4, 0.08)
  x = noise((4000, 2))
  y = diffusion.ddpm(
    gaussian(schedule), x, schedule, jax.random.key(2), variance=variance
  )
  np.testing.assert_allclose(y.mean(), MEAN, atol=0.02)
  np.testing.assert_allclose(y.std(), SPREAD, atol=0.02)


def test_ddpm_is_ddim_with_full_noise():
  schedule = diffusion.make_schedule(steps=20, start=0.01, end=0.3)
  x, rng = noise(), jax.random.key(3)
  wanted = diffusion.ddpm(gaussian(schedule), x, schedule, rng, 10)
  actual = diffusion.ddim(
    gaussian(schedule),
    x,
    schedule,
    10,
    eta=1.0,
    rng=rng,
    spacing="respaced",
    final="one",
  )
  np.testing.assert_allclose(actual, wanted, atol=1e-5)


def test_order_one_is_ddim():
  schedule = diffusion.make_schedule(steps=100)
  x = noise()
  denoise = gaussian(schedule)
  grid = grids.dpm_grid(schedule, 10, "linspace", "last")
  actual = diffusion.dpm_solver_pp(
    denoise, x, schedule, 10, order=1, spacing="linspace", final="last"
  )
  wanted = x
  for i, t in enumerate(grid.t):
    a, s = grid.alpha[i], grid.sigma[i]
    eps = denoise(wanted, jnp.full((3,), float(t)))
    x0 = (wanted - s * eps) / a
    wanted = grid.alpha[i + 1] * x0 + grid.sigma[i + 1] * eps
  np.testing.assert_allclose(actual, wanted, atol=1e-6)


def test_inversion_round_trip():
  schedule = diffusion.make_schedule("true_linear", 1000, 1e-4, 0.02)
  denoise = gaussian(schedule)
  x0 = MEAN + SPREAD * noise((2, 3, 3, 1))

  def error(steps):
    x_t = diffusion.ddim_invert(denoise, x0, schedule, steps, last="last")
    back = diffusion.ddim(
      denoise, x_t, schedule, steps, spacing="respaced", final="one"
    )
    return float(np.abs(back - x0).max())

  coarse, fine = error(50), error(500)
  assert fine < 0.02
  assert fine < coarse / 4


def test_inversion_reaches_normal_noise():
  schedule = diffusion.make_schedule("true_linear", 1000, 1e-4, 0.02)
  x0 = MEAN + SPREAD * noise((2000, 2))
  x_t = diffusion.ddim_invert(gaussian(schedule), x0, schedule, 250)
  np.testing.assert_allclose(x_t.mean(), 0, atol=0.05)
  np.testing.assert_allclose(x_t.std(), 1, atol=0.05)


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_keys_of_examples_travel_with_them(name):
  schedule = diffusion.make_schedule("linear", 50)
  x = jax.random.normal(jax.random.key(0), (3, 4))
  keys = jax.random.split(jax.random.key(1), 3)
  options = {"eta": 0.7} if name == "ddim" else {}

  def run(x, keys):
    return diffusion.sample(
      name, gaussian(schedule), x, schedule, 5, keys, **options
    )

  there = run(x, keys)
  back = run(x[::-1], keys[::-1])
  np.testing.assert_allclose(back[::-1], there, atol=1e-5)
  assert np.abs(run(x, keys[::-1]) - there).max() > 1e-2


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm_solver_pp"])
def test_no_example_sees_another(name):
  schedule = diffusion.make_schedule(steps=20, start=0.01, end=0.3)
  options = {"eta": 0.7} if name == "ddim" else {}
  rng = jax.random.key(4)

  def run(x):
    return diffusion.sample(
      name, gaussian(schedule), x, schedule, 5, rng, **options
    )

  x = noise()
  np.testing.assert_allclose(run(x)[:1], run(x[:1]), atol=1e-12)


def test_transform_and_trace():
  schedule = diffusion.make_schedule(steps=20, start=0.01, end=0.3)
  x = 3 * noise()
  seen = {}
  for rederive in (False, True):
    y, trace = jax.jit(
      lambda x, rederive=rederive: diffusion.ddim(
        gaussian(schedule),
        x,
        schedule,
        5,
        final="one",
        x0_transform=lambda v: jnp.clip(v, -0.1, 0.1),
        rederive=rederive,
        trace=True,
      )
    )(x)
    assert trace.x.shape == (5, *x.shape) and trace.t.shape == (5,)
    np.testing.assert_array_equal(trace.x[-1], y)
    assert np.abs(trace.x0).max() <= 0.1
    np.testing.assert_allclose(y, trace.x0[-1], atol=1e-6)
    seen[rederive] = np.asarray(trace.x[0])
  assert np.abs(seen[True] - seen[False]).max() > 0.01


def test_half_precision_nets_do_not_change_the_state():
  schedule = diffusion.make_schedule(steps=20)

  def denoise(x, t):
    return x.astype(jnp.bfloat16)

  y = diffusion.ddim(denoise, jnp.ones((1, 2, 2, 1), jnp.bfloat16), schedule, 4)
  assert y.dtype == jnp.float32


def test_spacings():
  np.testing.assert_array_equal(
    grids.timesteps(1000, 7, "ldm"), np.arange(0, 1000, 142) + 1
  )
  np.testing.assert_array_equal(
    grids.timesteps(1000, 4, "leading"), [1, 251, 501, 751]
  )
  np.testing.assert_array_equal(
    grids.timesteps(1000, 4, "trailing"), [249, 499, 749, 999]
  )
  np.testing.assert_array_equal(
    grids.timesteps(10, 10, "respaced"), np.arange(10)
  )
  schedule = diffusion.make_schedule()
  for spacing, wanted in {
    "linspace": [999, 749, 500, 250],
    "leading": [801, 601, 401, 201],
    "trailing": [999, 749, 499, 249],
  }.items():
    t = grids.dpm_grid(schedule, 4, spacing).t
    np.testing.assert_array_equal(t, wanted)
  for spacing in grids.DDIM_SPACINGS:
    t = grids.timesteps(100, 10, spacing)
    assert np.all(np.diff(t) >= 0) and t[0] >= 0 and t[-1] < 100


def test_bad_requests_are_named():
  schedule = diffusion.make_schedule(steps=20)
  x = noise()
  denoise = gaussian(schedule)
  with pytest.raises(ValueError, match="30 sampling steps"):
    diffusion.ddim(denoise, x, schedule, 30)
  with pytest.raises(ValueError, match="past the last one"):
    diffusion.ddim(denoise, x, schedule, 20)
  with pytest.raises(ValueError, match="no integer stride"):
    grids.timesteps(20, 9, "respaced")
  with pytest.raises(ValueError, match="spacing 'x'"):
    grids.timesteps(20, 9, "x")
  with pytest.raises(ValueError, match="pass rng="):
    diffusion.ddim(denoise, x, schedule, 5, eta=1.0)
  for options, message in (
    ({"order": 4}, "order 4 is not one of"),
    ({"method": "two"}, "method 'two'"),
    ({"estimate": "v"}, "estimate 'v'"),
    ({"correction": "none"}, "correction 'none'"),
    ({"estimate": "eps", "final": "zero"}, "without noise"),
    ({"method": "singlestep", "final": "zero"}, "singlestep steps"),
    ({"method": "singlestep", "spacing": "karras"}, "spacing 'karras'"),
    ({"method": "singlestep", "correction": "taylor"}, "'midpoint' only"),
  ):
    with pytest.raises(ValueError, match=message):
      diffusion.dpm_solver_pp(denoise, x, schedule, 5, **options)
  with pytest.raises(ValueError, match="sampler 'euler'"):
    diffusion.sample("euler", denoise, x, schedule, 5)
  with pytest.raises(ValueError, match="must return the prediction alone"):
    diffusion.ddim(lambda x, t: x[..., :1], x, schedule, 5)


def test_guidance():
  x = noise()
  t = jnp.zeros((3,))
  condition = {"a": jnp.ones((3, 1, 1, 1)), "b": jnp.full((3, 1, 1, 1), 2.0)}
  empty = jax.tree.map(jnp.zeros_like, condition)
  sizes = []

  def denoise(x, t, c):
    sizes.append(x.shape[0])
    return x + c["a"] + c["b"]

  guided = diffusion.classifier_free(denoise, condition, empty, 2.5)
  np.testing.assert_allclose(guided(x, t), x + 7.5, atol=1e-12)
  plain = diffusion.classifier_free(denoise, condition, empty, 1.0)
  np.testing.assert_allclose(plain(x, t), x + 3, atol=1e-12)
  assert sizes == [6, 3]


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm_solver_pp"])
def test_a_watched_denoiser_shows_the_samples(name):
  schedule = diffusion.make_schedule("linear", 50)
  plain = gaussian(schedule)
  calls = []

  def look(x, t):
    calls.append(t.shape)
    return plain(x, t), {"x": x[:, 0], "t": t}

  x, rng = noise(), jax.random.key(2)
  run = functools.partial(diffusion.sample, name)
  samples = run(plain, x, schedule, 4, rng)
  same, seen = run(diffusion.Watched(look), x, schedule, 4, rng)
  np.testing.assert_allclose(same, samples, rtol=1e-12)
  np.testing.assert_allclose(seen["x"], samples[:, 0], rtol=1e-12)
  np.testing.assert_array_equal(seen["t"], np.zeros(3))
  # The net is traced as often as without a look.
  assert len(calls) == 1
  with pytest.raises(ValueError, match="trace=True"):
    run(diffusion.Watched(look), x, schedule, 4, rng, trace=True)
