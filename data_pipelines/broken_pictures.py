"""Finds the pictures of a folder that cannot be read, before they are needed.

Every file is decoded once, on all cores. What was found is kept beside the
pictures, by their size and time of change, so that the next run looks only at
what is new.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import sys
import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np
import tqdm

from data_pipelines import images

# What a source does with pictures that cannot be read: names them all in one
# error, leaves them out, or finds out when it reads them.
Broken = Literal["refuse", "skip", "unchecked"]

NAME = ".picture_check.json"
_VERSION = 1
_NAMED = 3  # broken pictures that an error names
_PORTION = 4096  # pictures after which the list is written
_THREADS = 32  # Pillow decodes without holding Python's lock
_said: set[str] = set()  # what was said once in this process


def usable(
  folder: str | os.PathLike, files: Sequence[pathlib.PurePath], broken: Broken
) -> list[pathlib.PurePath]:
  """The pictures of a folder that a source can train on.

  Args:
    folder: the list of what was found is kept here, or, where it may not be
      written, in the user's cache.
    files: pictures below it.
    broken: see `Broken`.

  Returns:
    The files, for "skip" without those that cannot be read.

  Raises:
    ImageError: one line: some cannot be read and are to be refused, or none
      is left.
  """
  if broken == "unchecked":
    return list(files)
  found, kept = check(folder, files)
  if not found:
    return list(files)
  first = "; ".join(
    f"{file} {reason}" for file, reason in list(found.items())[:_NAMED]
  )
  listed = f" (list: {kept})" if kept else ""
  count = f"{len(found)} of {len(files)} pictures cannot be read"
  if broken == "refuse":
    raise images.ImageError(
      f"{folder}: {count}, first {first}{listed}; mend or remove them, or "
      "leave them out with `source.broken='skip'`"
    )
  if len(found) == len(files):
    raise images.ImageError(
      f"{folder}: not one of {len(files)} pictures can be read"
    )
  said = f"{folder}: {count} and are left out, first {first}{listed}"
  if said not in _said:
    _said.add(said)
    tqdm.tqdm.write(said, file=sys.stderr)
  return [file for file in files if file.as_posix() not in found]


def check(
  folder: str | os.PathLike, files: Sequence[pathlib.PurePath]
) -> tuple[dict[str, str], pathlib.Path | None]:
  """Decodes every picture that has not been looked at as it is.

  Args:
    folder: see `usable`.
    files: pictures below it.

  Returns:
    {file: what is wrong} of those that cannot be read, in the order of
    `files`; and where that is kept, None where it could not be.
  """
  folder = pathlib.Path(folder)
  places = [folder / NAME, _in_cache(folder)]
  lists = [_read(place) for place in places]
  states = {file.as_posix(): _state(folder / file) for file in files}
  # What was wrong is looked at again: a right to read may have been missing.
  good = {
    name: [*state, ""]
    for name, state in states.items()
    if state is not None
    and [*state, ""] in [known.get(name) for known in lists]
  }
  todo = [name for name in states if name not in good]
  # The folder's own list before the cache's, and other splits' files as well.
  known = lists[1] | lists[0] | good
  kept = next((place for place in places if place.is_file()), None)
  wrong: dict[str, str] = {}
  bar = tqdm.tqdm(
    total=len(todo),
    desc=f"checking {folder.name}",
    unit="picture",
    disable=None if todo else True,  # but on a terminal
  )
  with bar:
    for first in range(0, len(todo), _PORTION):
      names = todo[first : first + _PORTION]
      found = {
        name: [*(states[name] or (0, 0)), reason]
        for name, reason in zip(names, _decode(folder, names, bar), strict=True)
      }
      wrong |= {name: entry[-1] for name, entry in found.items() if entry[-1]}
      if any(known.get(name) != entry for name, entry in found.items()):
        known |= found
        kept = _write(places, known)
  return wrong, kept


def read(folder: pathlib.Path, file: str | os.PathLike) -> np.ndarray:
  """`images.read_image` of a picture that was found sound.

  One that has broken since is noted, so that the next check looks at it again,
  whatever its time of change.

  Raises:
    ImageError: it cannot be read.
  """
  try:
    return images.read_image(folder / file)
  except images.ImageError as error:
    places = [folder / NAME, _in_cache(folder)]
    for place in places:
      known, name = _read(place), pathlib.PurePath(file).as_posix()
      if name in known:
        known[name][-1] = str(error)
        _write([place], known)
    raise


def _state(path: pathlib.Path) -> list[int] | None:
  """What changes when a file does; None where it is gone."""
  try:
    stat = path.stat()
  except OSError:
    return None
  return [stat.st_size, stat.st_mtime_ns]


def _decode(
  folder: pathlib.Path, names: Sequence[str], bar: tqdm.tqdm
) -> list[str]:
  """What is wrong with each picture, or ""."""

  def look(name: str) -> str:
    path, reason = folder / name, ""
    try:
      images.read_image(path)
    except images.ImageError as error:
      reason = str(error).removeprefix(f"{path}: ")
    bar.update()
    return reason

  threads = min(_THREADS, os.cpu_count() or 1)
  pool = concurrent.futures.ThreadPoolExecutor(threads)
  try:
    return list(pool.map(look, names))
  finally:
    pool.shutdown(cancel_futures=True)


def _in_cache(folder: pathlib.Path) -> pathlib.Path:
  """Where the list of a folder that may not be written is kept."""
  top = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
  cache = pathlib.Path(top).expanduser() / "faceedit_jax" / "picture_check"
  return cache / f"{name}.json"


def _read(place: pathlib.Path) -> dict[str, list]:
  """What is known of files: {name: [size, time, what is wrong or ""]}."""
  try:
    content = json.loads(place.read_text(encoding="utf-8"))
    if content["version"] != _VERSION:
      return {}
    good = {name: [*state, ""] for name, state in content["good"].items()}
    wrong = {name: list(state) for name, state in content["broken"].items()}
    return good | wrong
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return {}  # there is none, or it is no such list


def _write(
  places: Sequence[pathlib.Path], known: dict[str, list]
) -> pathlib.Path | None:
  """Keeps a list in the first place that takes it, whole or not at all."""
  content = {
    "version": _VERSION,
    "broken": {name: state for name, state in known.items() if state[-1]},
    "good": {n: state[:-1] for n, state in known.items() if not state[-1]},
  }
  text = json.dumps(content).replace("], ", "],\n")
  for place in places:
    mark = f"{os.getpid()}-{threading.get_ident()}"
    temporary = place.with_name(f"{place.name}.{mark}.tmp")
    try:
      if place.name != NAME:  # the cache's
        place.parent.mkdir(parents=True, exist_ok=True)
      elif not place.parent.stat().st_mode & 0o222:
        continue  # nobody should write there, not even root
      temporary.write_text(text, encoding="utf-8")
      os.replace(temporary, place)
      return place
    except OSError:
      with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
  return None
