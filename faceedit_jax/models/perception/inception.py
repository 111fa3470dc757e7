"""Inception-v3 in the form whose features define FID.

The metric of DiffFAE Sec. 5.1; the network that Heusel et al. 2017 scored
with, as pytorch-fid holds it: torchvision's inception_v3 with 1008 classes and
three changes. Averages in front of `branch_pool` leave out the padding, the
last block takes a maximum there, and norms add 1e-3 to the variance.
Torchvision's own form is here too: the code of StarGAN v2 scores with it.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.nn.layers import (
  Features,
  batch_norm,
  dense,
  fan_in_uniform,
  max_pool,
)

# A layer is (name, channels at full width, kernel). A chain is layers in a
# row; a tuple of layers in their place reads the same input, side by side.
_STEM = (
  ("Conv2d_1a_3x3", 32, 3, 2, 0),
  ("Conv2d_2a_3x3", 32, 3, 1, 0),
  ("Conv2d_2b_3x3", 64, 3, 1, 1),
  "pool",
  ("Conv2d_3b_1x1", 80, 1, 1, 0),
  ("Conv2d_4a_3x3", 192, 3, 1, 0),
  "pool",
)


def _block_a(pool):
  return (
    (("branch1x1", 64, 1),),
    (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
    (
      ("branch3x3dbl_1", 64, 1),
      ("branch3x3dbl_2", 96, 3),
      ("branch3x3dbl_3", 96, 3),
    ),
    ("average", ("branch_pool", pool, 1)),
  )


def _block_c(inner):
  return (
    (("branch1x1", 192, 1),),
    (
      ("branch7x7_1", inner, 1),
      ("branch7x7_2", inner, (1, 7)),
      ("branch7x7_3", 192, (7, 1)),
    ),
    (
      ("branch7x7dbl_1", inner, 1),
      ("branch7x7dbl_2", inner, (7, 1)),
      ("branch7x7dbl_3", inner, (1, 7)),
      ("branch7x7dbl_4", inner, (7, 1)),
      ("branch7x7dbl_5", 192, (1, 7)),
    ),
    ("average", ("branch_pool", 192, 1)),
  )


def _block_e(pool):
  return (
    (("branch1x1", 320, 1),),
    (
      ("branch3x3_1", 384, 1),
      (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))),
    ),
    (
      ("branch3x3dbl_1", 448, 1),
      ("branch3x3dbl_2", 384, 3),
      (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
    ),
    (pool, ("branch_pool", 192, 1)),
  )


# "halve" marks the layer or the pooling that halves the sides.
_BLOCKS = {
  "Mixed_5b": _block_a(32),
  "Mixed_5c": _block_a(64),
  "Mixed_5d": _block_a(64),
  "Mixed_6a": (
    (("branch3x3", 384, 3, "halve"),),
    (
      ("branch3x3dbl_1", 64, 1),
      ("branch3x3dbl_2", 96, 3),
      ("branch3x3dbl_3", 96, 3, "halve"),
    ),
    ("halve",),
  ),
  "Mixed_6b": _block_c(128),
  "Mixed_6c": _block_c(160),
  "Mixed_6d": _block_c(160),
  "Mixed_6e": _block_c(192),
  "Mixed_7a": (
    (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, "halve")),
    (
      ("branch7x7x3_1", 192, 1),
      ("branch7x7x3_2", 192, (1, 7)),
      ("branch7x7x3_3", 192, (7, 1)),
      ("branch7x7x3_4", 192, 3, "halve"),
    ),
    ("halve",),
  ),
  "Mixed_7b": _block_e("average"),
  "Mixed_7c": _block_e("maximum"),
}
_FULL_WIDTH = 32  # channels of the first layer as published


class ConvNorm(nn.Module):
  """Convolution, norm and ReLU.

  Attributes:
    features: output channels.
    kernel: height and width.
    stride: in pixels.
    padding: zeros above and below, left and right.
    dtype: compute dtype.
  """

  features: int
  kernel: tuple[int, int]
  stride: int = 1
  padding: tuple[int, int] = (0, 0)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps (b, h, w, c) to (b, h', w', features)."""
    layer = nn.Conv(
      self.features,
      self.kernel,
      (self.stride, self.stride),
      padding=tuple((p, p) for p in self.padding),
      use_bias=False,
      kernel_init=fan_in_uniform,
      dtype=self.dtype,
      name="conv",
    )
    return nn.relu(batch_norm(layer(x), False, "bn", eps=1e-3))


class Mixed(nn.Module):
  """Chains of layers side by side, joined along the channels.

  Attributes:
    chains: see `_BLOCKS`.
    width: channels of the network's first layer.
    padded: whether averages count the padding as zeros.
    dtype: compute dtype.
  """

  chains: tuple
  width: int
  padded: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps (b, h, w, c) to (b, h', w', c')."""
    return jnp.concatenate([self._chain(x, c) for c in self.chains], axis=-1)

  def _chain(self, x, chain):
    for step in chain:
      if step == "average":
        x = nn.avg_pool(
          x,
          (3, 3),
          padding=((1, 1), (1, 1)),
          count_include_pad=self.padded,
        )
      elif step == "maximum":
        x = max_pool(x, 3, 1, 1)
      elif step == "halve":
        x = max_pool(x, 3, 2)
      elif isinstance(step[0], tuple):
        x = jnp.concatenate([self._layer(x, s) for s in step], axis=-1)
      else:
        x = self._layer(x, step)
    return x

  def _layer(self, x, step):
    name, channels, kernel, *halve = step
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    layer = ConvNorm(
      channels * self.width // _FULL_WIDTH,
      kernel,
      stride=2 if halve else 1,
      padding=(0, 0) if halve else (kernel[0] // 2, kernel[1] // 2),
      dtype=self.dtype,
      name=name,
    )
    return layer(x)


class Inception(nn.Module):
  """Picture to 2048 features, and to the logits of 1008 classes.

  Attributes:
    width: channels of the first layer, a multiple of 2; the others follow in
      proportion. 32 is the published size.
    classes: number of logits.
    tensorflow: whether it is the published TensorFlow network, as pytorch-fid
      holds it; else torchvision's own, whose averages count the padding and
      whose last block takes one, too.
    dtype: compute dtype.
  """

  width: int = _FULL_WIDTH
  classes: int = 1008
  tensorflow: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(
    self, x: Image
  ) -> tuple[Float[Array, "b d"], Float[Array, "b n"]]:
    """Reads pictures; always with the stored statistics.

    Args:
      x: (b, h, w, 3) RGB in [-1, 1]; the published weights want 299 x 299, and
        no side may be below 75 pixels.

    Returns:
      (b, 64 * width) float32, the mean over pixels of the last block, on which
      FID is defined, and (b, classes) float32 logits.
    """
    if min(x.shape[1:3]) < 75:
      raise ValueError(
        f"Inception: got pictures of {x.shape[1]} x {x.shape[2]}, wanted sides "
        "of 75 pixels or more; resize them (metrics.fid)"
      )
    h: Features = x.astype(self.dtype)
    for step in _STEM:
      if step == "pool":
        h = max_pool(h, 3, 2)
        continue
      name, channels, kernel, stride, padding = step
      layer = ConvNorm(
        channels * self.width // _FULL_WIDTH,
        (kernel, kernel),
        stride,
        (padding, padding),
        self.dtype,
        name=name,
      )
      h = layer(h)
    blocks, padded = _BLOCKS, not self.tensorflow
    if padded:
      blocks = _BLOCKS | {"Mixed_7c": _BLOCKS["Mixed_7b"]}
    for name, chains in blocks.items():
      h = Mixed(chains, self.width, padded, self.dtype, name=name)(h)
    features = h.astype(jnp.float32).mean((1, 2))
    return features, dense(self.classes, name="fc")(features)
