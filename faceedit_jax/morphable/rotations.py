"""Rotations as axis-angle vectors, Euler angles and matrices.

DiffFAE, section 4.1, through DECA: FLAME's joints turn by axis-angle vectors,
jaw and head may be given by Euler angles.
"""

import itertools

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, typechecked

_HIGH = jax.lax.Precision.HIGHEST  # geometry does not survive bfloat16


@typechecked
def rotation_matrix(
  axis_angle: Float[Array, "... 3"],
) -> Float[Array, "... 3 3"]:
  """Rodrigues' formula as FLAME writes it.

  Args:
    axis_angle: (..., 3) radians.

  Returns:
    (..., 3, 3) rotations. 1e-8 is added to every component before the norm,
    so that the zero rotation has a gradient.
  """
  angle = jnp.linalg.norm(axis_angle + 1e-8, axis=-1, keepdims=True)
  x, y, z = jnp.moveaxis(axis_angle / angle, -1, 0)
  zero = jnp.zeros_like(x)
  cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
  cross = cross.reshape(*x.shape, 3, 3)
  sin, cos = jnp.sin(angle)[..., None], jnp.cos(angle)[..., None]
  square = jnp.matmul(cross, cross, precision=_HIGH)
  return jnp.eye(3, dtype=axis_angle.dtype) + sin * cross + (1 - cos) * square


@typechecked
def euler_matrix(
  angles: Float[Array, "... 3"], order: str = "xyz"
) -> Float[Array, "... 3 3"]:
  """Product of the rotations about the axes, the first of `order` leftmost.

  Args:
    angles: (..., 3) about x, y and z, radians, whatever the order.
    order: "xyz" is Rx Ry Rz, DECA's Euler poses; "zyx" is Rz Ry Rx, as in
      DECA's `angle2matrix` and in Deep3DFaceRecon.

  Raises:
    ValueError: if the order does not name each axis once.
  """
  if tuple(order) not in itertools.permutations("xyz"):
    raise ValueError(
      f"euler_matrix: got order={order!r}, wanted x, y and z once each."
    )
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  out = jnp.eye(3, dtype=angles.dtype)
  for name in order:
    axis = "xyz".index(name)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    c, s = cos[..., axis], sin[..., axis]
    turn = jnp.zeros((*c.shape, 3, 3), angles.dtype).at[..., axis, axis].set(1)
    turn = turn.at[..., one, one].set(c).at[..., two, two].set(c)
    turn = turn.at[..., one, two].set(-s).at[..., two, one].set(s)
    out = jnp.matmul(out, turn, precision=_HIGH)
  return out


@typechecked
def axis_angle(rotation: Float[Array, "... 3 3"]) -> Float[Array, "... 3"]:
  """Inverse of `rotation_matrix`, for angles up to pi."""
  r = lambda i, j: rotation[..., i, j]  # noqa: E731
  a, b, c = r(0, 0), r(1, 1), r(2, 2)
  x, y, z = r(2, 1) - r(1, 2), r(0, 2) - r(2, 0), r(1, 0) - r(0, 1)
  xy, xz, yz = r(1, 0) + r(0, 1), r(0, 2) + r(2, 0), r(2, 1) + r(1, 2)
  # Four multiples of the quaternion; the longest is the most exact one.
  rows = [
    [1 + a + b + c, x, y, z],
    [x, 1 + a - b - c, xy, xz],
    [y, xy, 1 - a + b - c, yz],
    [z, xz, yz, 1 - a - b + c],
  ]
  table = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
  best = jnp.stack([row[i] for i, row in enumerate(rows)], -1).argmax(-1)
  quaternion = jnp.take_along_axis(table, best[..., None, None], -2)[..., 0, :]
  quaternion = quaternion * jnp.where(quaternion[..., :1] < 0, -1.0, 1.0)
  real, vector = quaternion[..., :1], quaternion[..., 1:]
  square = jnp.square(vector).sum(-1, keepdims=True)
  sine = jnp.sqrt(jnp.maximum(square, 1e-30))
  # Of the zero rotation only the limit 2 / real is left.
  factor = jnp.where(
    square > 1e-12 * jnp.square(real),
    2 * jnp.arctan2(sine, real) / sine,
    2 / jnp.maximum(real, 1e-15),
  )
  return vector * factor


@typechecked
def yaw(rotation: Float[Array, "... 3 3"]) -> Float[Array, "..."]:
  """Angle about y in radians, in -pi / 2..pi / 2, of Rz Ry Rx."""
  flat = jnp.sqrt(rotation[..., 0, 0] ** 2 + rotation[..., 1, 0] ** 2)
  return jnp.arctan2(-rotation[..., 2, 0], flat)
