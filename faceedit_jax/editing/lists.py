"""Lists of edits: CSV files with a column for each input and option."""

import ast
import os
import pathlib
import re
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from data_pipelines import listing, tables
from faceedit_jax.core.editing import PICTURES, EditInput
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.editing import inputs as inputs_lib

OUTPUT = "output"
FACE = "face"  # which face of the source is meant
_SHOWN = 200  # characters of a wrong header
_MOST_NUMBERS = 1000  # that FIRST:LAST:COUNT may ask for

# Line, {input or option: value}, and the output file or what is wrong.
Row = tuple[int, dict[str, Any], pathlib.Path | UserError]


def read_list(
  path: pathlib.Path,
  inputs: Sequence[EditInput],
  options: Sequence[str],
  folder: pathlib.Path | None,
  several: Collection[str] = (),
) -> list[Row]:
  """Reads a list of edits.

  Args:
    path: a list with a header: output, all required inputs, and any other
      input or option, and FACE. Files are relative to the folder of this one.
      Separators and encodings: see `tables.read_table`. Where semicolons or
      tabs separate, 0,5 is a number with a decimal comma.
    inputs: what an edit takes.
    options: names of its options.
    folder: where outputs go; the list's own folder when None.
    several: options that take lists of numbers.

  Returns:
    The rows; empty cells are left out.

  Raises:
    UserError: one line: there is no such file, or its header is wrong.
  """
  path = listing.existing(path)
  required = [item.field for item in inputs if item.required] + [OUTPUT]
  others = [item.field for item in inputs if not item.required]
  others += [*options, FACE]
  known = {name.lower(): name for name in (*required, *others)}
  with as_user_error("--pairs"):
    table = tables.read_table(
      path, lambda cells: sum(cell.lower() in known for cell in cells)
    )
  if not table.rows:
    raise UserError(f"{path} lists no edits")
  header, *rows = tables.without_index(table.rows)
  columns = [known.get(cell.lower(), cell) for cell in header.cells]
  strange = [name for name in columns if name not in known.values()]
  missing = [name for name in required if name not in columns]
  if strange or missing or len(set(columns)) < len(columns):
    raise UserError(
      f"{path} line {header.line}: columns {_short(columns)} apart by "
      f"{table.called}, wanted {', '.join(required)} and any of {others}, each "
      "once, apart by commas, semicolons or tabs"
    )
  kinds = {item.field: item.kind for item in inputs}
  made: list[Row] = []
  taken: dict[pathlib.Path, int] = {}
  for row in rows:
    cells = dict(zip(columns, row.cells, strict=False))
    cells = {name: text for name, text in cells.items() if text}
    lacking = [name for name in required if name not in cells]
    if len(row.cells) > len(columns) or lacking:
      problem = f"lacks {lacking[0]}" if lacking else "has too many columns"
      problem = f"{problem} (columns are apart by {table.called})"
      made.append((row.line, {}, UserError(problem)))
      continue
    output = (folder or path.parent) / _path(cells.pop(OUTPUT))
    if output in taken:
      error = UserError(f"{OUTPUT} {output} is that of line {taken[output]}")
      made.append((row.line, {}, error))
      continue
    taken[output] = row.line
    try:
      values = {
        name: _input(text, kinds[name], path.parent)
        if name in kinds
        else _option(name, text, table, name in several)
        for name, text in cells.items()
      }
    except UserError as error:
      made.append((row.line, {}, error))
      continue
    made.append((row.line, values, output))
  if not made:
    raise UserError(f"{path} lists no edits")
  return made


def _short(columns: Sequence[str]) -> str:
  text = str(list(columns))
  return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _path(text: str) -> pathlib.PurePath:
  """A file of a list; backslashes count as slashes where folders have those."""
  return pathlib.PurePath(text.replace("\\", os.sep))


def _input(text: str, kind: str, folder: pathlib.Path) -> str:
  """A cell with its file, if it names one, below the list's folder."""
  file = kind in PICTURES or (
    kind == "camera" and inputs_lib.numbers_in(text) is None
  )
  return str(folder / text) if file else text


def _option(name: str, text: str, table: tables.Table, several: bool) -> Any:
  """An option of a cell; a decimal comma counts where it separates no cells."""
  if table.separator == "," or not re.fullmatch(r"\S\d*,\d+", text):
    return option_value(text)
  if several:
    raise UserError(
      f"{name} {text!r} may be one number or several; write "
      f"{text.replace(',', '.')} or [{text.replace(',', ', ')}]"
    )
  try:
    return tables.number(text)
  except ValueError:
    return option_value(text)


def option_value(text: str) -> Any:
  """An option as what it reads as, else as the text that it is.

  Args:
    text: a Python literal such as 0.8, true or 0,0.5,1; FIRST:LAST:COUNT for
      so many evenly spaced numbers; or any text. A typographic minus counts as
      one.
  """
  plain = tables.plain_minus(text)
  parts = plain.split(":")
  try:
    if len(parts) == 3 and int(parts[2]) > 1:
      if int(parts[2]) > _MOST_NUMBERS:
        raise UserError(
          f"{text}: asks for {parts[2]} numbers, wanted at most {_MOST_NUMBERS}"
        )
      numbers = np.linspace(float(parts[0]), float(parts[1]), int(parts[2]))
      return tuple(numbers.round(6).tolist())
    words = {"true": "True", "false": "False"}
    with warnings.catch_warnings(action="ignore"):  # of Python, on odd literals
      return ast.literal_eval(words.get(plain, plain))
  except UserError:
    raise
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text
