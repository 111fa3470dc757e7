"""Reads lists as people write them: by hand, from Excel, pandas, R or Windows.

Every list of the project is read here, so that all of them take the same
separators, encodings and line ends.
"""

import codecs
import csv
import dataclasses
import io
import pathlib
import re
from collections.abc import Callable, Sequence

from data_pipelines import listing

# As in `faceedit_jax.core.signs`, which may not be imported here.
MINUSES = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
_MINUS = str.maketrans(dict.fromkeys(MINUSES, "-"))

SEPARATORS = ("\t", ";", ",")
_CALLED = {"\t": "tabs", ";": "semicolons", ",": "commas", "": "nothing"}
_NO_TEXT = re.compile("[\\x00-\\x08\\x0e-\\x1f]")

_MARKS = (
  (codecs.BOM_UTF8, "utf-8"),
  (codecs.BOM_UTF32_LE, "utf-32-le"),
  (codecs.BOM_UTF32_BE, "utf-32-be"),
  (codecs.BOM_UTF16_LE, "utf-16-le"),
  (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAID = re.compile('"?sep=([\t;,])"? *(\r\n|\r|\n|$)', re.IGNORECASE)
_INDEX = re.compile(r"(unnamed: ?\d+)?", re.IGNORECASE)  # pandas' name of none


class TableError(ValueError):
  """A list that cannot be read; the message names the file and the line."""


def plain_minus(text: str) -> str:
  """A text whose typographic minus signs are plain ones."""
  return text.translate(_MINUS)


def number(text: str) -> float:
  """The number of a cell; a decimal comma and a typographic minus count.

  Raises:
    ValueError: it is none.
  """
  text = plain_minus(text.strip())
  if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", text):
    text = text.replace(",", ".")
  return float(text)


def is_number(text: str) -> bool:
  """Whether a cell holds a number."""
  try:
    number(text)
  except ValueError:
    return False
  return True


def read_text(path: pathlib.Path) -> str:
  """The text of a file of any common encoding, without its mark.

  UTF-8, UTF-16 and UTF-32 are told by their byte-order mark, UTF-16 without one
  by its zeros; what is no UTF-8 counts as Windows-1252, the encoding of
  spreadsheets in western Europe and America.

  Raises:
    TableError: there is no such file, or it is no text.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise TableError(
      f"{path}: cannot be read ({error.strerror or error})"
    ) from error
  except ValueError as error:  # a null in its name
    raise TableError(f"{str(path)!r}: {error}") from error
  encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "")
  if not encoding and data.count(0):
    even, odd = data[::2].count(0), data[1::2].count(0)
    encoding = "utf-16-le" if odd > even else "utf-16-be"
  tried = (encoding,) if encoding else ("utf-8", "cp1252")
  for name in tried:
    try:
      text = data.decode(name)
    except UnicodeDecodeError:
      continue
    if not _NO_TEXT.search(text):
      return text.removeprefix("\ufeff")
  raise TableError(
    f"{path}: is no text in {' or '.join(tried)}; save it as UTF-8"
  )


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of a list.

  Attributes:
    line: its number in the file, from 1.
    cells: without blanks around them and without empty ones at the end.
  """

  line: int
  cells: list[str]


@dataclasses.dataclass(frozen=True)
class Table:
  """A list.

  Attributes:
    rows: those with any text in them.
    separator: what stood between the cells.
  """

  rows: tuple[Row, ...]
  separator: str

  @property
  def called(self) -> str:
    """The separator in words."""
    return _CALLED[self.separator]


def read_table(path: pathlib.Path, fits: Callable[[list[str]], int]) -> Table:
  """Reads a list, with the separator that its first row fits best.

  Args:
    path: the file; cells may be quoted. Line ends are any of Windows, Unix and
      old Macs; other line separators of Unicode are part of a cell. A first
      line `sep=;`, as Excel reads it, says the separator.
    fits: how well the cells of the first row are those of such a list.

  Raises:
    TableError: one line: it cannot be read.
  """
  path = listing.existing(path)
  text = read_text(path)
  said = _SAID.match(text)
  if said:
    # The line stays, empty, so that lines keep their numbers.
    return Table(_rows(path, "\n" + text[said.end() :], said[1]), said[1])
  lines = (line for line in _lines(text) if line.strip())
  first = next((line for line in lines if not line.startswith("#")), "")
  scores = {}
  for separator in SEPARATORS:
    try:
      cells = next(_reader(first, separator), [])
    except csv.Error:
      continue
    scores[separator] = fits([cell.strip() for cell in cells])
  # The first of the best; a comma where nothing fits.
  best = max(scores, key=scores.get, default=",")
  if not scores.get(best):
    best = max(SEPARATORS, key=first.count) if first else ","
  return Table(_rows(path, text, best), best)


def _lines(text: str) -> list[str]:
  return re.split(r"\r\n|\r|\n", text)


def _reader(text: str, separator: str):
  lines = io.StringIO(text, newline="")
  return csv.reader(
    lines, delimiter=separator, skipinitialspace=True, strict=True
  )


def _rows(path: pathlib.Path, text: str, separator: str) -> tuple[Row, ...]:
  reader, rows, last = _reader(text, separator), [], 0
  try:
    for cells in reader:
      line, last = last + 1, reader.line_num
      cells = [cell.strip() for cell in cells]
      while cells and not cells[-1]:
        cells.pop()
      if cells:
        rows.append(Row(line, cells))
  except csv.Error as error:
    raise TableError(
      f"{path} line {last + 1}: a quoted cell is broken or too long ({error})"
    ) from error
  return tuple(rows)


def split_words(text: str) -> list[str]:
  """The words of a text, apart by commas, semicolons or blanks."""
  return [word for word in re.split(r"[\s,;]+", text) if word]


def words(path: pathlib.Path) -> list[list[str]]:
  """The words of every line that has any, apart by blanks or separators.

  Raises:
    TableError: as of `read_text`.
  """
  lines = _lines(plain_minus(read_text(path)))
  return [found for line in lines if (found := split_words(line))]


def without_index(rows: Sequence[Row]) -> list[Row]:
  """Rows without the running number that pandas and R put before them.

  Args:
    rows: the header, whose column of the number has no name (pandas) or is not
      there (R), and the rows below.
  """
  header, *below = rows
  numbered = all(row.cells[0].isdigit() for row in below)
  nameless = _INDEX.fullmatch(header.cells[0]) is not None
  wide = all(len(row.cells) == len(header.cells) + 1 for row in below)
  if not below or not numbered or not (nameless or wide):
    return list(rows)
  shorter = [Row(row.line, row.cells[1:]) for row in below if row.cells[1:]]
  return [Row(header.line, header.cells[nameless:]), *shorter]
