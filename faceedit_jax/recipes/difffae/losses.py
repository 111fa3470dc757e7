"""The training loss of DiffFAE: section 4.3, eq. 1, 7 and 8."""

import dataclasses

import jax
import jax.numpy as jnp

from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.diffusion import schedules, training
from faceedit_jax.faces import region_prior
from faceedit_jax.losses import attention_consistency
from faceedit_jax.models.diffusion import unet_interface
from faceedit_jax.recipes.difffae import conditions as conditions_lib
from faceedit_jax.recipes.difffae import nets as nets_lib
from faceedit_jax.recipes.difffae import options as options_lib


def denoise_loss(
  nets: nets_lib.DiffFAENets,
  schedule: schedules.Schedule,
  options: options_lib.DiffFAEOptions,
  params,
  ctx: recipe_lib.Ctx,
):
  """Diffusion, consistency of attention and slots, and the region prior.

  Args:
    nets: what is trained, and the frozen nets.
    schedule: noise schedule.
    options: weights of the terms, and how timesteps are drawn.
    params: {net: parameters}.
    ctx: its batch holds `source_image`, `query_image` and what
      `Conditions.batch_spec` names.

  Returns:
    (() loss, Aux with its terms).
  """
  source, query = ctx.batch["source_image"], ctx.batch["query_image"]
  frozen, count = ctx.frozen, source.shape[0]
  features = nets.conditions.pair_features(frozen, ctx.batch)
  clean, condition = (
    features[conditions_lib.CLEAN],
    features[conditions_lib.CONDITION],
  )

  variables = {net: {"params": tree} for net, tree in params.items()}
  tokens, _ = nets.context(variables, frozen, source)
  time = training.draw_timesteps(
    ctx.key("time"),
    count,
    schedule.steps,
    **dataclasses.asdict(options.timesteps),
  )
  noise = jax.random.normal(ctx.key("noise"), clean.shape)
  noisy = schedule.q_sample(clean, noise, time)
  denoised = nets.unet.apply(
    variables["unet"],
    jnp.concatenate([noisy, condition], axis=-1),
    time.astype(jnp.float32),
    tokens,
    nets.identity(features[conditions_lib.PERSON]),
    capture=unet_interface.MEAN_MAPS,
  )
  diffusion = training.diffusion_loss(
    denoised.prediction,
    clean,
    noise,
    time,
    schedule,
    kind=options.prediction,
    weighting=options.weighting,
  ).mean()
  metrics = {"diffusion": diffusion, "latent_std": clean.std()}
  if not nets.has_slots:
    return diffusion, recipe_lib.Aux(metrics=metrics)
  free = nets.context(variables, frozen, query)[1]
  # The masks are targets: without stop-gradient the encoder could lower
  # this loss by flattening its own masks (inferred; paper silent).
  masks = jax.lax.stop_gradient(free)
  consistency = attention_consistency.attention_consistency(
    list(denoised.cross_maps.values()), masks
  ).mean()
  weight = recipe_lib.at(options.consistency_weight, ctx.step)
  metrics["consistency"] = consistency
  metrics["mask_variance"] = masks.var(axis=0).mean()
  loss = diffusion + weight * consistency
  if nets.has_region_prior:
    wanted = features[conditions_lib.REGION_PRIOR]
    metrics["region_prior"] = region_prior.cross_entropy(free, wanted)
    weight = recipe_lib.at(options.region_prior_weight, ctx.step)
    loss = loss + weight * metrics["region_prior"]
  return loss, recipe_lib.Aux(metrics=metrics)
