"""diffusers' names of our parameters, one table for both directions.

A table is made for one net: which block of diffusers a block of ours is hangs
on how many levels the net has and how many blocks a level has.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from faceedit_jax.core.typing import PyTree
from faceedit_jax.weights.keymap import BACK, KeyMap, Target, target

# Our "/"-joined module -> (module of diffusers, kind of weight), or None.
Naming = Callable[[str], tuple[str, str] | None]
Table = Mapping[str, Target]  # by key of diffusers

_TOP = {
  "conv_in": ("conv_in", "conv"),
  "conv_out": ("conv_out", "conv"),
  "norm_out": ("conv_norm_out", "norm"),
  "time_in": ("time_embedding.linear_1", "linear"),
  "time_out": ("time_embedding.linear_2", "linear"),
  "label_emb": ("class_embedding", "same"),
  "quant_conv": ("quant_conv", "conv"),
  "post_quant_conv": ("post_quant_conv", "conv"),
  "quantizer": ("quantize.embedding", "same"),
}
_BLOCK = {
  "norm1": ("norm1", "norm"),
  "conv1": ("conv1", "conv"),
  "time": ("time_emb_proj", "linear"),
  "norm2": ("norm2", "norm"),
  "conv2": ("conv2", "conv"),
  "shortcut": ("conv_shortcut", "conv"),
}
_PIXELS = {
  "norm": ("group_norm", "norm"),
  "q": ("to_q", "pointwise"),
  "k": ("to_k", "pointwise"),
  "v": ("to_v", "pointwise"),
  "proj_out": ("to_out.0", "pointwise"),
}
_TOKENS = {
  "norm": ("norm", "norm"),
  "proj_in": ("proj_in", "pointwise_conv"),
  "proj_out": ("proj_out", "pointwise_conv"),
}
_TRANSFORMER = {
  **{f"norm{i}": (f"norm{i}", "norm") for i in (1, 2, 3)},
  **{
    f"attn{i}/to_{x}": (f"attn{i}.to_{x}" + ".0" * (x == "out"), "linear")
    for i in (1, 2)
    for x in ("q", "k", "v", "out")
  },
  "ff_in": ("ff.net.0.proj", "linear"),
  "ff_out": ("ff.net.2", "linear"),
}
# Attention of first stages before diffusers 0.12.
_OLD = (
  (".query.", ".to_q."),
  (".key.", ".to_k."),
  (".value.", ".to_v."),
  (".proj_attn.", ".to_out.0."),
)
_MINE = re.compile(r"((en|de)coder\.)?(down_blocks|mid_block|up_blocks)\.")


def autoencoder(net: Any) -> Naming:
  """Naming of a `VQModel` or `KLModel`."""
  top = len(net.mult) - 1

  def naming(path: str) -> tuple[str, str] | None:
    half, _, rest = path.partition("/")
    if half not in ("encoder", "decoder"):
      return _TOP.get(half)
    name, _, inner = rest.partition("/")
    if name in _TOP:
      theirs, kind = _TOP[name]
      return f"{half}.{theirs}", kind
    if found := re.fullmatch(r"mid_(block|attn)_(\d)", name):
      part, index = found[1], int(found[2]) - 1
      where = "mid_block"
    else:
      found = re.fullmatch(r"(down|up)_(\d+)_([a-z]+)_?(\d*)", name)
      side, level, part, index = found.groups()
      # Their decoder counts from the smallest map.
      level = int(level) if side == "down" else top - int(level)
      where = f"{side}_blocks.{level}"
    if part in ("downsample", "upsample"):
      return f"{half}.{where}.{part}rs.0.conv", "conv"
    folder, inside = {
      "block": ("resnets", _BLOCK),
      "attn": ("attentions", _PIXELS),
    }[part]
    theirs, kind = inside[inner]
    return f"{half}.{where}.{folder}.{index}.{theirs}", kind

  return naming


def unet(net: Any) -> Naming:
  """Naming of a `UNet`; None for what diffusers' class does not have."""
  per_level = net.res_blocks + 1

  def place(side: str, number: int, part: str) -> str:
    if side == "middle":
      return ("resnets.0", "attentions.0", "resnets.1")[number]
    # Number 0 of the way down is the first convolution.
    level, index = divmod(number - (side == "input"), per_level)
    folder = {"res": "resnets", "attn": "attentions"}.get(part)
    last = f"{folder}.{index}" if folder else f"{part}samplers.0.conv"
    return f"{level}.{last}"

  def naming(path: str) -> tuple[str, str] | None:
    name, _, inner = path.partition("/")
    if name in _TOP:
      return _TOP[name]
    side, number, part = name.split("_")
    blocks = {"input": "down_blocks", "output": "up_blocks"}
    where = f"{blocks.get(side, 'mid_block')}.{place(side, int(number), part)}"
    if not inner:
      return where, "conv"
    if found := re.fullmatch(r"block_(\d+)/(.+)", inner):
      where = f"{where}.transformer_blocks.{found[1]}"
      known, inner = _TRANSFORMER, found[2]
    else:
      known = _TOKENS if part == "attn" else _BLOCK
    if inner not in known:
      return None
    theirs, kind = known[inner]
    return f"{where}.{theirs}", kind

  return naming


def table(naming: Naming, wanted: PyTree) -> Table:
  """All names of one net.

  Args:
    naming: of the net.
    wanted: its variables, or their shapes.

  Returns:
    {key of diffusers: target}; parameters that diffusers lacks are left out.
  """
  rows: dict[str, Target] = {}
  for path in flax.traverse_util.flatten_dict(wanted, sep="/"):
    collection, _, inner = path.partition("/")
    module, _, leaf = inner.rpartition("/")
    found = naming(module)
    if collection != "params" or found is None:
      continue
    theirs, kind = found
    if leaf == "embedding":
      rows[f"{theirs}.weight"] = Target((*module.split("/"), leaf))
      continue
    name = "bias" if leaf == "bias" else "weight"
    rows[f"{theirs}.{name}"] = target(module, name, kind)
  return rows


def keymap(rows: Table) -> KeyMap:
  """The key map of a table; it raises KeyError for any other key."""

  def of(key: str) -> Target:
    for old, new in _OLD:
      key = key.replace(old, new)
    return rows[key]

  return of


def recognised(state: Mapping[str, Any]) -> bool:
  """Whether the keys of a file are diffusers'."""
  return any(map(_MINE.match, state))


def rename(
  arrays: Mapping[str, np.ndarray], rows: Table
) -> dict[str, np.ndarray]:
  """Our arrays (by "/"-joined path) under diffusers' keys and layouts."""
  return {
    key: np.ascontiguousarray(
      BACK[goal.layout](arrays["/".join((goal.collection, *goal.path))])
    )
    for key, goal in rows.items()
  }
