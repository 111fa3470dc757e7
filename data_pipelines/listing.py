"""Names of files: found through links, in order, in one Unicode form.

A name counts as the same in every Unicode form (Macs write "é" as two code
points, most lists as one), and numbers in names sort as numbers.
"""

import dataclasses
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

HIDDEN = "hidden"
DANGLING = "a link to nothing"
CLOSED = "may not be read"
WRITTEN = "a link that a copy has turned into a text file"
UNNAMED = "a name that is no UTF-8"

_LINK_BYTES = 1024
_SHOWN = 3  # names that a summary shows of each reason
_REASONS = 6  # that it shows


def normal(name: str) -> str:
  """A name in the one form in which names are compared (Unicode's NFC)."""
  return unicodedata.normalize("NFC", name)


def order(path: str | os.PathLike) -> tuple:
  """The key that sorts paths, folder by folder, numbers in names as numbers.

  1.png, 2.png, 10.png; 01.png, 02.png, 10.png stay as text has them. Every
  number is written with its length before it, so that text sorts as ever: the
  order of names padded with zeros is that of plain sorting.

  Args:
    path: a relative path.
  """
  parts = [normal(part) for part in pathlib.PurePath(path).parts]
  return [re.sub("[0-9]+", _measured, part) for part in parts], parts


def _measured(number: re.Match) -> str:
  digits = number[0].lstrip("0")
  return f"{len(digits):03}{digits}"


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files of a folder.

  Attributes:
    files: those wanted, relative to the folder, in order.
    left: (path, why it was left out) of all others; of a hidden folder and of
      one that was listed before, the folder alone.
    empty: folders with no file and no folder in them.
  """

  files: tuple[pathlib.PurePath, ...]
  left: tuple[tuple[str, str], ...]
  empty: tuple[str, ...]


def find(folder: str | os.PathLike, suffixes: Sequence[str]) -> Listing:
  """Lists the files of a folder and of all folders below it.

  Links to files and folders are followed. A folder that several paths lead to
  is listed once, by the path with no link in it if there is one; that also ends
  loops.

  Args:
    folder: where to look.
    suffixes: of the wanted files, in small letters (".png").

  Returns:
    The files, and what was left out.
  """
  top = pathlib.Path(folder)
  files, left, empty = [], [], []
  for path, kind in _walk(top):
    name = path.relative_to(top)
    if kind == "empty":
      empty.append(name.as_posix())
    elif kind != "file":
      left.append((name.as_posix(), kind))
    elif path.suffix.lower() in suffixes:
      files.append(name)
    else:
      left.append((name.as_posix(), _kind_of(path)))
  return Listing(
    tuple(sorted(files, key=order)),
    tuple(sorted(left, key=lambda item: order(item[0]))),
    tuple(sorted(empty, key=order)),
  )


def _kind_of(path: pathlib.Path) -> str:
  """Why a file of another suffix is left out."""
  try:
    if path.stat().st_size < _LINK_BYTES:
      target = path.read_text(encoding="utf-8").strip()
      # As Git leaves them on systems without links, and some archives.
      if target and (path.parent / target).is_dir():
        return WRITTEN
  except (OSError, ValueError):
    pass
  return f"of another kind ({path.suffix.lower() or 'no suffix'})"


def _walk(top: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
  """(path, "file", "empty" or why it is left out) of everything below."""
  seen: dict[str, pathlib.Path] = {}
  waiting, links = [top], []
  while waiting or links:
    # Folders by their own names first, then those behind links.
    folder = waiting.pop(0) if waiting else links.pop(0)
    first = seen.setdefault(os.path.realpath(folder), folder)
    if first is not folder:
      yield folder, f"the same folder as {first.relative_to(top).as_posix()}"
      continue
    try:
      entries = sorted(os.scandir(folder), key=lambda entry: order(entry.name))
    except OSError:
      yield folder, CLOSED
      continue
    if not entries:
      yield folder, "empty"
    for entry in entries:
      path = folder / entry.name
      if entry.name.startswith("."):
        yield path, HIDDEN
      elif not _is_text(entry.name):
        yield folder / ascii(entry.name), UNNAMED
      elif not os.path.exists(path):
        yield path, DANGLING
      elif not os.path.isdir(path):
        yield path, "file"
      else:
        (links if entry.is_symlink() else waiting).append(path)


def _is_text(name: str) -> bool:
  """Whether a name can be written; of other encodings some bytes cannot."""
  try:
    name.encode()
  except UnicodeEncodeError:
    return False
  return True


def existing(path: str | os.PathLike) -> pathlib.Path:
  """The file that a name means, though it is spelt in another way.

  Args:
    path: as it was given. Where there is no such file, names in another Unicode
      form count as well, and so do backslashes between folders.

  Returns:
    The path of the file that is there, else `path`.
  """
  path = pathlib.Path(path)
  try:
    if path.exists():
      return path
    for text in dict.fromkeys((str(path), str(path).replace("\\", "/"))):
      found = _same_name(pathlib.Path(text))
      if found is not None:
        return found
  except (OSError, ValueError):  # a name too long, or with a null in it
    pass
  return path


def _same_name(path: pathlib.Path) -> pathlib.Path | None:
  """The entry whose name is that of `path` in any Unicode form."""
  if path.exists():
    return path
  if path.parent == path:
    return None
  folder = _same_name(path.parent)
  if folder is None or not folder.is_dir():
    return None
  wanted = normal(path.name)
  for name in os.listdir(folder):
    if normal(name) == wanted:
      return folder / name
  return None


def summary(left: Iterable[tuple[str, str]]) -> str:
  """What was left out by reason: "2 hidden (.a, .b), 1 a link to nothing (c)".

  Reasons that differ in numbers only count as one.

  Args:
    left: (name, reason); the name before a reason is taken off.
  """
  groups: dict[str, list[tuple[str, str]]] = {}
  for name, reason in left:
    short = reason.rpartition(f"{name}: ")[2]
    groups.setdefault(re.sub("[0-9]+", "0", short), []).append((name, short))
  texts = []
  for group in list(groups.values())[:_REASONS]:
    names = ", ".join(name for name, _ in group[:_SHOWN])
    more = ", ..." if len(group) > _SHOWN else ""
    texts.append(f"{len(group)} {group[0][1]} ({names}{more})")
  rest = sum(map(len, list(groups.values())[_REASONS:]))
  return "; ".join([*texts, *([f"{rest} for other reasons"] if rest else [])])
