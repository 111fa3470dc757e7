"""The noise schedule that a case describes, and the buffers it recorded."""

from collections.abc import Mapping

import numpy as np

from faceedit_jax import diffusion
from faceedit_jax.diffusion import bounds, predictions
from tests.parity.options import Options

# Ours by the name that latent diffusion gives a schedule.
KINDS = {
  "linear": "linear",
  "cosine": "cosine",
  "sqrt_linear": "true_linear",
  "sqrt": "sqrt",
}


def make_schedule(
  config: Options, steps: int, start: float, end: float
) -> diffusion.Schedule:
  """The schedule of latent diffusion that a json describes."""
  kind = config.spelled("beta_schedule", "schedule", default="linear")
  offset = config.spelled("cosine_s", default=8e-3)
  if kind not in KINDS or offset != 8e-3:
    raise NotImplementedError(
      f"the schedule is {kind!r} with an offset of {offset}; ours are "
      f"{list(KINDS)} with .008"
    )
  return diffusion.make_schedule(KINDS[kind], steps, start, end)


def predicted_kind(config: Options) -> str:
  """What the net of a loss predicts, under the names that it goes by."""
  names = ("parameterization", "parametrization", "param")
  kind = config.spelled(*names, "pred_target", "pred", default="eps")
  if kind not in predictions.KINDS:
    raise NotImplementedError(
      f"the prediction is {kind!r}; ours are {predictions.KINDS}"
    )
  return kind


def buffers(schedule: diffusion.Schedule, mix: float = 0.0) -> dict:
  """The tables that a published module keeps beside its weights, by name."""
  bar, variance = schedule.alpha_bar, bounds.reverse_variance(schedule, mix)
  of_clean, of_noisy = schedule.posterior_mean
  return {
    "betas": schedule.betas,
    "alphas_bar": bar,
    "alphas_bar_prev": np.append(1.0, bar[:-1]),
    "sqrt_alphas_bar": np.sqrt(bar),
    "sqrt_one_minus_alphas_bar": np.sqrt(1 - bar),
    "log_one_minus_alphas_bar": np.log(1 - bar),
    "sqrt_recip_alphas_bar": np.sqrt(1 / bar),
    "sqrt_recipm1_alphas_bar": np.sqrt(1 / bar - 1),
    "posterior_variance": variance,
    "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
    "posterior_mean_coef1": of_clean,
    "posterior_mean_coef2": of_noisy,
  }


def check_buffers(
  state: Mapping[str, np.ndarray],
  schedule: diffusion.Schedule,
  mix: float = 0.0,
) -> None:
  """Asserts that the tables of a state are those of a schedule.

  A case whose json leaves the schedule out, or names it by a word that nobody
  reads, fails here.
  """
  for name, table in buffers(schedule, mix).items():
    theirs = name.replace("alphas_bar", "alphas_cumprod")
    recorded = state.get(name, state.get(theirs))
    if recorded is not None:
      np.testing.assert_allclose(
        recorded, table, rtol=2e-5, atol=1e-7, err_msg=name
      )
