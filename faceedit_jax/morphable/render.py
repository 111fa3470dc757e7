"""The rendering of the face model alone: DiffFAE's physical condition.

DiffFAE, section 3.2: albedo texture, spherical-harmonic light on world-space
normals, weak-perspective camera; everything but the face model is black.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Int, typechecked
from faceedit_jax.morphable import camera as cameras
from faceedit_jax.morphable import shading
from faceedit_jax.morphable.model import Morphable, albedo, vertices
from faceedit_jax.morphable.rasterize import interpolate, rasterize


@typechecked
def vertex_normals(
  points: Float[Array, "b v 3"], faces: Int[Array, "f 3"]
) -> Float[Array, "b v 3"]:
  """Area-weighted unit normals."""
  # The batch goes inside, so that each triangle adds one contiguous row.
  corners = points.transpose(1, 0, 2)[faces]
  normal = jnp.cross(
    corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  )
  total = jnp.zeros((points.shape[1], points.shape[0], 3), points.dtype)
  for k in range(3):
    total = total.at[faces[:, k]].add(normal)
  total = total.transpose(1, 0, 2)
  length = jnp.linalg.norm(total, axis=-1, keepdims=True)
  # Smaller than DECA's 1e-6: in metres the triangles of a fine mesh have
  # areas of about that size.
  return total / jnp.maximum(length, 1e-12)


@typechecked
def sample_texture(
  texture: Float[Array, "t u c"], uv: Float[Array, "h w 2"]
) -> Float[Array, "h w c"]:
  """Bilinear look-up with zeros outside (grid_sample, corners not aligned).

  Args:
    texture: row 0 is the top, v = 1.
    uv: coordinates in 0..1, v up.
  """
  height, width, channels = texture.shape
  x = uv[..., 0] * width - 0.5
  y = (1 - uv[..., 1]) * height - 0.5
  left, top = jnp.floor(x), jnp.floor(y)
  flat = texture.reshape(-1, channels)
  total = 0.0
  for dy in (0, 1):
    for dx in (0, 1):
      column, row = left + dx, top + dy
      weight = (1 - jnp.abs(x - column)) * (1 - jnp.abs(y - row))
      inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
      index = row.clip(0, height - 1) * width + column.clip(0, width - 1)
      value = flat[index.astype(jnp.int32)]
      total = total + jnp.where(inside, weight, 0.0)[..., None] * value
  return total


def pose_codes(
  model: Morphable,
  codes: Mapping[str, Array],
  source_codes: Mapping[str, Array] | None = None,
) -> Array:
  """Posed vertices of a batch of codes, re-centred on a source's face.

  Args:
    model: the face model.
    codes: shape, expression, pose and gaze, see `Morphable.code_sizes`.
    source_codes: the same of the picture whose place in the frame is kept.

  Returns:
    (b, V, 3) metres.
  """
  names = ("shape", "expression", "pose", "gaze")
  missing = [n for n in names if n not in codes]
  if missing:
    raise ValueError(
      f"morphable: codes lack {missing}, got {sorted(codes)}; wanted "
      f"{sorted(model.code_sizes)}."
    )
  points, _ = vertices(model, *(codes[n] for n in names))
  if source_codes is None:
    return points
  source, _ = vertices(model, *(source_codes[n] for n in names))
  return cameras.recentre(points, source, model.landmarks5)


def render_buffers(
  model: Morphable,
  points: Float[Array, "b v 3"],
  camera: Float[Array, "b 3"],
  texture: Float[Array, "b t t 3"],
  size: int,
  capacity: int | None = None,
  tile: int = 8,
) -> dict[str, Array]:
  """Albedo, world normals and mask of posed vertices.

  Args:
    model: gives triangles and texture layout.
    points: posed vertices, metres.
    camera: [s, tx, ty] of each picture.
    texture: albedo textures.
    size: side of the picture.
    capacity: see `rasterize`.
    tile: see `rasterize`.

  Returns:
    "albedo" (b, s, s, 3) linear, "normals" (b, s, s, 3) in world space and
    not normalised again, "mask" (b, s, s), "ids" (b, s, s), "depth"
    (b, s, s, 1) world z in metres.
  """
  screen = cameras.to_pixels(cameras.project(points, camera), size, size)
  return render_screen(model, points, screen, texture, size, capacity, tile)


def render_screen(
  model: Morphable,
  points: Float[Array, "b v 3"],
  screen: Float[Array, "b v 3"],
  texture: Float[Array, "b t t 3"],
  size: int,
  capacity: int | None = None,
  tile: int = 8,
) -> dict[str, Array]:
  """`render_buffers` for vertices that are already on the screen.

  Args:
    screen: vertices in pixels, see `rasterize`; any camera may have put them
      there. The others as for `render_buffers`.
  """
  raster = rasterize(
    screen, model.faces, size, size, capacity=capacity, tile=tile
  )
  normals = vertex_normals(points, model.faces)
  attributes = jnp.concatenate([normals, points[..., 2:]], -1)

  def gather(attributes, texture, ids, bary):
    geometry = interpolate(attributes, model.faces, ids, bary)
    uv = interpolate(model.uv, model.uv_faces, ids, bary)
    colour = sample_texture(texture, uv)
    return geometry, colour * (ids >= 0)[..., None]

  geometry, colour = jax.vmap(gather)(
    attributes, texture, raster.ids, raster.barycentrics
  )
  return {
    "albedo": colour,
    "normals": geometry[..., :3],
    "depth": geometry[..., 3:],
    "mask": (raster.ids >= 0).astype(jnp.float32),
    "ids": raster.ids,
  }


def render_condition(
  model: Morphable,
  codes: Mapping[str, Array],
  size: int,
  source_codes: Mapping[str, Array] | None = None,
  capacity: int | None = None,
  tile: int = 8,
  tone_map: bool = True,
) -> dict[str, Array]:
  """Renders the face model from its codes.

  Args:
    model: the face model.
    codes: shape (b, Ns), albedo (b, Na), expression (b, Ne), pose (b, 6),
      gaze (b, 2), light (b, 9, 3), camera (b, 3).
    size: side of the square picture.
    source_codes: when given, the head is moved to where these codes' face is
      (edits of the pose would let it jump otherwise).
    capacity: see `rasterize`.
    tile: see `rasterize`.
    tone_map: apply the pictures' tone curve; off gives DECA's own linear
      product of albedo and shading.

  Returns:
    "image" (b, s, s, 3) in [-1, 1] on black (-1), "mask" (b, s, s) in {0, 1},
    "ids" (b, s, s) triangles or -1, "normals" (b, s, s, 3) and "albedo"
    (b, s, s, 3).
  """
  points = pose_codes(model, codes, source_codes)
  texture = albedo(model, codes["albedo"])
  buffers = render_buffers(
    model, points, codes["camera"], texture, size, capacity, tile
  )
  shaded = jax.vmap(shading.shade)(buffers["normals"], codes["light"])
  if tone_map:
    shaded = jnp.maximum(shaded, shading.MIN_IRRADIANCE)
    colour = shading.tone(jnp.maximum(buffers["albedo"], 0.0) * shaded)
  else:
    colour = (buffers["albedo"] * shaded).clip(0.0, 1.0)
  mask = buffers["mask"]
  return {
    "image": colour * mask[..., None] * 2 - 1,
    "mask": mask,
    "ids": buffers["ids"],
    "normals": buffers["normals"],
    "albedo": buffers["albedo"],
  }
