"""Triangle meshes: corners, normals, and the triangles of a grid of points."""

import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, Int, typechecked


@typechecked
def corners(
  points: Float[Array, "b v d"], faces: Int[Array, "f 3"]
) -> Float[Array, "b f 3 d"]:
  """Points (or values of them) at the corners of each triangle."""
  return points[:, faces]


@typechecked
def vertex_normals(
  points: Float[Array, "b v 3"], faces: Int[Array, "f 3"], eps: float = 1e-12
) -> Float[Array, "b v 3"]:
  """Area-weighted unit normals.

  Args:
    points: vertices.
    faces: triangles, counter-clockwise seen from outside.
    eps: least length divided by. DECA's 1e-6 shortens the normals of a fine
      mesh in metres, whose triangles have areas of about that size.
  """
  # The batch goes inside, so that each triangle adds one contiguous row.
  at = points.transpose(1, 0, 2)[faces]
  normal = jnp.cross(at[:, 1] - at[:, 0], at[:, 2] - at[:, 0])
  total = jnp.zeros((points.shape[1], points.shape[0], 3), points.dtype)
  for k in range(3):
    total = total.at[faces[:, k]].add(normal)
  total = total.transpose(1, 0, 2)
  length = jnp.linalg.norm(total, axis=-1, keepdims=True)
  return total / jnp.maximum(length, eps)


def grid_faces(
  height: int, width: int, margin_x: int = 2, margin_y: int = 5
) -> np.ndarray:
  """Triangles of a grid of points, two per square, column after column.

  The layout of DECA's dense mesh (util.generate_triangles).

  Args:
    height: rows of points.
    width: columns of points.
    margin_x: columns of squares left out on both sides.
    margin_y: rows of squares left out above and below.

  Returns:
    (n, 3) int32 indices into the points, row by row; counter-clockwise where
    columns run to the right and rows down.
  """
  columns = np.arange(margin_x, width - 1 - margin_x)
  rows = np.arange(margin_y, height - 1 - margin_y)
  first = (columns[:, None] + width * rows).reshape(-1, 1)
  pair = [0, width, 1], [1, width, width + 1]
  faces = np.stack([first + np.array(t) for t in pair], 1)
  return faces.reshape(-1, 3).astype(np.int32)
