"""Per-example reductions: no loss here averages over the batch by itself."""

import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float


def masked_mean(values: Array, mask: Array | None = None) -> Float[Array, "b"]:
  """Mean of each example over all its axes, in float32.

  Args:
    values: (b, ...).
    mask: weights broadcastable to `values` once missing trailing axes are
      appended, e.g. (b, h, w) for pictures; None weighs all alike.

  Returns:
    (b,); 0 for an example whose weights are all 0.
  """
  values = values.astype(jnp.float32)
  if mask is None:
    return jnp.mean(values.reshape(values.shape[0], -1), axis=1)
  missing = values.ndim - mask.ndim
  weights = mask.reshape(mask.shape + (1,) * missing).astype(jnp.float32)
  weights = jnp.broadcast_to(weights, values.shape)
  axes = tuple(range(1, values.ndim))
  total = jnp.sum(weights, axes)
  # The inner where keeps the gradient of an empty mask at 0, not NaN.
  safe = jnp.where(total > 0, total, 1.0)
  return jnp.sum(values * weights, axes) / safe
