"""Where a picture shows the landmarks of a face model, and which are hidden.

The points are those of the mesh: on a turned head the far part of the contour
lies behind the cheek. (`flame_landmarks.landmarks2d` gives FLAME's contour that
slides to the visible edge instead.)
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Bool, Float, Int, typechecked
from faceedit_jax.morphable import camera as cameras
from faceedit_jax.morphable.model import Morphable, landmarks
from faceedit_jax.morphable.render import pose_codes

# How much nearer a surface must be to hide a point, in metres: lids lie on the
# eyeballs and closed lips on one another.
TOLERANCE = 0.005


class PicturePoints(NamedTuple):
  """Landmarks as a picture shows them.

  Attributes:
    pixels: (b, l, 2) column and row in pixels; the centre of the pixel in row
      i and column j is (j + 0.5, i + 0.5). All of them, hidden ones and those
      beside the picture too.
    visible: (b, l) whether a point lies in the picture and nothing is in front
      of it.
  """

  pixels: Float[Array, "b l 2"]
  visible: Bool[Array, "b l"]


@typechecked
def covered(
  points: Float[Array, "l 3"],
  vertices: Float[Array, "v 3"],
  faces: Int[Array, "f 3"],
  tolerance: float = TOLERANCE,
) -> Bool[Array, "l"]:
  """Whether triangles lie in front of points, whatever the picture's size.

  Args:
    points: metres, z towards the camera, whose rays are parallel.
    vertices: of the mesh.
    faces: triangles; those without an area cover nothing.
    tolerance: how much nearer a triangle must be.
  """
  a, b, c = (vertices[faces[:, k]] for k in range(3))
  u, v = b - a, c - a
  area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
  safe = jnp.where(area == 0, 1.0, area)

  def one(point):
    at = point[:2] - a[:, :2]
    along_u = (at[:, 0] * v[:, 1] - at[:, 1] * v[:, 0]) / safe
    along_v = (u[:, 0] * at[:, 1] - u[:, 1] * at[:, 0]) / safe
    inside = (along_u >= 0) & (along_v >= 0) & (along_u + along_v <= 1)
    z = a[:, 2] + along_u * u[:, 2] + along_v * v[:, 2]
    return (inside & (area != 0) & (z > point[2] + tolerance)).any()

  return jax.lax.map(one, points)


@typechecked
def in_picture(
  pixels: Float[Array, "*b l 2"], size: int
) -> Bool[Array, "*b l"]:
  """Whether points lie in a square picture of `size` pixels."""
  return ((pixels >= 0) & (pixels < size)).all(-1)


@typechecked
def landmarks68(
  model: Morphable,
  vertices: Float[Array, "b v 3"],
  camera: Float[Array, "b 3"],
  size: int,
) -> PicturePoints:
  """The 68 points (iBUG order) of posed vertices.

  Args:
    model: gives triangles and landmarks.
    vertices: posed vertices, metres.
    camera: [s, tx, ty] of each picture.
    size: side of the picture in pixels.

  Raises:
    ValueError: the model has no such landmarks.
  """
  if len(model.landmarks68.vertices) != 68:
    raise ValueError(
      f"morphable: got a model with {len(model.landmarks68.vertices)} "
      "landmarks, wanted 68; load it with its landmark file."
    )
  points = landmarks(model.landmarks68, vertices)
  pixels = cameras.to_unit(cameras.project(points, camera)) * size
  hidden = jax.vmap(covered, (0, 0, None))(points, vertices, model.faces)
  return PicturePoints(pixels, in_picture(pixels, size) & ~hidden)


def landmarks68_of_codes(
  model: Morphable,
  codes: Mapping[str, Array],
  size: int,
  source_codes: Mapping[str, Array] | None = None,
) -> PicturePoints:
  """The 68 points of what `render_condition` draws from the same arguments.

  Args:
    model: the face model.
    codes: shape, expression, pose, gaze and camera, see
      `Morphable.code_sizes`.
    size: side of the picture in pixels.
    source_codes: those of the picture whose place in the frame is kept.

  Raises:
    ValueError: the model has no such landmarks, or codes are missing.
  """
  vertices = pose_codes(model, codes, source_codes)
  return landmarks68(model, vertices, codes["camera"], size)
