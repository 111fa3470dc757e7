"""Latent-diffusion U-Net with cross-attention and identity modulation.

DiffFAE Sec. 4.2, Eq. (4) to (6) and Tab. 5; structure and sizes of
CompVis/latent-diffusion, ldm/modules/diffusionmodules/openaimodel.py.
"""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, Int, typechecked
from faceedit_jax.models.diffusion.unet_interface import (
  NOTHING,
  Capture,
  Residuals,
  UNetOutput,
)
from faceedit_jax.nn.attention import (
  Kernel,
  SpatialTransformer,
  attend,
  check_kernel,
)
from faceedit_jax.nn.blocks import Adain, ResBlock
from faceedit_jax.nn.layers import (
  GroupNorm,
  conv,
  dense,
  timestep_embedding,
  upsample2,
  zeros,
)

Remat = Literal["none", "blocks", "dots"]


def _dots(primitive: Any, *args: Any, **parameters: Any) -> bool:
  """Keeps what convolutions and products with weights give.

  Not the products inside an attention, which are as large as its maps.
  """
  if primitive is jax.lax.conv_general_dilated_p:
    return True
  policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
  return policy(primitive, *args, **parameters)


_KEPT = {"blocks": jax.checkpoint_policies.nothing_saveable, "dots": _dots}


class SelfAttention(nn.Module):
  """Residual self-attention with one projection for all heads.

  Attributes:
    heads: number of heads.
    groups: groups of the norm.
    dtype: compute dtype.
    kernel: see `attend`.
  """

  heads: int
  groups: int = 32
  dtype: Any = jnp.float32
  kernel: str = "auto"

  @nn.compact
  @typechecked
  def __call__(self, x: Image) -> Image:
    """Returns `x` plus the attention of its pixels on one another."""
    b, height, width, c = x.shape
    h = GroupNorm(self.groups, name="norm")(x).reshape(b, -1, c)
    h = dense(3 * c, dtype=self.dtype, name="qkv")(h)
    # The published weights hold the heads outside queries, keys, values.
    h = h.reshape(b, -1, self.heads, 3, c // self.heads)
    q, k, v = (h[:, :, :, i].reshape(b, -1, c) for i in range(3))
    h, _ = attend(q, k, v, self.heads, kernel=self.kernel)
    h = dense(c, init=zeros, dtype=self.dtype, name="proj_out")(h)
    return x + h.reshape(b, height, width, c)


class UNet(nn.Module):
  """Denoiser of a latent, conditioned on tokens and on one vector.

  Attributes:
    in_channels: channels of the input: the noisy latent and what is
      concatenated with it.
    out_channels: channels of the prediction.
    channels: channels at full size.
    mult: channels of each level, as multiples of `channels`.
    res_blocks: residual blocks of each level on the way down.
    attention_levels: levels with attention; 0 is full size. The middle
      always has one.
    heads: attention heads.
    head_channels: features of one head; overrides `heads`.
    depth: transformer blocks of each attention.
    context_dim: features of one context token.
    condition_dim: features of the condition vector.
    adain: see `ResBlock`.
    groups: groups of the norms.
    scale_shift: see `ResBlock`.
    updown: whether sizes change inside residual blocks, not by convolutions.
    attention: "transformer" (with context) or "self".
    classes: number of class labels, or None.
    remat: what the backward pass computes anew: "none", "blocks" (all inside a
      residual block or an attention; only what lies between them is kept) or
      "dots" (as "blocks", but what convolutions and products with weights give
      is kept too).
    attention_kernel: see `attend`; attention whose maps are asked for has none.
    dtype: compute dtype.
  """

  in_channels: int = 8
  out_channels: int = 4
  channels: int = 320
  mult: tuple[int, ...] = (1, 2, 4, 4)
  res_blocks: int = 2
  attention_levels: tuple[int, ...] = (0, 1, 2)
  heads: int = 8
  head_channels: int | None = None
  depth: int = 1
  context_dim: int = 192
  condition_dim: int = 512
  adain: Adain = "none"
  groups: int = 32
  scale_shift: bool = False
  updown: bool = False
  attention: Literal["transformer", "self"] = "transformer"
  classes: int | None = None
  remat: Remat = "none"
  attention_kernel: Kernel = "auto"
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(
    self,
    x: Image,
    t: Float[Array, "b"] | Int[Array, "b"],
    context: Float[Array, "b n e"] | None = None,
    condition: Float[Array, "b i"] | None = None,
    labels: Int[Array, "b"] | None = None,
    *,
    capture: Capture = NOTHING,
    residuals: Residuals | None = None,
  ) -> UNetOutput:
    """Predicts from a noisy latent.

    Args:
      x: (b, h, w, in_channels).
      t: (b,) times, in steps of the training schedule.
      context: (b, n, context_dim) tokens.
      condition: (b, condition_dim); needed unless `adain` is "none".
      labels: (b,) class labels, if the net has `classes`.
      capture: what to return besides the prediction.
      residuals: what a ControlNet adds, see `residual_shapes`.

    Raises:
      ValueError: an input does not fit the fields of the net.
    """
    self._check(x, context, condition, labels)
    if self.attention == "self" and (
      capture.cross_outputs or capture.cross_maps
    ):
      raise ValueError(
        f"UNet: {capture} asks for cross-attention, which a net with "
        "attention='self' does not have"
      )
    if residuals is not None:
      residuals.check(self.residual_shapes(x.shape))
    features, outputs, maps = {}, {}, {}
    time = timestep_embedding(t.astype(jnp.float32), self.channels)
    time = dense(4 * self.channels, dtype=self.dtype, name="time_in")(time)
    time = dense(4 * self.channels, dtype=self.dtype, name="time_out")(
      nn.silu(time)
    )
    if self.classes is not None:
      table = nn.Embed(self.classes, 4 * self.channels, name="label_emb")
      time = time + table(labels).astype(time.dtype)

    def keep(place, h):
      if place.split("/")[0] in capture.features:
        features[place] = h

    def attend_to(h, name, place):
      part = place.split("/")[0]
      wanted = part in capture.cross_outputs, part in capture.cross_maps
      h, found = self._attention(h.shape[-1], *wanted, name)(h, context)
      for i, cross in enumerate(found):
        if cross.output is not None:
          outputs[f"{place}/{i}"] = cross.output.reshape(*h.shape[:3], -1)
        if cross.maps is not None:
          probabilities = cross.maps
          if capture.map_heads == "mean":
            probabilities = probabilities.mean(1).reshape(*h.shape[:3], -1)
          maps[f"{place}/{i}"] = probabilities
      return h

    def block(h, width, name, resample="none"):
      return self._block(width, name, resample)(h, time, condition)

    h = conv(self.channels, dtype=self.dtype, name="conv_in")(x)
    skips = [h]
    keep("encoder/in", h)
    for level, factor in enumerate(self.mult):
      width = self.channels * factor
      for i in range(self.res_blocks):
        place = f"encoder/{level}/{i}"
        h = block(h, width, f"input_{len(skips)}_res")
        if level in self.attention_levels:
          h = attend_to(h, f"input_{len(skips)}_attn", place)
        keep(place, h)
        skips.append(h)
      if level + 1 < len(self.mult):
        if self.updown:
          h = block(h, width, f"input_{len(skips)}_res", "down")
        else:
          down = conv(
            width, 3, 2, dtype=self.dtype, name=f"input_{len(skips)}_down"
          )
          h = down(h)
        keep(f"encoder/{level}/down", h)
        skips.append(h)

    h = block(h, h.shape[-1], "middle_0_res")
    h = attend_to(h, "middle_1_attn", "middle")
    h = block(h, h.shape[-1], "middle_2_res")
    keep("middle", h)
    if residuals is not None:
      h = h + residuals.middle.astype(h.dtype)
      skips = [
        skip + added.astype(skip.dtype)
        for skip, added in zip(skips, residuals.skips, strict=True)
      ]

    index = 0
    for level in reversed(range(len(self.mult))):
      width = self.channels * self.mult[level]
      for i in range(self.res_blocks + 1):
        place = f"decoder/{level}/{i}"
        h = jnp.concatenate([h, skips.pop()], -1)
        h = block(h, width, f"output_{index}_res")
        if level in self.attention_levels:
          h = attend_to(h, f"output_{index}_attn", place)
        keep(place, h)
        if level and i == self.res_blocks:
          if self.updown:
            h = block(h, width, f"output_{index}_up", "up")
          else:
            h = conv(width, dtype=self.dtype, name=f"output_{index}_up")(
              upsample2(h)
            )
          keep(f"decoder/{level}/up", h)
        index += 1

    h = nn.silu(GroupNorm(self.groups, name="norm_out")(h))
    out = conv(self.out_channels, init=zeros, dtype=self.dtype, name="conv_out")
    prediction = out(h).astype(jnp.float32)
    return UNetOutput(prediction, features, outputs, maps)

  @nn.nowrap
  def residual_shapes(self, shape: tuple[int, ...]) -> Residuals:
    """What `residuals` must look like.

    Args:
      shape: (b, h, w, c) of the input `x`.

    Returns:
      `jax.ShapeDtypeStruct`s in the compute dtype; other dtypes are converted.
    """

    def one(level, width):
      height, across = (side // 2**level for side in shape[1:3])
      size = (shape[0], height, across, width)
      return jax.ShapeDtypeStruct(size, self.dtype)

    skips = [one(0, self.channels)]
    for level, factor in enumerate(self.mult):
      width = self.channels * factor
      skips += [one(level, width)] * self.res_blocks
      if level + 1 < len(self.mult):
        skips.append(one(level + 1, width))
    return Residuals(tuple(skips), skips[-1])

  @nn.nowrap
  def check(self) -> None:
    """Checks that the net can be computed as its fields say.

    Raises:
      ValueError: one line, about `mult`, `remat` or `attention_kernel`.
    """
    if not self.mult:
      raise ValueError(
        "mult is (), wanted the channel multiple of each level, such as "
        "(1, 2, 4) (nets.<net>.mult)"
      )
    over = [n for n in self.attention_levels if not 0 <= n < len(self.mult)]
    if over:
      raise ValueError(
        f"attention_levels has {over[0]}, wanted levels from 0 to "
        f"{len(self.mult) - 1}, as many as mult has "
        "(nets.<net>.attention_levels)"
      )
    if self.remat not in get_args(Remat):
      raise ValueError(
        f"remat is {self.remat!r}, wanted one of {', '.join(get_args(Remat))} "
        "(nets.<net>.remat)"
      )
    attended = {self.mult[level] for level in self.attention_levels}
    for factor in sorted(attended | {self.mult[-1]}):
      size = self._heads(self.channels * factor)[1]
      check_kernel(self.attention_kernel, self.dtype, size)

  @nn.nowrap
  def _heads(self, width: int) -> tuple[int, int]:
    """Number of heads, and features of each."""
    if self.head_channels is not None:
      return width // self.head_channels, self.head_channels
    return self.heads, width // self.heads

  def _rematted(self, cls: type[nn.Module]) -> type[nn.Module]:
    if self.remat == "none":
      return cls
    return nn.remat(cls, policy=_KEPT[self.remat])

  def _block(self, width: int, name: str, resample: str) -> nn.Module:
    return self._rematted(ResBlock)(
      width,
      groups=self.groups,
      adain=self.adain,
      scale_shift=self.scale_shift,
      resample=resample,
      dtype=self.dtype,
      name=name,
    )

  def _attention(
    self, width: int, with_output: bool, with_maps: bool, name: str
  ):
    heads, head_dim = self._heads(width)
    shared = {
      "groups": self.groups,
      "dtype": self.dtype,
      "kernel": self.attention_kernel,
      "name": name,
    }
    if self.attention == "self":
      net = self._rematted(SelfAttention)(heads, **shared)
      return lambda h, context: (net(h), [])
    return self._rematted(SpatialTransformer)(
      heads,
      head_dim,
      self.depth,
      with_output=with_output,
      with_maps=with_maps,
      **shared,
    )

  def _check(self, x, context, condition, labels) -> None:
    def need(what, got, wanted):
      if got != wanted:
        raise ValueError(
          f"UNet: got {what} {got}, wanted {wanted}; change the input or the "
          "field of the net"
        )

    self.check()
    need("in_channels", x.shape[-1], self.in_channels)
    if context is not None and self.attention == "transformer":
      need("context_dim", context.shape[-1], self.context_dim)
    given = None if condition is None else condition.shape[-1]
    need(
      "condition_dim",
      None if self.adain == "none" else given,
      None if self.adain == "none" else self.condition_dim,
    )
    need("labels given", labels is not None, self.classes is not None)
    factor = 2 ** (len(self.mult) - 1)
    need("a remainder of the latent side", x.shape[1] % factor, 0)
    need("a remainder of the latent side", x.shape[2] % factor, 0)
