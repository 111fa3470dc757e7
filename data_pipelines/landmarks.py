"""Files of five-point landmarks: one entry per picture, in pixels.

Accepted are `.csv` (name, x1, y1, ..., x5, y5; a header line is allowed),
`.json` ({name: [[x, y] * 5]}) and `.npz` (one (5, 2) array per name). Names
are file names, with or without folder and suffix. The order of the points is
that of `align.CANONICAL5`.
"""

import csv
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from data_pipelines import align


def _read_csv(path: pathlib.Path) -> dict[str, np.ndarray]:
  table = {}
  with path.open(newline="", encoding="utf-8-sig") as file:
    for number, row in enumerate(csv.reader(file), start=1):
      row = [cell.strip() for cell in row]
      if not any(row) or row[0].startswith("#"):
        continue
      try:
        values = [float(cell) for cell in row[1:] if cell]
      except ValueError as error:
        if number == 1:  # a header
          continue
        raise align.AlignError(
          f"{path} line {number}: {error}; wanted name,x1,y1,...,x5,y5"
        ) from error
      if len(values) != 10:
        raise align.AlignError(
          f"{path} line {number}: {len(values)} numbers, wanted 10 "
          "(x1,y1,...,x5,y5)"
        )
      table[row[0]] = np.asarray(values).reshape(5, 2)
  return table


def read_landmarks(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a landmarks file.

  Args:
    path: a `.csv`, `.json` or `.npz` file.

  Returns:
    {name: float64 (5, 2) in pixels}.

  Raises:
    AlignError: the file is missing, of another kind, empty, or an entry is not
      five finite points.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise align.AlignError(f"{path}: no such landmarks file")
  suffix = path.suffix.lower()
  try:
    if suffix == ".csv":
      table = _read_csv(path)
    elif suffix == ".json":
      table = json.loads(path.read_text(encoding="utf-8"))
    elif suffix == ".npz":
      with np.load(path, allow_pickle=False) as file:
        table = {name: file[name] for name in file.files}
    else:
      raise align.AlignError(
        f"{path}: unknown kind of landmarks file, wanted .csv, .json or .npz"
      )
  except align.AlignError:
    raise
  except (ValueError, zipfile.BadZipFile, OSError) as error:
    raise align.AlignError(f"{path}: cannot be read ({error})") from error
  if not isinstance(table, Mapping) or not table:
    raise align.AlignError(f"{path}: holds no landmarks")
  return {
    name: align.check_points(points, f"{path} entry {name!r}")
    for name, points in table.items()
  }


def find(
  table: Mapping[str, np.ndarray], relative: str | os.PathLike
) -> np.ndarray | None:
  """Looks up a picture's points by path, file name or bare stem.

  Args:
    table: as `read_landmarks` returns it.
    relative: the picture's path relative to its top folder.

  Returns:
    (5, 2) in pixels, or None.
  """
  relative = pathlib.PurePath(relative)
  names = (
    relative.as_posix(),
    relative.with_suffix("").as_posix(),
    relative.name,
    relative.stem,
  )
  for name in names:
    if name in table:
      return table[name]
  return None
