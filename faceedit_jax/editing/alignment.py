"""A photo -> the aligned square that a net reads, and the way back.

The square lies round the five points of the face, which are given, found by a
detector, or searched with the recipe's own nets.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from data_pipelines import align, detectors, face_points
from data_pipelines import landmarks as landmarks_lib
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.editing import find_face
from faceedit_jax.editing.net_finder import NetFinder

NET = "net"  # the recipe's own net
# What finds faces: what `choose` takes or returns, or a function from uint8
# (h, w, 3) to what `detectors.faces_of` takes.
Detector = str | detectors.Chosen | Callable[[np.ndarray], Any]
# {name: (5, 2) in pixels}, or a landmarks file.
Landmarks = Mapping[str, np.ndarray] | str | os.PathLike | None


def choose(name: str) -> detectors.Chosen:
  """The detector that a user names.

  Args:
    name: NET, or what `detectors.choose` takes.

  Raises:
    DetectorError: there is no such detector, or it is not installed.
  """
  return detectors.choose(detectors.NONE if name == NET else name)


class FaceAligner:
  """Cuts the square round a face, and pastes an edit of it back.

  Attributes:
    size: side of the squares in which faces are searched, in pixels.
    reason: why a face is searched with the recipe's own net, in words; "" where
      a detector does it, or the net was asked for.
  """

  def __init__(
    self,
    alignment: str,
    size: int,
    reader: find_face.Reader | None = None,
    detector: Detector = detectors.AUTO,
  ):
    """Takes what finds faces.

    Args:
      alignment: how faces lie in the squares, one of `align.TEMPLATES`.
      size: see above.
      reader: reads the points of faces in squares.
      detector: finds the points in a photo; preferred to the reader.

    Raises:
      DetectorError: there is no such detector, or it is not installed.
    """
    self.size = size
    self._template = align.template(alignment)
    if isinstance(detector, str):
      detector = choose(detector)
    if not isinstance(detector, detectors.Chosen):
      detector = detectors.Chosen(detectors.as_finder(detector))
    self._finder, self.reason = detector.finder, detector.reason
    if self._finder is None and reader is not None:
      self._finder = NetFinder(reader, size)

  def cut(
    self,
    photo: np.ndarray,
    size: int,
    points: np.ndarray | None = None,
    framed: bool = False,
    face: detectors.Choice = detectors.LARGEST,
  ) -> tuple[align.Aligned, detectors.Found | None]:
    """Cuts the square round a face.

    Args:
      photo: uint8 (h, w, 3) of any size.
      size: side of the square in pixels.
      points: (5, 2) in pixels; found where None.
      framed: the photo is aligned already: its largest centred square.
      face: which one, where points are searched.

    Returns:
      The square and the map to it, and what was found where it was searched.

    Raises:
      AlignError: no face was found, or the points given cannot be those of one
        (`face_points.check`).
      DetectorError: the detector fails.
    """
    if framed:
      return align.centre_square(photo, size, self._template), None
    found = None
    if points is None:
      found = self.find(photo, face)
      points = align.check_points(found.points)
    else:
      points = face_points.check(points, photo.shape[:2])
    return align.align(photo, points, size, self._template), found

  def find(
    self, photo: np.ndarray, face: detectors.Choice = detectors.LARGEST
  ) -> detectors.Found:
    """Finds the face that is meant.

    Args:
      photo: uint8 (h, w, 3).
      face: which one.

    Raises:
      AlignError: no face was found, or nothing here finds faces.
      DetectorError: the detector fails.
    """
    if self._finder is None:
      why = f" ({self.reason})" if self.reason else ""
      raise align.AlignError(
        f"this stage has no net that finds faces{why}; {_ADVICE}"
      )
    try:
      return self._finder.find(photo, face)
    except align.AlignError as error:
      why = f" ({self.reason})" if self.reason else ""
      raise align.AlignError(f"{error}{why}; {_ADVICE}") from error


_ADVICE = "give five points with --landmarks=FILE, or --aligned if it is cut"


def points_in(square: align.Aligned) -> np.ndarray:
  """The five points (5, 2) of a square, in pixels of its photo."""
  points = square.landmarks5.astype(np.float64) * square.image.shape[0]
  return align.transform_points(align.invert(square.matrix), points)


def paste_back(
  photo: np.ndarray,
  square: align.Aligned,
  edit: np.ndarray,
  mask: np.ndarray | None = None,
) -> np.ndarray:
  """Puts the edit of a square back into its photo.

  Args:
    photo: uint8 (h, w, 3), what the square was cut from; it is changed.
    square: as `FaceAligner.cut` gave it.
    edit: uint8 (s, s, 3), the edited square, at any resolution.
    mask: (s, s) in [0, 1], what of the edit to use.

  Returns:
    The photo.

  Raises:
    UserError: the edit is no square.
  """
  height, width = edit.shape[:2]
  if height != width:
    raise UserError(
      f"the edit is {width}x{height} pixels, which is no square to paste back; "
      "leave out paste_back"
    )
  matrix = square.matrix * (height / square.image.shape[0])
  return align.paste_back(photo, edit, matrix, mask, in_place=True)


def table_of(landmarks: Landmarks) -> Mapping[str, np.ndarray] | None:
  """Landmarks by name; a file is read, None stays None.

  Raises:
    UserError: one line, when the file cannot be used.
  """
  if landmarks is None:
    return None
  if isinstance(landmarks, Mapping):
    return landmarks_lib.named(landmarks)
  with as_user_error("--landmarks"):
    return landmarks_lib.read_landmarks(landmarks)


def listed(
  table: Mapping[str, np.ndarray] | None,
  picture: str | os.PathLike | np.ndarray,
  role: str,
) -> np.ndarray | None:
  """Points of a picture by its file name, else by what it is for, or None."""
  if not table:
    return None
  if isinstance(picture, str | os.PathLike):
    points = landmarks_lib.find(table, picture)
    if points is not None:
      return points
  return table.get(role)
