"""Losses on landmarks, morphable-model parameters and rotations."""

from collections.abc import Mapping

import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float
from faceedit_jax.losses.reduction import masked_mean


def landmark_loss(
  prediction: Float[Array, "b k 2"],
  target: Float[Array, "b k 2"],
  weights: Array | None = None,
  visible: Array | None = None,
) -> Float[Array, "b"]:
  """Mean absolute landmark error.

  Args:
    prediction: points.
    target: points in the same units.
    weights: (k,) importance of each point.
    visible: (b, k) 1 where a target exists.

  Returns:
    (b,) in the units of the points.
  """
  mask = jnp.ones(prediction.shape[:2], jnp.float32)
  if weights is not None:
    mask = mask * jnp.asarray(weights, jnp.float32)[None]
  if visible is not None:
    mask = mask * visible
  return masked_mean(jnp.abs(prediction - target), mask)


def parameter_loss(
  prediction: Mapping[str, Array],
  target: Mapping[str, Array],
  weights: Mapping[str, float],
) -> tuple[Float[Array, "b"], dict[str, Float[Array, "b"]]]:
  """Weighted sum of the mean squared error of each named parameter.

  Args:
    prediction: name -> (b, ...).
    target: name -> (b, ...).
    weights: name -> factor; these names and no others take part.

  Returns:
    The (b,) sum and the unweighted (b,) terms by name.
  """
  missing = [n for n in weights if n not in prediction or n not in target]
  if missing or not weights:
    raise ValueError(
      f"weights name {missing or 'nothing'}; prediction has "
      f"{sorted(prediction)} and target has {sorted(target)}"
    )
  terms = {
    name: masked_mean(jnp.square(prediction[name] - target[name]))
    for name in weights
  }
  return sum(weights[name] * term for name, term in terms.items()), terms


def _quaternion(rotation: Array) -> Array:
  square = jnp.sum(jnp.square(rotation), axis=-1, keepdims=True)
  small = square < 1e-8
  angle = jnp.sqrt(jnp.where(small, 1.0, square))
  # Taylor at 0 keeps value and gradient finite.
  factor = jnp.where(small, 0.5 - square / 48, jnp.sin(angle / 2) / angle)
  real = jnp.where(small, 1 - square / 8, jnp.cos(angle / 2))
  return jnp.concatenate([real, factor * rotation], axis=-1)


def rotation_distance(
  a: Float[Array, "*n 3"], b: Float[Array, "*n 3"]
) -> Float[Array, "*n"]:
  """Angle in radians, 0..pi, between two axis-angle rotations."""
  p, q = _quaternion(a), _quaternion(b)
  # |p - q| is accurate for small angles, where arccos is not.
  near = jnp.minimum(
    jnp.sum(jnp.square(p - q), -1), jnp.sum(jnp.square(p + q), -1)
  )
  half = jnp.sqrt(jnp.maximum(near, 1e-16)) / 2
  return 4 * jnp.arcsin(jnp.clip(half, 0.0, 1.0))


def identity_loss(a: Float[Array, "b d"], b: Float[Array, "b d"]):
  """1 - cosine of two embeddings, (b,) in [0, 2]."""
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  squares = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
  norms = jnp.sqrt(jnp.maximum(squares, 1e-16))
  return 1 - jnp.sum(a * b, axis=-1) / norms
