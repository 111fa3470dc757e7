"""Normals and the triangles of a grid."""

import jax.numpy as jnp
import numpy as np

from faceedit_jax.morphable import mesh


def test_normals_are_weighted_by_area():
  # A corner where a large triangle in z = 0 meets a small one in x = 0.
  points = jnp.array(
    [[[0, 0, 0], [3, 0, 0], [0, 2, 0], [0, 0, 1]]], jnp.float32
  )
  faces = jnp.array([[0, 1, 2], [0, 2, 3]])
  got = mesh.vertex_normals(points, faces)[0]
  np.testing.assert_allclose(got[1], [0, 0, 1], atol=1e-6)
  np.testing.assert_allclose(got[3], [1, 0, 0], atol=1e-6)
  shared = np.array([2, 0, 6]) / np.sqrt(40)
  np.testing.assert_allclose(got[0], shared, atol=1e-6)
  # A least length shortens what is below it.
  small = mesh.vertex_normals(points * 1e-4, faces, eps=1e-6)[0]
  np.testing.assert_allclose(small[0], [2e-2, 0, 6e-2], rtol=1e-4)


def test_corners():
  points = jnp.arange(12.0).reshape(1, 4, 3)
  got = mesh.corners(points, jnp.array([[3, 0, 1]]))
  np.testing.assert_array_equal(got[0, 0], points[0, [3, 0, 1]])


def test_grid_faces_cover_what_the_margins_leave():
  height, width = 14, 9
  faces = mesh.grid_faces(height, width)
  assert len(faces) == 2 * (width - 5) * (height - 11)
  rows, columns = faces // width, faces % width
  assert (rows.min(), rows.max()) == (5, height - 6)
  assert (columns.min(), columns.max()) == (2, width - 3)
  # Counter-clockwise with y up, each half a square.
  x, y = columns.astype(float), -rows.astype(float)
  area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0])
  area -= (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
  np.testing.assert_array_equal(area, 1)
  assert len({tuple(sorted(face)) for face in faces.tolist()}) == len(faces)
