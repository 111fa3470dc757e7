"""Region-responsive encoder: an image to a few tokens and their regions.

DiffFAE Sec. 4.2 and Tab. 4. The paper gives the sizes; the structure is that
of JindongJiang/latent-slot-diffusion, whose table has the same rows.
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.models.slots.slot_attention import SlotAttention
from faceedit_jax.nn.attention import PixelAttention
from faceedit_jax.nn.blocks import ResBlock
from faceedit_jax.nn.layers import (
  Features,
  GroupNorm,
  LayerNorm,
  conv,
  dense,
  timestep_embedding,
  upsample2,
)


class FeatureUNet(nn.Module):
  """Image to a feature map, through a small U-Net behind a stem.

  Attributes:
    channels: channels at the first level of the U-Net.
    mult: channels of each level, as multiples of `channels`.
    res_blocks: residual blocks of each level on the way down.
    attention_levels: levels with self-attention; the middle always has one.
    head_channels: features of one attention head.
    out_channels: channels of the feature map.
    stem: "patchify": one convolution whose stride is its size; "conv":
      convolutions at full resolution that halve the side step by step.
      The paper does not say which; the first costs far less.
    patch: factor between the sides of the image and of the feature map.
    groups: groups of the norms.
    time_embedding: whether the blocks have the constant time embedding of
      the published code, which a plain bias replaces otherwise.
    dtype: compute dtype.
    up_attention_levels: levels with self-attention on the way up; None: as on
      the way down.
  """

  channels: int = 64
  mult: tuple[float, ...] = (1, 1, 2, 4)
  res_blocks: int = 2
  attention_levels: tuple[int, ...] = ()
  head_channels: int = 8
  out_channels: int = 192
  stem: Literal["patchify", "conv"] = "patchify"
  patch: int = 8
  groups: int = 16
  time_embedding: bool = True
  dtype: Any = jnp.float32
  up_attention_levels: tuple[int, ...] | None = None

  @nn.compact
  @typechecked
  def __call__(self, image: Image) -> Features:
    """Maps (b, h, w, 3) to (b, h/patch, w/patch, out_channels)."""
    time = None
    if self.time_embedding:
      # The published net is a denoiser that is always called at time 0.
      zero = jnp.zeros(image.shape[:1])
      time = timestep_embedding(zero, self.channels)
      time = dense(4 * self.channels, dtype=self.dtype, name="time_in")(time)
      time = nn.silu(time)
      time = dense(4 * self.channels, dtype=self.dtype, name="time_out")(time)

    def block(h, width, name):
      net = ResBlock(
        width,
        groups=self.groups,
        zero_out=False,
        dtype=self.dtype,
        name=name,
      )
      return net(h, time)

    def attend(h, name):
      heads = max(1, h.shape[-1] // self.head_channels)
      net = PixelAttention(
        heads, self.groups, 1e-5, dtype=self.dtype, name=name
      )
      return net(h)

    h = self._stem(image, block)
    h = conv(self.channels, dtype=self.dtype, name="conv_in")(h)
    skips = [h]
    for level, factor in enumerate(self.mult):
      width = round(self.channels * factor)
      for i in range(self.res_blocks):
        h = block(h, width, f"down_{level}_res_{i}")
        if level in self.attention_levels:
          h = attend(h, f"down_{level}_attn_{i}")
        skips.append(h)
      if level + 1 < len(self.mult):
        h = conv(width, 3, 2, dtype=self.dtype, name=f"down_{level}_down")(h)
        skips.append(h)

    h = block(h, h.shape[-1], "mid_res_0")
    h = attend(h, "mid_attn")
    h = block(h, h.shape[-1], "mid_res_1")

    up_levels = self.up_attention_levels
    up_levels = self.attention_levels if up_levels is None else up_levels
    for step, level in enumerate(reversed(range(len(self.mult)))):
      width = round(self.channels * self.mult[level])
      for i in range(self.res_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], -1)
        h = block(h, width, f"up_{step}_res_{i}")
        if level in up_levels:
          h = attend(h, f"up_{step}_attn_{i}")
      if level:
        h = conv(width, dtype=self.dtype, name=f"up_{step}_up")(upsample2(h))

    h = nn.silu(GroupNorm(self.groups, name="norm_out")(h))
    return conv(self.out_channels, dtype=self.dtype, name="conv_out")(h)

  def _stem(self, image: Array, block) -> Array:
    factor = self.patch * 2 ** (len(self.mult) - 1)
    if image.shape[1] % factor or image.shape[2] % factor:
      raise ValueError(
        f"RegionEncoder: got an image of {image.shape[1]} x {image.shape[2]}, "
        f"wanted multiples of {factor}; change the image size, `patch` or "
        "`mult`"
      )
    if self.stem == "patchify":
      net = conv(
        self.channels,
        self.patch,
        self.patch,
        padding=0,
        dtype=self.dtype,
        name="stem",
      )
      return net(image)
    halvings = int(math.log2(self.patch))
    if 2**halvings != self.patch:
      raise ValueError(
        f"RegionEncoder: got patch {self.patch} with the stem 'conv', wanted a "
        "power of two; change `patch` or `stem`"
      )
    h = conv(self.channels, dtype=self.dtype, name="stem")(image)
    for i in range(halvings):
      h = block(h, self.channels, f"stem_res_{i}")
      down = conv(self.channels, 3, 2, dtype=self.dtype, name=f"stem_down_{i}")
      h = down(h)
    return h


class SlotHead(nn.Module):
  """Feature map to tokens and regions.

  Attributes:
    slots: number of tokens.
    slot_size: features inside the slot attention.
    token_size: features of a returned token.
    mlp_size: hidden features of the slots' MLP.
    iterations: of the slot attention.
    heads: of the slot attention.
    slot_init: "learned": one learned vector per slot, which keeps their
      order the same for every image; "gaussian": drawn around a shared
      learned mean.
    dtype: compute dtype.
    eps: of the slot attention; published: 1e-8.
  """

  slots: int = 4
  slot_size: int = 192
  token_size: int = 192
  mlp_size: int = 192
  iterations: int = 3
  heads: int = 1
  slot_init: Literal["learned", "gaussian"] = "learned"
  dtype: Any = jnp.float32
  eps: float = 1e-6

  @nn.compact
  @typechecked
  def __call__(
    self,
    features: Float[Array, "b *t h w c"],
    noise: Float[Array, "b k d"] | None = None,
  ) -> tuple[Float[Array, "b *t k e"], Float[Array, "b *t h w k"]]:
    """Maps (b, h, w, c) to tokens (b, k, e) and masks (b, h, w, k).

    Frames of one clip (b, t, h, w, c) go one after the other: the slots of a
    frame start from those of the frame before, the first from the mean.
    """
    b, *clip, height, width, channels = features.shape
    features = features.reshape(-1, height, width, channels)
    grid = position_grid(height, width)
    position = conv(channels, 1, dtype=self.dtype, name="position")
    h = (features + position(grid[None])).reshape(len(features), -1, channels)
    h = LayerNorm(name="norm_in")(h)
    h = nn.relu(dense(channels, dtype=self.dtype, name="mlp_in")(h))
    h = dense(channels, dtype=self.dtype, name="mlp_out")(h)
    attention = SlotAttention(
      self.slot_size,
      self.mlp_size,
      self.iterations,
      self.heads,
      eps=self.eps,
      softmax_over="heads_slots",
      scale_by="slot",
      dtype=self.dtype,
      name="attention",
    )
    slots, found = self._start(b, noise), []
    h = h.reshape(b, -1, *h.shape[1:])
    for frame in range(h.shape[1]):
      slots, maps = attention(h[:, frame], slots)
      found.append((slots, maps))
    slots, maps = (jnp.stack(values, 1) for values in zip(*found, strict=True))
    tokens = LayerNorm(name="norm_out")(slots)
    tokens = dense(self.token_size, name="out")(tokens)
    # One softmax over heads and slots: the sum over heads sums to 1.
    masks = maps.sum(2)
    return (
      tokens.reshape(b, *clip, self.slots, self.token_size),
      masks.reshape(b, *clip, height, width, self.slots),
    )

  def _start(self, batch: int, noise: Array | None) -> Array:
    normal = nn.initializers.normal(1.0)
    shape = (self.slots, self.slot_size)
    if self.slot_init == "learned":
      start = self.param("mean", normal, (1, *shape))
      return jnp.broadcast_to(start, (batch, *shape))
    glorot = nn.initializers.glorot_uniform()
    mean = self.param("mean", glorot, (1, 1, self.slot_size))
    deviation = self.param("log_deviation", glorot, (1, 1, self.slot_size))
    if noise is None:
      noise = jnp.zeros((batch, *shape))
    return mean + jnp.exp(deviation) * noise


class RegionEncoder(nn.Module):
  """Image to face tokens and the regions they stand for.

  Attributes: as `FeatureUNet` and `SlotHead`.
  """

  channels: int = 64
  mult: tuple[int, ...] = (1, 1, 2, 4)
  res_blocks: int = 2
  attention_levels: tuple[int, ...] = ()
  head_channels: int = 8
  out_channels: int = 192
  stem: Literal["patchify", "conv"] = "patchify"
  patch: int = 8
  groups: int = 16
  time_embedding: bool = True
  slots: int = 4
  slot_size: int = 192
  token_size: int = 192
  mlp_size: int = 192
  iterations: int = 3
  heads: int = 1
  slot_init: Literal["learned", "gaussian"] = "learned"
  dtype: Any = jnp.float32

  def setup(self):
    self.unet = FeatureUNet(
      self.channels,
      tuple(self.mult),
      self.res_blocks,
      tuple(self.attention_levels),
      self.head_channels,
      self.out_channels,
      self.stem,
      self.patch,
      self.groups,
      self.time_embedding,
      self.dtype,
    )
    self.head = SlotHead(
      self.slots,
      self.slot_size,
      self.token_size,
      self.mlp_size,
      self.iterations,
      self.heads,
      self.slot_init,
      self.dtype,
    )

  @typechecked
  def __call__(
    self,
    image: Float[Array, "b *t h w c"],
    noise: Float[Array, "b k d"] | None = None,
  ) -> tuple[Float[Array, "b *t k e"], Float[Array, "b *t _h _w k"]]:
    """Encodes images.

    Args:
      image: (b, h, w, 3) in [-1, 1], or the frames of clips (b, t, h, w, 3),
        whose slots each start from those of the frame before.
      noise: (b, k, slot_size) unit Gaussian for the initial slots, used with
        `slot_init="gaussian"`; zeros when absent.

    Returns:
      Tokens (b, k, token_size) float32, and masks (b, h/patch, w/patch, k)
      float32 that sum to 1 over k: the softmax of the last iteration. Of clips
      both have the axis t behind b.

    Raises:
      ValueError: the image cannot be halved often enough.
    """
    features = self.unet(image.reshape(-1, *image.shape[-3:]))
    features = features.reshape(*image.shape[:-3], *features.shape[1:])
    return self.head(features, noise)

  @typechecked
  def features(self, image: Image) -> Features:
    """The feature map (b, h/patch, w/patch, out_channels)."""
    return self.unet(image)


@typechecked
def position_grid(height: int, width: int) -> Float[Array, "h w 4"]:
  """Pixel centres in [0, 1] and their complements, (h, w, 4).

  Channels: y, x, 1 - y, 1 - x.
  """
  y = (jnp.arange(height) + 0.5) / height
  x = (jnp.arange(width) + 0.5) / width
  grid = jnp.stack(jnp.meshgrid(y, x, indexing="ij"), -1)
  return jnp.concatenate([grid, 1 - grid], -1)
