"""Drawn heads with five coloured beads, and a detector that reads the beads.

They stand for photos and for detectors: who reads beads knows which way up a
head is, and where there is none.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from data_pipelines import align
from data_pipelines.detectors import Face
from data_pipelines.detectors.finder import UPRIGHT

EYE, NOSE, MOUTH = (255, 0, 0), (0, 0, 255), (0, 255, 0)
# Of the five points: a head looks like its mirror image.
COLOURS = (EYE, EYE, NOSE, MOUTH, MOUTH)
_SKIN = (150, 120, 110)


def heads(height, width, *faces, seed=0):
  """Draws a photo.

  Args:
    height, width: in pixels.
    *faces: (x, y, side, degrees): middle and side of a face's aligned square,
      and by how much the head is turned clockwise.
    seed: of the grain.

  Returns:
    uint8 (h, w, 3), and (n, 5, 2) the points in pixels.
  """
  grain = np.random.default_rng(seed).integers(60, 90, (height, width, 1))
  photo = np.repeat(grain, 3, axis=2).astype(np.uint8)
  y, x = np.mgrid[:height, :width] + 0.5
  points = []
  for left, top, side, degrees in faces:
    middle, turn = np.array([left, top]), np.radians(degrees)
    rotation = np.array(
      [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )
    five = middle + (align.CANONICAL5 - 0.5) * side @ rotation.T
    photo[(x - left) ** 2 + (y - top) ** 2 < (0.3 * side) ** 2] = _SKIN
    for (bead_x, bead_y), colour in zip(five, COLOURS, strict=True):
      near = (x - bead_x) ** 2 + (y - bead_y) ** 2 < (0.045 * side) ** 2
      photo[near] = colour
    points.append(five)
  return photo, np.array(points)


def noise(height=80, width=100, seed=0):
  """A photo of nothing."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def read_beads(image):
  """All heads (n, 5, 2) in a picture, whichever way they stand."""
  eyes, noses, mouths = (_beads(image, c) for c in (EYE, NOSE, MOUTH))
  if len(eyes) < 2 or len(mouths) < 2:
    return np.empty((0, 5, 2))
  faces = []
  for nose in noses:
    pairs = [
      beads[np.linalg.norm(beads - nose, axis=1).argsort()[:2]]
      for beads in (eyes, mouths)
    ]
    down = pairs[1].mean(0) - pairs[0].mean(0)
    # Left of what points down, as seen in the picture, comes first.
    pairs = [pair[(pair @ (down[1], -down[0])).argsort()] for pair in pairs]
    faces.append([*pairs[0], nose, *pairs[1]])
  return np.array(faces).reshape(-1, 5, 2)


def _beads(image, colour):
  """Middles (n, 2) of the spots of a colour."""
  like = np.abs(image.astype(int) - colour).max(-1) < 70
  marks, count = ndimage.label(like)
  sizes = ndimage.sum_labels(like, marks, range(1, count + 1))
  large = [i + 1 for i, size in enumerate(sizes) if size >= 4]
  middles = ndimage.center_of_mass(like, marks, large)
  return np.array(middles).reshape(-1, 2)[:, ::-1] + 0.5


@dataclasses.dataclass
class BeadDetector:
  """Sees upright heads only, as detectors of the field do.

  Attributes:
    score: of what it sees; None says nothing.
    illusion: score of an upright head that it sees in one on its top, with
      points that its mirror image moves; None sees none.
    twice: see `Finder`.
    seen: shapes of the pictures that it was shown.
  """

  score: float | None = 0.9
  illusion: float | None = None
  twice: bool = False

  def __post_init__(self):
    self.seen = []

  def __call__(self, image):
    self.seen.append(image.shape)
    found = []
    for five in read_beads(image):
      face = Face(five, self.score)
      if abs(face.angle) <= UPRIGHT:
        found.append(face)
      elif abs(face.angle) > 180 - UPRIGHT and self.illusion is not None:
        moved = five[[4, 3, 2, 1, 0]] + 0.1 * face.side
        found.append(Face(moved, self.illusion))
    return found
