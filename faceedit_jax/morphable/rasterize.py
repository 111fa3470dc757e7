"""A z-buffer in pure JAX: static shapes, the same ids on CPU, GPU and TPU.

Triangles are cut into (triangle, tile) pairs; each pair is evaluated on all
pixels of its tile as one dense row and merged by two scatter-minima, first of
depth, then of the triangle number among those at that depth. Pairs are taken
in rounds of a fixed number, so any mesh is drawn completely and the work
follows the number of pairs, not an upper bound of it.

Screen coordinates are pixels: the centre of the pixel in row i and column j is
(j + 0.5, i + 0.5); y points down; smaller z is nearer. Depth and attributes
are interpolated linearly on the screen, as an orthographic camera wants it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Int, typechecked

# Slack of the inside test in barycentric units: without it rounding leaves
# pinholes along edges that two triangles share.
_EDGE_SLACK = 1e-5
_NO_TRIANGLE = jnp.iinfo(jnp.int32).max


class Raster(NamedTuple):
  """Result of `rasterize`.

  Attributes:
    ids: (..., h, w) triangle of each pixel, -1 where there is none.
    barycentrics: (..., h, w, 3) weights of its corners, 0 where none.
    pairs: (...) number of (triangle, tile) pairs that were evaluated.
  """

  ids: Array
  barycentrics: Array
  pairs: Array


class _Planes(NamedTuple):
  """Per triangle: a corner, and how weights and depth change from there."""

  table: Array  # (F, 9) x, y, z, dw1/dx, dw1/dy, dw2/dx, dw2/dy, dz/dx, dz/dy
  valid: Array  # (F,)


def _planes(xyz: Array, faces: Array) -> tuple[_Planes, Array]:
  corners = xyz[faces]  # (F, 3, 3)
  a, ab, ac = (
    corners[:, 0],
    corners[:, 1] - corners[:, 0],
    corners[:, 2] - corners[:, 0],
  )
  area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
  valid = (jnp.abs(area) > 1e-12) & jnp.isfinite(corners).all((1, 2))
  inverse = jnp.where(valid, 1.0, 0.0) / jnp.where(valid, area, 1.0)
  w1x, w1y = ac[:, 1] * inverse, -ac[:, 0] * inverse
  w2x, w2y = -ab[:, 1] * inverse, ab[:, 0] * inverse
  zx = w1x * ab[:, 2] + w2x * ac[:, 2]
  zy = w1y * ab[:, 2] + w2y * ac[:, 2]
  table = jnp.stack([a[:, 0], a[:, 1], a[:, 2], w1x, w1y, w2x, w2y, zx, zy], -1)
  return _Planes(table, valid & (area != 0)), corners


def _weights(table: Array, x: Array, y: Array) -> tuple[Array, Array, Array]:
  """The last two barycentrics and the depth of triangles at pixel centres."""
  dx, dy = x - table[..., 0], y - table[..., 1]
  w1 = table[..., 3] * dx + table[..., 4] * dy
  w2 = table[..., 5] * dx + table[..., 6] * dy
  z = table[..., 2] + table[..., 7] * dx + table[..., 8] * dy
  return w1, w2, z


def _is_inside(w1: Array, w2: Array) -> Array:
  return jnp.minimum(jnp.minimum(w1, w2), 1 - w1 - w2) >= -_EDGE_SLACK


def _tile_boxes(
  planes: _Planes,
  corners: Array,
  height: int,
  width: int,
  tile: int,
  cull: bool,
) -> tuple[Array, Array, Array]:
  """Tile range of each triangle: first column and row, columns, pairs."""
  xy = corners[..., :2]
  size = jnp.array([width, height], jnp.float32)
  # Pixels whose centre lies in the box; the slack of the inside test is far
  # below the rounding that matters here, one ulp of the coordinate.
  low = jnp.ceil(xy.min(1) - 0.5 - 1e-4).clip(0, size)
  high = jnp.floor(xy.max(1) - 0.5 + 1e-4).clip(-1, size - 1)
  low = jnp.nan_to_num(low).astype(jnp.int32)
  high = jnp.nan_to_num(high, nan=-1.0).astype(jnp.int32)
  seen = planes.valid & (low <= high).all(1)
  # A box of one pixel is the common case of small triangles: test it exactly.
  w1, w2, _ = _weights(planes.table, low[:, 0] + 0.5, low[:, 1] + 0.5)
  single = (low == high).all(1)
  seen &= ~single | _is_inside(w1, w2)
  if cull:
    # Seen from the front, corners run clockwise on a screen whose y is down.
    ab, ac = xy[:, 1] - xy[:, 0], xy[:, 2] - xy[:, 0]
    seen &= ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0] < 0
  first, last = low // tile, high // tile
  extent = jnp.where(seen[:, None], last - first + 1, 0)
  return first, extent[:, 0], extent[:, 0] * extent[:, 1]


def _rasterize_one(
  xyz: Array,
  faces: Array,
  height: int,
  width: int,
  capacity: int,
  tile: int,
  cull: bool,
) -> Raster:
  planes, corners = _planes(xyz, faces)
  first, columns, count = _tile_boxes(
    planes, corners, height, width, tile, cull
  )
  ends = jnp.cumsum(count)
  pairs = ends[-1]
  across, down = -(-width // tile), -(-height // tile)
  pixel = jnp.arange(tile * tile)
  inner_x, inner_y = pixel % tile + 0.5, pixel // tile + 0.5

  def one_round(state):
    start, depth, ids = state
    slot = start + jnp.arange(capacity)
    face = jnp.searchsorted(ends, slot, side="right").clip(0, len(faces) - 1)
    local = slot - (ends[face] - count[face])
    wide = jnp.maximum(columns[face], 1)
    tile_x = first[face, 0] + local % wide
    tile_y = first[face, 1] + local // wide
    row = jnp.where(slot < pairs, tile_y * across + tile_x, across * down)
    w1, w2, z = _weights(
      planes.table[face, None],
      (tile_x * tile)[:, None] + inner_x,
      (tile_y * tile)[:, None] + inner_y,
    )
    z = jnp.where(_is_inside(w1, w2), z, jnp.inf)
    nearest = depth.at[row].min(z, mode="drop")
    # Numbers of triangles that lost their pixel in this round are void.
    ids = jnp.where(nearest < depth, _NO_TRIANGLE, ids)
    won = (z == nearest[row]) & (z < jnp.inf)
    candidate = jnp.where(won, face[:, None], _NO_TRIANGLE)
    ids = ids.at[row].min(candidate.astype(jnp.int32), mode="drop")
    return start + capacity, nearest, ids

  shape = (across * down, tile * tile)
  state = (
    jnp.zeros((), jnp.int32),
    jnp.full(shape, jnp.inf, jnp.float32),
    jnp.full(shape, _NO_TRIANGLE, jnp.int32),
  )
  _, _, ids = jax.lax.while_loop(lambda s: s[0] < pairs, one_round, state)
  ids = ids.reshape(down, across, tile, tile).transpose(0, 2, 1, 3)
  ids = ids.reshape(down * tile, across * tile)[:height, :width]
  hit = ids != _NO_TRIANGLE
  ids = jnp.where(hit, ids, -1)
  y, x = jnp.mgrid[:height, :width] + 0.5
  w1, w2, _ = _weights(planes.table[ids.clip(0)], x, y)
  bary = jnp.stack([1 - w1 - w2, w1, w2], -1)
  # The slack lets a weight dip below 0; attributes must not extrapolate.
  bary = bary.clip(0.0, 1.0)
  bary = bary / jnp.maximum(bary.sum(-1, keepdims=True), 1e-9)
  return Raster(ids, jnp.where(hit[..., None], bary, 0.0), pairs)


def default_capacity(n_faces: int, n_pixels: int) -> int:
  """Pairs per round: small enough for the cache on CPU, one round elsewhere.

  Args:
    n_faces: triangles of the mesh.
    n_pixels: pixels of the picture.
  """
  if jax.default_backend() == "cpu":
    return 4096
  # Each visible triangle owns a pixel or shares one; most have one tile.
  likely = min(2 * n_faces, n_faces + n_pixels // 4)
  return max(1024, -(-likely // 1024) * 1024)


@functools.partial(
  jax.jit,
  static_argnames=(
    "height",
    "width",
    "capacity",
    "tile",
    "cull",
    "batching",
  ),
)
def rasterize(
  xyz: Float[Array, "*b v 3"],
  faces: Int[Array, "f 3"],
  height: int,
  width: int,
  capacity: int | None = None,
  tile: int = 8,
  cull: bool = False,
  batching: str = "auto",
) -> Raster:
  """Nearest triangle and barycentrics of every pixel.

  Args:
    xyz: (v, 3) or (b, v, 3) vertices: x and y in pixels, z smaller = nearer.
    faces: (f, 3) triangles, shared by the batch.
    height: rows of the picture.
    width: columns of the picture.
    capacity: (triangle, tile) pairs taken in one round; a matter of speed
      alone, since further rounds follow until every pair is drawn.
    tile: side of the square tiles in pixels.
    cull: drop triangles that face away (corners clockwise seen from the
      camera once y is up).
    batching: "map" draws one picture after the other (CPU caches like it),
      "vmap" all at once; "auto" takes the former on CPU.

  Returns:
    The raster, with the batch dimension of `xyz`. A pixel centre on an edge
    counts as inside; equal depths go to the lowest triangle number.

  Raises:
    ValueError: for a wrong rank of `xyz` or an unknown `batching`.
  """
  if xyz.ndim not in (2, 3) or xyz.shape[-1] != 3:
    raise ValueError(
      f"rasterize: got vertices of shape {xyz.shape}, wanted (v, 3) or "
      "(b, v, 3)."
    )
  if batching not in ("auto", "map", "vmap"):
    raise ValueError(
      f"rasterize: got batching={batching!r}, wanted auto, map or vmap."
    )
  capacity = capacity or default_capacity(len(faces), height * width)
  one = functools.partial(
    _rasterize_one,
    faces=faces,
    height=height,
    width=width,
    capacity=capacity,
    tile=tile,
    cull=cull,
  )
  xyz = xyz.astype(jnp.float32)
  if xyz.ndim == 2:
    return one(xyz)
  in_turn = batching == "map" or (
    batching == "auto" and jax.default_backend() == "cpu"
  )
  return jax.lax.map(one, xyz) if in_turn else jax.vmap(one)(xyz)


def rasterize_brute_force(
  xyz: Float[Array, "v 3"], faces: Int[Array, "f 3"], height: int, width: int
) -> Raster:
  """The same picture by testing every triangle at every pixel; for tests."""
  planes, _ = _planes(xyz.astype(jnp.float32), faces)
  y, x = jnp.mgrid[:height, :width] + 0.5
  w1, w2, z = _weights(planes.table[:, None, None], x, y)
  inside = _is_inside(w1, w2) & planes.valid[:, None, None]
  z = jnp.where(inside, z, jnp.inf)
  winner = z.argmin(0)
  hit = z.min(0) < jnp.inf
  pick = lambda a: jnp.take_along_axis(a, winner[None], 0)[0]  # noqa: E731
  bary = jnp.stack([1 - pick(w1) - pick(w2), pick(w1), pick(w2)], -1)
  ids = jnp.where(hit, winner, -1).astype(jnp.int32)
  bary = jnp.where(hit[..., None], bary, 0.0)
  return Raster(ids, bary, jnp.asarray(len(faces) * height * width))


@typechecked
def interpolate(
  attributes: Float[Array, "v d"],
  faces: Int[Array, "f 3"],
  ids: Int[Array, "h w"],
  barycentrics: Float[Array, "h w 3"],
) -> Float[Array, "h w d"]:
  """Vertex attributes at every pixel, 0 where there is no triangle.

  Args:
    attributes: values per vertex (or per corner, with `faces` to match).
    faces: triangles as indices into `attributes`.
    ids: triangle of each pixel, -1 for none.
    barycentrics: weights of its corners.
  """
  if ids.size > len(faces):
    # Few triangles, many pixels: one long gather per pixel beats three.
    corners = attributes[faces][ids.clip(0)]
  else:
    corners = attributes[faces[ids.clip(0)]]
  return (corners * barycentrics[..., None]).sum(-2)
