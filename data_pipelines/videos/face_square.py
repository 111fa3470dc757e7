"""The square round the face of a clip, one for all of its frames.

Nothing moves with the face from frame to frame: its motion in the picture is
part of what is learned. The square is upright; a clip whose faces stand upright
only after a turn is left out.
"""

import dataclasses
import functools
import os

import numpy as np

from data_pipelines import align, detectors
from data_pipelines.videos import reader

# Frames that are looked at: at least so many of a clip that has them.
_LOOKED_AT = 5
# Share of them that must show the face.
_LEAST = 0.5


@dataclasses.dataclass(frozen=True)
class FaceSquare:
  """A square in pixels of a clip.

  Attributes:
    box: left, top and side.
    faces: how many faces one frame showed at most.
  """

  box: tuple[float, float, float]
  faces: int


def of_clip(
  path: str | os.PathLike, detector: str, step: int = 1, limit: int = 0
) -> FaceSquare:
  """Looks for the largest face of a clip in some of its frames.

  Args:
    path: of the clip, see `reader.frames`.
    detector: its name, see `detectors.choose`.
    step, limit: which frames are taken, as `reader.frames` has them.

  Returns:
    The square that `align.align` would cut, upright, in the middle of where it
    is over these frames, moved into the picture; no larger than the picture.

  Raises:
    ClipError: too few frames show a face, or it lies on its side.
    DetectorError: the detector fails.
  """
  looked_at = _some_frames(path, step, limit)
  finder = _finder(detector)
  seen, turns, reason = [], [], ""
  for frame in looked_at:
    try:
      found = finder.find(frame)
    except align.AlignError as error:
      reason = str(error)
      continue
    seen.append(found)
    turns.append(found.turn)
  if len(seen) < _LEAST * len(looked_at):
    missing = len(looked_at) - len(seen)
    raise reader.ClipError(
      f"{missing} of {len(looked_at)} frames looked at show no face ({reason})"
    )
  turn = max(set(turns), key=turns.count)
  if turn:
    raise reader.ClipError(
      f"faces stand upright only after a turn of {turn} degrees"
    )
  largest = max((found.faces[0] for found in seen), key=lambda f: f.side)
  followed = [_nearest(found.faces, largest) for found in seen]
  followed = [face for face in followed if face is not None]
  side = float(np.median([face.side for face in followed]))
  middle = np.median([_middle(face) for face in followed], axis=0)
  height, width = looked_at[0].shape[:2]
  side = min(side, height, width)
  left, top = np.clip(middle - side / 2, 0, (width - side, height - side))
  faces = max(len(found.faces) for found in seen)
  return FaceSquare((float(left), float(top), side), faces)


def _some_frames(path, step: int, limit: int) -> list[np.ndarray]:
  """Frames evenly over a clip of unknown length, _LOOKED_AT to twice that."""
  kept: list[np.ndarray] = []
  stride = 1
  for place, (_, frame) in enumerate(reader.frames(path, step, limit)):
    if place % stride:
      continue
    kept.append(frame)
    if len(kept) == 2 * _LOOKED_AT:
      kept, stride = kept[::2], 2 * stride
  return kept


@functools.lru_cache(maxsize=1)
def _finder(detector: str) -> detectors.Finder:
  """Built once in each reading process."""
  return detectors.choose(detector).finder


def _nearest(faces, largest: detectors.Face) -> detectors.Face | None:
  """The same person's face: the one where the largest was, if there is one."""
  nearest = min(
    faces, key=lambda face: np.linalg.norm(face.centre - largest.centre)
  )
  away = np.linalg.norm(nearest.centre - largest.centre)
  return nearest if away < largest.side else None


def _middle(face: detectors.Face) -> np.ndarray:
  """Middle of the aligned square round a face, as if it were upright."""
  offset = 0.5 - align.CANONICAL5.astype(np.float64).mean(axis=0)
  return face.centre + offset * face.side
