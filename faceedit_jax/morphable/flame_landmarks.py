"""FLAME's landmarks: points of triangles, and a contour that slides with yaw.

DiffFAE, section 4.1, through DECA (FLAME.seletec_3d68, landmarks2d).
"""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, Int, typechecked
from faceedit_jax.morphable.flame_files import LANDMARKS
from faceedit_jax.morphable.model import Landmarks, landmarks
from faceedit_jax.morphable.rotations import rotation_matrix, yaw

_CONTOUR = 17  # of the 68 points


@flax.struct.dataclass
class Contour:
  """Face contour by the yaw of the head: 17 points of each of 79 rows."""

  face_ids: Int[Array, "79 17"]
  weights: Float[Array, "79 17 3"]


@flax.struct.dataclass
class Embedding:
  """Landmarks of one FLAME mesh.

  Attributes:
    static: the 51 points inside the contour.
    full: all 68 points, the contour at its place on the frontal face.
    contour: what takes the place of the first 17.
  """

  static: Landmarks
  full: Landmarks
  contour: Contour

  @property
  def frontal(self) -> Landmarks:
    """The 51 points with the contour of the frontal face: 68."""
    contour = jax.tree.map(lambda x: x[:_CONTOUR], self.full)
    return jax.tree.map(lambda *x: jnp.concatenate(x), contour, self.static)


def barycentric_landmarks(
  faces: np.ndarray, face_ids: np.ndarray, weights: np.ndarray
) -> Landmarks:
  """Landmarks given as points of triangles."""
  ids = np.asarray(face_ids).reshape(-1)
  return Landmarks(
    vertices=jnp.asarray(np.asarray(faces)[ids], jnp.int32),
    weights=jnp.asarray(np.asarray(weights).reshape(-1, 3), jnp.float32),
  )


def embedding(faces: np.ndarray, fields: Mapping[str, np.ndarray]) -> Embedding:
  """Landmarks from the fields of DECA's landmark_embedding.npy.

  Args:
    faces: (F, 3) triangles of the mesh.
    fields: as `flame_files.read_landmarks` gives them.

  Raises:
    ValueError: if a field is missing.
  """
  missing = [name for name in LANDMARKS if name not in fields]
  if missing:
    raise ValueError(
      f"landmark file lacks {missing}, has {sorted(fields)}; wanted all fields "
      "of DECA's landmark_embedding.npy."
    )

  def pair(name):
    return fields[f"{name}_lmk_faces_idx"], fields[f"{name}_lmk_bary_coords"]

  ids, weights = pair("dynamic")
  contour = Contour(
    jnp.asarray(ids, jnp.int32), jnp.asarray(weights, jnp.float32)
  )
  return Embedding(
    static=barycentric_landmarks(faces, *pair("static")),
    full=barycentric_landmarks(faces, *pair("full")),
    contour=contour,
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


@typechecked
def contour_row(joint_pose: Float[Array, "b 15"]) -> Int[Array, "b"]:
  """Row of the contour table for the yaw of each head, DECA's sign.

  Whole degrees: 0..39 for 0..39 and more, 40..77 for -1..-38, 78 beyond.
  """
  rotations = rotation_matrix(joint_pose[:, :6].reshape(-1, 2, 3))
  turn = jnp.matmul(rotations[:, 0], rotations[:, 1], precision="highest")
  degrees = jnp.rad2deg(yaw(turn))
  row = jnp.round(jnp.minimum(degrees, 39.0)).astype(jnp.int32)
  return jnp.where(row < 0, jnp.where(row < -39, 78, 39 - row), row)


@typechecked
def landmarks2d(
  points: Embedding,
  faces: Int[Array, "f 3"],
  vertices: Float[Array, "b v 3"],
  joint_pose: Float[Array, "b 15"],
) -> Float[Array, "b 68 3"]:
  """The 68 points as a picture shows them: DECA's landmarks2d.

  Args:
    points: of the mesh.
    faces: triangles of the mesh.
    vertices: posed vertices.
    joint_pose: axis-angles that posed them; the contour is that of its yaw.
  """
  row = contour_row(joint_pose)
  at = faces[points.contour.face_ids[row]]  # (b, 17, 3)
  index = at.reshape(len(at), -1)[..., None]
  picked = jnp.take_along_axis(vertices, index, axis=1)
  picked = picked.reshape(*at.shape, 3)
  contour = (picked * points.contour.weights[row][..., None]).sum(-2)
  return jnp.concatenate([contour, landmarks(points.static, vertices)], 1)
