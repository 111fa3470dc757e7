"""First-stage autoencoders with a vector-quantised or a Gaussian latent.

DiffFAE Sec. 5.4 and Tab. 5 (VQ, factor 8); structure and sizes of
CompVis/latent-diffusion, ldm/modules/diffusionmodules/model.py.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, Int, typechecked
from faceedit_jax.nn.attention import PixelAttention
from faceedit_jax.nn.blocks import ResBlock
from faceedit_jax.nn.layers import Features, GroupNorm, conv, upsample2


class VQOutput(NamedTuple):
  """What a VQ autoencoder computes in one pass."""

  image: Array  # (b, h, w, c) reconstruction
  latent: Array  # (b, h/f, w/f, d) before quantisation
  codebook_loss: Array  # scalar
  indices: Array  # (b, h/f, w/f) int32


@flax.struct.dataclass
class Posterior:
  """Diagonal Gaussian over a latent, with log variance in [-30, 20]."""

  mean: Array  # (b, h, w, d)
  logvar: Array  # (b, h, w, d)

  @property
  def std(self) -> Array:
    """Standard deviation, (b, h, w, d)."""
    return jnp.exp(0.5 * self.logvar)

  def mode(self) -> Array:
    """The mean, (b, h, w, d)."""
    return self.mean

  def sample(self, key: Array) -> Array:
    """One draw, (b, h, w, d)."""
    noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
    return self.mean + self.std * noise

  def kl(self) -> Array:
    """Divergence from the unit Gaussian, summed over a sample, (b,)."""
    terms = jnp.square(self.mean) + jnp.exp(self.logvar) - 1 - self.logvar
    return 0.5 * terms.sum((1, 2, 3))

  def nll(self, x: Array) -> Array:
    """Negative log likelihood of `x`, summed over a sample, (b,)."""
    distance = jnp.square(x - self.mean) / jnp.exp(self.logvar)
    terms = jnp.log(2 * jnp.pi) + self.logvar + distance
    return 0.5 * terms.sum((1, 2, 3))


class Encoder(nn.Module):
  """Images to latents: `len(mult) - 1` halvings of the side.

  Attributes:
    channels: channels at full size.
    mult: channels of each level, as multiples of `channels`.
    res_blocks: residual blocks of each level.
    attention_levels: levels with self-attention; 0 is full size.
    out_channels: channels of the latent (twice that for a Gaussian).
    groups: groups of the norms.
    dtype: compute dtype.
  """

  channels: int
  mult: tuple[int, ...]
  res_blocks: int
  attention_levels: tuple[int, ...]
  out_channels: int
  groups: int = 32
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image) -> Features:
    """Maps (b, h, w, c) to (b, h/f, w/f, out_channels)."""
    shared = {"groups": self.groups, "dtype": self.dtype}
    block = functools.partial(ResBlock, eps=1e-6, zero_out=False, **shared)
    h = conv(self.channels, dtype=self.dtype, name="conv_in")(x)
    for level, factor in enumerate(self.mult):
      width = self.channels * factor
      for i in range(self.res_blocks):
        h = block(width, name=f"down_{level}_block_{i}")(h)
        if level in self.attention_levels:
          h = PixelAttention(name=f"down_{level}_attn_{i}", **shared)(h)
      if level + 1 < len(self.mult):
        # Padding below and to the right only, as in the published encoder.
        h = jnp.pad(h, ((0, 0), (0, 1), (0, 1), (0, 0)))
        down = conv(
          width,
          3,
          2,
          padding=0,
          dtype=self.dtype,
          name=f"down_{level}_downsample",
        )
        h = down(h)
    h = block(h.shape[-1], name="mid_block_1")(h)
    h = PixelAttention(name="mid_attn_1", **shared)(h)
    h = block(h.shape[-1], name="mid_block_2")(h)
    h = nn.silu(GroupNorm(self.groups, 1e-6, name="norm_out")(h))
    return conv(self.out_channels, dtype=self.dtype, name="conv_out")(h)


class Decoder(nn.Module):
  """Latents to images: the mirror of `Encoder`, one more block per level.

  Attributes: as `Encoder`; `out_channels` are those of the image.
  """

  channels: int
  mult: tuple[int, ...]
  res_blocks: int
  attention_levels: tuple[int, ...]
  out_channels: int
  groups: int = 32
  dtype: Any = jnp.float32

  def setup(self):
    # Apart from the rest, so that the weight of an adversarial loss can be
    # set from the gradients at this layer.
    self.conv_out = conv(self.out_channels, dtype=self.dtype)

  def __call__(self, z: Image) -> Features:
    """Maps (b, h/f, w/f, d) to (b, h, w, out_channels)."""
    return self.last(self.features(z))

  @typechecked
  def last(self, h: Image) -> Features:
    """Applies the last convolution."""
    return self.conv_out(h)

  @nn.compact
  @typechecked
  def features(self, z: Image) -> Features:
    """Maps (b, h/f, w/f, d) to the input of the last convolution."""
    shared = {"groups": self.groups, "dtype": self.dtype}
    block = functools.partial(ResBlock, eps=1e-6, zero_out=False, **shared)
    width = self.channels * self.mult[-1]
    h = conv(width, dtype=self.dtype, name="conv_in")(z)
    h = block(width, name="mid_block_1")(h)
    h = PixelAttention(name="mid_attn_1", **shared)(h)
    h = block(width, name="mid_block_2")(h)
    for level in reversed(range(len(self.mult))):
      width = self.channels * self.mult[level]
      for i in range(self.res_blocks + 1):
        h = block(width, name=f"up_{level}_block_{i}")(h)
        if level in self.attention_levels:
          h = PixelAttention(name=f"up_{level}_attn_{i}", **shared)(h)
      if level:
        name = f"up_{level}_upsample"
        h = conv(width, dtype=self.dtype, name=name)(upsample2(h))
    return nn.silu(GroupNorm(self.groups, 1e-6, name="norm_out")(h))


class VectorQuantizer(nn.Module):
  """Nearest-code quantiser with a straight-through gradient.

  Attributes:
    codes: size of the codebook.
    dim: features of one code.
    beta: weight of one of the two loss terms.
    legacy: whether `beta` is on the codebook term, as in the published
      weights; otherwise on the commitment term, as in the VQ-VAE paper.
    spread: codes start uniformly in +-spread; 0 for the published 1 / codes,
      which needs a long training before more than a few codes are in use.

  Source: VectorQuantizer2 of CompVis/taming-transformers.
  """

  codes: int
  dim: int
  beta: float = 0.25
  legacy: bool = True
  spread: float = 0.0

  def setup(self):
    bound = self.spread or 1 / self.codes

    def init(key, shape):
      return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    self.embedding = self.param("embedding", init, (self.codes, self.dim))

  @typechecked
  def __call__(
    self, z: Float[Array, "b h w d"]
  ) -> tuple[Float[Array, "b h w d"], Float[Array, ""], Int[Array, "b h w"]]:
    """Replaces every pixel of `z` by its nearest code.

    Args:
      z: (b, h, w, dim).

    Returns:
      The quantised latent, whose gradient goes to `z`; the codebook loss;
      the chosen codes (b, h, w) int32.
    """
    z32 = z.astype(jnp.float32)
    flat = z32.reshape(-1, self.dim)
    # |z|^2 is the same for every code and left out.
    distance = jnp.square(self.embedding).sum(-1) - 2 * jnp.matmul(
      flat, self.embedding.T, precision=jax.lax.Precision.HIGHEST
    )
    indices = jnp.argmin(distance, -1).reshape(z.shape[:-1])
    chosen = self.lookup(indices)
    stop = jax.lax.stop_gradient
    commitment = jnp.square(stop(chosen) - z32).mean()
    codebook = jnp.square(chosen - stop(z32)).mean()
    if self.legacy:
      loss = commitment + self.beta * codebook
    else:
      loss = self.beta * commitment + codebook
    # In float32: rounded to bfloat16 the decoder would see another code here
    # than where it decodes one.
    return z32 + stop(chosen - z32), loss, indices

  @typechecked
  def lookup(self, indices: Int[Array, "b h w"]) -> Float[Array, "b h w d"]:
    """The codes of `indices` (b, h, w), as (b, h, w, dim)."""
    return self.embedding[indices]


class VQModel(nn.Module):
  """Autoencoder whose decoder sees a quantised latent.

  The latent that `encode` gives is not quantised, and `decode` quantises
  first: a diffusion model works on latents before quantisation.

  Attributes:
    channels: channels at full size.
    mult: channels of each level, as multiples of `channels`.
    res_blocks: residual blocks of each level.
    attention_levels: levels with self-attention; 0 is full size.
    z_channels: channels the encoder gives.
    embed_dim: channels of the latent.
    codes: size of the codebook.
    beta: weight of one of the two codebook loss terms.
    legacy: see `VectorQuantizer`.
    spread: see `VectorQuantizer`.
    in_channels: channels of the image.
    groups: groups of the norms.
    dtype: compute dtype.
  """

  channels: int = 128
  mult: tuple[int, ...] = (1, 2, 2, 4)
  res_blocks: int = 2
  attention_levels: tuple[int, ...] = (3,)
  z_channels: int = 4
  embed_dim: int = 4
  codes: int = 16384
  beta: float = 0.25
  legacy: bool = True
  spread: float = 0.0
  in_channels: int = 3
  groups: int = 32
  dtype: Any = jnp.float32

  def setup(self):
    shape = (
      self.channels,
      tuple(self.mult),
      self.res_blocks,
      tuple(self.attention_levels),
    )
    shared = {"groups": self.groups, "dtype": self.dtype}
    self.encoder = Encoder(*shape, out_channels=self.z_channels, **shared)
    self.decoder = Decoder(*shape, out_channels=self.in_channels, **shared)
    # Orthogonal at the start: in a chain of small random matrices round the
    # latent some of its few directions would be all but lost, and with them
    # their gradient (published: the plain initialiser of convolutions).
    across = functools.partial(
      conv, kernel=1, init=nn.initializers.orthogonal(), dtype=self.dtype
    )
    self.quant_conv = across(self.embed_dim)
    self.post_quant_conv = across(self.z_channels)
    self.quantizer = VectorQuantizer(
      self.codes, self.embed_dim, self.beta, self.legacy, self.spread
    )

  def __call__(self, x: Image) -> VQOutput:
    """Reconstructs images (b, h, w, c) in [-1, 1]."""
    latent = self.encode(x)
    quantised, loss, indices = self.quantize(latent)
    return VQOutput(self.decode_quantized(quantised), latent, loss, indices)

  @typechecked
  def encode(self, x: Image) -> Features:
    """Images (b, h, w, c) to latents before quantisation.

    Raises:
      ValueError: the image cannot be halved often enough.
    """
    check_side(x, self.mult)
    return self.quant_conv(self.encoder(x))

  @typechecked
  def quantize(
    self, z: Image
  ) -> tuple[Features, Float[Array, ""], Int[Array, "b h w"]]:
    """Quantised latents, codebook loss, codes; see `VectorQuantizer`."""
    return self.quantizer(z)

  @typechecked
  def codes_to_latent(self, indices: Int[Array, "b h w"]) -> Features:
    """Quantised latents of codes (b, h, w)."""
    return self.quantizer.lookup(indices)

  def decode(self, z: Image) -> Features:
    """Latents before quantisation to images."""
    return self.decode_quantized(self.quantize(z)[0])

  def decode_quantized(self, z: Image) -> Features:
    """Quantised latents to images."""
    return self.decode_last(self.decode_features(z))

  @typechecked
  def decode_features(self, z: Image) -> Features:
    """Quantised latents to the input of the last convolution."""
    return self.decoder.features(self.post_quant_conv(z))

  @typechecked
  def decode_last(self, h: Image) -> Features:
    """Applies the last convolution, `decoder/conv_out`."""
    return self.decoder.last(h)


class KLOutput(NamedTuple):
  """What a Gaussian autoencoder computes in one pass."""

  image: Array  # (b, h, w, c) reconstruction
  posterior: Posterior


class KLModel(nn.Module):
  """Autoencoder with a Gaussian latent.

  Attributes: as `VQModel`, without a codebook.
  """

  channels: int = 128
  mult: tuple[int, ...] = (1, 2, 4, 4)
  res_blocks: int = 2
  attention_levels: tuple[int, ...] = ()
  z_channels: int = 4
  embed_dim: int = 4
  in_channels: int = 3
  groups: int = 32
  double_z: bool = True
  dtype: Any = jnp.float32

  def setup(self):
    shape = (
      self.channels,
      tuple(self.mult),
      self.res_blocks,
      tuple(self.attention_levels),
    )
    shared = {"groups": self.groups, "dtype": self.dtype}
    moments = 2 * self.z_channels if self.double_z else self.z_channels
    self.encoder = Encoder(*shape, out_channels=moments, **shared)
    self.decoder = Decoder(*shape, out_channels=self.in_channels, **shared)
    self.quant_conv = conv(2 * self.embed_dim, 1, dtype=self.dtype)
    self.post_quant_conv = conv(self.z_channels, 1, dtype=self.dtype)

  def __call__(self, x: Image, key: Array | None = None) -> KLOutput:
    """Reconstructs images (b, h, w, c) in [-1, 1].

    Args:
      x: images.
      key: draws the latent; without it the mean is decoded.

    Returns:
      Reconstruction and posterior.
    """
    posterior = self.encode(x)
    z = posterior.mode() if key is None else posterior.sample(key)
    return KLOutput(self.decode(z), posterior)

  @typechecked
  def encode(self, x: Image) -> Posterior:
    """Images (b, h, w, c) to a Gaussian over latents.

    Raises:
      ValueError: the image cannot be halved often enough.
    """
    mean, logvar = jnp.split(self.moments(x), 2, -1)
    return Posterior(mean, jnp.clip(logvar, -30.0, 20.0))

  @typechecked
  def moments(self, x: Image) -> Features:
    """Images to mean and unclipped log variance side by side, float32."""
    check_side(x, self.mult)
    return self.quant_conv(self.encoder(x)).astype(jnp.float32)

  def decode(self, z: Image) -> Features:
    """Latents to images."""
    return self.decode_last(self.decode_features(z))

  @typechecked
  def decode_features(self, z: Image) -> Features:
    """Latents to the input of the last convolution."""
    return self.decoder.features(self.post_quant_conv(z))

  @typechecked
  def decode_last(self, h: Image) -> Features:
    """Applies the last convolution, `decoder/conv_out`."""
    return self.decoder.last(h)


def check_side(x: Array, mult: tuple[int, ...]) -> None:
  """Raises a ValueError unless the image side suits the number of levels."""
  factor = 2 ** (len(mult) - 1)
  if x.shape[1] % factor or x.shape[2] % factor:
    raise ValueError(
      f"autoencoder: got an image of {x.shape[1]} x {x.shape[2]}, wanted "
      f"multiples of {factor}; change the image size or `mult`"
    )
