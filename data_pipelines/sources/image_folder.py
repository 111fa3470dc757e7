"""A folder of people, read as it is."""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from data_pipelines import (
  align,
  broken_pictures,
  face_points,
  landmarks,
)
from data_pipelines.sources.people import FolderIndex
from data_pipelines.sources.source import SourceError


@dataclasses.dataclass(frozen=True)
class ImageFolder:
  """Options of `ImageFolderSource`.

  Attributes:
    size: side of the pictures in pixels.
    folder: below `data_dir`.
    split: see `people.FolderIndex`.
    holdout: see `people.FolderIndex`.
    landmarks: file with five points per picture, or None.
    broken: what happens to pictures that cannot be read, see
      `broken_pictures.Broken`.
  """

  size: int
  folder: str = ""
  split: str = "train"
  holdout: float = 0.1
  landmarks: str | None = None
  broken: broken_pictures.Broken = "refuse"

  def check(self, data_dir: str | os.PathLike) -> None:
    """Refuses a folder that cannot be trained on, before any training."""
    self.open(data_dir)

  def open(
    self, data_dir: str | os.PathLike, split: str | None = None
  ) -> "ImageFolderSource":
    """Opens the examples of `split`, or of the options' own."""
    return ImageFolderSource(
      pathlib.Path(data_dir) / self.folder,
      self.size,
      split or self.split,
      self.holdout,
      self.landmarks,
      self.broken,
    )


class ImageFolderSource:
  """A folder of people read as it is, no preparation.

  Without landmarks the pictures count as aligned and are cut square.

  Args:
    path: the folder; one sub-folder per person, or files `who_what.jpg`.
    size: side of the pictures in pixels.
    split: see `FolderIndex`.
    holdout: see `FolderIndex`.
    landmarks_file: five points per picture, see `landmarks.read_landmarks`.
    broken: what happens to pictures that cannot be read, see
      `broken_pictures.Broken`.

  Raises:
    SourceError: there is no such folder, nobody in this split, or pictures
      without points.
    AlignError: points that make no face; of a picture's size when it is read.
    ImageError: pictures cannot be read and are to be refused.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    size: int,
    split: str = "train",
    holdout: float = 0.1,
    landmarks_file: str | os.PathLike | None = None,
    broken: broken_pictures.Broken = "refuse",
  ):
    self._index = FolderIndex(path, split, holdout)
    self._index.files = broken_pictures.usable(
      self._index.path, self._index.files, broken
    )
    self._frames = self._index.frame_numbers()
    self._size = size
    self._points = None
    if landmarks_file is not None:
      table = landmarks.read_landmarks(landmarks_file)
      self._points = landmarks.match(table, self._index.files)
      wrong = {f: p for f, p in self._points.items() if isinstance(p, str)}
      if wrong:
        file, reason = next(iter(wrong.items()))
        raise SourceError(
          f"{landmarks_file}: no landmarks for {len(wrong)} of "
          f"{len(self._frames)} pictures, first {file}: {reason}"
        )
      for file, points in self._points.items():
        face_points.check(points, name=f"{landmarks_file}: {file}")

  def __len__(self) -> int:
    return len(self._frames)

  def __getitem__(self, index: int) -> dict[str, Any]:
    file = self._index.files[index]
    image = broken_pictures.read(self._index.path, file)
    if self._points is None:
      aligned = align.centre_square(image, self._size)
    else:
      points = face_points.check(self._points[file], image.shape[:2], str(file))
      aligned = align.align(image, points, self._size)
    return {
      "image": aligned.image,
      "landmarks5": aligned.landmarks5,
      "identity": np.int32(self._index.identity(file)),
      "frame": np.int32(self._frames[index]),
    }

  def column(self, name: str) -> np.ndarray:
    """The identity or frame of every example, without opening pictures."""
    if name == "identity":
      return np.asarray([self._index.identity(f) for f in self._index.files])
    if name == "frame":
      return np.asarray(self._frames)
    raise SourceError(f"no column {name!r}; wanted identity or frame")
