"""Key maps of the published slot-attention networks.

LSD: JindongJiang/latent-slot-diffusion. SlotDiffusion:
Wuziyi616/SlotDiffusion. SAVi: google-research/slot-attention-video, whose
weights are Flax trees, here with dots between the parts of a path.
"""

import re
from collections.abc import Mapping

import numpy as np

from faceedit_jax.weights.keymap import KeyMap, Target, from_rules

_GRU = {
  "weight_ih": ("ih", "kernel", "linear"),
  "weight_hh": ("hh", "kernel", "linear"),
  "bias_ih": ("ih", "bias", "same"),
  "bias_hh": ("hh", "bias", "same"),
}


def _with_gru(rules: KeyMap, module: str) -> KeyMap:
  def keymap(key: str) -> Target | None:
    if key.startswith("gru."):
      unit, leaf, layout = _GRU[key.removeprefix("gru.")]
      parts = [p for p in (module, "gru", unit, leaf) if p]
      return Target(tuple(parts), layout)
    return rules(key)

  return keymap


# `SlotAttention` of SlotDiffusion.
slotdiffusion_attention = _with_gru(
  from_rules(
    [
      (r"norm_inputs", r"norm_inputs", "norm"),
      (r"project_q\.0", r"norm_slots", "norm"),
      (r"project_q\.1", r"project_q", "linear"),
      (r"project_([kv])", r"project_\1", "linear"),
      (r"mlp\.0", r"norm_mlp", "norm"),
      (r"mlp\.1", r"mlp_in", "linear"),
      (r"mlp\.3", r"mlp_out", "linear"),
    ]
  ),
  "",
)

_LSD_HEAD = _with_gru(
  from_rules(
    [
      (r"pos\.projection", r"position", "conv"),
      (r"in_layer_norm", r"norm_in", "norm"),
      (r"in_mlp\.0", r"mlp_in", "linear"),
      (r"in_mlp\.2", r"mlp_out", "linear"),
      (r"norm_(inputs|slots|mlp)", r"attention/norm_\1", "norm"),
      (r"project_([qkv])", r"attention/project_\1", "linear"),
      (r"mlp\.0", r"attention/mlp_in", "linear"),
      (r"mlp\.2", r"attention/mlp_out", "linear"),
      (r"out_layer_norm", r"norm_out", "norm"),
      (r"out_linear", r"out", "linear"),
    ]
  ),
  "attention",
)


def lsd_head(key: str) -> Target | None:
  """Key map of `SlotHead` (LSD's `slot_attn`)."""
  if key == "pos.pe":
    return None
  if key == "slot_mu":
    return Target(("mean",))
  if key == "slot_log_sigma":
    return Target(("log_deviation",))
  return _LSD_HEAD(key)


def _resnet(prefix: str, ours: str) -> list[tuple[str, str, str]]:
  n = prefix.count("(")
  return [
    (rf"{prefix}\.norm([12])", rf"{ours}/norm\{n + 1}", "norm"),
    (rf"{prefix}\.conv([12])", rf"{ours}/conv\{n + 1}", "conv"),
    (rf"{prefix}\.time_emb_proj", rf"{ours}/time", "linear"),
    (rf"{prefix}\.conv_shortcut", rf"{ours}/shortcut", "conv"),
  ]


def _attention(prefix: str, ours: str) -> list[tuple[str, str, str]]:
  n = prefix.count("(")
  return [
    (rf"{prefix}\.group_norm", rf"{ours}/norm", "norm"),
    (rf"{prefix}\.to_([qkv])", rf"{ours}/\{n + 1}", "linear"),
    (rf"{prefix}\.to_out\.0", rf"{ours}/proj_out", "linear"),
  ]


# `FeatureUNet` (LSD's `unet_encoder`).
lsd_unet = from_rules(
  [
    (r"downscale_cnn", r"stem", "conv"),
    (r"(conv_in|conv_out)", r"\1", "conv"),
    (r"conv_norm_out", r"norm_out", "norm"),
    (r"time_embedding\.linear_1", r"time_in", "linear"),
    (r"time_embedding\.linear_2", r"time_out", "linear"),
    *_resnet(r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"\1_\2_res_\3"),
    *_attention(
      r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", r"\1_\2_attn_\3"
    ),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.conv", r"down_\1_down", "conv"),
    (r"up_blocks\.(\d+)\.upsamplers\.0\.conv", r"up_\1_up", "conv"),
    *_resnet(r"mid_block\.resnets\.(\d+)", r"mid_res_\1"),
    *_attention(r"mid_block\.attentions\.0", r"mid_attn"),
  ]
)


def lsd(key: str) -> Target | None:
  """Key map of `RegionEncoder`: keys begin with `unet_encoder.` or
  `slot_attn.`."""
  group, _, rest = key.partition(".")
  module, keymap = {
    "unet_encoder": ("unet", lsd_unet),
    "slot_attn": ("head", lsd_head),
  }[group]
  goal = keymap(rest)
  return goal and goal._replace(path=(module, *goal.path))


def savi_attention(state: Mapping[str, np.ndarray]) -> dict:
  """Parameters of `SlotAttention` from a SAVi tree.

  Args:
    state: arrays by dotted Flax path.

  Returns:
    {"params": tree}. The gates that SAVi holds apart are put side by side;
    the state has a bias only in the "new" gate there.
  """
  norms = {"LayerNorm_0": "norm_slots", "LayerNorm_1": "norm_inputs"}
  layers = {}
  if any(key.startswith("MLP_0.") for key in state):
    norms |= {"MLP_0.LayerNorm_0": "norm_mlp"}
    layers = {"MLP_0.dense_mlp_0": "mlp_in", "MLP_0.dense_mlp_1": "mlp_out"}
  out: dict = {
    ours: {leaf: state[f"{theirs}.{leaf}"] for leaf in leaves}
    for names, leaves in (
      (norms, ("scale", "bias")),
      (layers, ("kernel", "bias")),
    )
    for theirs, ours in names.items()
  }
  for letter in "qkv":
    kernel = state[f"general_dense_{letter}_0.kernel"]
    out[f"project_{letter}"] = {"kernel": kernel.reshape(len(kernel), -1)}
  mixing = "InvertedDotProductAttention_0.DenseGeneral_0"
  if f"{mixing}.kernel" in state:
    kernel = state[f"{mixing}.kernel"]
    out["output"] = {
      "kernel": kernel.reshape(-1, kernel.shape[-1]),
      "bias": state[f"{mixing}.bias"],
    }
  gru = {
    k.removeprefix("GRU_0.GRUCell_0."): v
    for k, v in state.items()
    if k.startswith("GRU_0.")
  }
  none = np.zeros_like(gru["hn.bias"])
  out["gru"] = {
    "ih": {
      leaf: np.concatenate([gru[f"i{g}.{leaf}"] for g in "rzn"], -1)
      for leaf in ("kernel", "bias")
    },
    "hh": {
      "kernel": np.concatenate([gru[f"h{g}.kernel"] for g in "rzn"], -1),
      "bias": np.concatenate([none, none, gru["hn.bias"]]),
    },
  }
  return {"params": out}


def savi_decoder(key: str, position: str = "linear") -> Target | None:
  """Key map of `BroadcastDecoder` from a SAVi tree.

  Args:
    key: dotted Flax path.
    position: of the decoder; the tree holds the table of every kind, and only
      that of "gaussian" was drawn.
  """
  if key.endswith("pos_embedding"):
    return Target(("table",)) if position == "gaussian" else None
  module, _, leaf = key.rpartition(".")
  if found := re.fullmatch(r"CNN_0\.conv_(\d+)", module):
    return Target((f"conv_{found[1]}", leaf))
  ours = {
    "PositionEmbedding_0.dense_pe_0": "position",
    "alpha_logits": "alpha",
    "Readout_0.Dense_0.Dense_0": "readout",
  }
  return Target((ours[module], leaf))


_SLOT_ENCODER = from_rules(
  [
    (r"encoder\.(\d+)\.0", r"encoder/conv_\1", "conv"),
    (r"encoder\.(\d+)\.1", r"encoder/norm_\1", "norm"),
    (r"encoder_pos_embedding\.dense", r"encoder/position", "linear"),
    (r"encoder_out_layer\.0", r"encoder/norm_out", "norm"),
    (r"encoder_out_layer\.1", r"encoder/mlp_in", "linear"),
    (r"encoder_out_layer\.3", r"encoder/mlp_out", "linear"),
  ]
)


def slotdiffusion_encoder(key: str) -> Target | None:
  """Key map of `SlotEncoder` (SlotDiffusion's `SA` without its decoder)."""
  if key == "encoder_pos_embedding.grid":
    return None
  if key == "init_latents":
    return Target(("start",))
  if key.startswith("slot_attention."):
    goal = slotdiffusion_attention(key.removeprefix("slot_attention."))
    return goal and goal._replace(path=("attention", *goal.path))
  return _SLOT_ENCODER(key)


_SLOT_DECODER = from_rules(
  [
    (r"decoder\.(\d+)\.0", r"conv_\1", "conv_transpose"),
    (r"decoder\.(\d+)\.1", r"norm_\1", "norm"),
    (r"decoder\.alpha", r"alpha", "pointwise"),
    (r"decoder\.readout", r"readout", "pointwise"),
    (r"decoder_pos_embedding\.dense", r"position", "linear"),
  ]
)


def slotdiffusion_autoencoder(key: str) -> Target | None:
  """Key map of `SlotAutoencoder` behind `split_readout`."""
  if key == "decoder_pos_embedding.grid":
    return None
  part = "decoder" if key.startswith("decoder") else "encoder"
  rules = _SLOT_DECODER if part == "decoder" else slotdiffusion_encoder
  goal = rules(key)
  return goal and goal._replace(path=(part, *goal.path))


def split_readout(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """SlotDiffusion's state with the last layer of the decoder in two.

  Its last channel is the mask's logit, which is a layer of its own with us
  (`decoder.alpha` beside `decoder.readout`).
  """
  last = [k for k in state if re.fullmatch(r"decoder\.\d+\.(weight|bias)", k)]
  out = {k: v for k, v in state.items() if k not in last}
  for key in last:
    leaf = key.rpartition(".")[2]
    out[f"decoder.readout.{leaf}"] = state[key][:-1]
    out[f"decoder.alpha.{leaf}"] = state[key][-1:]
  return out
