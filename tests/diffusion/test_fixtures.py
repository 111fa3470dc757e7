"""Schedules and samplers against recordings of the official code."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax import diffusion
from faceedit_jax.diffusion import grids, predictions

pytestmark = pytest.mark.shared


def load(shared, name):
  folder = shared / "fixtures"
  return (
    np.load(folder / f"{name}.npz"),
    json.loads((folder / f"{name}.json").read_text())["config"],
  )


def fake(x, t, c=None):
  """The analytic noise model the recordings were made with."""
  t = t.reshape((-1,) + (1,) * (x.ndim - 1))
  eps = 0.3 * x + 0.1 * jnp.sin(t / 100)
  if c is not None:
    mean = c.mean(axis=(1, 2)).reshape((-1,) + (1,) * (x.ndim - 1))
    eps = eps + 0.2 * mean * jnp.cos(x)
  return eps


def close(actual, wanted, tolerance):
  scale = max(1.0, float(np.abs(wanted).max()))
  error = float(np.abs(np.asarray(actual, np.float64) - wanted).max()) / scale
  assert error < tolerance, f"relative error {error:.2e}"


def test_ldm_schedules(shared):
  z, c = load(shared, "ldm__schedules_ddim")
  names = {
    "linear": "linear",
    "cosine": "cosine",
    "true_linear": "sqrt_linear",
    "sqrt": "sqrt",
  }
  for kind, official in names.items():
    schedule = diffusion.make_schedule(kind, c["T"], c["ls"], c["le"])
    np.testing.assert_allclose(
      schedule.betas, z[f"out/betas_{official}"], rtol=1e-9
    )
  schedule = diffusion.make_schedule("linear", c["T"], c["ls"], c["le"])
  np.testing.assert_allclose(
    schedule.alpha_bar, z["out/alphas_cumprod"], rtol=1e-12
  )
  np.testing.assert_allclose(
    schedule.posterior_variance, z["out/posterior_variance"], atol=1e-12
  )


@pytest.mark.parametrize("index", [0, 1])
def test_ldm_ddim(shared, index):
  z, c = load(shared, "ldm__schedules_ddim")
  steps = c["steps"][index]
  schedule = diffusion.make_schedule("linear", c["T"], c["ls"], c["le"])
  t = grids.timesteps(c["T"], steps, "ldm")
  np.testing.assert_array_equal(t, z[f"out/ddim{steps}/timesteps"])
  np.testing.assert_array_equal(
    grids.timesteps(c["T"], steps, "quadratic"),
    z[f"out/ddim{steps}/timesteps_quad"],
  )
  grid = grids.ddim_grid(schedule, steps)
  np.testing.assert_allclose(
    grid.alpha[1:][::-1] ** 2, z[f"out/ddim{steps}/alphas_prev"], rtol=1e-9
  )
  x = jnp.asarray(z["in/x_T"])
  _, trace = diffusion.ddim(fake, x, schedule, steps, trace=True)
  close(trace.x, z[f"out/ddim{steps}/x"], 2e-6)
  close(trace.x0, z[f"out/ddim{steps}/pred_x0"], 2e-6)
  np.testing.assert_array_equal(trace.t, z[f"out/ddim{steps}/model_t"])
  guided = diffusion.classifier_free(
    fake, jnp.asarray(z["in/c"]), jnp.asarray(z["in/uc"]), c["scale"]
  )
  _, trace = diffusion.ddim(guided, x, schedule, steps, trace=True)
  close(trace.x, z[f"out/cfg{steps}/x"], 3e-6)
  close(trace.x0, z[f"out/cfg{steps}/pred_x0"], 3e-6)


def test_ldm_timestep_embedding(shared):
  z, _ = load(shared, "ldm__schedules_ddim")
  wanted = z["out/timestep_embedding"]
  odd = z["out/timestep_embedding_odd"]
  # Which steps were embedded is not recorded; the slowest sinusoid tells.
  slow = wanted[:, wanted.shape[1] // 2 :][:, 0]
  first = wanted[:, 0]
  t = np.arange(1001)
  table = np.stack([np.cos(t), np.sin(t)], 1)
  best = [
    int(np.abs(table - [c, s]).sum(1).argmin())
    for c, s in zip(first, slow, strict=True)
  ]
  t = jnp.asarray(best, jnp.float32)
  close(diffusion.timestep_embedding(t, wanted.shape[1]), wanted, 1e-4)
  close(diffusion.timestep_embedding(t, odd.shape[1]), odd, 1e-4)


def test_dpm_solver_grid(shared):
  z, c = load(shared, "ldm__dpm_solver_pp")
  schedule = diffusion.make_schedule("linear", c["T"], c["ls"], c["le"])
  log_alpha = grids.log_alpha_at(schedule, z["in/tq"])
  close(log_alpha, z["out/sched/log_alpha"], 1e-6)
  level = log_alpha - 0.5 * np.log(-np.expm1(2 * log_alpha))
  close(level, z["out/sched/lambda"], 2e-5)
  close(grids.time_at(schedule, level), z["out/sched/inv_lambda"], 1e-6)


@pytest.mark.parametrize(
  "ours, official",
  [
    ("time_uniform", "time_uniform"),
    ("log_snr", "logSNR"),
    ("time_quadratic", "time_quadratic"),
  ],
)
def test_dpm_solver(shared, ours, official):
  z, c = load(shared, "ldm__dpm_solver_pp")
  schedule = diffusion.make_schedule("linear", c["T"], c["ls"], c["le"])
  x = jnp.asarray(z["in/x_T"])
  for steps in c["steps"]:
    _, trace = diffusion.dpm_solver_pp(
      fake, x, schedule, steps, spacing=ours, trace=True
    )
    t = (np.asarray(trace.t) + 1) / schedule.steps
    close(t, z[f"out/{official}{steps}/t"][:-1], 1e-5)
    close(trace.x, z[f"out/{official}{steps}/x"][1:], 1e-5)


def test_dpm_solver_order_one_and_guidance(shared):
  z, c = load(shared, "ldm__dpm_solver_pp")
  schedule = diffusion.make_schedule("linear", c["T"], c["ls"], c["le"])
  x = jnp.asarray(z["in/x_T"])
  steps = len(z["out/order1_10/x"]) - 1
  _, trace = diffusion.dpm_solver_pp(
    fake, x, schedule, steps, order=1, trace=True
  )
  close(trace.x, z["out/order1_10/x"][1:], 1e-5)
  guided = diffusion.classifier_free(
    fake, jnp.asarray(z["in/c"]), jnp.asarray(z["in/uc"]), c["scale"]
  )
  _, trace = diffusion.dpm_solver_pp(guided, x, schedule, steps, trace=True)
  close(trace.x, z["out/cfg_10/x"][1:], 1e-5)


def test_diffusers(shared):
  z, c = load(shared, "sd__diffusers_schedulers")
  schedule = diffusion.make_schedule("scaled_linear", 1000, 0.00085, 0.012)
  close(schedule.alpha_bar, z["out/alphas_cumprod"], 1e-6)
  x0, noise = jnp.asarray(z["in/x0"]), jnp.asarray(z["in/noise"])
  t = jnp.asarray(z["in/t"], jnp.int32)
  close(schedule.q_sample(x0, noise, t), z["out/add_noise"], 1e-6)
  a, s = schedule.alpha(t), schedule.sigma(t)
  a, s = a[:, None, None, None], s[:, None, None, None]
  velocity = predictions.target(x0, noise, a, s, "v")
  close(velocity, z["out/velocity"], 1e-6)
  x = jnp.asarray(z["in/x_T"])
  steps = c["steps"][0]
  _, trace = diffusion.ddim(
    fake, x, schedule, steps, spacing="leading", trace=True
  )
  np.testing.assert_array_equal(trace.t, z[f"out/ddim{steps}/timesteps"])
  close(trace.x, z[f"out/ddim{steps}/x"], 2e-6)
  for spacing, name in (("linspace", "dpm"), ("karras", "dpm_karras")):
    _, trace = diffusion.dpm_solver_pp(
      fake, x, schedule, steps, spacing=spacing, trace=True
    )
    np.testing.assert_array_equal(trace.t, z[f"out/{name}{steps}/timesteps"])
    close(trace.x, z[f"out/{name}{steps}/x"], 2e-5)


@pytest.mark.parametrize("index", [0, 1])
def test_diffae(shared, index):
  z, c = load(shared, "latref__diffae_diffusion")
  scale = 1000 / c["T"]
  schedule = diffusion.make_schedule(
    "true_linear", c["T"], scale * 1e-4, scale * 0.02
  )
  steps = c["steps"][index]

  def denoise(x, t):
    return fake(x, t) + 0.05 * jnp.cos(3 * x)

  def clip(x0):
    return jnp.clip(x0, -1, 1)

  transform = clip if c["clip"] else None
  grid = grids.ddim_grid(schedule, steps, "respaced", "one")
  np.testing.assert_array_equal(grid.t[::-1], z[f"out/timesteps{steps}"])
  np.testing.assert_allclose(
    grid.alpha[:-1][::-1] ** 2, z[f"out/alphas_cumprod{steps}"], rtol=1e-9
  )
  _, trace = diffusion.ddim(
    denoise,
    jnp.asarray(z["in/x_T"]),
    schedule,
    steps,
    spacing="respaced",
    final="one",
    x0_transform=transform,
    rederive=True,
    trace=True,
  )
  xs = z[f"out/ddim{steps}/sample_t"]
  close(trace.x, xs, 5e-6)
  close(trace.x0, z[f"out/ddim{steps}/xstart_t"], 2e-5)
  _, trace = diffusion.ddim_invert(
    denoise,
    jnp.asarray(z["in/x0"]),
    schedule,
    steps,
    x0_transform=transform,
    trace=True,
  )
  close(trace.x, z[f"out/rev{steps}/sample_t"], 2e-5)
  # One over the signal scale, about 60, magnifies the rounding here.
  close(trace.x0, z[f"out/rev{steps}/xstart_t"], 1e-4)
  x_t = schedule.q_sample(
    jnp.asarray(z["in/x0"]), jnp.asarray(z["in/noise"]), jnp.asarray(z["in/t"])
  )
  close(x_t, z["out/q_sample"], 1e-6)
  np.testing.assert_allclose(
    schedule.posterior_variance, z["out/ddpm_posterior_variance"], atol=1e-12
  )


def test_ddpm_loss_without_net(shared):
  z, c = load(shared, "ldm__ddpm_loss")
  schedule = diffusion.make_schedule("linear", c["T"], c["ls"], c["le"])
  close(schedule.alpha_bar, z["state/alphas_cumprod"], 1e-6)
  t = jnp.asarray(z["in/t"], jnp.int32)
  x0, noise = jnp.asarray(z["in/x0"]), jnp.asarray(z["in/noise"])
  x_t = schedule.q_sample(x0, noise, t)
  close(x_t, z["out/x_t"], 1e-6)
  # One ancestral step from t with the true noise gives the posterior mean.
  previous = np.append(1.0, schedule.alpha_bar[:-1])
  beta, bar = schedule.betas, schedule.alpha_bar
  first = jnp.asarray(beta * np.sqrt(previous) / (1 - bar), jnp.float32)[t]
  second = np.sqrt(1 - beta) * (1 - previous) / (1 - bar)
  second = jnp.asarray(second, jnp.float32)[t]
  first, second = first[:, None, None, None], second[:, None, None, None]
  close(first * x0 + second * x_t, z["out/q_post_mean"], 1e-6)
  vlb = diffusion.loss_weight(schedule, t, "eps", "vlb")
  previous_table = schedule.posterior_variance[np.asarray(t)]
  close(np.log(previous_table), z["out/q_post_logvar"].reshape(-1), 1e-6)
  assert np.all(np.isfinite(np.asarray(jax.device_get(vlb))))
