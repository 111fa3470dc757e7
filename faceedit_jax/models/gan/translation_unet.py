"""A U-Net that edits pictures by a style: a generator for short trainings.

Not of L2M-GAN or StarGAN v2, whose generators (`translation_generator`) see the
picture through a bottleneck, or through skips that masks open. Skips between
equal sizes as in AttGAN (He et al. 2019) let an edit take away a thin line by
looking at it; the result is added to the picture (Shen and Liu 2017).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.nn.layers import (
  Features,
  average_pool2,
  conv,
  upsample2,
  zeros,
)
from faceedit_jax.nn.style import (
  AdaIN,
  InstanceNorm,
  check_size,
  he_normal,
  leaky,
)


class TranslationUNet(nn.Module):
  """Picture and style to the picture with an edit added.

  Attributes:
    image_size: side of the pictures in pixels.
    channels: of the first convolutions, doubled whenever the side is halved.
    max_channels: where the doubling ends.
    halvings: how often the side is halved.
    dtype: compute dtype.
  """

  image_size: int = 64
  channels: int = 16
  max_channels: int = 64
  halvings: int = 3
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, style: Float[Array, "b d"]) -> Features:
    """Edits pictures.

    Args:
      x: (b, image_size, image_size, 3) in [-1, 1].
      style: (b, d).

    Returns:
      As `x`, float32, not clipped; `x` itself at first.

    Raises:
      ValueError: the pictures have another size, or one that cannot be halved
        so often.
    """
    check_size(x, self.image_size)
    if self.halvings < 0 or self.image_size % 2**self.halvings:
      raise ValueError(
        f"image_size is {self.image_size}; it is halved {self.halvings} times "
        "here, which must be possible (nets.generator.halvings)"
      )

    def width(level):
      return min(self.channels * 2**level, self.max_channels)

    def block(h, level, name, norm):
      for i in (1, 2):
        h = conv(
          width(level),
          init=he_normal,
          dtype=self.dtype,
          name=f"{name}_conv{i}",
        )(h)
        h = leaky(norm(h, f"{name}_norm{i}"))
      return h

    def plain(h, name):
      return InstanceNorm(name=name)(h)

    def styled(h, name):
      # Starts as a plain norm: random scales slow the first steps.
      return AdaIN(self.dtype, init=zeros, name=name)(h, style)

    h, details = x, []
    for level in range(self.halvings):
      h = block(h, level, f"encode_{level}", plain)
      details.append(h)
      h = average_pool2(h)
    h = block(h, self.halvings, "middle", styled)
    for level in reversed(range(self.halvings)):
      h = jnp.concatenate([upsample2(h), details[level]], -1)
      h = block(h, level, f"decode_{level}", styled)
    h = conv(x.shape[-1], 1, init=zeros, dtype=self.dtype, name="to_rgb")(h)
    return x + h.astype(jnp.float32)
