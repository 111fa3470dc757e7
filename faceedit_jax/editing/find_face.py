"""Finds five face points in a photo of any size, with a net that reads squares.

Editing reads faces through a net trained on loosely framed heads (DiffFAE
section 4.1). That net also says where the eyes, nose and mouth are and how
sure it is of a face, so a search over squares of the photo is a detector.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from data_pipelines import align

# uint8 (n, s, s, 3), n <= VIEWS -> points (n, 5, 2) in unit coordinates of
# each square, and the logit (n,) of "there is a face".
Reader = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

VIEWS = 8  # squares read at once
# Sides of the searched squares, as shares of the picture's shorter side. The
# nets are trained on squares of 0.75 to 2.2 times the aligned one, so steps
# below a factor of two leave no face out.
SHARES = (1.0, 0.7, 0.45, 0.3)
_STRIDE = 0.5  # between squares, as a share of their side
_MIN_SQUARE = 16  # pixels
_SURE = 3.0  # logit from which smaller squares are not searched
_REFINED = 4  # best squares that are looked at again
_MAX_SIDE = 4.0  # of the aligned square, in multiples of the picture


@dataclasses.dataclass(frozen=True)
class Face:
  """A face in a picture.

  Attributes:
    points: float64 (5, 2) in pixels, in the order of `align.CANONICAL5`.
    score: logit of "there is a face"; above 0 is more likely than not.
  """

  points: np.ndarray
  score: float


def squares(height: int, width: int) -> Iterator[list[tuple]]:
  """The squares to search, level by level.

  Args:
    height, width: of the picture in pixels.

  Yields:
    Lists of (left, top, side) in pixels: first the whole picture in one
    square, whose rim lies outside, then ever smaller squares inside.
  """
  if height != width:
    side = max(height, width)
    yield [((width - side) / 2, (height - side) / 2, side)]
  for share in SHARES:
    side = share * min(height, width)
    if side < _MIN_SQUARE and share < 1.0:
      return
    across, down = (
      np.linspace(
        0.0, size - side, math.ceil((size - side) / (_STRIDE * side)) + 1
      )
      for size in (width, height)
    )
    yield [(x, y, side) for y in down for x in across]


def find(
  read: Reader, image: np.ndarray, size: int, least: float = 0.0
) -> Face:
  """Finds the face that the reader is surest of.

  Args:
    read: reads the points of faces in squares.
    image: uint8 (h, w, 3) of any size.
    size: side of the squares that `read` takes, in pixels.
    least: logit below which it is no face.

  Returns:
    The face, its points read twice: in the square where it was found, and in
    the aligned square round those points.

  Raises:
    AlignError: there is no face, with the best score.
  """
  found: list[Face] = []
  small, factor = _shrink(image, size)
  for level in squares(*small.shape[:2]):
    matrices = [_to_square(*square, size) for square in level]
    found += _read(read, small, matrices, size)
    if max(face.score for face in found) > _SURE:
      break
  found = [dataclasses.replace(f, points=f.points * factor) for f in found]
  best = sorted(found, key=lambda face: -face.score)
  matrices = [
    matrix
    for face in best
    if (matrix := _to_aligned(face.points, image, size)) is not None
  ]
  refined = _read(read, image, matrices[:_REFINED], size)
  refined = [
    face
    for face in refined
    if _to_aligned(face.points, image, size) is not None
  ]
  face = max(refined, key=lambda face: face.score, default=None)
  if face is None or not face.score > least:
    score = best[0].score if face is None else face.score
    raise align.AlignError(f"no face found (best score {score:.1f})")
  return face


def _shrink(image: np.ndarray, size: int) -> tuple[np.ndarray, int]:
  """A picture just large enough for the smallest squares, and the factor."""
  factor = int(min(image.shape[:2]) * SHARES[-1] / size)
  if factor < 2:
    return image, 1
  return np.asarray(Image.fromarray(image).reduce(factor)), factor


def _to_square(left: float, top: float, side: float, size: int) -> np.ndarray:
  scale = size / side
  return np.array([[scale, 0.0, -scale * left], [0.0, scale, -scale * top]])


def _to_aligned(
  points: np.ndarray, image: np.ndarray, size: int
) -> np.ndarray | None:
  """Matrix of the aligned square, or None where the points make no face."""
  height, width = image.shape[:2]
  try:
    matrix = align.similarity(points, align.CANONICAL5.astype(float) * size)
  except align.AlignError:
    return None
  side = size / math.sqrt(abs(np.linalg.det(matrix[:, :2])))
  x, y = points.mean(axis=0)
  inside = 0 <= x <= width and 0 <= y <= height
  large = _MIN_SQUARE / 2 <= side <= _MAX_SIDE * max(height, width)
  return matrix if inside and large else None


def _read(
  read: Reader, image: np.ndarray, matrices: list[np.ndarray], size: int
) -> list[Face]:
  """What the reader sees in some squares, in pixels of the picture."""
  faces = []
  for first in range(0, len(matrices), VIEWS):
    part = matrices[first : first + VIEWS]
    views = np.stack([align.warp(image, matrix, size) for matrix in part])
    points, scores = read(views)
    for matrix, five, score in zip(part, points, scores, strict=True):
      if not (np.isfinite(five).all() and np.isfinite(score)):
        continue
      pixels = align.transform_points(
        align.invert(matrix), five.astype(np.float64) * size
      )
      faces.append(Face(pixels, float(score)))
  if matrices and not faces:
    raise align.AlignError("no face found (the reader gave no finite numbers)")
  return faces
