"""FLAME as a `Morphable`, and its landmarks.

FLAME is licensed by its authors; the files come from the user.
"""

import pathlib

import flax.struct
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, Int, typechecked
from faceedit_jax.morphable import flame_files, obj
from faceedit_jax.morphable.model import (
  Landmarks,
  Morphable,
  rotation_matrix,
)

_IDENTITY_COLUMNS = 300  # of shapedirs; expression columns follow


def barycentric_landmarks(
  faces: np.ndarray, face_ids: np.ndarray, weights: np.ndarray
) -> Landmarks:
  """Landmarks given as points of triangles."""
  ids = np.asarray(face_ids).reshape(-1)
  return Landmarks(
    vertices=jnp.asarray(np.asarray(faces)[ids], jnp.int32),
    weights=jnp.asarray(np.asarray(weights).reshape(-1, 3), jnp.float32),
  )


def five_of_68(points: Landmarks) -> Landmarks:
  """Eye centres, nose tip and mouth corners from the 68 points."""
  groups = [range(36, 42), range(42, 48), [30], [48], [54]]
  vertices, weights = np.asarray(points.vertices), np.asarray(points.weights)
  width = 6 * vertices.shape[1]
  out_vertices = np.zeros((5, width), np.int32)
  out_weights = np.zeros((5, width), np.float32)
  for row, group in enumerate(groups):
    group = list(group)
    n = len(group) * vertices.shape[1]
    out_vertices[row, :n] = vertices[group].reshape(-1)
    out_weights[row, :n] = weights[group].reshape(-1) / len(group)
  return Landmarks(jnp.asarray(out_vertices), jnp.asarray(out_weights))


def _no_landmarks() -> Landmarks:
  return Landmarks(jnp.zeros((0, 1), jnp.int32), jnp.zeros((0, 1)))


def from_arrays(
  arrays: dict[str, np.ndarray],
  n_shape: int = 100,
  n_expression: int = 50,
  uv: np.ndarray | None = None,
  uv_faces: np.ndarray | None = None,
  albedo: tuple[np.ndarray, np.ndarray] | None = None,
  landmarks68: Landmarks | None = None,
) -> Morphable:
  """A `Morphable` from the fields of a FLAME file.

  Args:
    arrays: fields by FLAME's names, as `flame_files.read_model` gives them.
    n_shape: identity components to keep.
    n_expression: expression components to keep.
    uv: (Vt, 2) texture coordinates, v up; zeros when absent.
    uv_faces: (F, 3) indices into uv.
    albedo: mean and basis; flat grey without directions when absent.
    landmarks68: needed to re-centre edited poses.

  Raises:
    ValueError: if the file has fewer components than asked for.
  """
  directions = np.asarray(arrays["shapedirs"], np.float32)
  identity = directions[..., :_IDENTITY_COLUMNS][..., :n_shape]
  expression = directions[..., _IDENTITY_COLUMNS:][..., :n_expression]
  got = (identity.shape[-1], expression.shape[-1])
  if got != (n_shape, n_expression):
    raise ValueError(
      f"FLAME: got {got} identity and expression components, wanted "
      f"{(n_shape, n_expression)}; lower n_shape or n_expression."
    )
  f32 = lambda a: jnp.asarray(np.asarray(a), jnp.float32)  # noqa: E731
  count = len(arrays["v_template"])
  faces = np.asarray(arrays["f"]).astype(np.int32)
  parents = np.asarray(arrays["kintree_table"])[0].astype(np.int64)
  posedirs = np.asarray(arrays["posedirs"]).reshape(count * 3, -1).T
  if albedo is None:
    albedo = (np.full((4, 4, 3), 0.6), np.zeros((0, 4, 4, 3)))
  five = _no_landmarks() if landmarks68 is None else five_of_68(landmarks68)
  if uv is None or uv_faces is None:
    uv, uv_faces = np.zeros((count, 2)), faces
  return Morphable(
    v_template=f32(arrays["v_template"]),
    shapedirs=f32(np.concatenate([identity, expression], -1)),
    posedirs=f32(posedirs),
    j_regressor=f32(arrays["J_regressor"]),
    weights=f32(arrays["weights"]),
    faces=jnp.asarray(faces),
    uv=f32(uv),
    uv_faces=jnp.asarray(np.asarray(uv_faces).astype(np.int32)),
    albedo_mean=f32(albedo[0]),
    albedo_basis=f32(albedo[1]),
    landmarks5=five,
    landmarks68=landmarks68 or _no_landmarks(),
    head_share=f32([[1, 1, 1], [0, 0, 0]]),
    lid_vertices=jnp.zeros((2, 0), jnp.int32),
    ball_vertices=jnp.zeros(2, jnp.int32),
    parents=(-1, *(int(p) for p in parents[1:])),
    n_shape=n_shape,
  )


def load_flame(
  path: str | pathlib.Path,
  albedo_path: str | pathlib.Path | None = None,
  landmark_path: str | pathlib.Path | None = None,
  n_shape: int = 100,
  n_expression: int = 50,
  n_albedo: int = 50,
  template_path: str | pathlib.Path | None = None,
) -> Morphable:
  """Loads FLAME from its authors' files.

  Args:
    path: `generic_model.pkl`, or what `faceedit_jax.convert flame` makes of it;
      so too the other files.
    albedo_path: `FLAME_texture.npz` or `FLAME_albedo_from_BFM.npz`; the former
      also brings the texture layout (`vt`, `ft`).
    landmark_path: DECA's `landmark_embedding.npy`.
    n_shape: identity components.
    n_expression: expression components.
    n_albedo: albedo components.
    template_path: mesh with the texture layout (DECA's head_template.obj),
      for an albedo file without one.

  Returns:
    The model; all of the head rotation sits at the root, as in DECA.
  """
  arrays = flame_files.read_model(path)
  layout: dict[str, np.ndarray] = {}
  albedo = points = None
  if albedo_path is not None:
    found = flame_files.read_albedo(albedo_path, n_albedo)
    albedo = found["mean"], found["basis"]
    layout = {k: found[k] for k in ("uv", "uv_faces") if k in found}
  if template_path is not None:
    uv, uv_faces, faces = obj.read_layout(template_path)
    if not np.array_equal(faces, arrays["f"]):
      raise ValueError(
        f"mesh {template_path} has other triangles than {path}; wanted the "
        "template of the same head"
      )
    layout = {"uv": uv, "uv_faces": uv_faces}
  if landmark_path is not None:
    found = flame_files.read_landmarks(landmark_path)
    ids = found["full_lmk_faces_idx"]
    if ids.max() >= len(arrays["f"]):
      raise ValueError(
        f"landmark file {landmark_path} names triangle {ids.max()}, {path} has "
        f"{len(arrays['f'])}; wanted files of the same head"
      )
    points = barycentric_landmarks(
      arrays["f"], ids, found["full_lmk_bary_coords"]
    )
  if layout and len(layout["uv_faces"]) != len(arrays["f"]):
    raise ValueError(
      f"albedo file {albedo_path} lays out {len(layout['uv_faces'])} "
      f"triangles, {path} has {len(arrays['f'])}; wanted files of the same head"
    )
  return from_arrays(
    arrays,
    n_shape,
    n_expression,
    albedo=albedo,
    landmarks68=points,
    **layout,
  )


@flax.struct.dataclass
class Contour:
  """Face contour that slides with the yaw of the head: 79 rows of 17 points."""

  face_ids: Int[Array, "79 17"]
  weights: Float[Array, "79 17 3"]


@typechecked
def contour_row(joint_pose: Float[Array, "b 15"]) -> Int[Array, "b"]:
  """Row of the contour table for the yaw of each head, DECA's sign."""
  rotations = rotation_matrix(joint_pose[:, :6].reshape(-1, 2, 3))
  turn = rotations[:, 0] @ rotations[:, 1]
  flat = jnp.sqrt(turn[:, 0, 0] ** 2 + turn[:, 1, 0] ** 2)
  yaw = jnp.rad2deg(jnp.arctan2(-turn[:, 2, 0], flat))
  row = jnp.round(jnp.minimum(yaw, 39.0)).astype(jnp.int32)
  return jnp.where(row < 0, jnp.where(row < -39, 78, 39 - row), row)


@typechecked
def contour_landmarks(
  contour: Contour,
  faces: Int[Array, "f 3"],
  vertices: Float[Array, "b v 3"],
  joint_pose: Float[Array, "b 15"],
) -> Float[Array, "b 17 3"]:
  """The 17 contour points of posed vertices (DECA's landmarks2d, 0..16)."""
  row = contour_row(joint_pose)
  corners = faces[contour.face_ids[row]]  # (b, 17, 3)
  index = corners.reshape(len(corners), -1)[..., None]
  picked = jnp.take_along_axis(vertices, index, axis=1)
  picked = picked.reshape(*corners.shape, 3)
  return (picked * contour.weights[row][..., None]).sum(-2)
