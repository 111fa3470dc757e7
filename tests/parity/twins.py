"""Cases made from recorded ones, with options that no recording here has.

Their outputs come from a second writing of the published formulas, in NumPy
float64 where it is short, which the recorded case is held against first.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.parity import harness

COPIES = Path(__file__).parent / "fixtures"
# What a json says of the arrays that a twin has changed.
STALE = ("float32_vs_float64_max_abs", "n_state_tensors", "out_stats")


def twin(
  case: harness.Case, arrays: Mapping[str, np.ndarray], drop=(), **options
) -> harness.Case:
  """A case with other arrays and options.

  Args:
    case: the recorded one.
    arrays: to add or replace, by their names in the npz.
    drop: beginnings of the names of arrays to leave out.
    options: to add or replace in `config`.
  """
  info = copy.deepcopy(case.info)
  info["config"] |= options
  for name in STALE:
    info.pop(name, None)
  kept = {
    name: value
    for name, value in case.arrays.items()
    if not name.startswith(tuple(drop) or "\0")
  }
  return harness.Case(info, kept | dict(arrays))


def fault(case: harness.Case) -> str:
  """What is wrong with a case; empty when nothing is."""
  try:
    rows = harness.check(case, harness.find_runner(case.name))
  except AssertionError as error:
    return str(error)
  return harness.failures(case, rows)


def softmax(x: np.ndarray, axis) -> np.ndarray:
  x = np.exp(x - x.max(axis, keepdims=True))
  return x / x.sum(axis, keepdims=True)


def layer_norm(x, weight, bias, eps) -> np.ndarray:
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * weight + bias


def gru(x, h, state, prefix="gru.") -> np.ndarray:
  """One step of torch's GRUCell."""

  def sigmoid(x):
    return 1 / (1 + np.exp(-x))

  gates = [
    np.split(
      v @ state[f"{prefix}weight_{k}"].T + state[f"{prefix}bias_{k}"], 3, -1
    )
    for v, k in ((x, "ih"), (h, "hh"))
  ]
  (ir, iz, inew), (hr, hz, hnew) = gates
  z = sigmoid(iz + hz)
  return (1 - z) * np.tanh(inew + sigmoid(ir + hr) * hnew) + z * h


def lsd_slots(state, features, noise, iterations: int, heads: int):
  """MultiHeadSTEVESA of latent-slot-diffusion.

  Args:
    state: weights by torch key.
    features: (b, t, c, h, w).
    noise: (b, k, d), with a shared mean.
    iterations: per frame.
    heads: of the attention.

  Returns:
    Tokens (b, t, k, e) and the softmax (b, t, heads, n, k) of the last
    iteration of each frame.
  """
  state = {k: np.asarray(v, np.float64) for k, v in state.items()}

  def norm(name, x):
    return layer_norm(x, state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

  def linear(name, x):
    bias = state.get(f"{name}.bias", 0.0)
    return x @ state[f"{name}.weight"].T + bias

  b, frames, c = features.shape[:3]
  side = features.shape[3]
  middles = (np.arange(side) + 0.5) / side
  y, x = np.meshgrid(middles, middles, indexing="ij")
  grid = np.stack([y, x, 1 - y, 1 - x])
  weight = state["pos.projection.weight"][:, :, 0, 0]
  place = np.einsum("oc,chw->ohw", weight, grid)
  place = place + state["pos.projection.bias"][:, None, None]
  inputs = np.moveaxis(features + place, 2, -1).reshape(b, frames, -1, c)
  inputs = linear("in_mlp.0", norm("in_layer_norm", inputs))
  inputs = norm("norm_inputs", linear("in_mlp.2", np.maximum(inputs, 0)))
  slots = state["slot_mu"]
  if "slot_log_sigma" in state:
    slots = slots + np.exp(state["slot_log_sigma"]) * noise
  slots = np.repeat(slots, b // len(slots), 0)
  count, size = slots.shape[1:]
  tokens, maps = [], []
  for frame in range(frames):
    for _ in range(iterations):
      query = linear("project_q", norm("norm_slots", slots))
      parts = [
        v.reshape(b, -1, heads, size // heads)
        for v in (
          query,
          linear("project_k", inputs[:, frame]),
          linear("project_v", inputs[:, frame]),
        )
      ]
      logits = np.einsum("bnhd,bkhd->bnhk", parts[1], parts[0]) / size**0.5
      attention = softmax(logits, (2, 3))
      weights = attention + 1e-8
      weights = weights / weights.sum(1, keepdims=True)
      update = np.einsum("bnhk,bnhd->bkhd", weights, parts[2])
      slots = gru(update.reshape(b, count, size), slots, state)
      hidden = np.maximum(linear("mlp.0", norm("norm_mlp", slots)), 0)
      slots = slots + linear("mlp.2", hidden)
    tokens.append(linear("out_linear", norm("out_layer_norm", slots)))
    maps.append(attention.transpose(0, 2, 1, 3))
  return np.stack(tokens, 1), np.stack(maps, 1)


def savi_slots(state, slots, inputs, iterations: int, heads: int):
  """SlotAttention of slot-attention-video.

  Args:
    state: arrays by dotted Flax path.
    slots: (b, k, d).
    inputs: (b, n, c).
    iterations: how often they are updated.
    heads: of the attention.

  Returns:
    Slots (b, k, d) and the softmax (b, heads, k, n) of each iteration.
  """
  state = {k: np.asarray(v, np.float64) for k, v in state.items()}

  def norm(name, x):
    return layer_norm(x, state[f"{name}.scale"], state[f"{name}.bias"], 1e-6)

  def linear(name, x):
    return x @ state[f"{name}.kernel"] + state.get(f"{name}.bias", 0.0)

  def project(letter, x):
    return np.einsum(
      "bnc,chd->bnhd", x, state[f"general_dense_{letter}_0.kernel"]
    )

  def sigmoid(x):
    return 1 / (1 + np.exp(-x))

  inputs = norm("LayerNorm_1", inputs)
  key, value = project("k", inputs), project("v", inputs)
  maps = []
  for _ in range(iterations):
    query = project("q", norm("LayerNorm_0", slots))
    logits = np.einsum("bkhd,bnhd->bhkn", query, key) / query.shape[-1] ** 0.5
    maps.append(softmax(logits, 2))
    weights = maps[-1] / (maps[-1].sum(-1, keepdims=True) + 1e-8)
    update = np.einsum("bhkn,bnhd->bkhd", weights, value)
    if heads > 1:
      mixing = "InvertedDotProductAttention_0.DenseGeneral_0"
      update = np.einsum("bkhd,hde->bke", update, state[f"{mixing}.kernel"])
      update = update + state[f"{mixing}.bias"]
    else:
      update = update[:, :, 0]
    gate = {
      name: linear(
        f"GRU_0.GRUCell_0.{name}", update if name[0] == "i" else slots
      )
      for name in ("ir", "iz", "in", "hr", "hz", "hn")
    }
    z = sigmoid(gate["iz"] + gate["hz"])
    reset = sigmoid(gate["ir"] + gate["hr"])
    slots = (1 - z) * np.tanh(gate["in"] + reset * gate["hn"]) + z * slots
    if any(name.startswith("MLP_0.") for name in state):
      hidden = linear("MLP_0.dense_mlp_0", norm("MLP_0.LayerNorm_0", slots))
      slots = slots + linear("MLP_0.dense_mlp_1", np.maximum(hidden, 0))
  return slots, maps


def up_convolution(x, kernel, bias, stride: int) -> np.ndarray:
  """Flax's ConvTranspose with padding SAME, (n, h, w, c), then ReLU."""
  side = kernel.shape[0]
  n, height, width, _ = x.shape
  spread = np.zeros(
    (n, (height - 1) * stride + 1, (width - 1) * stride + 1, x.shape[-1])
  )
  spread[:, ::stride, ::stride] = x
  # SAME: the output is `stride` times as large; what is over goes to the end.
  total = side + stride - 2
  before = side - 1 if stride > side - 1 else -(-total // 2)
  padding = (before, total - before)
  spread = np.pad(spread, ((0, 0), padding, padding, (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(
    spread, (side, side), (1, 2)
  )
  out = np.einsum("nhwcij,ijco->nhwo", windows, kernel) + bias
  return np.maximum(out, 0)


def savi_picture(state, slots, strides, early: bool, join: str) -> dict:
  """SpatialBroadcastDecoder of slot-attention-video, by recorded names.

  Args:
    state: arrays by dotted Flax path.
    slots: (b, t, k, d).
    strides: of the transposed convolutions.
    early: whether features are merged before the picture is read.
    join: "project_add" or "concat".
  """
  state = {k: np.asarray(v, np.float64) for k, v in state.items()}

  def linear(name, x):
    return x @ state[f"{name}.kernel"] + state[f"{name}.bias"]

  place = state["PositionEmbedding_0.pos_embedding"]
  b, frames, count, size = slots.shape
  height, width = place.shape[1:3]
  h = np.broadcast_to(
    slots.reshape(-1, 1, 1, size), (b * frames * count, height, width, size)
  )
  if join == "concat":
    place = np.broadcast_to(place, (*h.shape[:-1], place.shape[-1]))
    h = np.concatenate([h, place], -1)
  else:
    h = h + linear("PositionEmbedding_0.dense_pe_0", place)
  for i, stride in enumerate(strides):
    name = f"CNN_0.conv_{i}"
    h = up_convolution(
      h, state[f"{name}.kernel"], state[f"{name}.bias"], stride
    )
  h = h.reshape(b, frames, count, *h.shape[1:])
  alphas = softmax(linear("alpha_logits", h), 2)
  readout = "Readout_0.Dense_0.Dense_0"
  out = {"alphas": alphas, "segmentations": alphas.argmax(2)}
  if early:
    picture = linear(readout, (h * alphas).sum(2))
    return out | dict.fromkeys(("rgb", "rgb_slots", "rgb_combined"), picture)
  parts = linear(readout, h)
  picture = (parts * alphas).sum(2)
  out |= {"rgb_slots": parts, "rgb_masked": parts * alphas}
  return out | {"rgb": picture, "rgb_combined": picture}
