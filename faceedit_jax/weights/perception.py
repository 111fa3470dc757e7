"""Key maps of the nets that judge pictures, and of the patch discriminator."""

import re

from faceedit_jax.weights import faces
from faceedit_jax.weights.keymap import Target, from_rules, target


def lpips(key: str) -> Target | None:
  """Key map of `LPIPS`.

  Args:
    key: as in the state of the published module. The linear weights occur
      there twice, and the scaling constants are ours already.

  Returns:
    The target, or None.
  """
  if key.startswith(("scaling_layer.", "lins.")):
    return None
  if found := re.fullmatch(r"lin(\d)\.model\.1\.weight", key):
    return Target((f"lin_{found[1]}",), "flat")
  if found := re.fullmatch(r"net\.slice\d\.(\d+)\.(weight|bias)", key):
    return target(f"conv_{found[1]}", found[2], "conv")
  raise KeyError(f"key map: no rule for {key!r}")


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


def deep3d(key: str) -> Target | None:
  """Key map of `Deep3D` (`net_recon` of Deep3DFaceRecon_pytorch)."""
  if found := re.fullmatch(r"final_layers\.(\d)\.(weight|bias)", key):
    return target(f"head_{found[1]}", found[2], "pointwise")
  if key.startswith("backbone."):
    return faces.deca_encoder("encoder." + key.removeprefix("backbone."))
  raise KeyError(f"key map: no rule for {key!r}")
