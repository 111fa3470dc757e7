"""Errors and sharpness of pictures region by region."""

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Int, typechecked


@typechecked
def region_error(
  a: Float[Array, "b h w c"],
  b: Float[Array, "b h w c"],
  regions: Int[Array, "b h w"],
  count: int,
  kind: str = "l1",
) -> tuple[Float[Array, "b {count}"], Float[Array, "b {count}"]]:
  """Mean error inside every labelled region of every picture.

  Args:
    a: pictures.
    b: pictures in the same range.
    regions: labels; those outside 0..count-1 belong to no region.
    count: number of regions.
    kind: "l1" absolute or "l2" squared error, mean over channels.

  Returns:
    (b, count) errors, 0 for absent regions, and (b, count) pixel counts,
    which are the weights for a mean over pixels of the whole set.
  """
  if kind not in ("l1", "l2"):
    raise ValueError(f"kind {kind!r} is not 'l1' or 'l2'")
  gap = jnp.abs(a - b) if kind == "l1" else jnp.square(a - b)
  gap = jnp.mean(gap.astype(jnp.float32), axis=-1)
  hot = jax.nn.one_hot(regions, count, dtype=jnp.float32)
  pixels = jnp.sum(hot, axis=(1, 2))
  total = jnp.einsum("bhw,bhwk->bk", gap, hot)
  return total / jnp.maximum(pixels, 1.0), pixels


@typechecked
def region_gradient(
  a: Float[Array, "b h w c"], regions: Int[Array, "b h w"], count: int
) -> tuple[Float[Array, "b {count}"], Float[Array, "b {count}"]]:
  """Mean length of the gradient inside every region: how sharp it is.

  A blurred picture has less of it than a sharp one, and may still have the
  better PSNR. Divided by the same of the true picture it is 1 for the truth's
  sharpness, and below for blur.

  Args:
    a: pictures.
    regions: labels; those outside 0..count-1 belong to no region.
    count: number of regions.

  Returns:
    (b, count) mean over pixels and channels of the length of (right neighbour
    - pixel, lower neighbour - pixel), 0 for absent regions, and (b, count)
    pixel counts. Pixels whose two neighbours lie in another region are left
    out, so that outlines between regions do not count.
  """
  a = a.astype(jnp.float32)
  here = a[:, :-1, :-1]
  across, down = a[:, :-1, 1:] - here, a[:, 1:, :-1] - here
  length = jnp.sqrt(jnp.square(across) + jnp.square(down)).mean(-1)
  own = regions[:, :-1, :-1]
  inside = (own == regions[:, :-1, 1:]) & (own == regions[:, 1:, :-1])
  hot = jax.nn.one_hot(own, count, dtype=jnp.float32) * inside[..., None]
  pixels = jnp.sum(hot, axis=(1, 2))
  total = jnp.einsum("bhw,bhwk->bk", length, hot)
  return total / jnp.maximum(pixels, 1.0), pixels
