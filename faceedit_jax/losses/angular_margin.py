"""Classification losses with a margin on the angle (ArcFace Eq. 3-4)."""

import math

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core.typing import Array, Float, Int, typechecked

GRADIENTS = ("exact", "straight_through")


def _unit(x: Array) -> Array:
  x = x.astype(jnp.float32)
  # rsqrt of a clamped square: no NaN gradient at the zero vector.
  return x * jax.lax.rsqrt(
    jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12)
  )


@typechecked
def cosine_logits(
  features: Float[Array, "b d"], centres: Float[Array, "c d"]
) -> Float[Array, "b c"]:
  """Cosines between features and class centres, inside [-1, 1]."""
  cosines = _unit(features) @ _unit(centres).T
  return jnp.clip(cosines, -1.0, 1.0)


@typechecked
def combined_margin(
  cosines: Float[Array, "b c"],
  labels: Int[Array, "b"],
  m1: float = 1.0,
  m2: float = 0.5,
  m3: float = 0.0,
  scale: float = 64.0,
  filter_threshold: float = 0.0,
  gradient: str = "exact",
  monotone: bool = False,
) -> Float[Array, "b c"]:
  """Scaled logits with `cos(m1 * angle + m2) - m3` at the labelled class.

  Args:
    cosines: from `cosine_logits`.
    labels: classes; -1 leaves a row without margin.
    m1: factor on the angle (SphereFace).
    m2: added to the angle in radians (ArcFace).
    m3: subtracted from the cosine (CosFace).
    scale: factor on all logits.
    filter_threshold: when above 0, other classes with a larger cosine are
      zeroed, as noise in the labels.
    gradient: "exact" differentiates the margin; "straight_through" passes the
      gradient as if there were none, as insightface's arcface_torch does.
    monotone: where the angle plus m2 passes pi, and its cosine would rise
      again, subtract m2 sin(m2) from the cosine instead, as TreB1eN's head
      does; for m1 = 1.

  Raises:
    ValueError: for an unknown gradient, or `monotone` with another m1.
  """
  if monotone and m1 != 1.0:
    raise ValueError(f"monotone wants m1 = 1, got {m1}")
  if gradient not in GRADIENTS:
    raise ValueError(f"gradient {gradient!r} is not one of {GRADIENTS}")
  hot = jax.nn.one_hot(labels, cosines.shape[1], dtype=bool)
  if filter_threshold > 0:
    dirty = (cosines > filter_threshold) & ~hot
    cosines = jnp.where(dirty, 0.0, cosines)
  if m1 == 1.0:
    # cos(angle + m2) without arccos, whose gradient is infinite at the ends.
    sine = jnp.sqrt(jnp.maximum(1.0 - cosines * cosines, 1e-12))
    moved = cosines * math.cos(m2) - sine * math.sin(m2)
  else:
    inside = jnp.clip(cosines, -1 + 1e-7, 1 - 1e-7)
    moved = jnp.cos(m1 * jnp.arccos(inside) + m2)
  if monotone:
    fallen = cosines - m2 * math.sin(m2)
    moved = jnp.where(cosines > -math.cos(m2), moved, fallen)
  moved = moved - m3
  if gradient == "straight_through":
    moved = cosines + jax.lax.stop_gradient(moved - cosines)
  return scale * jnp.where(hot, moved, cosines)


def arcface(
  cosines: Array, labels: Array, margin=0.5, scale=64.0, **options
) -> Float[Array, "b c"]:
  """Additive angular margin, ArcFace Eq. (3)."""
  return combined_margin(
    cosines, labels, 1.0, float(margin), 0.0, float(scale), **options
  )


def cosface(
  cosines: Array, labels: Array, margin=0.4, scale=64.0, gradient="exact"
) -> Float[Array, "b c"]:
  """Additive cosine margin, CosFace Eq. (4)."""
  return combined_margin(
    cosines, labels, 1.0, 0.0, float(margin), float(scale), gradient=gradient
  )


@typechecked
def margin_loss(
  logits: Float[Array, "b c"], labels: Int[Array, "b"]
) -> Float[Array, "b"]:
  """Cross entropy per example, 0 where the label is -1."""
  safe = jnp.maximum(labels, 0)
  loss = optax.softmax_cross_entropy_with_integer_labels(logits, safe)
  return jnp.where(labels >= 0, loss, 0.0)
