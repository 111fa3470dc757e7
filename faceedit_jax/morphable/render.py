"""The rendering of the face model alone: DiffFAE's physical condition.

DiffFAE, section 4.1: albedo texture, spherical-harmonic light on world-space
normals, weak-perspective camera; everything but the face model is black.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Int, typechecked
from faceedit_jax.morphable import camera as cameras
from faceedit_jax.morphable import shading
from faceedit_jax.morphable.detail import DetailSpace, detail_normals
from faceedit_jax.morphable.mesh import vertex_normals
from faceedit_jax.morphable.model import Morphable, albedo, vertices
from faceedit_jax.morphable.rasterize import Raster, interpolate, rasterize

# Colour and lamps of the bare shape, as in DECA.
_GREY = 180 / 255
_LAMPS = tuple(
  (x, y, 1.0, 1.7, 1.7, 1.7)
  for x, y in ((-1, 1), (1, 1), (-1, -1), (1, -1), (0, 0))
)


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


@typechecked
def render_buffers(
  model: Morphable,
  points: Float[Array, "b v 3"],
  camera: Float[Array, "b 3"],
  texture: Float[Array, "b t t c"],
  size: int,
  **raster: Any,
) -> dict[str, Array]:
  """Albedo, world normals and mask of posed vertices.

  Args:
    model: gives triangles and texture layout.
    points: posed vertices, metres.
    camera: [s, tx, ty] of each picture.
    texture: albedo textures.
    size: side of the picture.
    **raster: options of `rasterize`.

  Returns:
    "albedo" (b, s, s, c), 0 outside; "normals" (b, s, s, 3) in world space and
    not normalised again; "facing" (b, s, s), how far the surface faces the
    camera, 1 towards it; "positions" (b, s, s, 3) metres; "uv" (b, s, s, 2),
    the middle outside; "mask" (b, s, s); "ids" (b, s, s).
  """
  screen = cameras.to_pixels(cameras.project(points, camera), size, size)
  return render_screen(model, points, screen, texture, size, **raster)


@typechecked
def render_screen(
  model: Morphable,
  points: Float[Array, "b v 3"],
  screen: Float[Array, "b v 3"],
  texture: Float[Array, "b t t c"],
  size: int,
  **raster: Any,
) -> dict[str, Array]:
  """`render_buffers` for vertices that are already on the screen.

  Args:
    screen: vertices in pixels, see `rasterize`; any camera may have put them
      there. The others as for `render_buffers`.
  """
  found = rasterize(screen, model.faces, size, size, **raster)
  return fill_buffers(model, points, screen, texture, found)


@typechecked
def fill_buffers(
  model: Morphable,
  points: Float[Array, "b v 3"],
  screen: Float[Array, "b v 3"],
  texture: Float[Array, "b t t c"],
  raster: Raster,
) -> dict[str, Array]:
  """`render_screen` where `rasterize` was called already."""
  normals = vertex_normals(points, model.faces)
  seen = screen_normals(screen, model.faces, raster.ids.shape[-1])

  def gather(normals, seen, points, texture, ids, bary):
    # One by one: what is not used is not computed.
    values = [
      interpolate(v, model.faces, ids, bary)
      for v in (normals, -seen[:, 2:], points)
    ]
    # About the middle, as DECA does; it shows where weights do not sum to 1.
    uv = 0.5 + interpolate(model.uv - 0.5, model.uv_faces, ids, bary)
    colour = sample_texture(texture, uv) * (ids >= 0)[..., None]
    return *values, uv, colour

  normals, facing, positions, uv, colour = jax.vmap(gather)(
    normals, seen, points, texture, raster.ids, raster.barycentrics
  )
  return {
    "albedo": colour,
    "normals": normals,
    "facing": facing[..., 0],
    "positions": positions,
    "uv": uv,
    "mask": (raster.ids >= 0).astype(jnp.float32),
    "ids": raster.ids,
  }


@typechecked
def screen_normals(
  screen: Float[Array, "b v 3"], faces: Int[Array, "f 3"], size: int
) -> Float[Array, "b v 3"]:
  """Normals of projected vertices: x right, y down, z away from the camera.

  Args:
    screen: vertices in pixels, their depth in halves of the picture.
    faces: triangles.
    size: side of the picture.
  """
  unit = jnp.array([2 / size, 2 / size, 1.0])
  return vertex_normals(screen * unit, faces)


@typechecked
def shape_overlay(
  buffers: Mapping[str, Array],
  picture: Float[Array, "b h w 3"] | None = None,
  normals: Float[Array, "b h w 3"] | None = None,
  lamps: Float[Array, "l 6"] | None = None,
) -> Float[Array, "b h w 3"]:
  """The bare shape in grey, laid over a picture (SRenderY.render_shape).

  Args:
    buffers: from `render_buffers`.
    picture: what is seen beside the shape, [-1, 1]; black unless given.
    normals: world normals of the pixels, those of the mesh unless given.
    lamps: see `shading.distant_lamps`; five from the front unless given.

  Returns:
    Pictures in [-1, 1]; where the shape faces away it is not drawn.
  """
  normals = buffers["normals"] if normals is None else normals
  lamps = jnp.array(_LAMPS) if lamps is None else lamps
  light = shading.distant_lamps(normals, lamps)
  drawn = (buffers["mask"] > 0) & (buffers["facing"] > -0.15)
  beside = -1.0 if picture is None else picture
  return jnp.where(drawn[..., None], 2 * _GREY * light - 1, beside)


def render_condition(
  model: Morphable,
  codes: Mapping[str, Array],
  size: int,
  source_codes: Mapping[str, Array] | None = None,
  tone_map: bool = True,
  detail: DetailSpace | None = None,
  displacement: Array | None = None,
  **raster: Any,
) -> dict[str, Array]:
  """Renders the face model from its codes.

  Args:
    model: the face model.
    codes: shape (b, Ns), albedo (b, Na), expression (b, Ne), pose (b, 6),
      gaze (b, 2), light (b, 9, 3), camera (b, 3).
    size: side of the square picture.
    source_codes: when given, the head is moved to where these codes' face is
      (edits of the pose would let it jump otherwise).
    tone_map: apply the pictures' tone curve; off gives DECA's own linear
      product of albedo and shading.
    detail: texture space of the model, for `displacement`.
    displacement: (b, t, t, 1) metres; when given, the light falls on the
      displaced texels (DECA's predicted_detail_images) instead of the mesh.
    **raster: options of `rasterize`.

  Returns:
    "image" (b, s, s, 3) in [-1, 1] on black (-1), "mask" (b, s, s) in {0, 1},
    "ids" (b, s, s) triangles or -1, "normals" (b, s, s, 3) and "albedo"
    (b, s, s, 3).

  Raises:
    ValueError: if only one of `detail` and `displacement` is given.
  """
  if (detail is None) != (displacement is None):
    given = "displacement" if detail is None else "detail"
    raise ValueError(
      f"morphable: got {given} alone, wanted both detail and displacement."
    )
  points = pose_codes(model, codes, source_codes)
  texture, light = albedo(model, codes["albedo"]), codes["light"]
  buffers = render_buffers(
    model, points, codes["camera"], texture, size, **raster
  )
  least = shading.MIN_IRRADIANCE if tone_map else None
  if displacement is not None:
    normals = detail_normals(detail, model.faces, points, displacement)
    if texture.shape != normals.shape:
      texture = jax.image.resize(texture, normals.shape, "linear")
    lit = shading.lit(texture, normals, light, least)
    colour = jax.vmap(sample_texture)(lit, buffers["uv"])
  else:
    colour = shading.lit(buffers["albedo"], buffers["normals"], light, least)
  colour = shading.tone(colour) if tone_map else colour.clip(0.0, 1.0)
  mask = buffers["mask"]
  return {
    "image": colour * mask[..., None] * 2 - 1,
    "mask": mask,
    "ids": buffers["ids"],
    "normals": buffers["normals"],
    "albedo": buffers["albedo"],
  }
