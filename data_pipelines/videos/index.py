"""Finds the clips of a folder, and who is on them by their names."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator

from data_pipelines import images, listing

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")

_ENDING = ".mp4"  # of files, and of folders that hold a clip's frames


class VideoError(ValueError):
  """Videos that cannot be prepared; the message says what to change."""


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip, a file or a folder of frames.

  Attributes:
    person: who is on it.
    path: below the folder of the set, with forward slashes.
    size: bytes of the file; 0 for a folder.
  """

  person: str
  path: str
  size: int = 0


def person_of(path: pathlib.PurePath, rule: str, separator: str) -> str:
  """Who is on a clip, by its path.

  Args:
    path: relative to the folder of the set.
    rule: "voxceleb1": the name is `person#video#start#end.mp4` or
      `person#video#utterance#number.mp4`; "parent": the folder that the clip
      lies in; "top": the first folder of the path; "prefix": the file name up
      to the last separator.
    separator: for "prefix".

  Returns:
    The person's name, the same in every Unicode form of the path.

  Raises:
    ValueError: the rule does not fit the path.
  """
  path = pathlib.PurePath(listing.normal(path.as_posix()))
  name = path.name
  stem = path.stem if path.suffix.lower() in SUFFIXES else name
  if rule == "voxceleb1":
    parts = stem.split("#")
    if len(parts) != 4 or not all(parts):
      raise ValueError("the name is not person#video#start#end.mp4")
    return parts[0]
  if rule == "prefix":
    person = stem.rpartition(separator)[0]
    if not person:
      raise ValueError(f"the name has nothing before a {separator!r}")
    return person
  if len(path.parts) < 2:
    raise ValueError("it lies in no folder that would name the person")
  return path.parts[-2] if rule == "parent" else path.parts[0]


def find_clips(
  folder: str | os.PathLike, rule: str, separator: str = "_"
) -> tuple[list[Clip], dict[str, str]]:
  """All clips of a folder.

  With "voxceleb1" these are the entries `*.mp4`, files or folders of frames,
  of the folder and of its sub-folders (`train`, `test`). With the other rules
  all video files and all folders of pictures, however deep. Links are followed;
  a folder that several paths lead to is read once.

  Args:
    folder: where to look; hidden entries are left out.
    rule: see `person_of`.
    separator: see `person_of`.

  Returns:
    The clips, sorted by person and path, and {path: why it is none}. Numbers in
    names sort as numbers, but in those of VoxCeleb1, which are codes.

  Raises:
    VideoError: there is no such folder, or no clip in it.
  """
  folder = listing.existing(folder)
  if not folder.is_dir():
    raise VideoError(f"{folder}: no such folder of videos")
  coded = rule == "voxceleb1"
  clips, wrong = [], {}
  found = _flat(folder) if coded else _deep(folder, {os.path.realpath(folder)})
  for entry in found:
    path = pathlib.Path(entry.path).relative_to(folder)
    try:
      if not os.path.exists(entry.path):
        raise ValueError(f"it is {listing.DANGLING}")
      person = person_of(path, rule, separator)
    except ValueError as error:
      wrong[path.as_posix()] = str(error)
      continue
    size = entry.stat().st_size if entry.is_file() else 0
    clips.append(Clip(person, path.as_posix(), size))
  if not clips:
    wanted = "person#video#start#end.mp4" if coded else "videos"
    first = next((f"; {p}: {why}" for p, why in sorted(wrong.items())), "")
    raise VideoError(
      f"{folder}: no clip found (looked for {wanted}, files or folders of "
      f"frames, persons named by {rule!r}{first})"
    )
  order = str if coded else listing.order
  return sorted(clips, key=lambda c: (order(c.person), order(c.path))), wrong


def _entries(folder: str | os.PathLike) -> list[os.DirEntry]:
  with os.scandir(folder) as found:
    return [entry for entry in found if not entry.name.startswith(".")]


def _flat(folder: pathlib.Path) -> Iterator[os.DirEntry]:
  """Entries named like a clip in the folder and its sub-folders."""
  for entry in _entries(folder):
    if entry.name.endswith(_ENDING):
      yield entry
    elif entry.is_dir():
      yield from (
        inner for inner in _entries(entry.path) if inner.name.endswith(_ENDING)
      )


def _deep(folder: str | os.PathLike, seen: set[str]) -> Iterator[os.DirEntry]:
  """Video files, and folders with nothing but pictures in them."""
  # Folders by their own names first, then those behind links.
  for entry in sorted(_entries(folder), key=lambda entry: entry.is_symlink()):
    if not entry.is_dir():
      if _suffix(entry) in SUFFIXES:
        yield entry
      continue
    real = os.path.realpath(entry.path)
    if real in seen:
      continue
    seen.add(real)
    if _suffix(entry) in SUFFIXES or _holds_frames(entry.path):
      yield entry
    else:
      yield from _deep(entry.path, seen)


def _suffix(entry: os.DirEntry) -> str:
  return pathlib.PurePath(entry.name).suffix.lower()


def _holds_frames(folder: str) -> bool:
  """Whether there are pictures, and no videos or folders beside them."""
  pictures = False
  for entry in _entries(folder):
    if _suffix(entry) in SUFFIXES or entry.is_dir():
      return False
    pictures = pictures or _suffix(entry) in images.SUFFIXES
  return pictures


def fingerprint(clips: Iterable[Clip]) -> str:
  """Tells sets of clips apart: by names, persons and sizes of files."""
  seen = hashlib.sha256()
  for clip in clips:
    seen.update(f"{clip.person}\n{clip.path}\n{clip.size}\n".encode())
  return seen.hexdigest()[:16]
