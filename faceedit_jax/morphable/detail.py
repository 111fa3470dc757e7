"""Detail of the face: displacement in texture space and the normals it makes.

DiffFAE, section 4.1 ("detailed texture information within the UV map"),
through DECA's displacement2normal.
"""

import pathlib

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from faceedit_jax.core.typing import Array, Float, Int, typechecked
from faceedit_jax.morphable.mesh import grid_faces, vertex_normals
from faceedit_jax.morphable.model import Morphable
from faceedit_jax.morphable.rasterize import interpolate, rasterize

_EPS = 1e-6  # of the normals of the dense mesh, as in DECA


@flax.struct.dataclass
class DetailSpace:
  """Where each texel lies on the face, and how it may be displaced.

  Attributes:
    ids: triangle of each texel, -1 for none; barycentrics: weights of its
      corners. Both follow from the texture layout alone.
    mask: share of the displacement that a texel takes, 0..1.
    fixed: displacement that every face has, metres.
    blend: keep the smooth normals where `mask` is 0 (DECA's training code),
      or use those of the displaced texels everywhere.
  """

  ids: Int[Array, "t t"]
  barycentrics: Float[Array, "t t 3"]
  mask: Float[Array, "t t"]
  fixed: Float[Array, "t t"]
  blend: bool = flax.struct.field(pytree_node=False, default=True)


def detail_space(
  model: Morphable,
  mask: np.ndarray,
  fixed: np.ndarray,
  blend: bool = True,
  **raster,
) -> DetailSpace:
  """Finds the texels of a model's texture layout.

  Args:
    model: gives the layout.
    mask: (t, t) share of the displacement, 0..1; row 0 is the top, v = 1.
    fixed: (t, t) metres.
    blend: see `DetailSpace`.
    **raster: options of `rasterize`.

  Raises:
    ValueError: if mask and fixed are not squares of one size, or the model
      has no layout.
  """
  mask, fixed = (np.asarray(a, np.float32) for a in (mask, fixed))
  if mask.ndim != 2 or len({*mask.shape, *fixed.shape}) != 1:
    raise ValueError(
      f"detail: got a mask {mask.shape} and a fixed displacement "
      f"{fixed.shape}, wanted two squares of one size."
    )
  size = len(mask)
  across, down = model.uv[:, 0], 1 - model.uv[:, 1]
  screen = jnp.stack([across * size, down * size, jnp.ones_like(across)], -1)
  found = rasterize(screen, model.uv_faces, size, size, **raster)
  if not (found.ids >= 0).any():
    raise ValueError(
      f"detail: no texel of {size} x {size} lies in a triangle; load the "
      "model with its texture layout."
    )
  return DetailSpace(
    found.ids, found.barycentrics, jnp.asarray(mask), jnp.asarray(fixed), blend
  )


def load_detail_space(
  model: Morphable,
  mask_path: str | pathlib.Path,
  fixed_path: str | pathlib.Path,
  blend: bool = True,
) -> DetailSpace:
  """`detail_space` from DECA's files.

  Args:
    model: gives the layout.
    mask_path: uv_face_eye_mask.png; its red channel is taken, and the nearest
      pixel where its size is not that of the displacement.
    fixed_path: fixed_displacement_256.npy.
    blend: see `DetailSpace`.

  Raises:
    ValueError: if a file is missing, unreadable or of the wrong shape.
  """
  try:
    fixed = np.load(fixed_path, allow_pickle=False)
    with PIL.Image.open(mask_path) as picture:
      mask = np.asarray(picture.convert("RGB"), np.float32)[..., 0] / 255
  except Exception as error:  # a damaged picture may raise anything
    raise ValueError(
      f"detail: cannot read {mask_path} and {fixed_path}: {error}; wanted "
      "DECA's uv_face_eye_mask.png and fixed_displacement_256.npy."
    ) from error
  if not isinstance(fixed, np.ndarray) or fixed.ndim != 2:
    raise ValueError(
      f"detail: {fixed_path} holds {getattr(fixed, 'shape', type(fixed))}, "
      "wanted one square of displacements in metres."
    )
  rows, columns = (
    np.arange(len_) * side // len_
    for len_, side in zip(fixed.shape, mask.shape, strict=True)
  )
  return detail_space(model, mask[np.ix_(rows, columns)], fixed, blend)


@typechecked
def unwrap(
  space: DetailSpace,
  faces: Int[Array, "f 3"],
  values: Float[Array, "b v d"],
) -> Float[Array, "b t t d"]:
  """Vertex values in texture space (SRenderY.world2uv), 0 where no face is."""
  one = lambda v: interpolate(v, faces, space.ids, space.barycentrics)  # noqa: E731
  return jax.vmap(one)(values)


@typechecked
def detail_normals(
  space: DetailSpace,
  faces: Int[Array, "f 3"],
  points: Float[Array, "b v 3"],
  displacement: Float[Array, "b t t 1"],
) -> Float[Array, "b t t 3"]:
  """World normals of the displaced face in texture space.

  Each texel moves along its smooth normal by `displacement * mask + fixed`;
  the texels then form a mesh of their own.

  Args:
    space: of the model.
    faces: triangles of the model.
    points: posed vertices, metres.
    displacement: metres, as the detail decoder gives it.
  """
  batch, size = displacement.shape[:2]
  place = unwrap(space, faces, points)
  smooth = unwrap(space, faces, vertex_normals(points, faces, _EPS))
  mask = space.mask[..., None]
  dense = place + (displacement * mask + space.fixed[..., None]) * smooth
  grid = jnp.asarray(grid_faces(size, size))
  normals = vertex_normals(dense.reshape(batch, -1, 3), grid, _EPS)
  normals = normals.reshape(dense.shape)
  return normals * mask + smooth * (1 - mask) if space.blend else normals
