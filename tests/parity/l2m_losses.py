"""Runners of the losses that train the nets of `l2m`, gradients included.

They are those of the recipe itself, on the recorded nets and batch.
"""

import functools

import jax
import jax.numpy as jnp

from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.losses.adversarial import bce, global_norm
from faceedit_jax.losses.reconstruction import l1
from faceedit_jax.models.perception.feature_resnet import imagenet_units
from faceedit_jax.recipes.l2m_gan.losses import TranslationLosses
from faceedit_jax.recipes.l2m_gan.nets import TranslationNets
from faceedit_jax.recipes.l2m_gan.options import LossWeights
from faceedit_jax.weights import l2m as maps
from faceedit_jax.weights.keymap import BACK
from tests.parity.harness import Case, nchw, runner
from tests.parity.l2m import (
  labels,
  make_discriminator,
  make_fan,
  make_generator,
  make_mapping,
  make_style_encoder,
)

# Ours by the recording's names.
TERMS = {
  "adv": "adversarial",
  "cyc": "cycle",
  "sty": "style",
  "ds": "diversity",
  "per": "perceptual",
  "ort": "orthogonality",
}


class Recorded(TranslationLosses):
  """The recipe's losses, with the recording's noise."""

  def noises(self, ctx):
    return [ctx.batch["noise"], ctx.batch["second_noise"]]


def make_losses(case: Case, perceptual=None, **nets) -> Recorded:
  """The losses of a recording's nets, with its weights."""
  config = case.config
  config.without_effect("device")  # that the recording ran on
  weights = {"adversarial": 1.0, "r1": config["lambda_reg"]}
  for theirs, ours in TERMS.items():
    if f"lambda_{theirs}" in config:
      weights[ours] = config[f"lambda_{theirs}"]
  absent = dict(mapping_network=None, latent_dim=0, fan=None, fan_weights="")
  return Recorded(
    nets=TranslationNets(image_size=config["img_size"], **(absent | nets)),
    perceptual=perceptual,
    attributes=tuple(map(str, range(config["num_domains"] // 2))),
    weights=LossWeights(**weights),
  )


def make_ctx(batch, frozen=None):
  return recipe_lib.Ctx(batch, frozen or {}, {}, {}, 0, jax.random.key(0))


def against(losses, trained, others, frozen, batch, kind):
  """The discriminator's loss, and what it is made of."""
  ctx, params = make_ctx(batch, frozen), {**others, **trained}
  loss, aux = losses.discriminator_loss(params, ctx, kind)
  variables = {net: {"params": tree} for net, tree in params.items()}
  style = losses.new_styles(variables, ctx, kind)[0][0]
  fake = losses.nets.generate(variables, frozen, batch["image"], style)
  logits = functools.partial(losses.nets.discriminate, variables)
  return loss, {
    "loss": loss,
    "real": bce(logits(batch["image"], batch["domain"]), 1.0),
    "fake": bce(logits(fake, batch["target"]), 0.0),
    "reg": aux.metrics["r1"],
  }


def toward(losses, trained, others, frozen, batch, kind):
  """The generator's loss, and what it is made of."""
  loss, aux = losses.generator_loss(
    {**others, **trained}, make_ctx(batch, frozen), kind
  )
  parts = {
    theirs: aux.metrics[ours]
    for theirs, ours in TERMS.items()
    if ours in aux.metrics
  }
  if "ds" in parts:  # ours is to be made small
    parts["ds"] = -parts["ds"]
  return loss, {"loss": loss} | parts


@runner("l2m/stargan2_losses")
def stargan2_losses(case: Case) -> dict:
  made = {
    "generator": make_generator(case, "generator"),
    "style_encoder": make_style_encoder(case, "style_encoder", layers=0),
    "mapping_network": make_mapping(case, "mapping_network"),
    "discriminator": make_discriminator(case, "discriminator"),
  }
  nets = {name: net for name, (net, _) in made.items()}
  frozen = {}
  if "fan" in case.info["state_groups"]:
    nets["fan"], frozen["fan"] = make_fan(case, "fan")
  losses = make_losses(case, latent_dim=case.config["latent_dim"], **nets)
  params = {name: v["params"] for name, (_, v) in made.items()}
  batch = {
    "image": case.image("x"),
    "domain": labels(case, "y_org"),
    "target": labels(case, "y_trg"),
    "noise": case["z_trg"],
    "second_noise": case["z_trg2"],
    "reference_image": case.image("x_ref"),
    "second_reference_image": case.image("x_ref2"),
  }
  out = {}
  for name, kind in (("z", "latent"), ("r", "reference")):
    for side, loss in (("d", against), ("g", toward)):
      run = jax.jit(functools.partial(loss, losses, kind=kind))
      _, parts = run(params, {}, frozen, batch)
      out |= {f"{name}_{side}_{k}": value for k, value in parts.items()}
  return out


def recorded_features(weights, x):
  """The recording's own small net in place of ResNet-18."""
  h = imagenet_units(x)
  for name in ("conv1", "conv2"):
    h = jax.lax.conv_general_dilated(
      h,
      jnp.transpose(weights[f"{name}.weight"], (2, 3, 1, 0)),
      (2, 2),
      ((1, 1), (1, 1)),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    h = jnp.tanh(h + weights[f"{name}.bias"])
  return h.mean((1, 2)) @ weights["fc.weight"].T + weights["fc.bias"]


class RecordedFeatures:
  """Distance in the features of the recording's net."""

  def distance(self, frozen, a, b, points=None):
    del points
    seen = (recorded_features(frozen["features"], x) for x in (a, b))
    return l1(*seen)


@runner("l2m/unofficial_losses")
def unofficial_losses(case: Case) -> dict:
  made = {
    "generator": make_generator(
      case, "generator", max_channels="g_max_conv_dim"
    ),
    "style_encoder": make_style_encoder(
      case,
      "style_encoder",
      "style_transformer",
      layers=4,
      max_channels="se_max_conv_dim",
    ),
    "discriminator": make_discriminator(
      case, "discriminator", max_channels="d_max_conv_dim"
    ),
  }
  nets = {name: net for name, (net, _) in made.items()}
  frozen = {"features": case.state("resnet18", "model.")}
  if case.config["w_hpf"] > 0:
    nets["fan"], frozen["fan"] = make_fan(case, "fan")
  losses = make_losses(case, RecordedFeatures(), **nets)
  params = {name: v["params"] for name, (_, v) in made.items()}
  batch = {
    "image": case.image("x"),
    "domain": labels(case, "y"),
    "target": labels(case, "y_ref"),
  }

  @jax.jit
  def run(params, frozen, batch):
    critic = {"discriminator": params["discriminator"]}
    learners = {n: params[n] for n in ("generator", "style_encoder")}
    variables = {net: {"params": tree} for net, tree in params.items()}
    codes = losses.nets.encode(
      variables, batch["image"], batch["domain"], batch["target"]
    )
    fake = losses.nets.generate(
      variables, frozen, batch["image"], codes.edited()
    )
    sides = [
      jax.value_and_grad(functools.partial(loss, losses), has_aux=True)(
        own, params, frozen, batch, "transformed"
      )
      for loss, own in ((against, critic), (toward, learners))
    ]
    return sides, codes, fake

  (judged, translated), codes, fake = run(params, frozen, batch)
  (_, d_parts), d_slopes = judged
  (_, g_parts), g_slopes = translated
  out = {
    **{f"d_{name}": value for name, value in d_parts.items()},
    **{f"g_{name}": value for name, value in g_parts.items()},
    "s_tilde": codes.edited(),
    "s_unrelated": codes.unrelated,
    "s_related": codes.related,
    "s_related_tilde": codes.transformed,
    "x_fake": nchw(fake),
  }
  encoding, factoring = _halves(g_slopes["style_encoder"])
  encoder = nets["style_encoder"]
  slopes = {
    "generator": (maps.generator(nets["generator"]), g_slopes["generator"]),
    "style_encoder": (maps.style_encoder(encoder), encoding),
    "style_transformer": (maps.style_encoder(encoder), factoring),
    "discriminator": (
      maps.discriminator(nets["discriminator"]),
      d_slopes["discriminator"],
    ),
  }
  for name in case.outputs():
    if name.startswith("grad_"):
      net, _, key = name.partition("/")[2].partition(".")
      keymap, tree = slopes[net]
      out[name] = _in_torch(tree, keymap(key)) if key else global_norm(tree)
  return out


def _halves(params: dict) -> tuple[dict, dict]:
  """The encoder's parameters, as the recording keeps them apart."""
  parted = ({}, {})
  for name, tree in params.items():
    parted[name.startswith(("decomposer", "transformer"))][name] = tree
  return parted


def _in_torch(tree, goal):
  for part in goal.path:
    tree = tree[part]
  return BACK[goal.layout](tree)
