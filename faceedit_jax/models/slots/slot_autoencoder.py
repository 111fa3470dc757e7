"""Picture to tokens through a plain CNN, and back, one picture per token.

The encoder and the pixel decoder of Wuziyi616/SlotDiffusion, against which
DiffFAE's region encoder (Sec. 4.2) is compared; Locatello et al. 2020.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.models.slots.broadcast_decoder import (
  Broadcast,
  BroadcastDecoder,
  corner_grid,
)
from faceedit_jax.models.slots.slot_attention import SlotAttention
from faceedit_jax.nn.layers import (
  Features,
  LayerNorm,
  NormKind,
  conv,
  dense,
  normalise,
)


class ConvEncoder(nn.Module):
  """Picture to a feature map that knows its places.

  Attributes:
    widths: channels of each convolution.
    out_channels: channels of the feature map.
    kernel: side of the kernels.
    stride: step of the first convolution; published: 2 for pictures of more
      than 64 pixels a side, otherwise 1.
    norm: behind each convolution, which then has no bias with "batch" and
      "instance".
    dtype: compute dtype.
  """

  widths: tuple[int, ...] = (64, 64, 64, 64)
  out_channels: int = 128
  kernel: int = 5
  stride: int = 1
  norm: NormKind = "none"
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, image: Image, train: bool = False) -> Features:
    """Maps (b, h, w, 3) to (b, h/stride, w/stride, out_channels).

    Args:
      image: pictures in [-1, 1].
      train: whether the norm "batch" uses and stores batch statistics.
    """
    h = image
    for i, width in enumerate(self.widths):
      layer = conv(
        width,
        self.kernel,
        self.stride if i == 0 else 1,
        bias=self.norm not in ("batch", "instance"),
        dtype=self.dtype,
        name=f"conv_{i}",
      )
      h = normalise(layer(h), self.norm, train, f"norm_{i}")
      if i + 1 < len(self.widths):
        h = nn.relu(h)
    grid = corner_grid(*h.shape[1:3])
    h = h + dense(h.shape[-1], dtype=self.dtype, name="position")(grid)
    h = LayerNorm(name="norm_out")(h)
    h = nn.relu(dense(self.out_channels, dtype=self.dtype, name="mlp_in")(h))
    return dense(self.out_channels, dtype=self.dtype, name="mlp_out")(h)


class SlotEncoder(nn.Module):
  """Picture to tokens, each started from a learned vector of its own.

  Attributes:
    slots: number of tokens.
    slot_size: features of a token.
    mlp_size: hidden features of the tokens' MLP.
    iterations: of the slot attention.
    eps: of the slot attention.
    widths: as the others, see `ConvEncoder`.
  """

  slots: int = 4
  slot_size: int = 192
  mlp_size: int = 384
  iterations: int = 3
  eps: float = 1e-6
  widths: tuple[int, ...] = (64, 64, 64, 64)
  out_channels: int = 128
  kernel: int = 5
  stride: int = 1
  norm: NormKind = "none"
  dtype: Any = jnp.float32

  def setup(self):
    self.encoder = ConvEncoder(
      tuple(self.widths),
      self.out_channels,
      self.kernel,
      self.stride,
      self.norm,
      self.dtype,
    )
    self.attention = SlotAttention(
      self.slot_size,
      self.mlp_size,
      self.iterations,
      eps=self.eps,
      dtype=self.dtype,
    )
    normal = nn.initializers.normal(1.0)
    self.start = self.param("start", normal, (1, self.slots, self.slot_size))

  @typechecked
  def __call__(
    self, image: Image, train: bool = False
  ) -> tuple[Float[Array, "b k d"], Float[Array, "b _h _w k"]]:
    """Tokens (b, k, slot_size), and masks that sum to 1 over k.

    The masks (b, h/stride, w/stride, k) are the softmax of the last iteration.
    """
    return self.group(self.encoder(image, train))

  @typechecked
  def group(
    self, features: Image
  ) -> tuple[Float[Array, "b k d"], Float[Array, "b h w k"]]:
    """Tokens and masks of a feature map (b, h, w, out_channels)."""
    b, height, width, channels = features.shape
    slots, maps = self.attention(
      features.reshape(b, -1, channels),
      jnp.broadcast_to(self.start, (b, self.slots, self.slot_size)),
    )
    return slots, maps[:, 0].reshape(b, height, width, self.slots)

  @typechecked
  def features(self, image: Image, train: bool = False) -> Features:
    """The feature map (b, h/stride, w/stride, out_channels)."""
    return self.encoder(image, train)


class Reconstruction(NamedTuple):
  """What the autoencoder makes of a picture."""

  picture: Broadcast
  slots: Array  # (b, k, d)


class SlotAutoencoder(nn.Module):
  """Picture to tokens and back; trained on the squared error of the picture.

  Attributes:
    encoder: picture to tokens.
    decoder: tokens to a picture; published: position "corners", `trailing`.
  """

  encoder: SlotEncoder
  decoder: BroadcastDecoder

  @typechecked
  def __call__(self, image: Image, train: bool = False) -> Reconstruction:
    """Reconstructs pictures (b, h, w, 3) in [-1, 1]."""
    slots, _ = self.encoder(image, train)
    return Reconstruction(self.decoder(slots, train), slots)
