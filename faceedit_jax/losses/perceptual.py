"""Distances between lists of feature maps of any frozen net."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float
from faceedit_jax.losses.reduction import masked_mean


def unit_normalize(x: Array, eps: float = 1e-10) -> Array:
  """Divides by the channel norm plus eps, as LPIPS does, in float32."""
  x = x.astype(jnp.float32)
  square = jnp.sum(x * x, axis=-1, keepdims=True)
  # The gradient of sqrt at 0 is infinite; dead features must give 0.
  safe = jnp.where(square > 0, square, 1.0)
  norm = jnp.where(square > 0, jnp.sqrt(safe), 0.0)
  return x / (norm + eps)


def _check(a: Sequence[Array], b: Sequence[Array], weights) -> None:
  if len(a) != len(b) or (weights is not None and len(weights) != len(a)):
    count = None if weights is None else len(weights)
    raise ValueError(
      f"got {len(a)} and {len(b)} feature maps and {count} weights; the two "
      "lists and the weights must belong to the same layers"
    )


def _layer_maps(a, b, weights) -> list[Array]:
  _check(a, b, weights)
  maps = []
  for x, y, w in zip(a, b, weights, strict=True):
    difference = jnp.square(unit_normalize(x) - unit_normalize(y))
    weight = jnp.asarray(w, jnp.float32).reshape(-1)
    maps.append(jnp.einsum("bhwc,c->bhw", difference, weight))
  return maps


def lpips_distance(
  a: Sequence[Float[Array, "b _h _w _c"]],
  b: Sequence[Float[Array, "b _h _w _c"]],
  weights: Sequence[Array],
) -> Float[Array, "b"]:
  """Learned perceptual distance from ready features (LPIPS Eq. 1).

  Args:
    a: one feature map per layer.
    b: the other pictures' feature maps.
    weights: one non-negative vector of channel weights per layer.

  Returns:
    (b,) sum over layers of the spatial mean.
  """
  return sum(jnp.mean(m, axis=(1, 2)) for m in _layer_maps(a, b, weights))


def lpips_map(
  a: Sequence[Array],
  b: Sequence[Array],
  weights: Sequence[Array],
  size: tuple[int, int],
) -> Float[Array, "b h w"]:
  """The same distance per pixel, layers enlarged bilinearly to `size`."""
  return sum(
    jax.image.resize(m, (m.shape[0], *size), "bilinear")
    for m in _layer_maps(a, b, weights)
  )


def feature_distance(
  a: Sequence[Array],
  b: Sequence[Array],
  kind: str = "l1",
  weights: Sequence[float] | None = None,
  normalize: bool = False,
) -> Float[Array, "b"]:
  """Weighted sum over layers of the mean difference of features.

  Args:
    a: arrays (b, ...), one per layer.
    b: the same layers of the other pictures.
    kind: "l1" absolute or "l2" squared difference.
    weights: one number per layer, 1 by default.
    normalize: divides by the channel norm first.

  Returns:
    (b,).
  """
  if kind not in ("l1", "l2"):
    raise ValueError(f"kind {kind!r} is not 'l1' or 'l2'")
  weights = [1.0] * len(a) if weights is None else weights
  _check(a, b, weights)
  total = 0.0
  for x, y, weight in zip(a, b, weights, strict=True):
    if normalize:
      x, y = unit_normalize(x), unit_normalize(y)
    gap = jnp.abs(x - y) if kind == "l1" else jnp.square(x - y)
    total = total + weight * masked_mean(gap)
  return total
