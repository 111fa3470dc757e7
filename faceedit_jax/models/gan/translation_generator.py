"""Generator that redraws a picture in a given style.

Of L2M-GAN; structure of rucmlcv/L2M-GAN and clovaai/stargan-v2,
core/model.py.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.nn.layers import (
  Features,
  conv,
  resize,
  upsample2,
)
from faceedit_jax.nn.style import (
  AdaIN,
  InstanceNorm,
  PreActBlock,
  check_size,
  he_normal,
  leaky,
  unit_sum,
)

# Sides of the maps at which details of the input are added to the output, as
# shares of the picture's; published in pixels, 32, 64 and 128, for 256.
SKIP_SIDES = (1 / 8, 1 / 4, 1 / 2)


class AdaINBlock(nn.Module):
  """Two 3 x 3 convolutions behind adaptive norms.

  Attributes:
    features: output channels.
    up: whether height and width are doubled inside.
    shortcut: whether the input is added to the result.
    dtype: compute dtype.
  """

  features: int
  up: bool = False
  shortcut: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, style: Float[Array, "b d"]) -> Features:
    """Maps (b, h, w, c) to (b, h', w', features)."""
    shared = {"init": he_normal, "dtype": self.dtype}
    change = upsample2 if self.up else lambda x: x
    h = change(leaky(AdaIN(self.dtype, name="norm1")(x, style)))
    h = conv(self.features, name="conv1", **shared)(h)
    h = leaky(AdaIN(self.dtype, name="norm2")(h, style))
    h = conv(self.features, name="conv2", **shared)(h)
    if not self.shortcut:
      return h
    if x.shape[-1] != self.features:
      # Before pixels are repeated, which is the same and cheaper.
      x = conv(self.features, 1, bias=False, name="shortcut", **shared)(x)
    return unit_sum(change(x), h)


@typechecked
def high_pass(x: Image, divisor: float) -> Features:
  """What a pixel has more than its eight neighbours, zero beyond the border.

  Args:
    x: (b, h, w, c).
    divisor: of the kernel (-1 around 8); large ones let less through.
  """
  h, w = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  rows = sum(padded[:, i : i + h] for i in range(3))
  box = sum(rows[:, :, i : i + w] for i in range(3))
  return (9 * x - box) / divisor


class TranslationGenerator(nn.Module):
  """Picture and style to a picture.

  Attributes:
    image_size: side of the pictures in pixels; it fixes the number of blocks.
    channels: of the first convolution, doubled by each block that halves the
      side; 2^14 / image_size as published.
    max_channels: where the doubling ends.
    w_hpf: divisor of the high-pass filter of the skips, which masks open. 0:
      the decoder's blocks have shortcuts in place of such skips, and there is
      one block less that halves the side.
    skip_sides: sides of the maps that have skips, as shares of the picture's
      side, from the smallest on, which the large mask opens; the small one
      opens the others. The published code has 32, 64 and 128 pixels whatever
      the pictures' side: (.25, .5, 1.0) are its nets of 128 pixels.
    dtype: compute dtype.
  """

  image_size: int = 256
  channels: int = 64
  max_channels: int = 512
  w_hpf: float = 1.0
  skip_sides: tuple[float, ...] = SKIP_SIDES
  dtype: Any = jnp.float32

  @property
  def skips(self) -> dict[int, int]:
    """{side in pixels: which mask opens the skip there}."""
    sides = [round(share * self.image_size) for share in self.skip_sides]
    return {side: min(at, 1) for at, side in enumerate(sides)}

  @property
  def halvings(self) -> int:
    """How many blocks halve the side."""
    return self.image_size.bit_length() - 5 + (self.w_hpf > 0)

  @nn.compact
  @typechecked
  def __call__(
    self,
    x: Image,
    style: Float[Array, "b d"],
    masks: Float[Array, "b _ _ 2"] | None = None,
  ) -> Features:
    """Redraws pictures.

    Args:
      x: (b, image_size, image_size, 3) in [-1, 1].
      style: (b, d).
      masks: (b, h, w, 2) in [0, 1], of any size: where details of the input
        pass, in the large (face parts) and in the small (eyes and nose); see
        `landmark_masks`. None: nowhere.

    Returns:
      As `x`, float32, not clipped.

    Raises:
      ValueError: the pictures have another size, or one that cannot be halved
        so often; masks are given though `w_hpf` is 0, or `skip_sides` are no
        shares in order.
    """
    check_size(x, self.image_size)
    self._check(masks)
    shared = {"init": he_normal, "dtype": self.dtype}
    h = conv(self.channels, name="from_rgb", **shared)(x)
    widths = [
      min(self.channels * 2**i, self.max_channels)
      for i in range(self.halvings + 1)
    ]
    details, skips = {}, self.skips
    for i in range(self.halvings + 2):
      if masks is not None and h.shape[1] in skips:
        details[h.shape[1]] = h
      down = i < self.halvings
      width = widths[i + 1] if down else widths[-1]
      h = PreActBlock(width, True, down, self.dtype, name=f"encode_{i}")(h)
    for i in range(self.halvings + 2):
      up = i >= 2
      width = widths[self.halvings + 1 - i] if up else widths[-1]
      block = AdaINBlock(
        width, up, self.w_hpf == 0, self.dtype, name=f"decode_{i}"
      )
      h = block(h, style)
      side = h.shape[1]
      if side in details:
        mask = masks[..., skips[side], None]
        mask = resize(mask, side, side, antialias=False).astype(h.dtype)
        h = h + high_pass(mask * details[side], float(self.w_hpf))
    h = leaky(InstanceNorm(name="norm_out")(h))
    h = conv(x.shape[-1], 1, name="to_rgb", **shared)(h)
    return h.astype(jnp.float32)

  def _check(self, masks: Array | None) -> None:
    if self.halvings < 0 or self.image_size % 2**self.halvings:
      raise ValueError(
        f"image_size is {self.image_size}; it is halved {self.halvings} times "
        "here, which must be possible: powers of two from 16 always are"
      )
    if masks is not None and self.w_hpf == 0:
      raise ValueError(
        "masks are given to a generator with w_hpf=0, which has no skips for "
        "them; leave the masks out or change `w_hpf`"
      )
    shares = self.skip_sides
    if list(shares) != sorted({s for s in shares if 0 < s <= 1}):
      raise ValueError(
        f"skip_sides are {shares}; wanted shares of the picture's side in "
        "(0, 1], from the smallest on (nets.generator.skip_sides)"
      )
