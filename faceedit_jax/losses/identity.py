"""Distance between the identities of two faces (pSp, Eq. 4)."""

import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, typechecked


@typechecked
def identity_distance(
  a: Float[Array, "b d"], b: Float[Array, "b d"]
) -> Float[Array, "b"]:
  """One minus the cosine of unit identity vectors, per pair."""
  return 1 - jnp.sum(a * b, axis=-1)
