"""Residual network with bottleneck blocks, stride on the 3 x 3 convolution.

The trunk of the 3D face estimator of DiffFAE Sec. 4.1 (DECA's encoder).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.nn.layers import Features, batch_norm, conv, max_pool


class Bottleneck(nn.Module):
  """1 x 1, 3 x 3 and 1 x 1 convolutions with a shortcut.

  Attributes:
    width: channels inside; four times as many come out.
    stride: of the 3 x 3 convolution.
    project: whether the shortcut has a convolution.
    dtype: compute dtype.
  """

  width: int
  stride: int = 1
  project: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Features:
    """Maps (b, h, w, c) to (b, h/stride, w/stride, 4 * width)."""
    plain = {"bias": False, "dtype": self.dtype}
    h = conv(self.width, 1, name="conv1", **plain)(x)
    h = nn.relu(batch_norm(h, train, "bn1"))
    h = conv(self.width, 3, self.stride, name="conv2", **plain)(h)
    h = nn.relu(batch_norm(h, train, "bn2"))
    h = conv(4 * self.width, 1, name="conv3", **plain)(h)
    h = batch_norm(h, train, "bn3", start=0.0)
    if self.project:
      x = conv(4 * self.width, 1, self.stride, name="shortcut", **plain)(x)
      x = batch_norm(x, train, "bn_shortcut")
    return nn.relu(x + h)


class ResNet(nn.Module):
  """Picture to one vector.

  Attributes:
    stages: blocks of each stage; (3, 4, 6, 3) is ResNet-50.
    width: channels inside the first stage; doubles with each stage.
    dtype: compute dtype.
  """

  stages: tuple[int, ...] = (3, 4, 6, 3)
  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Float[Array, "b d"]:
    """Encodes pictures.

    Args:
      x: (b, h, w, c).
      train: whether batch statistics are used and stored.

    Returns:
      (b, width * 2^(len(stages) + 1)), the mean over pixels.
    """
    h = conv(self.width, 7, 2, bias=False, dtype=self.dtype, name="conv1")(x)
    h = nn.relu(batch_norm(h, train, "bn1"))
    h = max_pool(h, 3, 2, 1)
    for stage, blocks in enumerate(self.stages):
      for i in range(blocks):
        stride = 2 if stage and i == 0 else 1
        block = Bottleneck(
          self.width * 2**stage,
          stride,
          i == 0,
          self.dtype,
          name=f"layer{stage + 1}_{i}",
        )
        h = block(h, train)
      # Read by perceptual distances: apply(..., mutable=["features"]).
      if not self.is_initializing():
        self.sow("features", "maps", h.astype(jnp.float32))
    return h.astype(jnp.float32).mean((1, 2))
