"""A face in a photo: five points, and how sure the detector is."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from data_pipelines import align


@dataclasses.dataclass(frozen=True)
class Face:
  """A face in a picture.

  Attributes:
    points: float64 (5, 2) in pixels, in the order of `align.CANONICAL5`.
    score: how sure the detector is, on a scale of its own; None where it does
      not say.
  """

  points: np.ndarray
  score: float | None = None

  @property
  def side(self) -> float:
    """Side in pixels of the aligned square round the face."""
    return 1.0 / abs(self._turn_and_scale())

  @property
  def angle(self) -> float:
    """Degrees in (-180, 180] by which the head is turned clockwise."""
    return float(-np.degrees(np.angle(self._turn_and_scale())))

  @property
  def centre(self) -> np.ndarray:
    """Middle of the five points, (2,) in pixels."""
    return self.points.mean(axis=0)

  def _turn_and_scale(self) -> complex:
    """Turn and scale from pixels to the unit square, as one number."""
    matrix = align.similarity(self.points, align.CANONICAL5.astype(np.float64))
    return complex(matrix[0, 0], matrix[1, 0])


def faces_of(answer: Any, name: str = "detector") -> list[Face]:
  """The faces in what a detector returned.

  Args:
    answer: None or an empty list for no face; five points (5, 2); those of
      several faces (n, 5, 2); or a list of `Face`.
    name: of the detector, for errors.

  Returns:
    The faces; those whose points make none are left out.

  Raises:
    AlignError: it is something else.
  """
  if answer is None or (isinstance(answer, Iterable) and not len(answer)):
    return []
  if isinstance(answer, list | tuple) and isinstance(answer[0], Face):
    found = list(answer)
  else:
    points = np.asarray(answer)
    several = points if points.ndim == 3 else points[None]
    found = [Face(align.check_points(five, name)) for five in several]
  return [face for face in found if _makes_a_face(face)]


def _makes_a_face(face: Face) -> bool:
  try:
    return bool(np.isfinite(face.side))
  except align.AlignError:
    return False


def largest_first(faces: Iterable[Face]) -> list[Face]:
  """Faces in the order of their numbers: by size, the largest is number 1."""
  return sorted(faces, key=lambda face: -face.side)
