"""A z-buffer in pure JAX: static shapes, the same ids on CPU, GPU and TPU.

Triangles are cut into (triangle, tile) pairs; each pair is evaluated on all
pixels of its tile as one dense row and merged by two scatter-minima, first of
depth, then of the triangle number among those at that depth. Pairs are taken
in rounds of a fixed number, so any mesh is drawn completely and the work
follows the number of pairs, not an upper bound of it.

Screen coordinates are pixels: the centre of the pixel in row i and column j is
(j + 0.5, i + 0.5); y points down; smaller z is nearer. Attributes are
interpolated linearly on the screen, as an orthographic camera wants it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Int, typechecked
from faceedit_jax.morphable import coverage

_NO_TRIANGLE = jnp.iinfo(jnp.int32).max


class Raster(NamedTuple):
  """Result of `rasterize`.

  Attributes:
    ids: (..., h, w) triangle of each pixel, -1 where there is none.
    barycentrics: (..., h, w, 3) weights of its corners, 0 where none.
    pairs: (...) number of (triangle, tile) pairs that were evaluated.
    depth: (..., h, w) depth of the triangle, infinite where none.

  With `layers` the first, second and fourth have an axis of them behind w.
  """

  ids: Array
  barycentrics: Array
  pairs: Array
  depth: Array


def _tile_boxes(
  table: coverage.Table,
  corners: Array,
  height: int,
  width: int,
  tile: int,
  cull: bool,
  rule: str,
  centre: float,
) -> tuple[Array, Array, Array, Array, Array]:
  """Range of each triangle: first tile, columns, pairs; first, last pixel."""
  xy = corners[..., :2] - centre
  size = jnp.array([width, height], jnp.float32)
  # Pixels whose centre lies in the box; the slack of the inside test is far
  # below the rounding that matters here, one ulp of the coordinate.
  slack = 0.0 if rule == "standard" else 1e-4
  low = jnp.ceil(xy.min(1) - slack).clip(0, size)
  high = jnp.floor(xy.max(1) + slack).clip(-1, size - 1)
  low = jnp.nan_to_num(low).astype(jnp.int32)
  high = jnp.nan_to_num(high, nan=-1.0).astype(jnp.int32)
  seen = table.valid & (low <= high).all(1)
  # A box of one pixel is the common case of small triangles: test it exactly.
  x, y = low[:, 0] + centre, low[:, 1] + centre
  *w, _ = coverage.weights(table.values, x, y, rule)
  single = (low == high).all(1)
  seen &= ~single | coverage.inside(*w, rule)
  if cull:
    # Seen from the front, corners run clockwise on a screen whose y is down.
    ab, ac = xy[:, 1] - xy[:, 0], xy[:, 2] - xy[:, 0]
    seen &= ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0] < 0
  first, last = low // tile, high // tile
  extent = jnp.where(seen[:, None], last - first + 1, 0)
  return first, extent[:, 0], extent[:, 0] * extent[:, 1], low, high


def _rasterize_one(
  xyz: Array,
  faces: Array,
  height: int,
  width: int,
  capacity: int,
  tile: int,
  cull: bool,
  rule: str,
  layers: int | None,
  centre: float,
) -> Raster:
  corners = xyz[faces]  # (F, 3, 3)
  table = coverage.table(corners, rule, height * width)
  first, columns, count, low, high = _tile_boxes(
    table, corners, height, width, tile, cull, rule, centre
  )
  ends = jnp.cumsum(count)
  pairs = ends[-1]
  across, down = -(-width // tile), -(-height // tile)
  pixel = jnp.arange(tile * tile)
  inner_x, inner_y = pixel % tile + centre, pixel // tile + centre

  def one_round(state, before):
    start, depth, ids = state
    slot = start + jnp.arange(capacity)
    face = jnp.searchsorted(ends, slot, side="right").clip(0, len(faces) - 1)
    local = slot - (ends[face] - count[face])
    wide = jnp.maximum(columns[face], 1)
    tile_x = first[face, 0] + local % wide
    tile_y = first[face, 1] + local // wide
    row = jnp.where(slot < pairs, tile_y * across + tile_x, across * down)
    x = (tile_x * tile)[:, None] + inner_x
    y = (tile_y * tile)[:, None] + inner_y
    *w, z = coverage.weights(table.values[face, None], x, y, rule)
    covered = coverage.inside(*w, rule)
    if rule == "standard":
      # Only the box bounds a triangle without area.
      at = jnp.stack([x, y], -1) - centre
      covered &= (at >= low[face, None]).all(-1)
      covered &= (at <= high[face, None]).all(-1)
    if before is not None:
      nearer, taken = (a.at[row].get(mode="clip") for a in before)
      covered &= (z > nearer) | (z == nearer) & (face[:, None] > taken)
    z = jnp.where(covered, z, jnp.inf)
    nearest = depth.at[row].min(z, mode="drop")
    # Numbers of triangles that lost their pixel in this round are void.
    ids = jnp.where(nearest < depth, _NO_TRIANGLE, ids)
    won = (z == nearest[row]) & (z < jnp.inf)
    candidate = jnp.where(won, face[:, None], _NO_TRIANGLE)
    ids = ids.at[row].min(candidate.astype(jnp.int32), mode="drop")
    return start + capacity, nearest, ids

  shape = (across * down, tile * tile)

  def one_layer(before, _):
    """The nearest triangles behind those of the layer before."""
    state = (
      jnp.zeros((), jnp.int32),
      jnp.full(shape, jnp.inf, jnp.float32),
      jnp.full(shape, _NO_TRIANGLE, jnp.int32),
    )
    _, depth, ids = jax.lax.while_loop(
      lambda s: s[0] < pairs, lambda s: one_round(s, before), state
    )
    return (depth, ids), ids

  def finish(ids):
    """A picture of one layer from its tiles."""
    ids = ids.reshape(down, across, tile, tile).transpose(0, 2, 1, 3)
    ids = ids.reshape(down * tile, across * tile)[:height, :width]
    hit = ids != _NO_TRIANGLE
    ids = jnp.where(hit, ids, -1)
    y, x = jnp.mgrid[:height, :width] + centre
    *w, depth = coverage.weights(table.values[ids.clip(0)], x, y, rule)
    bary = jnp.stack(w, -1)
    if rule == "inclusive":
      # The slack lets a weight dip below 0; attributes must not extrapolate.
      bary = bary.clip(0.0, 1.0)
      bary = bary / jnp.maximum(bary.sum(-1, keepdims=True), 1e-9)
    bary = jnp.where(hit[..., None], bary, 0.0)
    return Raster(ids, bary, pairs, jnp.where(hit, depth, jnp.inf))

  if layers is None:
    return finish(one_layer(None, None)[1])
  start = jnp.full(shape, -jnp.inf), jnp.full(shape, -1, jnp.int32)
  _, ids = jax.lax.scan(one_layer, start, length=layers)
  return jax.vmap(finish, out_axes=Raster(2, 2, None, 2))(ids)


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
    "rule",
    "layers",
    "centre",
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
  rule: str = "inclusive",
  layers: int | None = None,
  centre: float = 0.5,
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
    rule: "inclusive" counts a pixel centre on an edge as inside, so that no
      pinhole is left between neighbours; "strict" as outside, as PyTorch3D
      does, with its guard against small areas, for which the weights of a
      sliver sum to a little less or more than 1;
      "standard" does as DECA's own kernel: outside on the edge across from
      the first corner alone, depth (above 0) in perspective, and a triangle
      without area covers its box with the values of its first corner.
    layers: how many triangles to give per pixel, from the nearest on.
    centre: coordinate of the centre of the first pixel.

  Returns:
    The raster, with the batch dimension of `xyz`. Equal depths go to the
    lowest triangle number.

  Raises:
    ValueError: for a wrong rank of `xyz` or an unknown option.
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
  if rule not in coverage.RULES:
    raise ValueError(
      f"rasterize: got rule={rule!r}, wanted one of {coverage.RULES}."
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
    rule=rule,
    layers=layers,
    centre=centre,
  )
  xyz = xyz.astype(jnp.float32)
  if xyz.ndim == 2:
    return one(xyz)
  in_turn = batching == "map" or (
    batching == "auto" and jax.default_backend() == "cpu"
  )
  return jax.lax.map(one, xyz) if in_turn else jax.vmap(one)(xyz)


def rasterize_brute_force(
  xyz: Float[Array, "v 3"],
  faces: Int[Array, "f 3"],
  height: int,
  width: int,
  rule: str = "inclusive",
) -> Raster:
  """The same picture by testing every triangle at every pixel; for tests."""
  corners = xyz.astype(jnp.float32)[faces]
  table = coverage.table(corners, rule, height * width)
  y, x = jnp.mgrid[:height, :width] + 0.5
  *w, z = coverage.weights(table.values[:, None, None], x, y, rule)
  covered = coverage.inside(*w, rule) & table.valid[:, None, None]
  z = jnp.where(covered, z, jnp.inf)
  winner, depth = z.argmin(0), z.min(0)
  hit = depth < jnp.inf
  pick = lambda a: jnp.take_along_axis(a, winner[None], 0)[0]  # noqa: E731
  bary = jnp.stack([pick(weight) for weight in w], -1)
  ids = jnp.where(hit, winner, -1).astype(jnp.int32)
  bary = jnp.where(hit[..., None], bary, 0.0)
  return Raster(ids, bary, jnp.asarray(len(faces) * height * width), depth)


@typechecked
def edge_distance(
  xyz: Float[Array, "v 3"],
  faces: Int[Array, "f 3"],
  ids: Int[Array, "h w *k"],
) -> Float[Array, "h w *k"]:
  """Squared distance, pixels, of pixel centres to their triangle's border.

  Args:
    xyz: vertices as `rasterize` takes them.
    faces: triangles.
    ids: triangle of each pixel, -1 for none; there the distance is 0.
  """
  corners = xyz[faces[ids.clip(0)]][..., :2]
  y, x = jnp.mgrid[: ids.shape[0], : ids.shape[1]] + 0.5
  at = jnp.stack([x, y], -1).reshape(*x.shape, *[1] * (ids.ndim - 2), 1, 2)
  edge = jnp.roll(corners, -1, -2) - corners
  length = jnp.square(edge).sum(-1)
  along = ((at - corners) * edge).sum(-1) / jnp.maximum(length, 1e-20)
  nearest = corners + along.clip(0, 1)[..., None] * edge
  square = jnp.square(at - nearest).sum(-1).min(-1)
  return jnp.where(ids >= 0, square, 0.0)


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
