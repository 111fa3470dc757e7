"""Face alignment network (FAN): heat-maps of 98 points and of a boundary.

The masks of L2M-GAN's generator come from it, see `landmark_masks`; structure
of clovaai/stargan-v2, core/wing.py, after Wang et al. 2019 (adaptive wing
loss).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Image, typechecked
from faceedit_jax.nn.layers import (
  Features,
  average_pool2,
  batch_norm,
  conv,
  resize,
  upsample2,
)


@typechecked
def with_coordinates(x: Image) -> Features:
  """Adds where each pixel is, as three channels.

  Args:
    x: (b, h, w, c).

  Returns:
    (b, h, w, c + 3): then row and column in [-1, 1] and the distance to the
    middle, the corner's being 1.
  """
  b, h, w, _ = x.shape
  rows, columns = jnp.meshgrid(
    jnp.linspace(-1, 1, h), jnp.linspace(-1, 1, w), indexing="ij"
  )
  radius = jnp.sqrt(rows**2 + columns**2)
  radius /= jnp.maximum(radius.max(), 1e-12)  # of a map of one pixel
  grid = jnp.stack([rows, columns, radius], -1).astype(x.dtype)
  grid = jnp.broadcast_to(grid, (b, h, w, 3))
  return jnp.concatenate([x, grid], -1)


class SplitBlock(nn.Module):
  """Three 3 x 3 convolutions in a row whose results lie side by side.

  Attributes:
    features: output channels: a half from the first, a quarter from each of
      the others.
    dtype: compute dtype.
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Features:
    """Maps (b, h, w, c) to (b, h, w, features)."""
    plain = {"bias": False, "dtype": self.dtype}
    parts, h = [], x
    for i, share in enumerate((2, 4, 4), 1):
      h = nn.relu(batch_norm(h, train, f"bn{i}"))
      h = conv(self.features // share, name=f"conv{i}", **plain)(h)
      parts.append(h)
    if x.shape[-1] != self.features:
      x = nn.relu(batch_norm(x, train, "bn_shortcut"))
      x = conv(self.features, 1, name="shortcut", **plain)(x)
    return jnp.concatenate(parts, -1) + x


class Hourglass(nn.Module):
  """Blocks at several sizes; the smaller ones' results are added.

  Attributes:
    features: channels everywhere.
    depth: how many times the side is halved.
    dtype: compute dtype.
  """

  features: int
  depth: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Features:
    """Maps (b, h, w, c) to (b, h, w, features)."""

    def block(name, h):
      return SplitBlock(self.features, self.dtype, name=name)(h, train)

    def level(n, h):
      beside = block(f"b1_{n}", h)
      h = block(f"b2_{n}", average_pool2(h))
      h = level(n - 1, h) if n > 1 else block("b2_plus_1", h)
      return beside + upsample2(block(f"b3_{n}", h))

    x = with_coordinates(x)
    x = conv(self.features, 1, dtype=self.dtype, name="coordconv")(x)
    return level(self.depth, x)


class FAN(nn.Module):
  """Face picture to heat-maps.

  Attributes:
    landmarks: number of points; a map of the face's boundary lines follows.
    width: channels of the first convolution; four times as many later.
    input_size: side in pixels that pictures are resized to; a multiple of 64.
    dtype: compute dtype.
  """

  landmarks: int = 98
  width: int = 64
  input_size: int = 256
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Features:
    """Finds points.

    Args:
      x: (b, h, w, 3) faces in [-1, 1].
      train: whether batch statistics are used and stored.

    Returns:
      (b, input_size / 4, input_size / 4, landmarks + 1) float32, about 1 at a
      point and 0 elsewhere.
    """
    if self.input_size % 64:
      raise ValueError(
        f"FAN: input_size is {self.input_size}; wanted a multiple of 64"
      )
    x = resize(x, self.input_size, self.input_size, antialias=False)
    h = with_coordinates(0.5 * x + 0.5)
    h = conv(self.width, 7, 2, dtype=self.dtype, name="conv1")(h)
    h = nn.relu(batch_norm(h, train, "bn1"))
    wide = 4 * self.width
    h = SplitBlock(2 * self.width, self.dtype, name="conv2")(h, train)
    h = average_pool2(h)
    h = SplitBlock(2 * self.width, self.dtype, name="conv3")(h, train)
    h = SplitBlock(wide, self.dtype, name="conv4")(h, train)
    h = Hourglass(wide, dtype=self.dtype, name="hourglass")(h, train)
    h = SplitBlock(wide, self.dtype, name="top")(h, train)
    h = conv(wide, 1, dtype=self.dtype, name="conv_last")(h)
    h = nn.relu(batch_norm(h, train, "bn_end"))
    h = conv(self.landmarks + 1, 1, dtype=self.dtype, name="heatmaps")(h)
    return h.astype(jnp.float32)
