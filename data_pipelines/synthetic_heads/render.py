"""Draws frames of a baked identity: pose, rasterise, shade, box down."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads import bake as bake_lib
from data_pipelines.synthetic_heads import examples as examples_lib
from data_pipelines.synthetic_heads import labels, mesh, shade
from data_pipelines.synthetic_heads.background import background
from data_pipelines.synthetic_heads.factors import Frame, Identity
from faceedit_jax.morphable import (
  camera,
  model,
  picture_points,
  rasterize,
  shading,
)

_HEAD_DOWN = np.float32([0.0, -1.0, 0.0])


@functools.partial(jax.jit, static_argnames="size")
def _buffers(fixed, bundle, points, projected, size):
  """Rasterises and interpolates what shading needs."""
  screen = jnp.stack(
    [
      (projected[:, 0] + 1) * (size / 2),
      (projected[:, 1] + 1) * (size / 2),
      -points[:, 2],
    ],
    -1,
  )
  raster = rasterize.rasterize(screen, bundle.faces, size, size)
  a, b, c = (points[bundle.faces[:, k]] for k in range(3))
  normal = jnp.cross(b - a, c - a) * 1e4  # away from float32's smallest
  normal = jnp.concatenate([normal, jnp.zeros((1, 3))])[fixed.around].sum(1)
  normal = normal / (jnp.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9)
  normal = normal[fixed.weld]
  along = points[fixed.after] - points[fixed.before]
  length = jnp.linalg.norm(along, axis=-1, keepdims=True)
  tangent = jnp.where(length > 1e-6, along / (length + 1e-9), _HEAD_DOWN)
  table = jax.lax.optimization_barrier(
    jnp.concatenate(
      [normal, tangent, bundle.occlusion[:, None], points[:, 2:] * 100], -1
    )
  )
  ids, weights = raster.ids, raster.barycentrics
  hit = ids >= 0
  face = jnp.maximum(ids, 0)
  corners = bundle.faces[face]
  values = sum(
    table[corners[..., k]] * weights[..., k : k + 1] for k in range(3)
  )
  corner = fixed.corner[face]
  uv = sum(
    corner[..., 2 * k : 2 * k + 2] * weights[..., k : k + 1] for k in range(3)
  )
  return {
    "hit": hit,
    "part": jnp.where(hit, corner[..., 6].astype(jnp.int32), -1),
    "uv": uv,
    "normal": values[..., :3],
    "tangent": values[..., 3:6],
    "occlusion": values[..., 6],
    "depth": values[..., 7],
  }


def _project(points, view):
  return camera.project(points[None], view[None])[0]


@jax.jit
def _pose(fixed, bundle, frame):
  """Posed vertices, their projection, and what follows from the pose alone."""
  points = mesh.pose_vertices(fixed, bundle, frame)
  five = model.landmarks(fixed.model.landmarks5, points[None])[0]
  pose = jnp.concatenate([frame["pose"], frame["jaw"]])[None]
  rotation = model.head_rotation(fixed.model, pose)
  exact = {
    "landmarks5": _project(five, frame["camera"])[:, :2] * 0.5 + 0.5,
    "eg3d_camera": camera.eg3d_camera(rotation)[0],
  }
  return points, _project(points, frame["camera"]), exact


@jax.jit
def _points68(fixed, bundle, points, view):
  """The 68 points, and which of them nothing of the picture hides.

  Compiled apart, so that the other stages stay the same programs.
  """
  places = model.landmarks(fixed.model.landmarks68, points[None])[0]
  unit = _project(places, view)[:, :2] * 0.5 + 0.5
  hidden = picture_points.covered(places, points, bundle.faces)
  seen = picture_points.in_picture(unit, 1) & ~hidden
  return {"landmarks68": unit, "visible68": seen.astype(jnp.int8)}


@functools.partial(jax.jit, static_argnames=("supersample", "maps"))
def _finish(bundle, shaded, hit, supersample, maps):
  """Background, tone, box filter, labels at the final size."""
  colour, label, albedo, normal = shaded
  hit = hit[..., None]
  behind = background(bundle.background, hit.shape[0])
  picture = shading.tone(jnp.where(hit, colour, behind))
  first = supersample // 2
  label = label[first::supersample, first::supersample].astype(jnp.uint8)
  out = {
    "image": shade.to_bytes(shade.downsample(picture, supersample)),
    "labels": label,
    "regions": jnp.asarray(labels.region_table())[label],
  }
  if maps:

    def down(a):
      return shade.downsample(jnp.where(hit, a, 0), supersample)

    out["albedo_map"] = down(albedo)
    out["normal_map"] = down(normal)
    out["covered"] = down(jnp.ones_like(albedo))[..., 0]
  return out


def draw(
  fixed: mesh.Static,
  bundle: bake_lib.Bundle,
  frame: dict,
  size: int,
  supersample: int = 2,
  maps: bool = False,
  landmarks68: bool = False,
) -> dict:
  """One picture of one baked identity, everything on the device.

  The four stages are compiled one by one: in a single function XLA's CPU
  compiler computes parts of a stage again for each of its readers. Under a
  caller's own jit they become one.

  Args:
    fixed: `mesh.static()`.
    bundle: the baked identity.
    frame: `frame_arrays` of a frame.
    size, supersample, maps, landmarks68: as in `render_frames`.

  Returns:
    image, labels, regions, landmarks5, eg3d_camera, the maps, and with
    `landmarks68` that field and visible68.
  """
  fine = size * supersample
  points, projected, exact = _pose(fixed, bundle, frame)
  buffers = _buffers(fixed, bundle, points, projected, fine)
  shaded = shade.shade(bundle, frame["light"], buffers)
  if landmarks68:
    exact |= _points68(fixed, bundle, points, frame["camera"])
  return exact | _finish(bundle, shaded, buffers["hit"], supersample, maps)


def frame_arrays(frame: Frame) -> dict:
  """The factors of a frame as a tree of float32 arrays."""
  names = ("pose", "jaw", "expression", "gaze", "light", "camera")
  return {name: getattr(frame, name) for name in names}


def render_frames(
  identity: Identity,
  frames: Sequence[Frame],
  size: int,
  supersample: int = 2,
  maps: bool = False,
  landmarks68: bool = False,
) -> list[dict]:
  """Draws several frames of one person; the textures are baked once.

  Args:
    identity: who.
    frames: how.
    size: side of the pictures in pixels.
    supersample: pixels are means of this many squared.
    maps: also return linear albedo_map, normal_map and covered.
    landmarks68: also return the fields of `examples.POINTS68_FIELDS`.

  Returns:
    One example per frame; the fields are those of `examples.EXAMPLE_FIELDS`.
  """
  bundle = bake_lib.bake(identity, 1 if size <= 160 else 2)
  drawn = [
    draw(
      mesh.static(),
      bundle,
      frame_arrays(f),
      size,
      supersample,
      maps,
      landmarks68,
    )
    for f in frames
  ]
  return [
    examples_lib.example(identity, frame, jax.device_get(d))
    for frame, d in zip(frames, drawn, strict=True)
  ]


def render(
  identity: Identity,
  frame: Frame,
  size: int,
  supersample: int = 2,
  maps: bool = False,
  landmarks68: bool = False,
) -> dict:
  """Draws one picture; see `render_frames`."""
  (one,) = render_frames(
    identity, [frame], size, supersample, maps, landmarks68
  )
  return one


def render_batch(
  pairs: Sequence[tuple[Identity, Frame]], size: int, supersample: int = 2
) -> dict:
  """Draws pictures of any people and stacks their fields.

  Args:
    pairs: (identity, frame) of each picture; runs of the same identity share
      one bake.
    size, supersample: as in `render_frames`.

  Returns:
    The fields of an example with a leading batch dimension; captions a list.
  """
  out, start = [], 0
  while start < len(pairs):
    person, end = pairs[start][0], start
    while end < len(pairs) and pairs[end][0] is person:
      end += 1
    frames = [frame for _, frame in pairs[start:end]]
    out += render_frames(person, frames, size, supersample)
    start = end
  return {
    k: [e[k] for e in out] if k == "caption" else np.stack([e[k] for e in out])
    for k in out[0]
  }
