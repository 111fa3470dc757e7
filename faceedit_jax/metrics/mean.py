"""Running means that merge exactly over batches and hosts."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array


@flax.struct.dataclass
class MeanState:
  """A weighted sum and the sum of its weights.

  Attributes:
    total: weighted sum of the values.
    count: sum of the weights.
  """

  total: Array
  count: Array

  @classmethod
  def empty(cls, shape: tuple[int, ...] = ()) -> MeanState:
    """No values yet; `shape` keeps one mean per entry."""
    return cls(jnp.zeros(shape), jnp.zeros(shape))

  @classmethod
  def of(cls, values: Array, mask: Array | None = None) -> MeanState:
    """State of a batch of values (n,) or (n, ...), reduced over axis 0.

    Args:
      values: one value per example; NaN where the mask is 0 does no harm.
      mask: weights of the same shape, or (n,).
    """
    values = jnp.asarray(values, jnp.float32)
    if mask is None:
      weights = jnp.ones_like(values)
    else:
      weights = jnp.asarray(mask, jnp.float32)
      missing = values.ndim - weights.ndim
      weights = weights.reshape(weights.shape + (1,) * missing)
      weights = jnp.broadcast_to(weights, values.shape)
    kept = jnp.where(weights > 0, values, 0.0)
    return cls(jnp.sum(kept * weights, 0), jnp.sum(weights, 0))

  def merge(self, other: MeanState) -> MeanState:
    """State of both sets of values together."""
    return MeanState(self.total + other.total, self.count + other.count)

  def add(self, values: Array, mask: Array | None = None) -> MeanState:
    """State with one more batch."""
    return self.merge(MeanState.of(values, mask))

  @property
  def value(self) -> np.ndarray:
    """The mean on the host; NaN where nothing was counted."""
    total = np.asarray(self.total, np.float64)
    count = np.asarray(self.count, np.float64)
    return np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)
