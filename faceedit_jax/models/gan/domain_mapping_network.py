"""Random numbers to a style code of a domain.

StarGAN v2 Sec. 2.1; structure of clovaai/stargan-v2, core/model.py.
"""

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Int, typechecked
from faceedit_jax.nn.style import MLP, pick


class MappingNetwork(nn.Module):
  """Dense layers that all domains share, then some of each domain's own.

  Attributes:
    style_dim: numbers of a code.
    domains: number of domains.
    width: hidden features.
    layers: of each of the two halves.
  """

  style_dim: int = 64
  domains: int = 2
  width: int = 512
  layers: int = 4

  def setup(self):
    self.shared = MLP((self.width,) * self.layers, rectified=True)
    own = (*(self.width,) * (self.layers - 1), self.style_dim)
    self.heads = [MLP(own, name=f"domain_{k}") for k in range(self.domains)]

  @typechecked
  def __call__(
    self, z: Float[Array, "b z"], domain: Int[Array, "b"]
  ) -> Float[Array, "b d"]:
    """Maps numbers to styles.

    Args:
      z: (b, z) standard normal; 16 as published.
      domain: (b,).

    Returns:
      (b, style_dim).
    """
    h = self.shared(z)
    return pick(jnp.stack([head(h) for head in self.heads], 1), domain)
