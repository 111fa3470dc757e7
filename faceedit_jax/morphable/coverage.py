"""Which pixels a triangle covers, and with what weights and depth.

The two rasterisers that DECA may be run with (DiffFAE, section 4.1) differ
here, and both from what leaves no pinholes; hence three rules.
"""

from typing import NamedTuple

import jax.numpy as jnp

from faceedit_jax.core.typing import Array

# Slack of the inside test in barycentric units: without it rounding leaves
# pinholes along edges that two triangles share.
_EDGE_SLACK = 1e-5
_GUARD = 1e-8  # PyTorch3D's kEpsilon
RULES = ("inclusive", "strict", "standard")


class Table(NamedTuple):
  """Numbers of each triangle from which `weights` are had."""

  values: Array  # (F, n)
  valid: Array  # (F,)


def table(corners: Array, rule: str, pixels: int) -> Table:
  """Prepares triangles.

  Args:
    corners: (F, 3, 3) x, y and depth of the corners.
    rule: one of RULES.
    pixels: of the picture.
  """
  finite = jnp.isfinite(corners).all((1, 2))
  a, b, c = (corners[:, k, :2] for k in range(3))
  ab, ac = b - a, c - a
  if rule == "standard":
    # Dot products, as the kernel has them: near silhouettes, where triangles
    # are slivers, their rounding decides what is covered.
    bb, bc, cc = _dot(ab, ab), _dot(ab, ac), _dot(ac, ac)
    square = _rounded(cc * bb) - _rounded(bc * bc)
    inverse = jnp.where(square == 0, 0.0, 1 / jnp.where(square == 0, 1, square))
    rest = jnp.stack([bb, bc, cc, inverse], -1)
    values = jnp.concatenate([a, corners[..., 2], ab, ac, rest], -1)
    return Table(values, finite)
  area = _cross(ab, ac)
  z = corners[..., 2]
  if rule == "strict":
    # PyTorch3D adds a guard to the area of a picture of side 2, and leaves out
    # what is smaller.
    guard = _GUARD * pixels / 4
    valid = finite & (jnp.abs(area) > guard)
    area = jnp.where(valid, area - guard, 1.0)[:, None]
    values = jnp.concatenate([a, b, c, area, z], -1)
    return Table(values, valid)
  valid = finite & (jnp.abs(area) > 1e-12)
  inverse = jnp.where(valid, 1.0, 0.0) / jnp.where(valid, area, 1.0)
  w1x, w1y = ac[:, 1] * inverse, -ac[:, 0] * inverse
  w2x, w2y = -ab[:, 1] * inverse, ab[:, 0] * inverse
  zx = w1x * (z[:, 1] - z[:, 0]) + w2x * (z[:, 2] - z[:, 0])
  zy = w1y * (z[:, 1] - z[:, 0]) + w2y * (z[:, 2] - z[:, 0])
  values = [a[:, 0], a[:, 1], z[:, 0], w1x, w1y, w2x, w2y, zx, zy]
  return Table(jnp.stack(values, -1), valid)


def weights(values: Array, x: Array, y: Array, rule: str) -> tuple[Array, ...]:
  """Three barycentrics and the depth of triangles at pixel centres.

  Args:
    values: (..., n) rows of `Table.values`.
    x: columns of the centres; y: rows.
    rule: what the table was made for.
  """
  v = [values[..., k] for k in range(values.shape[-1])]
  if rule == "strict":
    ax, ay, bx, by, cx, cy, area, z0, z1, z2 = v

    def share(px, py, qx, qy):
      """Of the triangle from an edge to the point; exactly 0 on the edge."""
      one = _rounded((x - px) * (qy - py))
      return (_rounded((y - py) * (qx - px)) - one) / area

    w0, w1 = share(bx, by, cx, cy), share(cx, cy, ax, ay)
    w2 = share(ax, ay, bx, by)
    return w0, w1, w2, w0 * z0 + w1 * z1 + w2 * z2
  dx, dy = x - v[0], y - v[1]
  if rule == "standard":
    z0, z1, z2, bx, by, cx, cy, bb, bc, cc, inverse = v[2:]
    bp = _rounded(bx * dx) + _rounded(by * dy)
    cp = _rounded(cx * dx) + _rounded(cy * dy)
    w2 = _rounded((_rounded(bb * cp) - _rounded(bc * bp)) * inverse)
    w1 = _rounded((_rounded(cc * bp) - _rounded(bc * cp)) * inverse)
    w0 = 1 - w2 - w1
    return w0, w1, w2, 1 / (w0 / z0 + w1 / z1 + w2 / z2)
  w1 = v[3] * dx + v[4] * dy
  w2 = v[5] * dx + v[6] * dy
  return 1 - w1 - w2, w1, w2, v[2] + v[7] * dx + v[8] * dy


def inside(w0: Array, w1: Array, w2: Array, rule: str) -> Array:
  """Whether a triangle covers the points of these barycentrics."""
  if rule == "standard":
    return (w0 > 0) & (w1 >= 0) & (w2 >= 0)
  least = jnp.minimum(jnp.minimum(w1, w2), w0)
  return least > 0 if rule == "strict" else least >= -_EDGE_SLACK


def _rounded(product: Array) -> Array:
  """Keeps a product from being fused into a sum, which rounds once less."""
  return jnp.where(product == product, product, 0.0)


def _cross(a: Array, b: Array) -> Array:
  return _rounded(a[:, 0] * b[:, 1]) - _rounded(a[:, 1] * b[:, 0])


def _dot(a: Array, b: Array) -> Array:
  return _rounded(a[:, 0] * b[:, 0]) + _rounded(a[:, 1] * b[:, 1])
