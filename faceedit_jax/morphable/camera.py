"""Weak-perspective camera of DECA, and the camera numbers of EG3D."""

import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, typechecked
from faceedit_jax.morphable.model import Landmarks, landmarks

EG3D_RADIUS = 2.7
EG3D_FOCAL = 4.2647  # in picture sides


@typechecked
def project(
  vertices: Float[Array, "b v 3"], camera: Float[Array, "b 3"]
) -> Float[Array, "b v 3"]:
  """Projects points: s (x + tx), -s (y + ty), -s z.

  Args:
    vertices: metres, y up, z towards the camera.
    camera: [s, tx, ty]; the translation is in metres and comes before the
      scale (util.batch_orth_proj of DECA).

  Returns:
    x and y in -1..1 over the picture, y down; smaller z is nearer.
  """
  scale = camera[:, None, :1]
  shift = jnp.concatenate([camera[:, 1:], jnp.zeros_like(camera[:, :1])], -1)
  return (vertices + shift[:, None]) * scale * jnp.array([1.0, -1.0, -1.0])


@typechecked
def to_pixels(
  projected: Float[Array, "b v 3"], height: int, width: int
) -> Float[Array, "b v 3"]:
  """From -1..1 to pixels as `rasterize` wants them; depth is kept."""
  size = jnp.array([width / 2, height / 2, 1.0])
  return (projected + jnp.array([1.0, 1.0, 0.0])) * size


@typechecked
def to_unit(projected: Float[Array, "b v 3"]) -> Float[Array, "b v 2"]:
  """From -1..1 to picture coordinates in 0..1."""
  return projected[..., :2] * 0.5 + 0.5


@typechecked
def face_centre(
  points: Landmarks, vertices: Float[Array, "b v 3"]
) -> Float[Array, "b 3"]:
  """Between the eyes, a tenth of the way to the mouth."""
  if len(points.vertices) != 5:
    raise ValueError(
      f"camera: the face centre needs 5 landmarks, the model has "
      f"{len(points.vertices)}; load it with its landmark file."
    )
  five = landmarks(points, vertices)
  eyes, mouth = five[:, :2].mean(1), five[:, 3:].mean(1)
  return eyes + 0.1 * (mouth - eyes)


@typechecked
def recentre(
  edited: Float[Array, "b v 3"],
  source: Float[Array, "b v 3"],
  points: Landmarks,
) -> Float[Array, "b v 3"]:
  """Moves an edited head to where the source's face is.

  Without it a new pose under the old camera lets the head jump (inference of
  DiffusionRig).

  Args:
    edited: posed vertices after the edit.
    source: posed vertices of the source.
    points: the model's five landmarks.
  """
  shift = face_centre(points, source) - face_centre(points, edited)
  return edited + shift[:, None]


@typechecked
def eg3d_camera(
  rotation: Float[Array, "b 3 3"],
  radius: float = EG3D_RADIUS,
  focal: float = EG3D_FOCAL,
) -> Float[Array, "b 25"]:
  """The 25 camera numbers of EG3D for a head rotation.

  EG3D keeps the head still and moves the camera round it.

  Args:
    rotation: of the head, from the frontal pose.
    radius: distance of the camera from the centre.
    focal: focal length in picture sides.

  Returns:
    16 numbers of the camera-to-world matrix (x right, y down, z forward),
    row by row, then 9 of the intrinsics.
  """
  batch = rotation.shape[0]
  inverse = rotation.transpose(0, 2, 1)
  turn = inverse * jnp.array([1.0, -1.0, -1.0])
  place = radius * inverse[:, :, 2:]
  top = jnp.concatenate([turn, place], -1)
  bottom = jnp.broadcast_to(jnp.array([[[0.0, 0.0, 0.0, 1.0]]]), (batch, 1, 4))
  extrinsics = jnp.concatenate([top, bottom], 1).reshape(batch, 16)
  intrinsics = np.array([focal, 0, 0.5, 0, focal, 0.5, 0, 0, 1], np.float32)
  intrinsics = jnp.broadcast_to(intrinsics, (batch, 9))
  return jnp.concatenate([extrinsics, intrinsics], -1)
