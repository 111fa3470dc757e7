"""Files of five-point landmarks: one entry per picture, in pixels.

Accepted are `.csv` (name, x1, y1, ..., x5, y5; a header line is allowed),
`.json` ({name: [[x, y] * 5]}) and `.npz` (one (5, 2) array per name). Names
are file names, with or without folder and suffix. The order of the points is
that of `align.CANONICAL5`; whether they can be those of a face is checked
where the picture is known (`face_points.check`).
"""

import json
import os
import pathlib
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np

from data_pipelines import align, listing, tables

_WANTED = "name,x1,y1,...,x5,y5"
_MOST_BYTES = 4096  # of five points in an archive


def _read_csv(path: pathlib.Path) -> dict[str, np.ndarray]:
  table = tables.read_table(path, lambda cells: len(cells) >= 11)
  rows = [row for row in table.rows if not row.cells[0].startswith("#")]
  if rows and not any(map(tables.is_number, rows[0].cells[1:])):
    rows = rows[1:]  # a header
  found: dict[str, np.ndarray] = {}
  lines: dict[str, int] = {}
  for row in rows:
    where, cells = f"{path} line {row.line}", row.cells
    # A running number before the name, as pandas writes it.
    if len(cells) == 12 and cells[0].isdigit():
      cells = cells[1:]
    try:
      values = [tables.number(cell) for cell in cells[1:]]
    except ValueError as error:
      raise align.AlignError(f"{where}: {error}; wanted {_WANTED}") from error
    if len(values) != 10:
      commas = ", or decimal commas apart by semicolons" * (len(values) > 11)
      raise align.AlignError(
        f"{where}: {len(values)} numbers apart by {table.called}, wanted 10 "
        f"({_WANTED}{commas})"
      )
    name, points = _key(cells[0]), np.asarray(values).reshape(5, 2)
    if not np.array_equal(found.setdefault(name, points), points):
      raise align.AlignError(
        f"{where}: other points of {name!r} than in line {lines[name]}; wanted "
        "one face for each picture"
      )
    lines.setdefault(name, row.line)
  return found


def _read_json(path: pathlib.Path) -> dict[str, np.ndarray]:
  content = json.loads(tables.read_text(path))
  if not isinstance(content, dict):
    raise align.AlignError(
      f"{path}: is a {type(content).__name__}, wanted {{name: [[x, y] * 5]}}"
    )
  return content


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(path) as archive:
    for entry in archive.infolist():
      if entry.file_size > _MOST_BYTES:
        raise align.AlignError(
          f"{path} entry {entry.filename!r}: has {entry.file_size} bytes, "
          "wanted five points"
        )
  with np.load(path, allow_pickle=False) as file:
    return {name: file[name] for name in file.files}


_READERS = {".csv": _read_csv, ".json": _read_json, ".npz": _read_npz}


def read_landmarks(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a landmarks file.

  Args:
    path: a `.csv`, `.json` or `.npz` file.

  Returns:
    {name: float64 (5, 2) in pixels}, names in one Unicode form.

  Raises:
    AlignError: the file is missing, of another kind, empty, or an entry is not
      five finite points.
  """
  path = listing.existing(path)
  if not path.is_file():
    raise align.AlignError(f"{path}: no such landmarks file")
  read = _READERS.get(path.suffix.lower())
  if read is None:
    raise align.AlignError(
      f"{path}: unknown kind of landmarks file, wanted .csv, .json or .npz"
    )
  try:
    table = read(path)
  except (align.AlignError, tables.TableError) as error:
    raise align.AlignError(str(error)) from error
  # Damaged archives and deep texts make the readers raise whatever there is.
  except Exception as error:
    text = " ".join(str(error).split()) or type(error).__name__
    raise align.AlignError(f"{path}: cannot be read ({text})") from error
  if not table:
    raise align.AlignError(f"{path}: holds no landmarks")
  return {
    _key(name): align.check_points(points, f"{path} entry {name!r}")
    for name, points in table.items()
  }


def _key(name: str | os.PathLike) -> str:
  """A name as it is compared: one Unicode form, slashes between folders."""
  return listing.normal(os.fspath(name)).replace("\\", "/").removeprefix("./")


def named(points: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """A table of points whose names are compared as those of files are."""
  return {_key(name): five for name, five in points.items()}


def find(
  table: Mapping[str, np.ndarray], path: str | os.PathLike
) -> np.ndarray | None:
  """Looks up a picture's points by path, file name or bare stem.

  Args:
    table: as `read_landmarks` or `named` returns it.
    path: of the picture. The end of it that the table has counts, the longest
      first: for photos/anna/1.jpg also anna/1.jpg, 1.jpg, and all of them
      without suffix.

  Returns:
    (5, 2) in pixels, or None.
  """
  name = _name_in(table, path)
  return None if name is None else table[name]


def _name_in(
  table: Mapping[str, np.ndarray], path: str | os.PathLike
) -> str | None:
  path = pathlib.PurePath(_key(path))
  for first in range(len(path.parts)) if path.name else ():
    end = pathlib.PurePath(*path.parts[first:])
    for name in (end.as_posix(), end.with_name(end.stem).as_posix()):
      if name in table:
        return name
  return None


def match(
  table: Mapping[str, np.ndarray], files: Iterable[pathlib.PurePath]
) -> dict[pathlib.PurePath, np.ndarray | str]:
  """The points of each picture of a folder, or why it has none.

  Args:
    table: as `read_landmarks` returns it.
    files: the pictures, relative to their folder.

  Returns:
    {picture: (5, 2) in pixels, or a reason}. A name that fits pictures in
    several folders belongs to none of them.
  """
  names = {file: _name_in(table, file) for file in files}
  homes: dict[str | None, set] = {}
  for file, name in names.items():
    homes.setdefault(name, set()).add(file.parent)
  return {
    file: "not in the landmarks file"
    if name is None
    else table[name]
    if len(homes[name]) == 1
    else f"{name!r} of the landmarks file fits pictures in "
    f"{len(homes[name])} folders; name the folders there"
    for file, name in names.items()
  }
