"""Face recognition network with squeeze-and-excitation (IR-SE), and its crop.

The identity net that pSp and its followers are measured by; structure of
TreB1eN's InsightFace_Pytorch, model.py (ArcFace, section 3.1, with improved
residual units).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.nn.layers import (
  Features,
  PReLU,
  adaptive_average_pool,
  batch_norm,
  conv,
  dense,
)

# Blocks of each stage by the number of layers.
STAGES = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 152: (3, 8, 36, 3)}


class SqueezeExcite(nn.Module):
  """Scales every channel by what the means of all channels say.

  Attributes:
    reduction: channels per hidden feature.
    dtype: compute dtype.
  """

  reduction: int = 16
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image) -> Features:
    """Maps (b, h, w, c) to the same shape."""
    channels = x.shape[-1]
    plain = {"bias": False, "dtype": self.dtype}
    h = x.mean((1, 2))
    h = dense(channels // self.reduction, name="fc1", **plain)(h)
    h = dense(channels, name="fc2", **plain)(nn.relu(h))
    return x * nn.sigmoid(h)[:, None, None]


class IRSEBlock(nn.Module):
  """Residual block; where channels stay, its shortcut takes every nth pixel.

  Attributes:
    features: output channels.
    stride: of the second convolution.
    reduction: of the squeeze; None leaves it out.
    dtype: compute dtype.
  """

  features: int
  stride: int = 1
  reduction: int | None = 16
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Features:
    """Maps (b, h, w, c) to (b, h/stride, w/stride, features)."""
    plain = {"bias": False, "dtype": self.dtype}
    h = batch_norm(x, train, "bn1")
    h = conv(self.features, name="conv1", **plain)(h)
    h = PReLU(name="prelu")(h)
    h = conv(self.features, 3, self.stride, name="conv2", **plain)(h)
    h = batch_norm(h, train, "bn2")
    if self.reduction is not None:
      h = SqueezeExcite(self.reduction, self.dtype, name="squeeze")(h)
    if x.shape[-1] == self.features:
      return x[:, :: self.stride, :: self.stride] + h
    x = conv(self.features, 1, self.stride, name="shortcut", **plain)(x)
    return batch_norm(x, train, "bn_shortcut") + h


class IRSE(nn.Module):
  """Face picture to an identity vector.

  Attributes:
    stages: blocks of each stage, see STAGES; every stage halves the side.
    widths: channels of each stage.
    stem: channels before the first stage.
    embedding: features of the identity vector.
    reduction: of the squeezes; None leaves them out (IR).
    affine: whether the last norm has scale and bias.
    dtype: compute dtype.
  """

  stages: tuple[int, ...] = STAGES[50]
  widths: tuple[int, ...] = (64, 128, 256, 512)
  stem: int = 64
  embedding: int = 512
  reduction: int | None = 16
  affine: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Float[Array, "b d"]:
    """Embeds aligned faces.

    Args:
      x: (b, h, w, 3) in [-1, 1]; published weights want 112 x 112. TreB1eN
        trained them on BGR, pSp and its followers feed them RGB. The size is
        fixed by the first call, as the last layer sees all pixels.
      train: whether batch statistics are used and stored.

    Returns:
      (b, embedding) float32, not normalised; see `iresnet.normalize`.
    """
    h = conv(self.stem, bias=False, dtype=self.dtype, name="conv_in")(x)
    h = PReLU(name="prelu_in")(batch_norm(h, train, "bn_in"))
    block = 0
    for blocks, width in zip(self.stages, self.widths, strict=True):
      for i in range(blocks):
        h = IRSEBlock(
          width,
          1 if i else 2,
          self.reduction,
          self.dtype,
          name=f"block_{block}",
        )(h, train)
        block += 1
    h = batch_norm(h, train, "bn_out")
    # Channels first, as the published weights of the next layer are stored.
    h = jnp.moveaxis(h, -1, 1).reshape(h.shape[0], -1)
    h = dense(self.embedding, dtype=self.dtype, name="fc")(h)
    h = h.astype(jnp.float32)
    return batch_norm(h, train, "bn_features", affine=self.affine)


@typechecked
def portrait_crop(image: Image, size: int = 112) -> Features:
  """The face of a portrait aligned as in FFHQ, as pSp's identity loss cuts it.

  Args:
    image: (b, 256, 256, c).
    size: side of the result in pixels.
  """
  return adaptive_average_pool(image[:, 35:223, 32:220], size, size)
