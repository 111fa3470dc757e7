"""Learned perceptual distance between pictures (LPIPS v0.1).

The perceptual loss of first stages such as DiffFAE's (Sec. 5.4); structure of
richzhang/PerceptualSimilarity. Without published weights the trunk is random
and the distance a random-feature one.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.nn.layers import conv, max_pool, resize

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
# (index in the published trunk, channels / width, kernel, stride, padding,
# pooling window in front or 0); a feature map is kept where `kept` says so.
_VGG = {
  "layers": (
    (0, 1, 3, 1, 1, 0),
    (2, 1, 3, 1, 1, 0),
    (5, 2, 3, 1, 1, 2),
    (7, 2, 3, 1, 1, 0),
    (10, 4, 3, 1, 1, 2),
    (12, 4, 3, 1, 1, 0),
    (14, 4, 3, 1, 1, 0),
    (17, 8, 3, 1, 1, 2),
    (19, 8, 3, 1, 1, 0),
    (21, 8, 3, 1, 1, 0),
    (24, 8, 3, 1, 1, 2),
    (26, 8, 3, 1, 1, 0),
    (28, 8, 3, 1, 1, 0),
  ),
  "kept": (2, 7, 14, 21, 28),
}
_ALEX = {
  "layers": (
    (0, 1, 11, 4, 2, 0),
    (3, 3, 5, 1, 2, 3),
    (6, 6, 3, 1, 1, 3),
    (8, 4, 3, 1, 1, 0),
    (10, 4, 3, 1, 1, 0),
  ),
  "kept": (0, 3, 6, 8, 10),
}


class LPIPS(nn.Module):
  """Distance of two pictures in the features of a classification network.

  Attributes:
    net: "vgg" (VGG16) or "alex" (AlexNet).
    width: channels of the first layer; 64 is the published size.
    dtype: compute dtype.
  """

  net: Literal["vgg", "alex"] = "vgg"
  width: int = 64
  dtype: Any = jnp.float32

  def setup(self):
    plan = _VGG if self.net == "vgg" else _ALEX
    self.trunk = {
      f"conv_{index}": conv(
        self.width * factor,
        kernel,
        stride,
        padding=padding,
        dtype=self.dtype,
        name=f"conv_{index}",
      )
      for index, factor, kernel, stride, padding, _ in plan["layers"]
    }
    widths = {layer[0]: self.width * layer[1] for layer in plan["layers"]}
    self.weights = [
      self.param(f"lin_{k}", _even, (widths[index],))
      for k, index in enumerate(plan["kept"])
    ]

  @typechecked
  def __call__(
    self, a: Image, b: Image, spatial: bool = False
  ) -> Float[Array, "b"] | Float[Array, "b h w"]:
    """Measures distances.

    Args:
      a: (b, h, w, 3) in [-1, 1].
      b: as `a`.
      spatial: whether a map is returned.

    Returns:
      (b,) float32, or with `spatial` (b, h, w) float32.
    """
    height, width = a.shape[1:3]
    total = 0.0
    for layer in self.layers(a, b):
      if spatial:
        total += resize(layer[..., None], height, width, False)[..., 0]
      else:
        total += layer.mean((1, 2))
    return total

  def layers(self, a: Image, b: Image) -> list[Float[Array, "b _ _"]]:
    """The weighted squared difference of each layer, (b, h_k, w_k)."""
    out = []
    for weight, x, y in zip(
      self.weights, self.features(a), self.features(b), strict=True
    ):
      difference = jnp.square(_unit(x) - _unit(y))
      out.append((difference * weight).sum(-1))
    return out

  @typechecked
  def features(self, x: Image) -> list[Float[Array, "b _ _ _"]]:
    """The five feature maps (b, h_k, w_k, c_k) of pictures in [-1, 1]."""
    plan = _VGG if self.net == "vgg" else _ALEX
    h = (x - jnp.array(_SHIFT)) / jnp.array(_SCALE)
    out = []
    for index, _, _, _, _, window in plan["layers"]:
      if window:
        h = max_pool(h, window, 2)
      h = nn.relu(self.trunk[f"conv_{index}"](h))
      if index in plan["kept"]:
        out.append(h)
    return out


def _even(key: Array, shape: tuple[int, ...]) -> Array:
  del key
  return jnp.full(shape, 1 / shape[0])


def _unit(x: Array) -> Array:
  """Unit length over channels; the tiny number is added to the norm."""
  x = x.astype(jnp.float32)
  square = jnp.square(x).sum(-1, keepdims=True)
  # A safe root: its gradient at an all-zero pixel would be infinite.
  positive = square > 0
  norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)
  return x / (norm + 1e-10)
