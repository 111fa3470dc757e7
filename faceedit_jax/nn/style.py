"""Blocks shared by the nets that translate pictures between domains.

L2M-GAN builds on them; structure of clovaai/stargan-v2, core/model.py.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, Int, typechecked
from faceedit_jax.nn.layers import (
  Features,
  average_pool2,
  conv,
  dense,
  instance_norm,
  zeros,
)

# Kaiming's, with which all of these nets start but FAN and ResNet-18.
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def leaky(x: Array) -> Array:
  """The activation of all of these nets."""
  return nn.leaky_relu(x, 0.2)


def unit_sum(a: Array, b: Array) -> Array:
  """Sum that keeps the variance of independent inputs."""
  return (a + b) / math.sqrt(2)


class InstanceNorm(nn.Module):
  """Instance normalisation with scale and bias, in float32."""

  @nn.compact
  @typechecked
  def __call__(self, x: Image) -> Features:
    """Keeps shape and dtype of `x`."""
    scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
    bias = self.param("bias", zeros, (x.shape[-1],))
    y = instance_norm(x.astype(jnp.float32))
    return (y * scale + bias).astype(x.dtype)


class AdaIN(nn.Module):
  """Instance norm whose scale and bias are read from the style.

  Attributes:
    dtype: compute dtype.
    init: initialiser of the layer that reads them.
  """

  dtype: Any = jnp.float32
  init: Any = he_normal

  @nn.compact
  @typechecked
  def __call__(self, x: Image, style: Float[Array, "b d"]) -> Features:
    """(1 + scale) norm(x) + bias; keeps the shape (b, h, w, c)."""
    layer = dense(2 * x.shape[-1], init=self.init, dtype=self.dtype, name="fc")
    moved = layer(style)
    scale, bias = jnp.split(moved[:, None, None], 2, -1)
    return (1 + scale) * instance_norm(x) + bias


class PreActBlock(nn.Module):
  """Two 3 x 3 convolutions behind activations, with a shortcut.

  Attributes:
    features: output channels.
    norm: whether instance norms precede the activations.
    down: whether height and width are halved inside.
    dtype: compute dtype.
  """

  features: int
  norm: bool = False
  down: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image) -> Features:
    """Maps (b, h, w, c) to (b, h', w', features)."""
    shared = {"init": he_normal, "dtype": self.dtype}
    change = average_pool2 if self.down else lambda x: x
    h = InstanceNorm(name="norm1")(x) if self.norm else x
    h = change(conv(x.shape[-1], name="conv1", **shared)(leaky(h)))
    h = InstanceNorm(name="norm2")(h) if self.norm else h
    h = conv(self.features, name="conv2", **shared)(leaky(h))
    x = change(x)  # before the projection, which is the same and cheaper
    if x.shape[-1] != self.features:
      x = conv(self.features, 1, bias=False, name="shortcut", **shared)(x)
    return unit_sum(x, h)


class Trunk(nn.Module):
  """Picture to a vector: halved down to 4 pixels, then seen as a whole.

  Attributes:
    image_size: side of the pictures in pixels, a power of two from 8.
    channels: of the first convolution; doubled by each block.
    max_channels: where the doubling ends.
    dtype: compute dtype.
  """

  image_size: int = 256
  channels: int = 64
  max_channels: int = 512
  dtype: Any = jnp.float32

  @property
  def blocks(self) -> int:
    """How many times the side is halved."""
    return self.image_size.bit_length() - 3

  @nn.compact
  @typechecked
  def __call__(self, x: Image) -> Float[Array, "b d"]:
    """Encodes pictures.

    Args:
      x: (b, image_size, image_size, c).

    Returns:
      (b, d), d = channels * 2^blocks or max_channels.

    Raises:
      ValueError: the pictures have another size, or one that is no power of
        two.
    """
    size = self.image_size
    if size < 8 or size & (size - 1):
      raise ValueError(
        f"image_size is {size}; wanted a power of two from 8, as the picture "
        "is halved down to 4 pixels"
      )
    check_size(x, size)
    shared = {"init": he_normal, "dtype": self.dtype}
    h = conv(self.channels, name="conv_in", **shared)(x)
    width = self.channels
    for i in range(self.blocks):
      width = min(2 * width, self.max_channels)
      h = PreActBlock(width, down=True, dtype=self.dtype, name=f"block_{i}")(h)
    h = conv(width, 4, padding=0, name="conv_out", **shared)(leaky(h))
    return leaky(h)[:, 0, 0]


def check_size(x: Array, size: int) -> None:
  """Raises a ValueError unless (b, h, w, c) pictures have the side `size`."""
  if x.shape[1:3] != (size, size):
    raise ValueError(
      f"got pictures of {x.shape[1]} x {x.shape[2]} pixels, wanted {size} x "
      f"{size}; change `image_size` of the net or of the data"
    )


def linear(features: int, name: str, dtype: Any = jnp.float32) -> nn.Dense:
  """A dense layer with the initialiser of these nets."""
  return dense(features, init=he_normal, dtype=dtype, name=name)


class MLP(nn.Module):
  """Dense layers with ReLU in between.

  Attributes:
    widths: features of each layer.
    rectified: whether a ReLU follows the last one as well.
    dtype: compute dtype.
  """

  widths: tuple[int, ...]
  rectified: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b _"]:
    """Maps (b, d) to (b, widths[-1])."""
    for i, width in enumerate(self.widths):
      x = linear(width, f"layer_{i}", self.dtype)(x)
      if self.rectified or i + 1 < len(self.widths):
        x = nn.relu(x)
    return x


@typechecked
def pick(
  options: Float[Array, "b k *rest"], domain: Int[Array, "b"]
) -> Float[Array, "b *rest"]:
  """The one of k answers that belongs to each example's domain.

  Args:
    options: (b, k, ...), one for each domain.
    domain: (b,) in [0, k); NaN is returned for others.
  """
  index = domain.reshape(-1, *(1,) * (options.ndim - 1))
  # Indices below zero would count from the end.
  index = jnp.where(index < 0, options.shape[1], index)
  return jnp.take_along_axis(options, index, 1, mode="fill")[:, 0]
