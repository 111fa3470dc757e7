"""Style encoder whose code is parted into what an attribute is and the rest.

L2M-GAN (style encoder, decomposer, domain transformers); structure of
rucmlcv/L2M-GAN, core/model.py, and without the two of clovaai/stargan-v2.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, Int, typechecked
from faceedit_jax.nn.style import MLP, Trunk, linear, pick


class StyleCodes(NamedTuple):
  """The codes of pictures, all (b, style_dim) float32.

  Attributes:
    style: all of it.
    unrelated: what has nothing to do with the domain.
    related: style - unrelated.
    transformed: the related part in the target domain.
  """

  style: Float[Array, "b d"]
  unrelated: Float[Array, "b d"]
  related: Float[Array, "b d"]
  transformed: Float[Array, "b d"]

  def edited(self, strength: Array | float = 1.0) -> Float[Array, "b d"]:
    """The style of the edit.

    Args:
      strength: 0 is the picture's own style, 1 that of the target domain;
        others lie on the line through both. A number, or (b, 1).
    """
    return (
      self.unrelated
      + self.related
      + strength * (self.transformed - self.related)
    )


class StyleEncoder(nn.Module):
  """Picture to a style code, and the code's parts.

  Attributes:
    image_size: side of the pictures in pixels, a power of two from 8.
    channels: of the first convolution; 2^14 / image_size as published.
    max_channels: largest number of channels.
    style_dim: numbers of a code.
    domains: number of domains; each has a head and a transformer.
    factor_layers: dense layers of the decomposer and of each transformer; 0:
      there are none, only `style` can be asked (StarGAN v2).
    rectified: whether the decomposer ends in a ReLU, as in the unofficial
      training code.
    dtype: compute dtype.
  """

  image_size: int = 256
  channels: int = 64
  max_channels: int = 512
  style_dim: int = 64
  domains: int = 2
  factor_layers: int = 3
  rectified: bool = False
  dtype: Any = jnp.float32

  def setup(self):
    self.trunk = Trunk(
      self.image_size, self.channels, self.max_channels, self.dtype
    )
    self.heads = [
      linear(self.style_dim, f"head_{k}") for k in range(self.domains)
    ]
    if self.factor_layers:
      widths = (self.style_dim,) * self.factor_layers
      self.decomposer = MLP(widths, self.rectified)
      self.transformers = [
        MLP(widths, name=f"transformer_{k}") for k in range(self.domains)
      ]

  @typechecked
  def __call__(
    self,
    x: Image,
    domain: Int[Array, "b"],
    target: Int[Array, "b"] | None = None,
  ) -> StyleCodes | Float[Array, "b d"]:
    """Encodes pictures.

    Args:
      x: (b, image_size, image_size, 3) in [-1, 1].
      domain: (b,) the pictures' domains, which pick the head.
      target: (b,) the domains that the related parts are transformed to; by
        default the pictures' own.

    Returns:
      The codes; without `factor_layers` the style alone.
    """
    style = self.style(x, domain)
    if not self.factor_layers:
      return style
    return self.factor(style, domain if target is None else target)

  @typechecked
  def style(self, x: Image, domain: Int[Array, "b"]) -> Float[Array, "b d"]:
    """The whole style of pictures, (b, style_dim); arguments as above."""
    h = self.trunk(x).astype(jnp.float32)
    return pick(jnp.stack([head(h) for head in self.heads], 1), domain)

  @typechecked
  def factor(
    self, style: Float[Array, "b d"], target: Int[Array, "b"]
  ) -> StyleCodes:
    """Parts styles (b, style_dim) and moves their related parts."""
    unrelated = self.decomposer(style)
    related = style - unrelated
    transformed = [transform(related) for transform in self.transformers]
    return StyleCodes(
      style, unrelated, related, pick(jnp.stack(transformed, 1), target)
    )
