"""A detector -> the one face that is meant, whichever way up the photo lies.

The photo is read as it is, and turned by 90, 180 and 270 degrees. A face counts
where it stands upright in the reading and, for detectors that ask for it
(`twice`), where the mirror image of the reading shows it in the same place:
detectors of the field also see upright faces in heads that lie on their side or
stand on their top, with points that the mirror image moves elsewhere. The rule:
the photo stays as it is where it has a face that counts; otherwise the turn
wins in which one has the highest score, and of equal ones, or without scores,
the first of TURNS.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import align, face_points
from data_pipelines.detectors import choice as choice_lib
from data_pipelines.detectors.face import Face, faces_of, largest_first

# Degrees, counter-clockwise, in the order in which they are tried.
TURNS = (0, 90, 270, 180)
# A head that is turned by more than this, in degrees, does not stand upright.
# Beyond 45 two readings overlap, so that none of the angles is left out.
UPRIGHT = 60.0
# Mean distance of the points of a face from those in the mirror image, in
# distances of the eyes. MTCNN: at most 0.04 for upright faces, at least 0.12
# for what it sees in turned ones (docs/editing.md).
_SAME = 0.08
_MIRRORED = [1, 0, 2, 4, 3]  # points that a mirror exchanges
NO_FACE = "no face found"


@dataclasses.dataclass(frozen=True)
class Found:
  """The face that is meant, and what else was seen.

  Attributes:
    faces: all faces of the photo, in its own pixels, the largest first.
    chosen: place of the face that is meant.
    turn: degrees counter-clockwise after which the photo stands upright.
    by: what found them.
  """

  faces: tuple[Face, ...]
  chosen: int
  turn: int
  by: str

  @property
  def points(self) -> np.ndarray:
    """Five points (5, 2) of the face that is meant, in pixels."""
    return self.faces[self.chosen].points

  def describe(self) -> str:
    """What was found, in words."""
    count = len(self.faces)
    said = f"{count} face{'s' if count > 1 else ''} found by {self.by}"
    if self.turn:
      said += f", upright after a turn of {self.turn} degrees"
    if count > 1:
      largest = ", the largest" if not self.chosen else ""
      said += f"; took {self.chosen + 1}{largest} "
      said += f"({choice_lib.places(self.faces)})"
    return said


class Finder:
  """Finds the face that is meant with a detector.

  Attributes:
    name: of the detector, for messages.
  """

  def __init__(self, detect: Callable[[np.ndarray], Any], name: str):
    """Takes a detector.

    Args:
      detect: from uint8 (h, w, 3) to what `faces_of` takes. Its attribute
        `twice`, where it has one, says whether faces count only where the
        mirror image shows them too; `sides` are the least and the greatest
        length in pixels of the shorter side of the pictures that it wants to
        see, any where it has none.
      name: for messages.
    """
    self.name = name
    self._detect = detect
    self._twice = getattr(detect, "twice", False)
    self._sides = getattr(detect, "sides", None)

  def find(
    self, image: np.ndarray, choice: choice_lib.Choice = choice_lib.LARGEST
  ) -> Found:
    """Finds a face.

    Args:
      image: uint8 (h, w, 3).
      choice: which face, if there are several.

    Raises:
      AlignError: there is no face, not the one that is meant, or its points
        cannot be those of one.
      DetectorError: the detector fails.
    """
    small, factor = self._resized(image)
    turn, faces = self._best_turn(small)
    if not faces:
      raise align.AlignError(f"{NO_FACE} by {self.name}")
    faces = largest_first(
      dataclasses.replace(face, points=face.points * factor) for face in faces
    )
    found = Found(tuple(faces), choice.pick(faces), turn, self.name)
    # A detector of one's own may give the points in another order.
    standing = turn_matrix(*image.shape[:2], turn)
    face_points.check(
      align.transform_points(standing, found.points), name=self.name
    )
    return found

  def _best_turn(self, image: np.ndarray) -> tuple[int, list[Face]]:
    """The turn that wins, and its faces in pixels of the picture."""
    best: tuple[float, int, list[Face]] = (-np.inf, 0, [])
    lying: list[Face] = []
    for turn in TURNS:
      reading = turned(image, turn)
      faces = faces_of(self._detect(reading), self.name)
      upright = [face for face in faces if abs(face.angle) <= UPRIGHT]
      if upright and self._twice:
        upright = self._seen_twice(reading, upright)
      elif not turn:
        lying = [face for face in faces if face.score is None]
      if not upright:
        continue
      faces = [turned_back(face, image.shape[:2], turn) for face in upright]
      scores = [face.score for face in faces]
      if not turn or None in scores:
        return turn, faces
      if max(scores) > best[0]:
        best = (max(scores), turn, faces)
    # A detector of one's own that reads heads in any position, and gives the
    # same whatever it is shown, is believed.
    return best[1], best[2] or lying

  def _seen_twice(self, image: np.ndarray, faces: list[Face]) -> list[Face]:
    """Those of the faces that the mirror image shows in the same place."""
    mirrored = np.ascontiguousarray(image[:, ::-1])
    others = [
      face.points[_MIRRORED] * [-1, 1] + [image.shape[1], 0]
      for face in faces_of(self._detect(mirrored), self.name)
    ]
    return [
      face
      for face in faces
      if any(
        np.linalg.norm(face.points - other, axis=1).mean()
        < _SAME * np.linalg.norm(face.points[1] - face.points[0])
        for other in others
      )
    ]

  def _resized(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture as the detector wants it, and (2,) its way back."""
    height, width = image.shape[:2]
    if self._sides is None:
      return image, np.ones(2)
    low, high = self._sides
    shorter = min(height, width)
    scale = min(max(shorter, low), high) / shorter
    # A long strip must not grow beyond what it was.
    if scale > 1:
      scale = max(1.0, min(scale, 4 * high / max(height, width)))
    if scale == 1:
      return image, np.ones(2)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Whole blocks first: the rest then costs what the small picture costs.
    gap = 2.0 if scale < 1 else None
    resized = Image.fromarray(image).resize(
      size, Image.Resampling.BICUBIC, reducing_gap=gap
    )
    return np.asarray(resized), np.array([width / size[0], height / size[1]])


def as_finder(detector: Any) -> Finder:
  """A finder as it is, and a function as a finder.

  Args:
    detector: a `Finder`, or what one takes.
  """
  if isinstance(detector, Finder):
    return detector
  return Finder(detector, "the detector")


def turned(image: np.ndarray, turn: int) -> np.ndarray:
  """A picture turned counter-clockwise by whole quarters, in degrees."""
  return np.ascontiguousarray(np.rot90(image, turn // 90)) if turn else image


def turned_back(face: Face, shape: tuple[int, int], turn: int) -> Face:
  """A face of `turned(image, turn)` in pixels of the image.

  Args:
    face: in pixels of the turned picture.
    shape: (height, width) of the picture before.
    turn: see `turned`.
  """
  matrix = align.invert(turn_matrix(*shape, turn))
  return dataclasses.replace(
    face, points=align.transform_points(matrix, face.points)
  )


def turn_matrix(height: float, width: float, turn: int) -> np.ndarray:
  """The map (2, 3) from pixels of a picture to those of it turned."""
  return np.array(
    {
      0: [[1, 0, 0], [0, 1, 0]],
      90: [[0, 1, 0], [-1, 0, width]],
      180: [[-1, 0, width], [0, -1, height]],
      270: [[0, -1, height], [1, 0, 0]],
    }[turn],
    np.float64,
  )
