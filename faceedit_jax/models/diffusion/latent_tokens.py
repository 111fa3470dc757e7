"""Latents of the source as context tokens, for an ablation of DiffFAE."""

import flax.linen as nn

from faceedit_jax.core.typing import Array, Float, Image, typechecked


class LatentTokens(nn.Module):
  """Source condition of the "vanilla" ablation: latents as context tokens.

  DiffFAE section 5.3, variant (1): the first stage's encoder reads the source.

  Attributes:
    dim: size of a token.
  """

  dim: int

  @nn.compact
  @typechecked
  def __call__(self, latent: Image) -> Float[Array, "b n d"]:
    """Tokens (b, h w, dim) of latents (b, h, w, c), row by row."""
    b, h, w, c = latent.shape
    tokens = nn.Dense(self.dim)(latent.reshape(b, h * w, c))
    place = self.param(
      "place", nn.initializers.normal(0.02), (1, h * w, self.dim)
    )
    return tokens + place
