"""Errors of pictures region by region."""

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
