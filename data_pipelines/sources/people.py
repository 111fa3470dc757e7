"""Folders of people: who is on a picture, and which split a person is in."""

import hashlib
import os
import pathlib

from data_pipelines import images, listing
from data_pipelines.sources.source import SourceError

# Folders that may hold a split.
SPLIT_FOLDERS = {
  "train": ("train",),
  "validation": ("validation", "val"),
  "test": ("test",),
}

# Pictures of kinds that nobody reads here.
UNREAD = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".tga", ".dng")


def identity_name(relative: pathlib.PurePath) -> str:
  """Who is on a picture, by its path: its folder, or `who_what.jpg`.

  Args:
    relative: the picture's path relative to the top folder.

  Returns:
    The folder for pictures in folders; else the file name up to the last
    underscore. The same in every Unicode form of the path.
  """
  if len(relative.parts) > 1:
    return listing.normal(relative.parent.as_posix())
  return listing.normal(relative.stem.rpartition("_")[0] or relative.stem)


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

  A sub-folder named like the split is used as the split; where there are such
  folders, a split without one is empty. Otherwise people are held out by a hash
  of their name.

  Attributes:
    path: the folder of the pictures.
    files: pictures of the split, relative to it, in order.
    pictures: how many there are, of all splits.
    numbers: {person: number}, of all splits.
    left: (path, why) of what is no picture to be read, of all splits.
    absent: people of this split with a folder but no picture to be read in it.

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
    self.path = listing.existing(path)
    own = self._split_folder(split)
    if own is not None:
      self.path, holdout = own, 0.0
    found = images.list_images(self.path)
    files, self.left = found.files, found.left
    self.pictures = len(files)
    names = {identity_name(file) for file in files}
    names = sorted(names, key=listing.order)
    self.numbers = {name: number for number, name in enumerate(names)}

    def is_in(name: str) -> bool:
      kept = split == "all" or holdout <= 0
      return kept or held_out_split(name, holdout) == split

    self.files = [file for file in files if is_in(identity_name(file))]
    self.absent = sorted(
      filter(is_in, _folders_without(found, names)), key=listing.order
    )
    if not self.files:
      raise SourceError(
        f"{self.path}: none of the {len(names)} people falls into split "
        f"{split!r} with holdout {holdout}; raise `holdout`"
      )

  def _split_folder(self, split: str) -> pathlib.Path | None:
    """The folder of the split, or None where people are held out."""
    there = {
      name: next(
        (self.path / n for n in names if (self.path / n).is_dir()), None
      )
      for name, names in SPLIT_FOLDERS.items()
    }
    # A split of one's own is a folder of its name.
    if split not in (*SPLIT_FOLDERS, "all") and (self.path / split).is_dir():
      return self.path / split
    if there.get(split) is None and split != "all" and any(there.values()):
      has = ", ".join(path.name for path in there.values() if path)
      raise SourceError(
        f"{self.path}: has a folder {has}, but none for the split {split!r} "
        f"({' or '.join(SPLIT_FOLDERS.get(split, (split,)))})"
      )
    return there.get(split)

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


def _folders_without(found: listing.Listing, names: list[str]) -> set[str]:
  """Folders that are empty, or hold only what cannot be read as a picture.

  A folder of other files, such as tables, is nobody's; pictures of unknown
  kinds are somebody's.
  """
  lost = {listing.normal(folder) for folder in found.empty}
  for path, reason in found.left:
    path = pathlib.PurePath(path)
    picture = path.suffix.lower() in (*images.SUFFIXES, *UNREAD)
    if reason == listing.CLOSED:
      lost.add(listing.normal(path.as_posix()))
    elif len(path.parts) > 1 and picture and reason != listing.HIDDEN:
      lost.add(identity_name(path))
    elif reason == listing.WRITTEN or (
      reason == listing.DANGLING and not path.suffix
    ):
      lost.add(listing.normal(path.as_posix()))  # of a folder, by its looks
  return lost - set(names) - {"."}
