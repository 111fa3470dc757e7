"""Options of DiffFAE's stage."""

import dataclasses
from typing import Literal

from faceedit_jax.core import optim
from faceedit_jax.diffusion import (
  grids,
  predictions,
  samplers,
  schedules,
  training,
)
from faceedit_jax.faces import face_nets, slot_regions
from faceedit_jax.recipes.difffae import conditions


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
  """The noise schedule; see `diffusion.schedules.make_schedule`."""

  kind: schedules.Kind = "linear"
  steps: int = 1000
  start: float = 0.0015
  end: float = 0.0195


@dataclasses.dataclass(frozen=True)
class TimestepOptions:
  """How training draws timesteps; see `diffusion.training.draw_timesteps`."""

  antithetic: bool = False
  power: float = 1.0

  def __post_init__(self):
    if self.power <= 0:
      raise ValueError(
        f"power is {self.power}, wanted above 0 (1 draws uniformly)"
      )


@dataclasses.dataclass(frozen=True)
class DiffFAEOptions:
  """Section `recipe` of a stage that trains the denoiser.

  Attributes:
    optimizer: of all trained nets, see `optim.make_tx`.
    schedule: noise schedule.
    timesteps: how training draws them; uniformly by default.
    prediction: "eps" (the paper), "v" or "x0".
    weighting: how timesteps count in the loss, see `training.loss_weight`;
      "simple" is the paper's eq. 1.
    consistency_weight: delta of eq. 8; 0 switches the loss off.
    region_prior_weight: weight of the loss that keeps the slots where the
      pictures' 3D reading and colours suggest, as in `RegionEncoderOptions`.
    source_condition: "slots", or "latent" for the vanilla ablation.
    identity_token: False feeds the U-Net no identity (ablation).
    identity_variance: how large the identity embedding is where the U-Net
      reads it: "vector", a unit vector, whose d features are so small that
      the SiLU of eq. 5 is linear there, or "feature", that times sqrt(d), of
      unit variance per feature. The paper does not say.
    slot_names: region of each slot, instead of what `region_encoder` counted
      or `--mode=name_slots` recorded. Empty, and nothing counted or recorded:
      the slots have no names, and swaps are refused.
    rendering_ground: what the condition shows where no head is: "black" (the
      paper's renderer), or "grey", which a first stage that was trained on
      pictures alone reproduces better.
    latent_scale: number, or 0 to scale latents by 1 / their spread.
    cache_features: what the frozen nets compute of a picture is cached before
      the first step, and kept; for data that fit the disk.
    prepared_features: what the prepared data store of each picture, see
      `conditions`.
    ema_decay: of the trained nets' average.
    sampler: "ddim", "ddpm" or "dpm_solver_pp".
    sampling_steps: denoising steps of an edit.
    ddim_spacing: which steps DDIM visits, see `diffusion.grids`.
    camera_from: whose camera an edit is rendered with.
  """

  optimizer: optim.OptimizerOptions
  schedule: ScheduleOptions
  timesteps: TimestepOptions
  prediction: predictions.Kind = "eps"
  weighting: training.Weighting = "simple"
  consistency_weight: optim.Weight = 0.1
  region_prior_weight: optim.Weight = 0.0
  source_condition: Literal["slots", "latent"] = "slots"
  identity_token: bool = True
  identity_variance: Literal["vector", "feature"] = "vector"
  slot_names: tuple[slot_regions.Region, ...] = ()
  rendering_ground: face_nets.Ground = "black"
  latent_scale: float = 0.0
  cache_features: bool = False
  prepared_features: tuple[conditions.Prepared, ...] = ()
  ema_decay: float = 0.9999
  sampler: samplers.Name = "ddim"
  sampling_steps: int = 50
  ddim_spacing: grids.Spacing = "ldm"
  camera_from: Literal["source", "query"] = "source"
