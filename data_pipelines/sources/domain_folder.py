"""Folders of two domains, pictures without and with something.

The layout `{train,val}/{domain}/*.{png,jpg,jpeg}` of clovaai/stargan-v2.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines import align, broken_pictures, listing

SUFFIXES = (".png", ".jpg", ".jpeg")
# Folders that may hold a split, the first that is there.
_FOLDERS = {
  "train": ("train",),
  "validation": ("val", "validation"),
  "test": ("test", "val"),
}


class DomainError(ValueError):
  """Folders that make no two domains; the message says what is wanted."""


@dataclasses.dataclass(frozen=True)
class DomainFolder:
  """Options of `DomainFolderSource`.

  Attributes:
    size: side of the pictures in pixels.
    folder: below `data_dir`.
    split: "train", "validation" or "test".
    alignment: how the faces are framed, one of `align.TEMPLATES`.
    broken: what happens to pictures that cannot be read, see
      `broken_pictures.Broken`.
  """

  size: int
  folder: str = ""
  split: str = "train"
  alignment: str = "synthetic_heads"
  broken: broken_pictures.Broken = "refuse"

  def check(self, data_dir: str | os.PathLike) -> None:
    """Refuses a folder that cannot be trained on, before any training."""
    self.open(data_dir)

  def open(
    self, data_dir: str | os.PathLike, split: str | None = None
  ) -> "DomainFolderSource":
    """Opens the examples of `split`, or of the options' own."""
    return DomainFolderSource(
      pathlib.Path(data_dir) / self.folder,
      self.size,
      split or self.split,
      self.alignment,
      self.broken,
    )


class DomainFolderSource:
  """Pictures of two folders; the folder's number is the attribute.

  Folders and files are sorted by name, numbers in names as numbers: the first
  folder lacks the attribute, which is named after the second. Pictures are cut
  to their largest centred square.

  Args:
    path: the folder with `train` and `val`.
    size: side of the pictures in pixels.
    split: "train", "validation" or "test"; the two latter are read from `val`
      where they have no folder of their own.
    alignment: how the faces are framed, one of `align.TEMPLATES`.
    broken: what happens to pictures that cannot be read, see
      `broken_pictures.Broken`.

  Raises:
    DomainError: there is no such split, or there are not two domains in it.
    AlignError: there is no such alignment.
    ImageError: pictures cannot be read and are to be refused.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    size: int,
    split: str = "train",
    alignment: str = "synthetic_heads",
    broken: broken_pictures.Broken = "refuse",
  ):
    top = pathlib.Path(path)
    names = _FOLDERS.get(split, ())
    self.path = next((top / n for n in names if (top / n).is_dir()), None)
    if self.path is None:
      raise DomainError(
        f"{top}: no folder for the split {split!r}; wanted "
        f"{' or '.join(names) or 'train or val'} with a folder for each domain"
      )
    folders = (
      p.name
      for p in self.path.iterdir()
      if p.is_dir() and not p.name.startswith(".")
    )
    self.domains = tuple(sorted(folders, key=listing.order))
    if len(self.domains) != 2:
      raise DomainError(
        f"{self.path}: {len(self.domains)} domains "
        f"({', '.join(self.domains)}), wanted two folders: pictures without "
        "and with the attribute, in the order of their names"
      )
    self._size = size
    self._template = align.template(alignment)
    self._files: list[tuple[str, int]] = []
    for number, domain in enumerate(self.domains):
      files = (
        p.name
        for p in (self.path / domain).iterdir()
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
      )
      files = sorted(files, key=listing.order)
      if not files:
        raise DomainError(
          f"{self.path / domain}: no pictures; wanted {' '.join(SUFFIXES)}"
        )
      self._files += [(f"{domain}/{name}", number) for name in files]
    usable = broken_pictures.usable(
      self.path, [pathlib.PurePath(name) for name, _ in self._files], broken
    )
    names = {file.as_posix() for file in usable}
    self._files = [(name, n) for name, n in self._files if name in names]
    left = {number for _, number in self._files}
    for number, domain in enumerate(self.domains):
      if number not in left:
        raise DomainError(
          f"{self.path / domain}: not one picture can be read; wanted some of "
          "each domain"
        )

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, index: int) -> dict[str, Any]:
    file, number = self._files[index]
    image = broken_pictures.read(self.path, file)
    aligned = align.centre_square(image, self._size, self._template)
    return {
      "image": aligned.image,
      "landmarks5": aligned.landmarks5,
      "attributes": np.asarray([number], np.int8),
      "file": file,
    }

  @property
  def attribute_names(self) -> tuple[str, ...]:
    """The name of the second folder."""
    return self.domains[1:]

  def attribute_table(
    self, positions: Sequence[int] | np.ndarray | None = None
  ) -> np.ndarray:
    """Attributes of all examples, or of those at `positions`; int8 (n, 1)."""
    table = np.asarray([[number] for _, number in self._files], np.int8)
    return table if positions is None else table[np.asarray(positions)]
