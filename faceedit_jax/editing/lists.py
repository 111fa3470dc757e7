"""Lists of edits: CSV files with a column for each input and option."""

import ast
import csv
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from faceedit_jax.core.editing import PICTURES, EditInput
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.editing import inputs as inputs_lib

OUTPUT = "output"
FACE = "face"  # which face of the source is meant

# Line, {input or option: value}, and the output file or what is wrong.
Row = tuple[int, dict[str, Any], pathlib.Path | UserError]


def read_list(
  path: pathlib.Path,
  inputs: Sequence[EditInput],
  options: Sequence[str],
  folder: pathlib.Path | None,
) -> list[Row]:
  """Reads a list of edits.

  Args:
    path: CSV file with a header: output, all required inputs, and any other
      input or option, and FACE. Files are relative to the folder of this one.
    inputs: what an edit takes.
    options: names of its options.
    folder: where outputs go; the CSV file's own folder when None.

  Returns:
    The rows; empty cells are left out.

  Raises:
    UserError: one line: there is no such file, or its header is wrong.
  """
  with as_user_error(f"--pairs={path}"):
    text = path.read_text(encoding="utf-8-sig")
  reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
  columns = [name.strip() for name in reader.fieldnames or ()]
  reader.fieldnames = columns
  required = [item.field for item in inputs if item.required] + [OUTPUT]
  others = [item.field for item in inputs if not item.required]
  others += [*options, FACE]
  unknown = [name for name in columns if name not in (*required, *others)]
  missing = [name for name in required if name not in columns]
  if unknown or missing:
    raise UserError(
      f"{path} line 1: columns {columns}, wanted {', '.join(required)} and any "
      f"of {others}"
    )
  kinds = {item.field: item.kind for item in inputs}
  rows: list[Row] = []
  taken: dict[pathlib.Path, int] = {}
  for cells in reader:
    line, spare = reader.line_num, cells.pop(None, None)
    row = {k: v.strip() for k, v in cells.items() if v and v.strip()}
    lacking = [name for name in required if name not in row]
    if spare or lacking:
      problem = f"lacks {lacking[0]}" if lacking else "has too many columns"
      rows.append((line, {}, UserError(problem)))
      continue
    output = (folder or path.parent) / row.pop(OUTPUT)
    if output in taken:
      error = UserError(f"{OUTPUT} {output} is that of line {taken[output]}")
      rows.append((line, {}, error))
      continue
    taken[output] = line
    made = {
      name: _input(value, kinds[name], path.parent)
      if name in kinds
      else option_value(value)
      for name, value in row.items()
    }
    rows.append((line, made, output))
  if not rows:
    raise UserError(f"{path} lists no edits")
  return rows


def _input(text: str, kind: str, folder: pathlib.Path) -> str:
  """A cell with its file, if it names one, below the list's folder."""
  file = kind in PICTURES or (
    kind == "camera" and inputs_lib.numbers_in(text) is None
  )
  return str(folder / text) if file else text


def option_value(text: str) -> Any:
  """An option as what it reads as, else as the text that it is.

  Args:
    text: a Python literal such as 0.8, true or 0,0.5,1; FIRST:LAST:COUNT for
      so many evenly spaced numbers; or any text.
  """
  parts = text.split(":")
  try:
    if len(parts) == 3 and int(parts[2]) > 1:
      numbers = np.linspace(float(parts[0]), float(parts[1]), int(parts[2]))
      return tuple(numbers.round(6).tolist())
    return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text
