"""Whether what a net took for a face is one: the same square, read otherwise.

A net that has only seen upright heads and pictures without a head is sure of
much that is neither. What tells them apart is how it reads the same square
again: turned by quarters, where a face that stands upright must be less of a
face, and mirrored, shifted and scaled a little, where the points of a face stay
where they are.
"""

import dataclasses

import numpy as np

from data_pipelines import align
from data_pipelines.detectors import Face
from data_pipelines.detectors.finder import TURNS, turn_matrix
from faceedit_jax.editing import find_face

# Shift (x, y) as shares of the square's side, and scale about its middle.
_MOVES = ((0.1, 0.06, 1.15), (-0.1, -0.06, 0.87), (0.08, -0.1, 1.0))
_MIRRORED = (1, 0, 2, 4, 3)  # points that a mirror exchanges
# How much higher the score of a turned reading may be.
MARGIN = 0.5
# Points that stay where they are in the view, whatever it shows, give 0.6, and
# such as follow half-way 0.3; docs/editing.md says what this rests on.
UNREST = 0.4
SKEW = 0.5
_EYES = float(align.CANONICAL5[1, 0] - align.CANONICAL5[0, 0])


@dataclasses.dataclass(frozen=True)
class Evidence:
  """How a net reads the aligned square of a face.

  Attributes:
    score: logit of the square as it stands.
    turned: {degrees: logit} of the square turned by 90, 180 and 270 degrees.
    unrest: mean distance of the points read in the moved squares from those
      read in the square itself, in distances of the eyes.
    skew: the same of those read in its mirror image.
  """

  score: float
  turned: dict[int, float]
  unrest: float
  skew: float

  def doubt(self) -> str:
    """Why this is no upright face, in words; "" where nothing speaks so."""
    turn = max(self.turned, key=self.turned.__getitem__)
    if self.turned[turn] > self.score + MARGIN:
      return f"it looks more like a face after a turn of {turn} degrees"
    if not (self.unrest <= UNREST and self.skew <= SKEW):
      return "its points do not stay in place"
    return ""


def examine(
  read: find_face.Reader, image: np.ndarray, face: Face, size: int
) -> Evidence:
  """Reads the aligned square of a face in other ways.

  Args:
    read: see `find_face.Reader`; it is called once.
    image: uint8 (h, w, 3), where the face was found.
    face: for which `find_face.makes_face` holds.
    size: side of the squares that `read` takes, in pixels.
  """
  square = find_face.to_aligned(face.points, image, size)
  turns = [turn_matrix(size, size, turn) for turn in TURNS]
  mirror = np.array([[-1.0, 0.0, size], [0.0, 1.0, 0.0]])
  moves = [_move(*move, size) for move in _MOVES]
  views = [_after(view, square) for view in (*turns, mirror, *moves)]
  readings = find_face.read_squares(read, image, views, size)
  if len(readings) < len(views):  # not finite
    return Evidence(face.score, {90: -np.inf}, np.inf, np.inf)
  upright, *others = readings
  mirrored, *moved = others[len(TURNS) - 1 :]
  again = [mirrored.points[list(_MIRRORED)], *(face.points for face in moved)]
  away = np.linalg.norm(np.stack(again) - upright.points, axis=-1).mean(-1)
  away = away / (_EYES * face.side)
  scores = [face.score for face in readings]
  return Evidence(
    score=scores[0],
    turned=dict(zip(TURNS[1:], scores[1 : len(TURNS)], strict=True)),
    unrest=float(away[1:].mean()),
    skew=float(away[0]),
  )


def _move(x: float, y: float, scale: float, size: int) -> np.ndarray:
  """A shift, and a scale about the middle, in pixels of the square."""
  middle = size / 2 * (1 - scale)
  return np.array(
    [[scale, 0.0, middle + x * size], [0.0, scale, middle + y * size]]
  )


def _after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
  """The affine map (2, 3) that applies `first`, then `second`."""
  linear = second[:, :2] @ first
  linear[:, 2] += second[:, 2]
  return linear
