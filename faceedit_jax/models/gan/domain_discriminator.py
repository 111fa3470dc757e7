"""Discriminator with one logit for each domain.

Of L2M-GAN; structure of clovaai/stargan-v2, core/model.py.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, Int, typechecked
from faceedit_jax.nn.style import Trunk, linear, pick


class DomainDiscriminator(nn.Module):
  """Picture to logits of being a real one of each domain.

  Attributes:
    image_size: side of the pictures in pixels, a power of two from 8.
    channels: of the first convolution; 2^14 / image_size as published.
    max_channels: largest number of channels.
    domains: number of domains.
    dtype: compute dtype.
  """

  image_size: int = 256
  channels: int = 64
  max_channels: int = 512
  domains: int = 2
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(
    self, x: Image, domain: Int[Array, "b"] | None = None
  ) -> Float[Array, "b"] | Float[Array, "b k"]:
    """Judges pictures.

    Args:
      x: (b, image_size, image_size, 3) in [-1, 1].
      domain: (b,) the domains asked for; None: all of them.

    Returns:
      (b,) float32 logits, or (b, domains); high for real pictures.
    """
    h = Trunk(
      self.image_size,
      self.channels,
      self.max_channels,
      self.dtype,
      name="trunk",
    )(x)
    logits = linear(self.domains, "logits")(h.astype(jnp.float32))
    return logits if domain is None else pick(logits, domain)
