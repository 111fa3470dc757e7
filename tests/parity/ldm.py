"""Runners of the latent-diffusion cases."""

import jax
import numpy as np

from faceedit_jax.models.autoencoder import KLModel, VQModel
from faceedit_jax.models.unet import UNet
from faceedit_jax.nn.attention import SpatialTransformer
from faceedit_jax.weights import ldm as maps
from tests.parity.harness import Case, nchw, runner


def autoencoder_options(config: dict) -> dict:
  """Fields of our autoencoders from the official constructor options."""
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
  net = VQModel(
    codes=case.config["n_embed"], **autoencoder_options(case.config)
  )
  x = case.image("x")
  variables = case.variables(net, maps.autoencoder, x)

  @jax.jit
  def run(variables, x, z):

    def apply(*args, method):
      return net.apply(variables, *args, method=method)

    latent = apply(x, method="encode")
    quantised, loss, indices = apply(latent, method="quantize")
    return {
      "h": latent,
      "quant": quantised,
      "emb_loss": loss,
      "indices": indices.reshape(-1),
      "dec": apply(quantised, method="decode_quantized"),
      "iface_dec": apply(z, method="decode"),
      "code": apply(indices, method="codes_to_latent"),
    }

  z = case.image("z") if case.has("z") else np.zeros_like(case.image("x"))
  out = run(variables, x, z)
  if not case.has("z"):
    del out["iface_dec"]
  return {k: nchw(v) if np.ndim(v) == 4 else v for k, v in out.items()}


@runner("ldm/autoencoder_kl")
def autoencoder_kl(case: Case) -> dict:
  net = KLModel(
    double_z=case.config["double"], **autoencoder_options(case.config)
  )
  x, eps = case.image("x"), case.image("eps")
  variables = case.variables(net, maps.autoencoder, x)

  @jax.jit
  def run(variables, x, eps):
    posterior = net.apply(variables, x, method="encode")
    sample = posterior.mean + posterior.std * eps

    def decode(z):
      return net.apply(variables, z, method="decode")

    return {
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
  x, context = case.image("x"), case["context"]
  variables = case.variables(net, maps.spatial_transformer, x, context)
  run = jax.jit(net.apply)
  y, cross = run(variables, x, context)
  out = {"y": nchw(y), "y_small": nchw(run(variables, 0.01 * x, context)[0])}
  for i, probabilities in enumerate(cross):
    name = f"cross/transformer_blocks.{i}.attn2"
    out[name] = np.reshape(probabilities, (-1, *probabilities.shape[2:]))
  return out


def unet_options(config: dict) -> dict:
  """Fields of `UNet` from the constructor options of the official one."""
  factors = [2**i for i in range(len(config["mult"]))]
  head_channels = config.get("head_ch", -1)
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


def attention_maps(found, outputs) -> dict:
  """Maps in the order of the network, by their recorded names."""
  names = [name for name in outputs if name.startswith("attn/")]
  order = {"input_blocks": 0, "middle_block": 1, "output_blocks": 2}

  def position(name):
    parts = name.removeprefix("attn/").split(".")
    block = int(parts[parts.index("transformer_blocks") + 1])
    return order[parts[0]], int(parts[1]), block

  names.sort(key=position)
  assert len(names) == len(found), (names, len(found))
  return {
    name: np.reshape(probabilities, (-1, *probabilities.shape[2:]))
    for name, probabilities in zip(names, found, strict=True)
  }


@runner("ldm/unet_spatial_transformer", "ldm/unet_attention_block")
def unet(case: Case) -> dict:
  config = case.config
  attention = "transformer" if config["spatial"] else "self"
  net = UNet(
    in_channels=config["in_ch"],
    out_channels=config["out_ch"],
    context_dim=config["ctx"] or 1,
    attention=attention,
    **unet_options(config),
  )
  x, t = case.image("x"), case["t"]
  context = case["context"] if config["spatial"] else None
  labels = case["y"] if case.has("y") else None
  variables = case.variables(
    net, maps.unet(attention), x, t, context, labels=labels
  )

  @jax.jit
  def run(variables, x, t, context, labels):
    return net.apply(
      variables,
      x,
      t,
      context,
      labels=labels,
      maps="heads",
      capture_intermediates=lambda module, _: module.name is not None,
    )

  (eps, found), extra = run(variables, x, t, context, labels)
  out = {"eps": nchw(eps)}
  recorded = case.outputs()
  if attention == "transformer":
    out |= attention_maps(found, recorded)
  parts = extra["intermediates"]
  for name in recorded:
    if name.startswith("trace/"):
      out[name] = nchw(_trace(parts, name.removeprefix("trace/")))[:1]
  return out


def _trace(parts, name: str):
  """Output of one numbered block: that of its last part."""
  kind, index = name.split(".")
  if (kind, index) == ("input_blocks", "0"):
    return parts["conv_in"]["__call__"][0]
  for part in ("up", "attn", "down", "res"):
    found = parts.get(f"{kind.split('_')[0]}_{index}_{part}")
    if found is not None:
      value = found["__call__"][0]
      return value[0] if isinstance(value, tuple) else value
  raise KeyError(name)
