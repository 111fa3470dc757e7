"""The classes of diffusers that compute what our nets do."""

import dataclasses
from collections.abc import Callable
from typing import Any

from faceedit_jax.weights import diffusers_names
from faceedit_jax.weights.diffusers_names import Naming


@dataclasses.dataclass(frozen=True)
class DiffusersModel:
  """A class of diffusers.

  Attributes:
    cls: its name.
    net: name of our net in a config's `nets` and in a trained stage.
    naming: diffusers' names of a net's parameters.
    options: of a net -> the arguments of the class; it raises a ValueError of
      one line when the class cannot compute what the net does.
  """

  cls: str
  net: str
  naming: Callable[[Any], Naming]
  options: Callable[[Any], dict[str, Any]]


def _first_stage(net: Any) -> dict[str, Any]:
  attends = [level in net.attention_levels for level, _ in enumerate(net.mult)]
  down = ["Attn" * a + "DownEncoderBlock2D" for a in attends]
  up = ["Attn" * a + "UpDecoderBlock2D" for a in reversed(attends)]
  return {
    "in_channels": net.in_channels,
    "out_channels": net.in_channels,
    "down_block_types": down,
    "up_block_types": up,
    "block_out_channels": [net.channels * factor for factor in net.mult],
    "layers_per_block": net.res_blocks,
    "act_fn": "silu",
    "latent_channels": net.z_channels,
    "norm_num_groups": net.groups,
  }


def _vq(net: Any) -> dict[str, Any]:
  return {
    **_first_stage(net),
    "num_vq_embeddings": net.codes,
    "vq_embed_dim": net.embed_dim,
    # Latents of VQ models are not scaled.
    "scaling_factor": 1.0,
  }


def _kl(net: Any) -> dict[str, Any]:
  if not net.double_z or net.embed_dim != net.z_channels:
    raise ValueError(
      "diffusers' AutoencoderKL has as many channels in the encoder's mean as "
      f"in the latent; this net has z_channels={net.z_channels}, "
      f"embed_dim={net.embed_dim}, double_z={net.double_z}"
    )
  return _first_stage(net)


def _unet(net: Any) -> dict[str, Any]:
  unlike = {
    "adain": net.adain != "none",
    "attention": net.attention != "transformer",
    "updown": net.updown,
  }
  for field, differs in unlike.items():
    if differs:
      raise ValueError(
        f"diffusers' UNet2DConditionModel has no layer for {field}="
        f"{getattr(net, field)!r}; no net of diffusers computes what this one "
        "does"
      )
  attends = [level in net.attention_levels for level, _ in enumerate(net.mult)]
  widths = [net.channels * factor for factor in net.mult]
  heads: Any = net.heads
  if net.head_channels is not None:
    heads = [width // net.head_channels for width in widths]
  return {
    "in_channels": net.in_channels,
    "out_channels": net.out_channels,
    "down_block_types": ["CrossAttn" * a + "DownBlock2D" for a in attends],
    "up_block_types": ["CrossAttn" * a + "UpBlock2D" for a in attends[::-1]],
    "block_out_channels": widths,
    "layers_per_block": net.res_blocks,
    "norm_num_groups": net.groups,
    "cross_attention_dim": net.context_dim,
    "transformer_layers_per_block": net.depth,
    "attention_head_dim": heads,  # so called there
    "num_class_embeds": net.classes,
    "resnet_time_scale_shift": "scale_shift" if net.scale_shift else "default",
  }


vq = DiffusersModel("VQModel", "autoencoder", diffusers_names.autoencoder, _vq)
kl = DiffusersModel(
  "AutoencoderKL", "autoencoder", diffusers_names.autoencoder, _kl
)
unet = DiffusersModel(
  "UNet2DConditionModel", "unet", diffusers_names.unet, _unet
)
