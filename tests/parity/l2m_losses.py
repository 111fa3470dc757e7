"""Runners of the losses that train the nets of `l2m`, gradients included."""

import jax
import jax.numpy as jnp

from faceedit_jax.losses.adversarial import bce, global_norm, r1_penalty
from faceedit_jax.losses.reconstruction import l1
from faceedit_jax.losses.style_codes import diversity, factor_orthogonality
from faceedit_jax.models.feature_resnet import imagenet_units
from faceedit_jax.models.landmark_masks import face_masks
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


def judged(judge, real, fake, y, y_trg) -> dict:
  """What the discriminator's loss is made of."""
  return {
    "real": bce(judge(real, y), 1.0),
    "fake": bce(judge(fake, y_trg), 0.0),
    "reg": r1_penalty(lambda x: judge(x, y), real).mean(),
  }


def discriminator_loss(parts: dict, config) -> jax.Array:
  return parts["real"] + parts["fake"] + config["lambda_reg"] * parts["reg"]


@runner("l2m/stargan2_losses")
def stargan2_losses(case: Case) -> dict:
  config = case.config
  generator, g = make_generator(case, "generator")
  encoder, e = make_style_encoder(case, "style_encoder", layers=0)
  mapping, f = make_mapping(case, "mapping_network")
  discriminator, d = make_discriminator(case, "discriminator")
  x, y, y_trg = case.image("x"), labels(case, "y_org"), labels(case, "y_trg")
  guides = {
    "z": (case["z_trg"], case["z_trg2"]),
    "r": (case.image("x_ref"), case.image("x_ref2")),
  }

  @jax.jit
  def run(weights, x, y, y_trg, guides):
    g, e, f, d = weights
    draw = lambda x, s: generator.apply(g, x, s)  # noqa: E731
    judge = lambda x, y: discriminator.apply(d, x, y)  # noqa: E731
    style = lambda x, y: encoder.apply(e, x, y)  # noqa: E731
    styles = {"z": lambda z, y: mapping.apply(f, z, y), "r": style}
    out = {}
    for kind, pair in guides.items():
      first, second = (styles[kind](guide, y_trg) for guide in pair)
      fake = draw(x, first)
      found = {
        "adv": bce(judge(fake, y_trg), 1.0),
        "sty": l1(style(fake, y_trg), first).mean(),
        "ds": diversity(fake, draw(x, second)).mean(),
        "cyc": l1(draw(fake, style(x, y)), x).mean(),
      }
      total = found["adv"] - config["lambda_ds"] * found["ds"]
      total += sum(config[f"lambda_{k}"] * found[k] for k in ("sty", "cyc"))
      against = judged(judge, x, fake, y, y_trg)
      out |= {f"{kind}_g_{name}": value for name, value in found.items()}
      out |= {f"{kind}_d_{name}": value for name, value in against.items()}
      out[f"{kind}_g_loss"] = total
      out[f"{kind}_d_loss"] = discriminator_loss(against, config)
    return out

  return dict(run((g, e, f, d), x, y, y_trg, guides))


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


@runner("l2m/unofficial_losses")
def unofficial_losses(case: Case) -> dict:
  config = case.config
  generator, g = make_generator(
    case, "generator", max_channels="g_max_conv_dim"
  )
  encoder, e = make_style_encoder(
    case,
    "style_encoder",
    "style_transformer",
    layers=4,
    max_channels="se_max_conv_dim",
  )
  discriminator, d = make_discriminator(
    case, "discriminator", max_channels="d_max_conv_dim"
  )
  fixed = {"features": case.state("resnet18", "model.")}
  if config["w_hpf"] > 0:
    finder, fixed["finder"] = make_fan(case, "fan")

  def masks(fixed, x):
    if "finder" not in fixed:
      return None
    return face_masks(finder.apply(fixed["finder"], x))

  def edit(nets, fixed, x, y, y_trg):
    codes = encoder.apply(nets["encoder"], x, y, y_trg)
    style = codes.unrelated + codes.moved
    fake = generator.apply(nets["generator"], x, style, masks(fixed, x))
    return codes, style, fake

  def against(d, nets, fixed, x, y, y_trg):
    _, _, fake = edit(nets, fixed, x, y, y_trg)
    judge = lambda x, y: discriminator.apply(d, x, y)  # noqa: E731
    parts = judged(judge, x, fake, y, y_trg)
    return discriminator_loss(parts, config), parts

  def toward(nets, d, fixed, x, y, y_trg):
    codes, style, fake = edit(nets, fixed, x, y, y_trg)
    back = generator.apply(
      nets["generator"], fake, codes.style, masks(fixed, fake)
    )
    again = encoder.apply(nets["encoder"], fake, y_trg, method="style")
    features = [recorded_features(fixed["features"], v) for v in (x, fake)]
    parts = {
      "cyc": l1(back, x),
      "sty": l1(style, again),
      "per": l1(*features),
      "ort": factor_orthogonality(codes.unrelated, codes.related, codes.moved),
    }
    parts = {name: value.mean() for name, value in parts.items()}
    total = sum(config[f"lambda_{k}"] * value for k, value in parts.items())
    parts["adv"] = bce(discriminator.apply(d, fake, y_trg), 1.0)
    return total + parts["adv"], (parts, codes, style, fake)

  @jax.jit
  def run(nets, d, fixed, *batch):
    return (
      jax.value_and_grad(against, has_aux=True)(d, nets, fixed, *batch),
      jax.value_and_grad(toward, has_aux=True)(nets, d, fixed, *batch),
    )

  batch = case.image("x"), labels(case, "y"), labels(case, "y_ref")
  nets = {"generator": g, "encoder": e}
  ((d_loss, d_parts), d_slopes), ((g_loss, extra), g_slopes) = run(
    nets, d, fixed, *batch
  )
  g_parts, codes, style, fake = extra
  out = {
    "d_loss": d_loss,
    "g_loss": g_loss,
    **{f"d_{name}": value for name, value in d_parts.items()},
    **{f"g_{name}": value for name, value in g_parts.items()},
    "s_tilde": style,
    "s_unrelated": codes.unrelated,
    "s_related": codes.related,
    "s_related_tilde": codes.moved,
    "x_fake": nchw(fake),
  }
  encoding, factoring = _halves(g_slopes["encoder"]["params"])
  slopes = {
    "generator": (maps.generator(generator), g_slopes["generator"]["params"]),
    "style_encoder": (maps.style_encoder(encoder), encoding),
    "style_transformer": (maps.style_encoder(encoder), factoring),
    "discriminator": (maps.discriminator(discriminator), d_slopes["params"]),
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
