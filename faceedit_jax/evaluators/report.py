"""The shape in which every evaluator reports: a table, its JSON, and sheets."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from faceedit_jax.core import sheets, writers

_WIDTH = 9  # of a column of values, at least


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of values.

  Attributes:
    name: of the measure, as in the rows.
    head: what stands above it.
    digits: behind the point.
  """

  name: str
  head: str
  digits: int = 4


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of values under a title, above notes.

  Attributes:
    title: first line: what was measured on which pictures.
    columns: of the values.
    rows: (labels, {column: value}) of each row; a value that is missing is
      shown as "-".
    label_heads: what stands above the labels.
    notes: lines below: how each column was measured, what is missing and why.
  """

  title: str
  columns: Sequence[Column]
  rows: Sequence[tuple[Sequence[str], Mapping[str, float]]]
  label_heads: Sequence[str] = ("",)
  notes: Sequence[str] = ()

  def text(self) -> str:
    """The table with its columns aligned."""
    labels = [self.label_heads, *(labels for labels, _ in self.rows)]
    left = [max(map(len, parts)) + 2 for parts in zip(*labels, strict=True)]
    right = [max(_WIDTH, len(column.head) + 2) for column in self.columns]
    values = [[column.head for column in self.columns]]
    for _, row in self.rows:
      values.append([_text(row.get(c.name), c.digits) for c in self.columns])
    lines = [
      "".join(f"{x:<{w}}" for x, w in zip(names, left, strict=True))
      + "".join(f"{x:>{w}}" for x, w in zip(cells, right, strict=True))
      for names, cells in zip(labels, values, strict=True)
    ]
    return "\n".join([self.title, *lines, *self.notes])


def _text(value: float | None, digits: int) -> str:
  if value is None or np.isnan(value):
    return "-"
  return f"{value:.{digits}f}"


@dataclasses.dataclass(frozen=True)
class Report:
  """What an evaluation found.

  Attributes:
    scores: {metric: value}.
    table: the scores for readers.
    sheets: {name: uint8 picture (h, w, 3)}.
    published: {row: {column: value}} of others, which were not measured here.
  """

  scores: Mapping[str, float]
  table: Table
  sheets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  published: Mapping[str, Mapping[str, float]] = dataclasses.field(
    default_factory=dict
  )

  def write(
    self, out_dir: str | pathlib.Path, log: Callable[[str], None]
  ) -> None:
    """Writes table.txt, table.json and a PNG per sheet; logs the table."""
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    text = self.table.text()
    whole = {
      "scores": dict(self.scores),
      "notes": [self.table.title, *self.table.notes],
    }
    if self.published:
      whole["published, not measured here"] = self.published
    for name, content in (
      ("table.txt", text + "\n"),
      ("table.json", json.dumps(whole, indent=1)),
    ):
      (out_dir / name).write_text(content, encoding="utf-8")
    for name, sheet in self.sheets.items():
      Image.fromarray(sheet).save(out_dir / f"{name}.png")
    log("\n" + text)


def grid(columns: Sequence[np.ndarray], count: int) -> np.ndarray:
  """A sheet of columns of pictures (n, h, w, 3) in [-1, 1].

  At most `count` examples are shown, one in each row.
  """
  shown = min(count, len(columns[0]))
  rows = {f"{i:02d}": np.stack([c[i] for c in columns]) for i in range(shown)}
  return writers.make_grid(rows)


def labelled_grid(
  shown: Sequence[Sequence[tuple[str, np.ndarray]]],
) -> np.ndarray:
  """A sheet with one example per row, each picture under its name.

  Args:
    shown: groups of examples, one after the other; each is a list of (name,
      pictures (n, h, w, 3) in [-1, 1]) of its columns.
  """
  rows = [
    sheets.labelled((name, writers.to_uint8(c[i])) for name, c in columns)
    for columns in shown
    for i in range(len(columns[0][1]))
  ]
  wide = max(row.shape[1] for row in rows)
  padded = [
    np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0)), constant_values=255)
    for row in rows
  ]
  return np.concatenate(padded)


def overview(results: Mapping[str, Mapping[str, float]]) -> str:
  """All results of a stage as text, one line per metric.

  Args:
    results: {evaluator: {metric: value}}.
  """
  rows = [
    (f"{name}/{metric}", f"{value:.4f}")
    for name, scores in results.items()
    for metric, value in scores.items()
  ]
  if not rows:
    return "no metrics"
  left = max(len(r[0]) for r in rows)
  right = max(len(r[1]) for r in rows)
  return "\n".join(f"{k:<{left}}  {v:>{right}}" for k, v in rows)
