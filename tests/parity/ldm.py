"""Runners of the latent-diffusion nets."""

import jax
import numpy as np

from faceedit_jax.models.diffusion.autoencoder import KLModel, VQModel
from faceedit_jax.models.diffusion.unet import UNet
from faceedit_jax.models.diffusion.unet_interface import (
  NOTHING,
  PARTS,
  Capture,
)
from faceedit_jax.nn.attention import SpatialTransformer, attend
from faceedit_jax.weights import ldm as maps
from tests.parity.harness import Case, nchw, nearest, runner
from tests.parity.options import Options

ALL_MAPS = Capture(cross_maps=PARTS, map_heads="all")


def autoencoder_options(config: Options, x) -> dict:
  """Fields of our autoencoders from the official constructor options.

  Args:
    config: the options.
    x: the recorded pictures.
  """
  config.expect(batch=len(x), res=x.shape[1], in_ch=x.shape[3])
  sides = [config["res"] // 2**i for i in range(len(config["mult"]))]
  return {
    "channels": config["ch"],
    "mult": tuple(config["mult"]),
    "res_blocks": config["nrb"],
    "attention_levels": tuple(
      i for i, side in enumerate(sides) if side in config["attn"]
    ),
    "z_channels": config["z"],
    "embed_dim": config["embed"],
    "in_channels": config["in_ch"],
  }


@runner("ldm/vq_model")
def vq_model(case: Case) -> dict:
  config, x = case.config, case.image("x")
  # Twice the channels are for a posterior.
  config.one_of("double", {False: None})
  net = VQModel(codes=config["n_embed"], **autoencoder_options(config, x))
  recorded = case.outputs()
  z = case.image("z") if case.has("z") else None
  variables = case.variables(net, maps.autoencoder, x)

  @jax.jit
  def run(variables, x, z):

    def apply(*args, method, **options):
      return net.apply(variables, *args, method=method, **options)

    latent, extra = apply(
      x,
      method="encode",
      capture_intermediates=lambda module, _: module.name is not None,
    )
    quantised, loss, indices = apply(latent, method="quantize")
    parts = extra["intermediates"]["encoder"]
    out = {
      "h": latent,
      "quant": quantised,
      "emb_loss": loss,
      "indices": indices.reshape(-1),
      "dec": apply(quantised, method="decode_quantized"),
      "code": apply(indices, method="codes_to_latent"),
      "enc_conv_in": parts["conv_in"]["__call__"][0][:1],
    }
    if z is not None:
      out["iface_dec"] = apply(z, method="decode")
    # What a level gives is not said: that of one of its parts.
    levels = {
      level: [
        value["__call__"][0][:1]
        for name, value in parts.items()
        if name.startswith(f"down_{level}_")
      ]
      for level in range(len(net.mult))
    }
    return out, levels

  out, levels = run(variables, x, z)
  out = {k: nchw(v) if np.ndim(v) == 4 else v for k, v in out.items()}
  for name in recorded:
    if name.startswith("enc_down"):
      found = levels[int(name.removeprefix("enc_down"))]
      out[name] = nearest(map(nchw, found), recorded[name])
  return out


@runner("ldm/autoencoder_kl")
def autoencoder_kl(case: Case) -> dict:
  config, x, eps = case.config, case.image("x"), case.image("eps")
  net = KLModel(double_z=config["double"], **autoencoder_options(config, x))
  config.without_effect("n_embed")  # of the codebook
  variables = case.variables(net, maps.autoencoder, x)

  @jax.jit
  def run(variables, x, eps):
    posterior = net.apply(variables, x, method="encode")
    sample = posterior.mean + posterior.std * eps

    def decode(z):
      return net.apply(variables, z, method="decode")

    return {
      "moments": net.apply(variables, x, method="moments"),
      "mean": posterior.mean,
      "logvar": posterior.logvar,
      "std": posterior.std,
      "sample": sample,
      "kl": posterior.kl(),
      "nll": posterior.nll(0.5 * sample),
      "dec_mode": decode(posterior.mode()),
      "dec_sample": decode(sample),
    }

  out = run(variables, x, eps)
  return {k: nchw(v) if np.ndim(v) == 4 else v for k, v in out.items()}


@runner("ldm/spatial_transformer")
def spatial_transformer(case: Case) -> dict:
  config = case.config
  net = SpatialTransformer(
    config["heads"], config["d"], config["depth"], with_maps=True
  )
  x = case.image("x")
  context = case["context"] if case.has("context") else None
  config.expect(batch=len(x), hw=x.shape[1], ch=x.shape[3])
  if context is not None:
    config.expect(ntok=context.shape[1], ctx=context.shape[2])
  else:
    config.one_of("ctx", {None: None})
    config.without_effect("ntok")
  variables = case.variables(net, maps.spatial_transformer, x, context)

  @jax.jit
  def run(variables, x, context):
    (y, cross), extra = net.apply(
      variables, x, context, capture_intermediates=True
    )
    out = {"y": y, "y_small": net.apply(variables, 0.01 * x, context)[0]}
    for i, found in enumerate(cross):
      out[f"cross/transformer_blocks.{i}.attn2"] = found.maps
      inner = extra["intermediates"][f"block_{i}"]["attn1"]
      q, k, v = (inner[f"to_{n}"]["__call__"][0] for n in "qkv")
      _, out[f"self/transformer_blocks.{i}.attn1"] = attend(
        q, k, v, net.heads, with_maps=True
      )
    return out

  return {
    name: nchw(value) if name.startswith("y") else _joined(value)
    for name, value in run(variables, x, context).items()
  }


def _joined(probabilities) -> np.ndarray:
  """Maps (b, heads, q, k) with batch and heads as one axis."""
  return np.reshape(probabilities, (-1, *probabilities.shape[2:]))


def unet_options(config: Options) -> dict:
  """Fields of `UNet` from the constructor options of the official one."""
  # Says from which of heads and width the other follows, which agree where
  # one divides the other.
  config.without_effect("legacy")
  factors = [2**i for i in range(len(config["mult"]))]
  head_channels = config.get("head_ch", -1)
  if head_channels != -1:
    widths = [config["mc"] * factor for factor in config["mult"]]
    odd = [width for width in widths if width % head_channels]
    if odd:
      raise NotImplementedError(
        f"option 'head_ch' {head_channels} does not divide the widths {odd}"
      )
  return {
    "channels": config["mc"],
    "mult": tuple(config["mult"]),
    "res_blocks": config["nrb"],
    "attention_levels": tuple(
      i for i, factor in enumerate(factors) if factor in config["attn"]
    ),
    "heads": max(config.get("heads", 1), 1),
    "head_channels": None if head_channels == -1 else head_channels,
    "depth": config.get("depth", 1),
    "scale_shift": config.get("ssn", False),
    "updown": config.get("updown", False),
    "classes": config.get("ncls"),
  }


def official_unet(config: Options, x, context=None) -> UNet:
  """`UNet` from the options of the latent-diffusion cases.

  Args:
    config: the options.
    x: the recorded latents.
    context: the recorded tokens that it attends to, if any.
  """
  config.expect(batch=len(x), hw=x.shape[1], in_ch=x.shape[3])
  if context is None:
    config.without_effect("ntok")
  else:
    config.expect(ntok=context.shape[1], ctx=context.shape[2])
  return UNet(
    in_channels=config["in_ch"],
    out_channels=config["out_ch"],
    context_dim=config["ctx"] or 1,
    attention="transformer" if config["spatial"] else "self",
    **unet_options(config),
  )


def attention_maps(found, outputs) -> dict:
  """Maps by place, in the order of the network, by their recorded names."""
  names = [name for name in outputs if name.startswith("attn/")]
  order = {"input_blocks": 0, "middle_block": 1, "output_blocks": 2}

  def position(name):
    parts = name.removeprefix("attn/").split(".")
    block = int(parts[parts.index("transformer_blocks") + 1])
    return order[parts[0]], int(parts[1]), block

  def ours(place):
    part, *numbers = place.split("/")
    numbers = [int(n) for n in numbers]
    if part == "decoder":  # which begins with the last level
      numbers[0] *= -1
    return PARTS.index(part), numbers

  names.sort(key=position)
  assert len(names) == len(found), (names, len(found))
  values = [_joined(found[place]) for place in sorted(found, key=ours)]
  return dict(zip(names, values, strict=True))


@runner("ldm/unet_spatial_transformer", "ldm/unet_attention_block")
def unet(case: Case) -> dict:
  config, x, t = case.config, case.image("x"), case["t"]
  context = None
  if config["spatial"] and config["ctx"]:
    context = case["context"]
  net = official_unet(config, x, context)
  labels = case["y"] if case.has("y") else None
  variables = case.variables(
    net, maps.unet(net.attention), x, t, context, labels=labels
  )

  @jax.jit
  def run(variables, x, t, context, labels):
    return net.apply(
      variables,
      x,
      t,
      context,
      labels=labels,
      capture=ALL_MAPS if net.attention == "transformer" else NOTHING,
      capture_intermediates=lambda module, _: module.name is not None,
    )

  output, extra = run(variables, x, t, context, labels)
  out = {"eps": nchw(output.prediction)}
  recorded = case.outputs()
  if net.attention == "transformer":
    out |= attention_maps(output.cross_maps, recorded)
  parts = extra["intermediates"]
  for name in recorded:
    if name.startswith("trace/"):
      out[name] = nchw(_trace(parts, name.removeprefix("trace/")))[:1]
  return out


def _trace(parts, name: str):
  """Output of one numbered block: that of its last part."""
  kind, _, index = name.partition(".")
  if kind == "middle_block":
    return parts[f"middle_{index or 2}_{'attn' if index == '1' else 'res'}"][
      "__call__"
    ][0]
  if (kind, index) == ("input_blocks", "0"):
    return parts["conv_in"]["__call__"][0]
  for part in ("up", "attn", "down", "res"):
    found = parts.get(f"{kind.split('_')[0]}_{index}_{part}")
    if found is not None:
      value = found["__call__"][0]
      return value[0] if isinstance(value, tuple) else value
  raise KeyError(name)
