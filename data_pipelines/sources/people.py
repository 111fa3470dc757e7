"""Folders of people: who is on a picture, and which split a person is in."""

import hashlib
import os
import pathlib

from data_pipelines import images
from data_pipelines.sources.source import SourceError


def identity_name(relative: pathlib.PurePath) -> str:
  """Who is on a picture, by its path: its folder, or `who_what.jpg`.

  Args:
    relative: the picture's path relative to the top folder.

  Returns:
    The folder for pictures in folders; else the file name up to the last
    underscore.
  """
  if len(relative.parts) > 1:
    return relative.parent.as_posix()
  return relative.stem.rpartition("_")[0] or relative.stem


def held_out_split(identity: str, holdout: float) -> str:
  """The split of a person, by a stable hash of the name.

  Args:
    identity: its name.
    holdout: share of people kept out of training, half of it for validation.

  Returns:
    "train", "validation" or "test".
  """
  digest = hashlib.sha256(identity.encode("utf-8")).digest()
  place = int.from_bytes(digest[:8], "big") / 2.0**64
  if place >= holdout:
    return "train"
  return "validation" if place < holdout / 2 else "test"


class FolderIndex:
  """The pictures of a folder with identities and splits.

  A sub-folder named like the split is used as the split; otherwise people are
  held out by a hash of their name.

  Args:
    path: the folder.
    split: "train", "validation", "test", or "all".
    holdout: share of people kept out of training.

  Raises:
    SourceError: no person falls into this split.
    images.ImageError: there are no pictures.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    split: str = "train",
    holdout: float = 0.1,
  ):
    self.path = pathlib.Path(path)
    if (self.path / split).is_dir():
      self.path, holdout = self.path / split, 0.0
    files = images.list_images(self.path)
    names = sorted({identity_name(file) for file in files})
    self.numbers = {name: number for number, name in enumerate(names)}
    self.files = [
      file
      for file in files
      if split == "all"
      or holdout <= 0
      or held_out_split(identity_name(file), holdout) == split
    ]
    if not self.files:
      raise SourceError(
        f"{self.path}: none of the {len(names)} people falls into split "
        f"{split!r} with holdout {holdout}; raise `holdout`"
      )

  def identity(self, file: pathlib.PurePath) -> int:
    """The number of the person on a picture."""
    return self.numbers[identity_name(file)]

  def frame_numbers(self) -> list[int]:
    """A running number of each picture within its person."""
    seen: dict[str, int] = {}
    out = []
    for file in self.files:
      name = identity_name(file)
      seen[name] = seen.get(name, -1) + 1
      out.append(seen[name])
    return out
