"""Key maps of the latent-diffusion networks (CompVis/latent-diffusion)."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp

from faceedit_jax.models.diffusion.autoencoder import KLModel, VQModel
from faceedit_jax.models.diffusion.unet import UNet
from faceedit_jax.weights import diffusers_models
from faceedit_jax.weights.format import (
  CheckpointFormat,
  Net,
  Sizes,
  array,
  fields_of,
  fixed,
  picture,
  sizes,
)
from faceedit_jax.weights.keymap import KeyMap, Target, dots, from_rules

_BLOCK = (
  (r"norm([12])", r"norm\1", "norm"),
  (r"conv([12])", r"conv\1", "conv"),
  (r"nin_shortcut", r"shortcut", "conv"),
)
_PIXEL_ATTENTION = (
  (r"norm", r"norm", "norm"),
  (r"(q|k|v|proj_out)", r"{n}", "pointwise"),
)


def _below(prefix: str, ours: str, rules, groups: int):
  """Puts rules below a torch prefix that has `groups` groups of its own."""
  out = []
  for pattern, path, kind in rules:
    for n in range(9, 0, -1):
      path = path.replace(f"\\{n}", f"\\{n + groups}")
    path = path.replace("{n}", f"\\{1 + groups}")
    out.append((rf"{prefix}\.{pattern}", f"{ours}/{path}", kind))
  return out


_AUTOENCODER_RULES = [
  *_below(
    r"(encoder|decoder)\.(down|up)\.(\d+)\.block\.(\d+)",
    r"\1/\2_\3_block_\4",
    _BLOCK,
    4,
  ),
  *_below(
    r"(encoder|decoder)\.(down|up)\.(\d+)\.attn\.(\d+)",
    r"\1/\2_\3_attn_\4",
    _PIXEL_ATTENTION,
    4,
  ),
  (
    r"(encoder|decoder)\.(down|up)\.(\d+)\.(downsample|upsample)\.conv",
    r"\1/\2_\3_\4",
    "conv",
  ),
  *_below(r"(encoder|decoder)\.mid\.(block_[12])", r"\1/mid_\2", _BLOCK, 2),
  *_below(
    r"(encoder|decoder)\.mid\.attn_1", r"\1/mid_attn_1", _PIXEL_ATTENTION, 1
  ),
  (r"(encoder|decoder)\.norm_out", r"\1/norm_out", "norm"),
  (r"(encoder|decoder)\.(conv_in|conv_out)", r"\1/\2", "conv"),
  (r"(quant_conv|post_quant_conv)", r"\1", "conv"),
]
_AUTOENCODER = from_rules(_AUTOENCODER_RULES)


def autoencoder(key: str) -> Target | None:
  """Key map of `VQModel` and `KLModel`.

  Args:
    key: as in a first-stage checkpoint, without `first_stage_model.`.

  Returns:
    The target, or None for the tensors of the training loss.
  """
  if key.startswith("loss."):
    return None
  if key == "quantize.embedding.weight":
    return Target(("quantizer", "embedding"))
  return _AUTOENCODER(key)


_TRANSFORMER = (
  (r"norm", r"norm", "norm"),
  (r"(proj_in|proj_out)", r"{n}", "pointwise_conv"),
  (
    r"transformer_blocks\.(\d+)\.(attn[12])\.(to_q|to_k|to_v)",
    r"block_\1/\2/\3",
    "linear",
  ),
  (
    r"transformer_blocks\.(\d+)\.(attn[12])\.to_out\.0",
    r"block_\1/\2/to_out",
    "linear",
  ),
  (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"block_\1/ff_in", "linear"),
  (r"transformer_blocks\.(\d+)\.ff\.net\.2", r"block_\1/ff_out", "linear"),
  (r"transformer_blocks\.(\d+)\.(norm[123])", r"block_\1/\2", "norm"),
)
_SELF = (
  (r"norm", r"norm", "norm"),
  (r"qkv", r"qkv", "pointwise"),
  (r"proj_out", r"proj_out", "pointwise"),
)
_RES = (
  (r"in_layers\.0", r"norm1", "norm"),
  (r"in_layers\.2", r"conv1", "conv"),
  (r"emb_layers\.1", r"time", "linear"),
  (r"out_layers\.0", r"norm2", "norm"),
  (r"out_layers\.3", r"conv2", "conv"),
  (r"skip_connection", r"shortcut", "conv"),
)


def _expand(path: str) -> str:
  return path.replace("{n}", r"\1")


# `transformer` blocks by themselves, as in ldm/modules/attention.py.
spatial_transformer: KeyMap = from_rules(
  [(a, _expand(b), c) for a, b, c in _TRANSFORMER]
)


def _unet_rules(inner) -> list[tuple[str, str, str]]:
  """Rules of `UNet` with one sort of attention."""
  return [
    (r"time_embed\.0", r"time_in", "linear"),
    (r"time_embed\.2", r"time_out", "linear"),
    (r"input_blocks\.0\.0", r"conv_in", "conv"),
    (r"input_blocks\.(\d+)\.0\.op", r"input_\1_down", "conv"),
    (r"output_blocks\.(\d+)\.[12]\.conv", r"output_\1_up", "conv"),
    *_below(r"input_blocks\.(\d+)\.0", r"input_\1_res", _RES, 1),
    *_below(r"input_blocks\.(\d+)\.1", r"input_\1_attn", inner, 1),
    *_below(r"middle_block\.([02])", r"middle_\1_res", _RES, 1),
    *_below(r"middle_block\.1", r"middle_1_attn", inner, 0),
    *_below(r"output_blocks\.(\d+)\.0", r"output_\1_res", _RES, 1),
    *_below(r"output_blocks\.(\d+)\.[12]", r"output_\1_up", _RES, 1),
    *_below(r"output_blocks\.(\d+)\.1", r"output_\1_attn", inner, 1),
    (r"out\.0", r"norm_out", "norm"),
    (r"out\.2", r"conv_out", "conv"),
  ]


def unet(attention: str = "transformer") -> KeyMap:
  """Key map of `UNet`.

  Args:
    attention: as the field of the network.

  Returns:
    Map of keys without the prefix `model.diffusion_model.`.
  """
  inner = _TRANSFORMER if attention == "transformer" else _SELF
  mapped = from_rules(_unet_rules(inner))

  def keymap(key: str) -> Target | None:
    if key == "label_emb.weight":
      return Target(("label_emb", "embedding"))
    return mapped(key)

  return keymap


_UNET_DOTS = dots([*_unet_rules(_TRANSFORMER), (r"label_emb", "", "")])
_AUTOENCODER_DOTS = dots(
  [*_AUTOENCODER_RULES, (r"quantize\.embedding", "", "")]
)


def dotted_unet(name: str) -> str | None:
  """A name in the average of a latent diffusion, which has no dots, with them.

  Args:
    name: behind `model_ema.`.

  Returns:
    The name behind `model.`, or None where it is not the U-Net's.
  """
  found = _UNET_DOTS(name.removeprefix("diffusion_model"))
  inside = name.startswith("diffusion_model")
  return found and ("diffusion_model." if inside else "") + found


def dotted_autoencoder(name: str) -> str | None:
  """The same of a first stage that was trained with an average."""
  if name.startswith("loss"):
    return f"loss.{name.removeprefix('loss')}"
  return _AUTOENCODER_DOTS(name)


# What only the codebook reads.
_CODEBOOK = ("codes", "beta", "legacy", "spread")


def _vq(nets: Sizes) -> Net:
  net = VQModel(**fields_of(nets["autoencoder"]))
  return net, (picture(8 * 2 ** len(net.mult)),)


def _kl(nets: Sizes) -> Net:
  net = KLModel(**fields_of(nets["autoencoder"], *_CODEBOOK))
  return net, (picture(8 * 2 ** len(net.mult)),)


# How a U-Net is computed: files are converted on any machine.
_COMPUTED = ("remat", "attention_kernel")


def _unet(nets: Sizes) -> Net:
  net = UNet(**fields_of(nets["unet"], *_COMPUTED))
  side = 2 ** len(net.mult)
  inputs = (
    array(1, side, side, net.in_channels),
    array(1),
    array(1, 1, net.context_dim),
    array(1, net.condition_dim),
  )
  if net.classes is not None:
    inputs += (array(1, dtype=jnp.int32),)
  return net, inputs


_FIRST_STAGE = ("first_stage_model.", "")
_STABLE_DIFFUSION = CheckpointFormat(
  "U-Net of Stable Diffusion 1 or latent diffusion, or diffusers' "
  "UNet2DConditionModel (nets.unet): further input channels start at zero, "
  "AdaIN's layer untrained (the norm's scale and bias are the file's), and so "
  "do projections of a context of another size",
  {"unet": sizes(UNet, *_COMPUTED, in_channels=4, context_dim=768)},
  _unet,
  fixed(unet()),
  ("model.diffusion_model.", ""),
  fresh=(r"params/.*/adain/.*",),
  widened=(r"params/conv_in/kernel",),
  renewed=(r"params/.*/attn2/to_[kv]/kernel",),
  diffusers=diffusers_models.unet,
  dotted=dotted_unet,
)
FORMATS: Mapping[str, CheckpointFormat] = {
  "vq": CheckpointFormat(
    "VQ-f8 first stage of latent diffusion, or diffusers' VQModel "
    "(nets.autoencoder)",
    {"autoencoder": sizes(VQModel)},
    _vq,
    fixed(autoencoder),
    _FIRST_STAGE,
    diffusers=diffusers_models.vq,
    dotted=dotted_autoencoder,
  ),
  "kl": CheckpointFormat(
    "KL-f8 first stage of Stable Diffusion or latent diffusion, or "
    "diffusers' AutoencoderKL (nets.autoencoder)",
    {"autoencoder": sizes(KLModel)},
    _kl,
    fixed(autoencoder),
    _FIRST_STAGE,
    diffusers=diffusers_models.kl,
    dotted=dotted_autoencoder,
  ),
  "unet": _STABLE_DIFFUSION,
  "difffae_unet": dataclasses.replace(
    _STABLE_DIFFUSION,
    what="the same for the U-Net of DiffFAE to start from (nets.unet)",
    published={
      "unet": sizes(
        UNet,
        *_COMPUTED,
        in_channels=8,
        context_dim=192,
        condition_dim=512,
        adain="replace",
      )
    },
  ),
}
