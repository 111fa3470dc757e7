"""Attention consistency between token maps and region masks (DiffFAE Eq. 7)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float


def merge_maps(
  maps: Sequence[Float[Array, "b _h _w n"]], size: tuple[int, int]
) -> Float[Array, "b h w n"]:
  """Resizes attention maps bilinearly to one size and averages them.

  Args:
    maps: head-averaged cross-attention maps of any resolutions, the n tokens
      last, each pixel summing to 1 over them.
    size: (height, width) of the result.

  Returns:
    (b, height, width, n) float32, still summing to 1.
  """
  if not maps:
    raise ValueError(
      "no attention maps to merge; ask the network to return its maps"
    )
  resized = [
    jax.image.resize(
      m.astype(jnp.float32),
      (m.shape[0], *size, m.shape[-1]),
      "bilinear",
      # Shrinking by plain interpolation keeps each source pixel's say local.
      antialias=False,
    )
    for m in maps
  ]
  return sum(resized) / len(resized)


def attention_consistency(
  maps: Sequence[Float[Array, "b _h _w n"]],
  masks: Float[Array, "b h w n"],
  size: tuple[int, int] | None = None,
) -> Float[Array, "b"]:
  """Mean squared gap between merged attention and slot masks.

  Args:
    maps: see `merge_maps`; the U-Net attends from tokens of the source.
    masks: slot masks of the query picture, tokens last. They are targets and
      get no gradient, or the encoder could lower the loss by flattening them.
    size: where to compare; the masks' own size by default.

  Returns:
    (b,) mean over pixels and tokens. The paper does not state the reduction;
    with the mean its weight of 0.1 is of the size of the noise loss.
  """
  size = size or masks.shape[1:3]
  masks = jax.lax.stop_gradient(merge_maps([masks], tuple(size)))
  merged = merge_maps(maps, tuple(size))
  if merged.shape != masks.shape:
    raise ValueError(
      f"attention maps merge to {merged.shape} but the masks are "
      f"{masks.shape}; the number of tokens and slots must agree"
    )
  return jnp.mean(jnp.square(merged - masks), axis=(1, 2, 3))
