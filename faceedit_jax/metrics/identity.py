"""Similarity of face embeddings."""

import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float


def cosine_similarity(
  a: Float[Array, "b d"], b: Float[Array, "b d"]
) -> Float[Array, "b"]:
  """Cosine of each pair of embeddings (CSIM); 0 for a zero vector."""
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  squares = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
  return jnp.sum(a * b, axis=-1) / jnp.sqrt(jnp.maximum(squares, 1e-16))
