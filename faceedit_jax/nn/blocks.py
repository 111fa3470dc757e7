"""The residual block of the U-Nets and the first stages.

DiffFAE Sec. 4.2, Eq. (4) and (5): modulation by the identity; structure of
CompVis/latent-diffusion.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.nn.layers import (
  Features,
  GroupNorm,
  average_pool2,
  conv,
  dense,
  fan_in_uniform,
  upsample2,
  zeros,
)
from faceedit_jax.nn.style import InstanceNorm

Adain = Literal["none", "residual", "replace"]


class ResBlock(nn.Module):
  """Two 3 x 3 convolutions behind norms, with a shortcut.

  Attributes:
    features: output channels.
    groups: groups of the norms.
    eps: of the norms.
    adain: how the condition modulates the second norm, Eq. (4) and (5) of
      DiffFAE. "replace" is Eq. (4): an instance norm in place of the group
      norm, h_s IN(f) + h_b, and the time is added after it, for a value per
      channel that is added before is what the norm takes away. h_s = g (1 + s)
      and h_b = e (1 + s) + b, where (s, b) is one linear layer on the SiLU of
      the condition and g, e are the scale and bias of the norm, so that those
      of a published net find their place. "residual" (not in the paper) keeps
      the group norm, with the time before it, and applies (1 + s) x + b. In
      both s = b = 0 at the start.
    scale_shift: whether the time scales and shifts after the second norm
      instead of being added before it.
    resample: "up" and "down" change the size inside the block.
    zero_out: whether the last convolution starts at zero.
    dtype: compute dtype.
  """

  features: int
  groups: int = 32
  eps: float = 1e-5
  adain: Adain = "none"
  scale_shift: bool = False
  resample: Literal["none", "up", "down"] = "none"
  zero_out: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(
    self,
    x: Image,
    time: Float[Array, "b e"] | None = None,
    condition: Float[Array, "b i"] | None = None,
  ) -> Features:
    """Transforms a feature map.

    Args:
      x: (b, h, w, c).
      time: (b, e) embedding of the time; without it the block has none.
      condition: (b, i); needed unless `adain` is "none".

    Returns:
      (b, h', w', features).
    """
    h = nn.silu(GroupNorm(self.groups, self.eps, name="norm1")(x))
    if self.resample != "none":
      change = upsample2 if self.resample == "up" else average_pool2
      h, x = change(h), change(x)
    h = conv(self.features, dtype=self.dtype, name="conv1")(h)
    if time is not None:
      width = 2 * self.features if self.scale_shift else self.features
      shift = dense(width, dtype=self.dtype, name="time")(nn.silu(time))
      shift = shift[:, None, None]
      if not self.scale_shift and self.adain != "replace":
        h = h + shift
    h = self._second_norm(h, condition)
    if time is not None and self.scale_shift:
      scale, shift = jnp.split(shift, 2, -1)
      h = h * (1 + scale) + shift
    elif time is not None and self.adain == "replace":
      h = h + shift
    init = zeros if self.zero_out else fan_in_uniform
    h = conv(self.features, init=init, dtype=self.dtype, name="conv2")(
      nn.silu(h)
    )
    if x.shape[-1] != self.features:
      x = conv(self.features, 1, dtype=self.dtype, name="shortcut")(x)
    return x + h

  def _second_norm(self, h: Array, condition: Array | None) -> Array:
    if self.adain == "replace":
      h = InstanceNorm(name="norm2")(h)
    else:
      h = GroupNorm(self.groups, self.eps, name="norm2")(h)
    if self.adain == "none":
      return h
    # One linear layer behind SiLU; zero weights, so that every identity
    # starts with the same, neutral modulation.
    modulation = dense(
      2 * self.features, init=zeros, dtype=self.dtype, name="adain"
    )(nn.silu(condition))
    scale, shift = jnp.split(modulation[:, None, None], 2, -1)
    # 1 + s with a zero bias is the same function as s with a bias of one.
    return h * (1 + scale) + shift
