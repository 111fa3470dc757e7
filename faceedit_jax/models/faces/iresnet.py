"""Face recognition network that gives the identity vector.

DiffFAE Sec. 4.2 (identity embedding, frozen); structure of
deepinsight/insightface, recognition/arcface_torch/backbones/iresnet.py.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.nn.layers import Features, PReLU, batch_norm, conv, dense


class IResBlock(nn.Module):
  """Residual block without an activation behind the sum.

  Attributes:
    features: output channels.
    stride: of the second convolution.
    dtype: compute dtype.
  """

  features: int
  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Features:
    """Maps (b, h, w, c) to (b, h/stride, w/stride, features)."""
    plain = {"bias": False, "dtype": self.dtype}
    h = batch_norm(x, train, "bn1")
    h = conv(self.features, name="conv1", **plain)(h)
    h = PReLU(name="prelu")(batch_norm(h, train, "bn2"))
    h = conv(self.features, 3, self.stride, name="conv2", **plain)(h)
    h = batch_norm(h, train, "bn3", start=0.0)
    if self.stride != 1 or x.shape[-1] != self.features:
      x = conv(self.features, 1, self.stride, name="shortcut", **plain)(x)
      x = batch_norm(x, train, "bn_shortcut")
    return x + h


class IResNet(nn.Module):
  """Face picture to an identity vector.

  Attributes:
    stages: blocks of each stage; every stage halves the side.
    widths: channels of each stage.
    stem: channels before the first stage.
    embedding: features of the identity vector.
    dtype: compute dtype.
  """

  stages: tuple[int, ...] = (3, 4, 14, 3)
  widths: tuple[int, ...] = (64, 128, 256, 512)
  stem: int = 64
  embedding: int = 512
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Float[Array, "b d"]:
    """Embeds aligned faces.

    Args:
      x: (b, h, w, 3) RGB in [-1, 1]; published weights want 112 x 112. The
        size is fixed by the first call, as the last layer sees all pixels.
      train: whether batch statistics are used and stored.

    Returns:
      (b, embedding) float32, not normalised; see `normalize`.
    """
    h = conv(self.stem, bias=False, dtype=self.dtype, name="conv1")(x)
    h = PReLU(name="prelu")(batch_norm(h, train, "bn1"))
    for stage, (blocks, width) in enumerate(
      zip(self.stages, self.widths, strict=True), 1
    ):
      for i in range(blocks):
        stride = 1 if i else 2
        block = IResBlock(width, stride, self.dtype, name=f"layer{stage}_{i}")
        h = block(h, train)
    h = batch_norm(h, train, "bn2")
    # Channels first, as the published weights of the next layer are stored.
    h = jnp.moveaxis(h, -1, 1).reshape(h.shape[0], -1)
    h = dense(self.embedding, dtype=self.dtype, name="fc")(h)
    return batch_norm(h.astype(jnp.float32), train, "bn_features")


def iresnet50(**fields: Any) -> IResNet:
  """The network with 50 layers; other fields of `IResNet` as given."""
  return IResNet(**{"stages": (3, 4, 14, 3), **fields})


def iresnet100(**fields: Any) -> IResNet:
  """The network with 100 layers; other fields of `IResNet` as given."""
  return IResNet(**{"stages": (3, 13, 30, 3), **fields})


@typechecked
def normalize(
  x: Float[Array, "b d"], eps: float = 1e-12
) -> Float[Array, "b d"]:
  """Unit vectors.

  Args:
    x: (b, d).
    eps: smallest norm divided by.

  Returns:
    (b, d) of length 1; zero, with a zero gradient, where `x` is zero.
  """
  square = jnp.square(x).sum(-1, keepdims=True)
  return x / jnp.sqrt(jnp.maximum(square, eps**2))
