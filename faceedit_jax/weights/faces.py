"""Key maps of the published face networks: ArcFace and DECA."""

import re
from collections.abc import Mapping
from typing import Any

from faceedit_jax.models.faces.estimator import DetailDecoder, Estimator
from faceedit_jax.models.faces.iresnet import IResNet
from faceedit_jax.models.faces.irse import IRSE
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
from faceedit_jax.weights.keymap import Target, from_rules

_IRESNET = from_rules(
  [
    (r"layer(\d)\.(\d+)\.(bn[123])", r"layer\1_\2/\3", "norm"),
    (r"layer(\d)\.(\d+)\.(conv[12])", r"layer\1_\2/\3", "conv"),
    (r"layer(\d)\.(\d+)\.prelu", r"layer\1_\2/prelu", "norm"),
    (r"layer(\d)\.(\d+)\.downsample\.0", r"layer\1_\2/shortcut", "conv"),
    (r"layer(\d)\.(\d+)\.downsample\.1", r"layer\1_\2/bn_shortcut", "norm"),
    (r"conv1", r"conv1", "conv"),
    (r"(bn[12]|prelu)", r"\1", "norm"),
    (r"fc", r"fc", "linear"),
    (r"features", r"bn_features", "norm"),
  ]
)


def iresnet(key: str) -> Target | None:
  """Key map of `IResNet` (arcface_torch backbone)."""
  return _IRESNET(key)


def iresnet_hint(state: Mapping[str, Any]) -> str:
  """What the keys of an iresnet say about its size."""
  found = [re.match(r"layer([1-4])\.(\d+)\.", key) for key in state]
  blocks = {m.groups() for m in found if m}
  stages = [sum(s == str(i) for s, _ in blocks) for i in range(1, 5)]
  if 0 in stages:
    return ""
  stages = ",".join(map(str, stages))
  return f"the file's blocks are --config.nets.identity.stages={stages}"


_IRSE = from_rules(
  [
    (r"input_layer\.0", r"conv_in", "conv"),
    (r"input_layer\.1", r"bn_in", "norm"),
    (r"input_layer\.2", r"prelu_in", "norm"),
    (r"body\.(\d+)\.shortcut_layer\.0", r"block_\1/shortcut", "conv"),
    (r"body\.(\d+)\.shortcut_layer\.1", r"block_\1/bn_shortcut", "norm"),
    (r"body\.(\d+)\.res_layer\.0", r"block_\1/bn1", "norm"),
    (r"body\.(\d+)\.res_layer\.1", r"block_\1/conv1", "conv"),
    (r"body\.(\d+)\.res_layer\.2", r"block_\1/prelu", "norm"),
    (r"body\.(\d+)\.res_layer\.3", r"block_\1/conv2", "conv"),
    (r"body\.(\d+)\.res_layer\.4", r"block_\1/bn2", "norm"),
    (
      r"body\.(\d+)\.res_layer\.5\.(fc[12])",
      r"block_\1/squeeze/\2",
      "pointwise",
    ),
    (r"output_layer\.0", r"bn_out", "norm"),
    (r"output_layer\.3", r"fc", "linear"),
    (r"output_layer\.4", r"bn_features", "norm"),
  ]
)


def irse(key: str) -> Target | None:
  """Key map of `IRSE` (TreB1eN's and pSp's backbone)."""
  return _IRSE(key)


_ENCODER = from_rules(
  [
    (
      r"encoder\.layer(\d)\.(\d+)\.(bn[123])",
      r"encoder/layer\1_\2/\3",
      "norm",
    ),
    (
      r"encoder\.layer(\d)\.(\d+)\.(conv[123])",
      r"encoder/layer\1_\2/\3",
      "conv",
    ),
    (
      r"encoder\.layer(\d)\.(\d+)\.downsample\.0",
      r"encoder/layer\1_\2/shortcut",
      "conv",
    ),
    (
      r"encoder\.layer(\d)\.(\d+)\.downsample\.1",
      r"encoder/layer\1_\2/bn_shortcut",
      "norm",
    ),
    (r"encoder\.conv1", r"encoder/conv1", "conv"),
    (r"encoder\.bn1", r"encoder/bn1", "norm"),
    (r"layers\.0", r"hidden_layer", "linear"),
    (r"layers\.2", r"output_layer", "linear"),
  ]
)


def deca_encoder(key: str) -> Target | None:
  """Key map of `Estimator` (DECA's `E_flame` and `E_detail`)."""
  return _ENCODER(key)


# Torch index of each convolution and norm of the detail decoder.
_DETAIL = from_rules(
  [
    (r"l1\.0", r"start", "linear"),
    (r"conv_blocks\.0", r"bn_0", "norm"),
    *(
      rule
      for i, index in enumerate((2, 6, 10, 14, 18), 1)
      for rule in (
        (rf"conv_blocks\.{index}", rf"conv_{i}", "conv"),
        (rf"conv_blocks\.{index + 1}", rf"bn_{i}", "norm"),
      )
    ),
    (r"conv_blocks\.21", r"conv_6", "conv"),
  ]
)


def deca_detail_decoder(key: str) -> Target | None:
  """Key map of `DetailDecoder` (DECA's `D_detail`)."""
  return _DETAIL(key)


def _iresnet(nets: Sizes) -> Net:
  options = fields_of(nets["identity"])
  side = options.pop("input_size")
  return IResNet(**options), (picture(side),)


def _deca(nets: Sizes) -> Net:
  # Gaze, points and the face logit are ours: DECA has no such heads.
  section = fields_of(nets["estimator"], "heads")
  net = Estimator(**section | {"outputs": dict(section["outputs"])})
  return net, (picture(net.input_size),)


def _deca_detail(nets: Sizes) -> Net:
  outputs = {"detail": nets["detail"]["size"]}
  return _deca({"estimator": {**nets["estimator"], "outputs": outputs}})


def _detail_decoder(nets: Sizes) -> Net:
  # The section has the encoder's code and the files beside.
  widths = {k: v for k, v in nets["detail"].items() if k == "widths"}
  expression = nets["estimator"]["outputs"]["expression"]
  size = 3 + expression + nets["detail"]["size"]  # jaw, expression, detail
  return DetailDecoder(**widths), (array(1, size),)


def _irse(nets: Sizes) -> Net:
  del nets  # there is one size
  return IRSE(), (picture(112),)


_DECA_SIZES = sizes(
  Estimator,
  "heads",
  outputs={
    "shape": 100,
    "albedo": 50,
    "expression": 50,
    "pose": 6,
    "camera": 3,
    "light": 27,
  },
)
_DETAIL_SIZES = {"size": 128, "widths": DetailDecoder.widths}
FORMATS: Mapping[str, CheckpointFormat] = {
  "deca": CheckpointFormat(
    "coarse encoder in deca_model.tar (nets.estimator)",
    {"estimator": _DECA_SIZES},
    _deca,
    fixed(deca_encoder),
    ("E_flame", ""),
  ),
  "deca_detail_encoder": CheckpointFormat(
    "detail encoder in deca_model.tar (nets.estimator, nets.detail)",
    {"estimator": _DECA_SIZES, "detail": _DETAIL_SIZES},
    _deca_detail,
    fixed(deca_encoder),
    ("E_detail", ""),
  ),
  "deca_detail_decoder": CheckpointFormat(
    "detail decoder in deca_model.tar (nets.estimator, nets.detail)",
    {"estimator": _DECA_SIZES, "detail": _DETAIL_SIZES},
    _detail_decoder,
    fixed(deca_detail_decoder),
    ("D_detail", ""),
  ),
  "arcface": CheckpointFormat(
    "iresnet50 backbone of arcface_torch (nets.identity; iresnet100: "
    "--config.nets.identity.stages=3,13,30,3)",
    {"identity": {**sizes(IResNet), "input_size": 112}},
    _iresnet,
    fixed(iresnet),
    ("state_dict_backbone", "backbone.", "model.", ""),
    hint=iresnet_hint,
  ),
  "arcface_irse50": CheckpointFormat(
    "IR-SE-50 backbone of TreB1eN and pSp (models/faces/irse.py); trained on "
    "BGR",
    {},
    _irse,
    fixed(irse),
  ),
}
