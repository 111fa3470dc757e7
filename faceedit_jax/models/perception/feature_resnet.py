"""Classification network whose features tell pictures apart: ResNet-18.

L2M-GAN's perceptual loss reads it, frozen; structure of torchvision's
resnet18.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.nn.layers import Features, batch_norm, conv, dense, max_pool

# Of ImageNet's pictures in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


@typechecked
def imagenet_units(x: Image) -> Image:
  """Pictures (b, h, w, 3) in [-1, 1] as torchvision's networks want them."""
  return (0.5 * x + 0.5 - jnp.array(_MEAN)) / jnp.array(_DEVIATION)


class BasicBlock(nn.Module):
  """Two 3 x 3 convolutions with a shortcut.

  Attributes:
    features: output channels.
    stride: of the first convolution.
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
    h = conv(self.features, 3, self.stride, name="conv1", **plain)(x)
    h = nn.relu(batch_norm(h, train, "bn1"))
    h = conv(self.features, name="conv2", **plain)(h)
    h = batch_norm(h, train, "bn2", start=0.0)
    if self.stride != 1 or x.shape[-1] != self.features:
      x = conv(self.features, 1, self.stride, name="shortcut", **plain)(x)
      x = batch_norm(x, train, "bn_shortcut")
    return nn.relu(x + h)


class FeatureResNet(nn.Module):
  """Picture to a vector.

  Attributes:
    stages: blocks of each stage.
    width: channels of the first stage; doubles with each stage.
    classes: of the last layer, whose logits are returned in place of the
      features (the unofficial training code); None leaves it out.
    dtype: compute dtype.
  """

  stages: tuple[int, ...] = (2, 2, 2, 2)
  width: int = 64
  classes: int | None = None
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Float[Array, "b d"]:
    """Encodes pictures.

    Args:
      x: (b, h, w, 3) in [-1, 1].
      train: whether batch statistics are used and stored.

    Returns:
      (b, width * 2^(len(stages) - 1)) float32, the mean over pixels; or
      (b, classes).
    """
    h = imagenet_units(x)
    h = conv(self.width, 7, 2, bias=False, dtype=self.dtype, name="conv1")(h)
    h = nn.relu(batch_norm(h, train, "bn1"))
    h = max_pool(h, 3, 2, 1)
    for stage, blocks in enumerate(self.stages):
      for i in range(blocks):
        h = BasicBlock(
          self.width * 2**stage,
          2 if stage and i == 0 else 1,
          self.dtype,
          name=f"layer{stage + 1}_{i}",
        )(h, train)
    h = h.astype(jnp.float32).mean((1, 2))
    return h if self.classes is None else dense(self.classes, name="fc")(h)
