"""A photo -> the aligned square that a net reads, and the way back.

The square lies round the five points of the face, which are given, found by a
detector of the user's, or searched with the recipe's own nets.
"""

import os
import pathlib
import runpy
from collections.abc import Callable, Mapping

import numpy as np

from data_pipelines import align, face_points
from data_pipelines import landmarks as landmarks_lib
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.editing import find_face

# image (h, w, 3) uint8 -> (5, 2) in pixels, or None where no face is found.
Detector = Callable[[np.ndarray], np.ndarray | None]
# {name: (5, 2) in pixels}, or a landmarks file.
Landmarks = Mapping[str, np.ndarray] | str | os.PathLike | None


class FaceAligner:
  """Cuts the square round a face, and pastes an edit of it back.

  Attributes:
    size: side of the squares in which faces are searched, in pixels.
  """

  def __init__(
    self,
    alignment: str,
    size: int,
    reader: find_face.Reader | None = None,
    detector: Detector | None = None,
  ):
    """Takes what finds faces.

    Args:
      alignment: how faces lie in the squares, one of `align.TEMPLATES`.
      size: see above.
      reader: reads the points of faces in squares.
      detector: finds the points in a photo; preferred to the reader.
    """
    self.size = size
    self._template = align.template(alignment)
    self._reader, self._detector = reader, detector

  def cut(
    self,
    photo: np.ndarray,
    size: int,
    points: np.ndarray | None = None,
    framed: bool = False,
  ) -> align.Aligned:
    """Cuts the square round a face.

    Args:
      photo: uint8 (h, w, 3) of any size.
      size: side of the square in pixels.
      points: (5, 2) in pixels; found where None.
      framed: the photo is aligned already: its largest centred square.

    Returns:
      The square, and the map to it.

    Raises:
      AlignError: no face was found, or the points given cannot be those of one
        (`face_points.check`).
    """
    if framed:
      return align.centre_square(photo, size, self._template)
    if points is None:
      points = align.check_points(self.find_points(photo))
    else:
      points = face_points.check(points, photo.shape[:2])
    return align.align(photo, points, size, self._template)

  def find_points(self, photo: np.ndarray) -> np.ndarray:
    """Five points (5, 2) in pixels, by the detector or else the reader.

    Args:
      photo: uint8 (h, w, 3).

    Raises:
      AlignError: no face was found, or nothing here finds faces.
    """
    advice = "give five points with --landmarks=FILE, or --aligned if it is cut"
    if self._detector is not None:
      points = self._detector(photo)
      if points is not None:
        return face_points.check(points, photo.shape[:2], "detector")
      problem = "no face found by the detector"
    elif self._reader is None:
      problem = "this stage has no net that finds faces"
    else:
      try:
        return find_face.find(self._reader, photo, self.size).points
      except align.AlignError as error:
        problem = str(error)
    raise align.AlignError(f"{problem}; {advice}")


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


def load_detector(file: str | os.PathLike) -> Detector:
  """Takes a face detector from a Python file of the user's.

  Args:
    file: defines `detect(image)`, from uint8 (h, w, 3) to five points (5, 2)
      in pixels in the order of `align.CANONICAL5`, or None for no face.

  Returns:
    That function; its errors are UserErrors of one line.

  Raises:
    UserError: there is no such file, it does not run, or defines no `detect`.
  """
  path = pathlib.Path(file)
  if not path.is_file():
    raise UserError(f"detector {path}: no such file")
  try:
    found = runpy.run_path(str(path)).get("detect")
  except Exception as error:  # the user's code may raise anything
    raise UserError(f"detector {path}: {_first_line(error)}") from error
  if not callable(found):
    raise UserError(f"detector {path}: defines no function detect(image)")

  def detect(image):
    try:
      points = found(image)
    except Exception as error:
      raise UserError(f"detector {path}: {_first_line(error)}") from error
    return None if points is None else np.asarray(points, np.float64)

  return detect


def _first_line(error: Exception) -> str:
  text = (str(error).strip() or "no message").splitlines()[0]
  return f"{type(error).__name__}: {text}"
