"""Runners of the schedules, samplers and losses of diffusion."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax import diffusion
from faceedit_jax.diffusion import bounds, grids, predictions
from faceedit_jax.diffusion.schedules import expand
from faceedit_jax.weights import ldm as maps
from tests.parity.harness import Case, nchw, nearest, runner
from tests.parity.ldm import official_unet
from tests.parity.options import Options
from tests.parity.schedules import check_buffers, make_schedule, predicted_kind


def fake(x, t, c=None):
  """The analytic noise model that the recordings of samplers were made with."""
  t = t.reshape((-1,) + (1,) * (x.ndim - 1))
  eps = 0.3 * x + 0.1 * jnp.sin(t / 100)
  if c is not None:
    mean = c.mean(axis=(1, 2)).reshape((-1,) + (1,) * (x.ndim - 1))
    eps = eps + 0.2 * mean * jnp.cos(x)
  return eps


def guided(case: Case):
  """The same model with classifier-free guidance."""
  return diffusion.classifier_free(
    fake, case["c"], case["uc"], case.config["scale"]
  )


def latent_schedule(config: Options) -> diffusion.Schedule:
  """The schedule of latent diffusion that a json describes."""
  return make_schedule(config, config["T"], config["ls"], config["le"])


def expect_pictures(config: Options, x) -> None:
  """Reads what recorded pictures (b, c, h, w) say of themselves."""
  config.expect(batch=len(x), ch=x.shape[1], hw=x.shape[2])


@runner("ldm/schedules_ddim")
def schedules_ddim(case: Case) -> dict:
  config, recorded = case.config, case.outputs()
  expect_pictures(config, case["x_T"])
  schedule = latent_schedule(config)
  out = {
    "alphas_cumprod": schedule.alpha_bar,
    "posterior_variance": schedule.posterior_variance,
    "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / schedule.alpha_bar - 1),
  }
  official = {
    "linear": "linear",
    "cosine": "cosine",
    "sqrt_linear": "true_linear",
    "sqrt": "sqrt",
  }
  for theirs, ours in official.items():
    table = diffusion.make_schedule(
      ours, config["T"], config["ls"], config["le"]
    )
    out[f"betas_{theirs}"] = table.betas

  @jax.jit
  def run(x, c, uc):
    del c, uc
    traces = {}
    for steps in config["steps"]:
      for name, net in (("ddim", fake), ("cfg", guided(case))):
        _, trace = diffusion.ddim(net, x, schedule, steps, trace=True)
        traces[f"{name}{steps}"] = trace
    return traces

  for name, trace in run(case["x_T"], case["c"], case["uc"]).items():
    out[f"{name}/x"], out[f"{name}/pred_x0"] = trace.x, trace.x0
    out[f"{name}/model_t"] = np.asarray(trace.t)
  for steps in config["steps"]:
    grid = grids.ddim_grid(schedule, steps)
    near, far = grid.alpha[1:][::-1] ** 2, grid.alpha[:-1][::-1] ** 2
    out[f"ddim{steps}/timesteps"] = grid.t[::-1]
    out[f"ddim{steps}/timesteps_quad"] = grids.timesteps(
      config["T"], steps, "quadratic"
    )
    out[f"ddim{steps}/alphas"], out[f"ddim{steps}/alphas_prev"] = far, near
    out[f"ddim{steps}/sigmas_eta1"] = grids.ddim_noise(grid, 1.0)[::-1]
  for name in ("timestep_embedding", "timestep_embedding_odd"):
    size = recorded[name].shape[1]
    t = _embedded_times(recorded["timestep_embedding"])
    out[name] = diffusion.timestep_embedding(jnp.asarray(t), size)
  return out


def _embedded_times(features: np.ndarray) -> np.ndarray:
  """The times behind recorded sinusoids, which are not recorded themselves.

  The slowest one tells them roughly, each faster one more precisely.
  """
  half = features.shape[1] // 2
  angles = np.arctan2(features[:, half : 2 * half], features[:, :half])
  rates = np.exp(-np.log(1e4) * np.arange(half) / half)
  t = angles[:, -1] / rates[-1]
  for angle, rate in zip(angles.T[::-1], rates[::-1], strict=True):
    turns = np.round((t * rate - angle) / (2 * np.pi))
    t = (angle + 2 * np.pi * turns) / rate
  return t.astype(np.float32)


# Spacing and options of our solver by the recorded name.
_SOLVERS = {
  "time_uniform": {},
  "logSNR": {"spacing": "log_snr"},
  "time_quadratic": {"spacing": "time_quadratic"},
  "order1_": {"order": 1},
  "order3_": {"order": 3},
  "taylor_": {"spacing": "log_snr", "correction": "taylor"},
  "noise_": {"spacing": "log_snr", "estimate": "eps"},
  "tozero_": {"final": "denoise"},
  "cfg_": {},
}


@runner("ldm/dpm_solver_pp")
def dpm_solver_pp(case: Case) -> dict:
  config, recorded = case.config, case.outputs()
  expect_pictures(config, case["x_T"])
  whole = latent_schedule(config)
  level = whole.log_alpha - 0.5 * np.log1p(-whole.alpha_bar)
  # The official schedule ends where log(alpha / sigma) is -5.1.
  schedule = diffusion.Schedule(whole.alpha_bar[level >= -5.1])
  log_alpha = grids.log_alpha_at(schedule, np.asarray(case["tq"], np.float64))
  levels = log_alpha - 0.5 * np.log(-np.expm1(2 * log_alpha))
  out = {
    "betas": whole.betas,
    "sched/log_alpha": log_alpha,
    "sched/std": np.sqrt(-np.expm1(2 * log_alpha)),
    "sched/lambda": levels,
    "sched/inv_lambda": grids.time_at(schedule, levels),
  }
  runs = {}
  for name in recorded:
    for kind, options in _SOLVERS.items():
      if found := re.fullmatch(rf"({kind}(\d+))/x", name):
        runs[found[1]] = (int(found[2]), options, kind == "cfg_")
  for name, (steps, options, _) in runs.items():
    spacing = options.get("spacing", "time_uniform")
    out[f"{name}/t"] = grids.continuous_times(
      schedule, steps, spacing, 1.0, 1 / schedule.steps
    )

  @jax.jit
  def run(x):
    def on_thousand(net):
      # The official wrapper counts 1,000 steps, whatever the schedule has.
      return lambda x, t: net(x, t * (1000 / schedule.steps))

    states = {}
    for name, (steps, options, guide) in runs.items():
      net = on_thousand(guided(case) if guide else fake)
      _, trace = diffusion.dpm_solver_pp(
        net, x, schedule, steps, trace=True, **options
      )
      states[f"{name}/x"] = jnp.concatenate([x[None], trace.x])
    if "singlestep3" in recorded:
      for steps in {20, *config["steps"]}:
        states[f"singlestep3/{steps}"] = diffusion.dpm_solver_pp(
          on_thousand(fake),
          x,
          schedule,
          steps,
          order=3,
          method="singlestep",
          spacing="log_snr",
        )
    return states

  out |= run(case["x_T"])
  # Says whether there are further runs; those that were recorded are run.
  config.without_effect("extra")
  if "singlestep3" in recorded:
    # How many evaluations it took is not recorded; others end far away.
    names = [name for name in out if name.startswith("singlestep3/")]
    found = [np.asarray(out.pop(name)) for name in names]
    out["singlestep3"] = nearest(found, recorded["singlestep3"])
  return out


@runner("sd/diffusers_schedulers")
def diffusers_schedulers(case: Case) -> dict:
  expect_pictures(case.config, case["x_T"])
  schedule = diffusion.make_schedule("scaled_linear", 1000, 0.00085, 0.012)
  samplers = {
    "ddim": (diffusion.ddim, "leading"),
    "dpm": (diffusion.dpm_solver_pp, "linspace"),
    "dpm_karras": (diffusion.dpm_solver_pp, "karras"),
  }

  @jax.jit
  def run(x, x0, noise, t):
    a, s = (expand(f(t), x0) for f in (schedule.alpha, schedule.sigma))
    out = {
      "add_noise": schedule.q_sample(x0, noise, t),
      "velocity": predictions.target(x0, noise, a, s, "v"),
    }
    for steps in case.config["steps"]:
      for name, (sampler, spacing) in samplers.items():
        _, trace = sampler(
          fake, x, schedule, steps, spacing=spacing, trace=True
        )
        out[f"{name}{steps}/x"] = trace.x
        out[f"{name}{steps}/timesteps"] = trace.t
    return out

  inputs = (case[name] for name in ("x_T", "x0", "noise", "t"))
  return run(*inputs) | {"alphas_cumprod": schedule.alpha_bar}


@runner("ldm/ddpm_loss")
def ddpm_loss(case: Case) -> dict:
  config = case.config
  schedule, kind = latent_schedule(config), predicted_kind(config)
  mix = config.spelled("v_posterior", default=0.0)
  state = case.state()
  check_buffers(state, schedule, mix)
  x0, noise, t = case.image("x0"), case.image("noise"), case["t"]
  config.one_of("cond", {None: None})  # its loss hands no condition on
  net = official_unet(config, x0)
  variables = case.variables(
    net, maps.unet(net.attention), x0, t, prefix="model.diffusion_model."
  )
  norm = config.spelled("loss_type", "norm", default="l2")
  weights = {"simple_weight": config["simple"], "bound_weight": config["vlb"]}
  logvar = _logvar(case, schedule)

  @jax.jit
  def run(variables, x0, noise, t):
    x_t = schedule.q_sample(x0, noise, t)
    prediction = net.apply(variables, x_t, t).prediction
    errors = diffusion.diffusion_loss(
      prediction, x0, noise, t, schedule, kind, norm
    )
    parts = bounds.latent_loss(
      errors, t, schedule, kind, mix=mix, logvar=logvar, **weights
    )
    mean, _ = schedule.q_posterior(x0, x_t, t)
    out = {
      "x_t": x_t,
      "pred": prediction,
      "q_post_mean": mean,
      "loss_simple": parts.simple,
      "loss_vlb": parts.bound,
      "loss": parts.loss,
    }
    if logvar is not None:
      likelihood = bounds.latent_loss(errors, t, schedule, kind, logvar=logvar)
      out |= {"loss_gamma": likelihood.loss, "logvar": logvar.mean()}
    return out

  out = run(variables, x0, noise, t)
  out = {k: nchw(v) if np.ndim(v) == 4 else v for k, v in out.items()}
  # The variance of step 0 is 0; its logarithm is cut there.
  variance = np.maximum(bounds.reverse_variance(schedule, mix), 1e-20)
  logvars = np.log(variance)[np.asarray(t)]
  out["q_post_logvar"] = logvars[:, None, None, None]
  return case.recorded(out)


def _logvar(case: Case, schedule: diffusion.Schedule) -> jax.Array | None:
  """Logarithms of the variance of an error, where the loss weighs by them.

  `LatentDiffusion` does; `DDPM` takes the options and makes no use of them.
  """
  start = case.config.spelled("logvar_init", "logvar", default=0.0)
  learned = case.config.spelled("learn_logvar", default=False)
  if "LatentDiffusion" not in case.info["module_path"].partition("(")[0]:
    return None
  if learned:
    return jnp.asarray(case.state()["logvar"])
  return jnp.full(schedule.steps, start, jnp.float32)


@runner("latref/diffae_diffusion")
def diffae_diffusion(case: Case) -> dict:
  config = case.config
  expect_pictures(config, case["x_T"])
  scale = 1000 / config["T"]
  schedule = diffusion.make_schedule(
    "true_linear", config["T"], scale * 1e-4, scale * 0.02
  )
  variance = schedule.posterior_variance
  of_clean, of_noisy = schedule.posterior_mean
  out = {
    "ddpm_betas": schedule.betas,
    "ddpm_alphas_cumprod": schedule.alpha_bar,
    "ddpm_posterior_variance": variance,
    # The variance of step 0 is 0; that of step 1 stands in.
    "ddpm_posterior_log_variance_clipped": np.log(
      np.append(variance[1], variance[1:])
    ),
    "ddpm_posterior_mean_coef1": of_clean,
    "ddpm_posterior_mean_coef2": of_noisy,
  }
  for steps in config["steps"]:
    grid = grids.ddim_grid(schedule, steps, "respaced", "one")
    visited = diffusion.Schedule(schedule.alpha_bar[grid.t[::-1]])
    out[f"timesteps{steps}"] = grid.t[::-1]
    out[f"alphas_cumprod{steps}"] = visited.alpha_bar
    out[f"betas{steps}"] = visited.betas
    out[f"alphas_cumprod_next{steps}"] = np.append(visited.alpha_bar[1:], 0.0)

  def denoise(x, t):
    return fake(x, t) + 0.05 * jnp.cos(3 * x)

  def clip(x0):
    return jnp.clip(x0, -1, 1)

  shared = {"x0_transform": clip if config["clip"] else None, "trace": True}
  reverse = config.spelled("model_var_type", "var", default="fixed_large")

  @jax.jit
  def run(x, x0, noise, t):
    x_t = schedule.q_sample(x0, noise, t)
    states = {
      "q_sample": x_t,
      "prior_bpd": bounds.prior_term(x0, schedule),
      "vb": bounds.bound_term(
        denoise(x_t, t),
        x0,
        x_t,
        t,
        schedule,
        variance=reverse,
        clip=config["clip"],
      ),
    }
    for steps in config["steps"]:
      _, trace = diffusion.ddim(
        denoise,
        x,
        schedule,
        steps,
        spacing="respaced",
        final="one",
        rederive=True,
        **shared,
      )
      _, back = diffusion.ddim_invert(denoise, x0, schedule, steps, **shared)
      for name, found in (("ddim", trace), ("rev", back)):
        states[f"{name}{steps}/sample_t"] = found.x
        states[f"{name}{steps}/xstart_t"] = found.x0
    return states

  out |= run(*(case[name] for name in ("x_T", "x0", "noise", "t")))
  return case.recorded(out)
