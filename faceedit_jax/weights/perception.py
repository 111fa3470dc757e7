"""Key maps of nets that compare pictures, and of the patch discriminator."""

import re
from collections.abc import Mapping
from typing import Any

from faceedit_jax.models.faces import deep3d as deep3d_lib
from faceedit_jax.models.perception.inception import Inception
from faceedit_jax.models.perception.lpips import LPIPS
from faceedit_jax.weights import faces
from faceedit_jax.weights.format import (
  CheckpointFormat,
  Net,
  Sizes,
  fixed,
  picture,
)
from faceedit_jax.weights.keymap import Target, from_rules, target


def lpips(key: str) -> Target | None:
  """Key map of `LPIPS`.

  Args:
    key: as in the state of the published module, where the linear weights
      occur twice, or as in its parts: torchvision's classification network,
      whose convolutions have the same numbers, and the linear weights.

  Returns:
    The target, or None: the scaling constants are ours already, and of the
    classification network its last layers are not needed.
  """
  if key.startswith(("scaling_layer.", "lins.", "classifier.")):
    return None
  if found := re.fullmatch(r"lin(\d)\.model\.1\.weight", key):
    return Target((f"lin_{found[1]}",), "flat")
  if found := re.fullmatch(
    r"(?:net\.slice\d|features)\.(\d+)\.(weight|bias)", key
  ):
    return target(f"conv_{found[1]}", found[2], "conv")
  raise KeyError(f"key map: no rule for {key!r}")


def lpips_hint(state: Mapping[str, Any]) -> str:
  """Which of its two parts is not there."""
  trunk = any(k.startswith(("features.", "net.")) for k in state)
  linear = any(k.startswith("lin0.") for k in state)
  if trunk == linear:
    return ""
  missing = "linear weights" if trunk else "torchvision's convolutions"
  return f"{missing} are not among the files: give theirs as another FILE"


def patch_discriminator(key: str) -> Target | None:
  """Key map of `PatchDiscriminator` (`main.<index>.<leaf>`)."""
  found = re.fullmatch(r"main\.(\d+)\.(\w+)", key)
  if not found:
    raise KeyError(f"key map: no rule for {key!r}")
  index = int(found[1])
  # Convolution, norm, activation repeat from index 2 on.
  number, rest = (0, 0) if index == 0 else divmod(index - 2 + 3, 3)
  kind = "conv" if rest == 0 else "norm"
  return target(f"{kind}_{number}", found[2], kind)


_INCEPTION = from_rules(
  [
    (r"(Conv2d_\w+)\.conv", r"\1/conv", "conv"),
    (r"(Conv2d_\w+)\.bn", r"\1/bn", "norm"),
    (r"(Mixed_\w+)\.(branch\w+)\.conv", r"\1/\2/conv", "conv"),
    (r"(Mixed_\w+)\.(branch\w+)\.bn", r"\1/\2/bn", "norm"),
    (r"fc", r"fc", "linear"),
  ]
)


def inception(key: str) -> Target | None:
  """Key map of `Inception` (torchvision's names, as in pytorch-fid's file)."""
  return _INCEPTION(key)


def inception_torchvision(key: str) -> Target | None:
  """Key map of torchvision's `Inception`; its helping classifier is left."""
  return None if key.startswith("AuxLogits.") else _INCEPTION(key)


def deep3d(key: str) -> Target | None:
  """Key map of `Deep3D` (`net_recon` of Deep3DFaceRecon_pytorch)."""
  if found := re.fullmatch(r"final_layers\.(\d)\.(weight|bias)", key):
    return target(f"head_{found[1]}", found[2], "pointwise")
  if key.startswith("backbone."):
    return faces.deca_encoder("encoder." + key.removeprefix("backbone."))
  raise KeyError(f"key map: no rule for {key!r}")


def _inception(nets: Sizes) -> Net:
  del nets  # as the others here, it has one size
  return Inception(), (picture(299),)


def _inception_torchvision(nets: Sizes) -> Net:
  del nets
  return Inception(classes=1000, tensorflow=False), (picture(299),)


def _deep3d(nets: Sizes) -> Net:
  del nets
  return deep3d_lib.Deep3D(), (picture(deep3d_lib.SIZE),)


def _lpips(trunk: str, layers: str) -> CheckpointFormat:
  return CheckpointFormat(
    f"LPIPS with {layers}: all of the module, or torchvision's "
    f"{layers.lower()} and the linear weights, two FILEs",
    {},
    lambda nets: (LPIPS(trunk), (picture(64), picture(64))),
    fixed(lpips),
    # A first stage brings along the LPIPS that it was trained with.
    ("first_stage_model.loss.perceptual_loss.", "loss.perceptual_loss.", ""),
    hint=lpips_hint,
  )


FORMATS: Mapping[str, CheckpointFormat] = {
  "lpips_vgg": _lpips("vgg", "VGG16"),
  "lpips_alex": _lpips("alex", "AlexNet"),
  "inception": CheckpointFormat(
    "Inception of pytorch-fid (pt_inception-2015-12-05-6726825d.pth)",
    {},
    _inception,
    fixed(inception),
  ),
  "inception_torchvision": CheckpointFormat(
    "Inception of torchvision (inception_v3_google-0cc3c7bd.pth), which the "
    "FID of StarGAN v2 reads",
    {},
    _inception_torchvision,
    fixed(inception_torchvision),
  ),
  "deep3d": CheckpointFormat(
    "coefficient net of Deep3DFaceRecon_pytorch (epoch_20.pth)",
    {},
    _deep3d,
    fixed(deep3d),
    ("net_recon", ""),
  ),
}
