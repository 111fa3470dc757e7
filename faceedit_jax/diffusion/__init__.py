"""Diffusion as functions over a denoiser; nothing here knows a network."""

from faceedit_jax.diffusion.guidance import classifier_free, combine
from faceedit_jax.diffusion.samplers import (
  Trace,
  Watched,
  ddim,
  ddim_invert,
  ddpm,
  dpm_solver_pp,
  sample,
)
from faceedit_jax.diffusion.schedules import (
  Schedule,
  make_schedule,
  timestep_embedding,
)
from faceedit_jax.diffusion.training import (
  diffusion_loss,
  draw_timesteps,
  loss_weight,
  predicted_x0,
)

__all__ = [
  "Schedule",
  "Trace",
  "Watched",
  "classifier_free",
  "combine",
  "ddim",
  "ddim_invert",
  "ddpm",
  "diffusion_loss",
  "dpm_solver_pp",
  "draw_timesteps",
  "loss_weight",
  "make_schedule",
  "predicted_x0",
  "Watched",
  "sample",
  "timestep_embedding",
]
