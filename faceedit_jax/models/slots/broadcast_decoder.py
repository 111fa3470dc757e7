"""Spatial broadcast decoder: one picture and one mask per token, merged.

DiffFAE Sec. 4.3 (the decoder that pre-trains the region encoder); structure
of google-research/slot-attention-video, savi/modules/decoders.py, and of
Wuziyi616/SlotDiffusion, whose differences are fields here.
"""

import math
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import (
  Array,
  Float,
  PRNGKey,
  Slots,
  typechecked,
)
from faceedit_jax.nn.layers import (
  ConvTranspose,
  NormKind,
  dense,
  normalise,
)


class Broadcast(NamedTuple):
  """What the decoder makes of the tokens of an image."""

  image: Array  # (b, h, w, c) sum of the parts, weighted by the masks
  masks: Array  # (b, h, w, k) float32, sum 1 over k
  parts: Array  # (b, k, h, w, c) one picture per token


class BroadcastDecoder(nn.Module):
  """Tokens to an image, each decoded by itself.

  Attributes:
    target: "pixel" or "latent", what the picture is; sets the channels.
    out_channels: channels of the picture; 3 or 4 by `target` when None.
    grid: height and width to which a token is repeated.
    features: channels of each transposed convolution.
    strides: factor by which each of them enlarges.
    kernel: side of their kernels.
    position: what is added to the repeated token. "linear": a linear map of
      coordinates in [-1, 1]; "fourier": of their sines and cosines;
      "gaussian": of sines and cosines of drawn mixtures of them, which stay as
      they were drawn; "columns": of the column, one-hot; "corners": of
      coordinates in [0, 1] and their complements; "learned": a vector per
      place, which a short training turns into shapes sooner (ours).
    bases: octaves of the position "fourier", mixtures of "gaussian".
    early_fusion: whether the features are merged before the last layer,
      which saves memory; `parts` then hold only the merged picture.
    trailing: see `ConvTranspose`.
    norm: behind each transposed convolution, which then has no bias with
      "batch" and "instance".
    dtype: compute dtype.
    join: "add": what is said of `position`; "concat": the numbers of a place
      become further features of the token instead (not with "learned").
  """

  target: Literal["pixel", "latent"] = "pixel"
  out_channels: int | None = None
  grid: tuple[int, int] = (8, 8)
  features: tuple[int, ...] = (64, 64, 64, 64, 64, 64)
  strides: tuple[int, ...] = (2, 2, 2, 2, 2, 1)
  kernel: int = 5
  position: Literal[
    "linear", "fourier", "gaussian", "columns", "corners", "learned"
  ] = "linear"
  bases: int = 0
  early_fusion: bool = False
  trailing: bool = False
  norm: NormKind = "none"
  dtype: Any = jnp.float32
  join: Literal["add", "concat"] = "add"

  @nn.compact
  @typechecked
  def __call__(self, slots: Slots, train: bool = False) -> Broadcast:
    """Decodes tokens.

    Args:
      slots: (b, k, d).
      train: whether the norm "batch" uses and stores batch statistics.

    Returns:
      Picture, masks and parts of side `grid * prod(strides)`.

    Raises:
      ValueError: `features` and `strides` differ in length.
    """
    if len(self.features) != len(self.strides):
      raise ValueError(
        f"BroadcastDecoder: got {len(self.features)} features and "
        f"{len(self.strides)} strides, wanted as many of each"
      )
    b, k, d = slots.shape
    height, width = self.grid
    h = jnp.broadcast_to(
      slots.reshape(b * k, 1, 1, d), (b * k, height, width, d)
    )
    h = self._place(h)
    for i, (width, stride) in enumerate(
      zip(self.features, self.strides, strict=True)
    ):
      up = ConvTranspose(
        width,
        self.kernel,
        stride,
        self.dtype,
        self.trailing,
        bias=self.norm not in ("batch", "instance"),
        name=f"conv_{i}",
      )
      h = nn.relu(normalise(up(h), self.norm, train, f"norm_{i}"))
    h = h.reshape(b, k, *h.shape[1:])
    logits = dense(1, dtype=self.dtype, name="alpha")(h)
    masks = jax.nn.softmax(logits.astype(jnp.float32), 1)
    channels = self.out_channels or (3 if self.target == "pixel" else 4)
    readout = dense(channels, dtype=self.dtype, name="readout")
    if self.early_fusion:
      image = readout((h * masks).sum(1)).astype(jnp.float32)
      parts = image[:, None]
    else:
      parts = readout(h).astype(jnp.float32)
      image = (parts * masks).sum(1)
    return Broadcast(image, jnp.moveaxis(masks[..., 0], 1, -1), parts)

  def _place(self, h: Array) -> Array:
    """Tells the repeated tokens (b k, h, w, d) where they are."""
    height, width, d = h.shape[1:]
    if self.position == "learned":
      start = nn.initializers.normal(0.5)
      return h + self.param("position", start, (1, height, width, d))
    grid = self._grid(height, width)
    if self.join == "concat":
      grid = jnp.broadcast_to(grid, (*h.shape[:-1], grid.shape[-1]))
      return jnp.concatenate([h, grid], -1)
    return h + dense(d, dtype=self.dtype, name="position")(grid)

  def _grid(self, height: int, width: int) -> Float[Array, "h w c"]:
    if self.position == "corners":
      return corner_grid(height, width)
    if self.position == "columns":
      return jnp.broadcast_to(jnp.eye(width), (height, width, width))
    if self.position == "gaussian":
      # Held with the parameters, but never trained, as published.
      table = self.param("table", gaussian_table, height, width, self.bases)
      return jax.lax.stop_gradient(table)[0]
    grid = centred_grid(height, width)
    if self.position == "fourier":
      octaves = [math.pi * 2**i * grid for i in range(self.bases)]
      angles = jnp.concatenate(octaves, -1)
      grid = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
    return grid


def centred_grid(height: int, width: int) -> Float[Array, "h w 2"]:
  """Coordinates y and x, -1 at the first pixel and 1 at the last."""
  axes = (jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width))
  return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)


def gaussian_table(
  key: PRNGKey, height: int, width: int, bases: int
) -> Float[Array, "1 h w c"]:
  """Sines and cosines of `bases` normally drawn mixtures of the coordinates.

  Source: PositionEmbedding of google-research/slot-attention-video.
  """
  mixtures = jax.random.normal(key, (2, bases))
  angles = math.pi * centred_grid(height, width) @ mixtures
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)[None]


def corner_grid(height: int, width: int) -> Float[Array, "h w 4"]:
  """Coordinates y and x, 0 at the first pixel and 1 at the last; 1 - y, 1 - x.

  Source: build_grid of Wuziyi616/SlotDiffusion.
  """
  axes = (jnp.linspace(0, 1, height), jnp.linspace(0, 1, width))
  grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)
  return jnp.concatenate([grid, 1 - grid], -1)
