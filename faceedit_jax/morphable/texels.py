"""Which triangle each texel of a texture belongs to, for baking textures."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class TexelMap:
  """Triangle and barycentrics of every texel, gutters filled from the nearest.

  Attributes:
    face: (T, T) triangle index; row 0 is the top (v = 1).
    barycentric: (T, T, 3).
    inside: (T, T) whether the texel centre lies in a triangle.
  """

  face: np.ndarray
  barycentric: np.ndarray
  inside: np.ndarray

  def bake(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Interpolates vertex values (V, D) to a texture (T, T, D)."""
    corners = values[faces[self.face]]
    return np.einsum("tuk,tukd->tud", self.barycentric, corners)


def texel_map(uv: np.ndarray, uv_faces: np.ndarray, size: int) -> TexelMap:
  """Rasterises a texture layout.

  Args:
    uv: (Vt, 2) coordinates in 0..1, v up.
    uv_faces: (F, 3) indices into uv; triangles must not overlap.
    size: side of the texture in texels.

  Returns:
    The map; every texel has a triangle.

  Raises:
    ValueError: if no texel centre lies in any triangle.
  """
  points = np.stack([uv[:, 0], 1 - uv[:, 1]], -1).astype(float) * size
  tri = points[uv_faces]
  low = np.ceil(tri.min(1) - 0.5).astype(int).clip(0, size)
  high = np.floor(tri.max(1) - 0.5).astype(int).clip(-1, size - 1)
  extent = np.maximum(high - low + 1, 0)
  count = extent.prod(1)
  face = np.repeat(np.arange(len(tri)), count)
  start = np.cumsum(count) - count
  local = np.arange(count.sum()) - start[face]
  x = low[face, 0] + local % np.maximum(extent[face, 0], 1)
  y = low[face, 1] + local // np.maximum(extent[face, 0], 1)
  a, b, c = (tri[face, k] for k in range(3))
  px, py = x + 0.5 - a[:, 0], y + 0.5 - a[:, 1]
  ab, ac = b - a, c - a
  area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
  safe = np.where(area == 0, 1.0, area)
  w1 = (px * ac[:, 1] - py * ac[:, 0]) / safe
  w2 = (ab[:, 0] * py - ab[:, 1] * px) / safe
  bary = np.stack([1 - w1 - w2, w1, w2], -1)
  hit = (bary >= -1e-6).all(1) & (area != 0)
  if not hit.any():
    raise ValueError(
      f"texel_map: no texel of a {size} x {size} texture lies in a triangle; "
      "uv must cover part of the unit square."
    )
  ids = np.full((size, size), -1)
  weights = np.zeros((size, size, 3))
  ids[y[hit], x[hit]] = face[hit]
  weights[y[hit], x[hit]] = bary[hit]
  inside = ids >= 0
  while (ids < 0).any():
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
      other = np.roll(ids, step, axis)
      # What comes in over the border does not count as a neighbour.
      np.moveaxis(other, axis, 0)[0 if step > 0 else -1] = -1
      fill = (ids < 0) & (other >= 0)
      ids = np.where(fill, other, ids)
      weights[fill] = np.roll(weights, step, axis)[fill]
  return TexelMap(ids.astype(np.int32), weights, inside)
