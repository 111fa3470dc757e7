"""Finds five face points in a photo of any size, with a net that reads squares.

Editing reads faces through a net trained on loosely framed heads (DiffFAE
section 4.1). That net also says where the eyes, nose and mouth are and how
sure it is of a face, so a search over squares of the photo is a detector.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from data_pipelines import align
from data_pipelines.detectors import Face
from data_pipelines.detectors.finder import NO_FACE

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
# Between the middles of two faces, in sides of the smaller aligned square.
_APART = 0.3
_MAX_SIDE = 4.0  # of the aligned square, in multiples of the picture


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


def find_all(
  read: Reader, image: np.ndarray, size: int, everywhere: bool = False
) -> list[Face]:
  """Finds what the reader takes for faces.

  Args:
    read: reads the points of faces in squares.
    image: uint8 (h, w, 3) of any size.
    size: side of the squares that `read` takes, in pixels.
    everywhere: whether smaller squares are searched although a large one has
      a sure face.

  Returns:
    At least one face, the surest first, with logits as scores; no two of them
    in one place. Their points were read twice: in the square where they were
    found, and in the aligned square round those points.

  Raises:
    AlignError: there is nothing that could be one, with the best score.
  """
  found: list[Face] = []
  small, factor = _shrink(image, size)
  for level in squares(*small.shape[:2]):
    matrices = [_to_square(*square, size) for square in level]
    found += read_squares(read, small, matrices, size)
    if not everywhere and max(face.score for face in found) > _SURE:
      break
  score = max(face.score for face in found)
  found = [dataclasses.replace(f, points=f.points * factor) for f in found]
  found = [face for face in found if makes_face(face, image, size)]
  # Several readings of the surest place help its points; to find other faces
  # every place needs one.
  surest = sorted(found, key=lambda face: -face.score)[:_REFINED]
  best = apart(found)[:VIEWS] if everywhere else surest
  matrices = [to_aligned(face.points, image, size) for face in best]
  refined = read_squares(read, image, matrices, size)
  refined = apart(face for face in refined if makes_face(face, image, size))
  if not refined:
    raise align.AlignError(f"{NO_FACE} (best score {score:.1f})")
  return refined


def apart(faces: Iterable[Face]) -> list[Face]:
  """The surest face of each place, the surest first."""
  kept: list[Face] = []
  for face in sorted(faces, key=lambda face: -face.score):
    if all(
      np.linalg.norm(face.centre - other.centre)
      > _APART * min(face.side, other.side)
      for other in kept
    ):
      kept.append(face)
  return kept


def makes_face(face: Face, image: np.ndarray, size: int) -> bool:
  """Whether the square round a face lies in the picture."""
  return to_aligned(face.points, image, size) is not None


def _shrink(image: np.ndarray, size: int) -> tuple[np.ndarray, int]:
  """A picture just large enough for the smallest squares, and the factor."""
  factor = int(min(image.shape[:2]) * SHARES[-1] / size)
  if factor < 2:
    return image, 1
  return np.asarray(Image.fromarray(image).reduce(factor)), factor


def _to_square(left: float, top: float, side: float, size: int) -> np.ndarray:
  scale = size / side
  return np.array([[scale, 0.0, -scale * left], [0.0, scale, -scale * top]])


def to_aligned(
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


def read_squares(
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
    raise align.AlignError(f"{NO_FACE} (the reader gave no finite numbers)")
  return faces
