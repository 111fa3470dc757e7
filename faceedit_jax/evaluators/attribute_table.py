"""Table and sheet of attribute edits: by direction and method."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from faceedit_jax.core import sheets, writers
from faceedit_jax.evaluators import common as scoring_lib

METHODS = {
  "edit": "edit",
  "copy": "source as it is",
  "truth": "a true outcome",
}
# Measure: its column, digits behind the point, what stands below the table.
COLUMNS = {
  "correct": (
    "correct",
    3,
    "share read as the value that was wanted",
  ),
  "others_flipped": (
    "flipped",
    3,
    "share of the other attributes whose reading flips",
  ),
  "others_changed": (
    "changed",
    3,
    "mean absolute change of their probability",
  ),
  "identity": ("identity", 3, "cosine to the source's embedding"),
  "inside_l1": (
    "in L1",
    4,
    "least mean absolute error over the true outcomes in the region, of [0, 1]",
  ),
  "inside_l2": (
    "in L2",
    4,
    "least mean squared error over the true outcomes in the region",
  ),
  "outside_psnr": ("out PSNR", 2, "dB to the source outside the region"),
  "psnr": ("PSNR", 2, "dB to the nearest true outcome, whole picture"),
  "ssim": ("SSIM", 4, "to that outcome"),
}
REGION = (
  "region: pixels where any true outcome differs from the source by more than "
  "4/255 in any channel, and 2 pixels round them"
)
_WIDTH = 10  # of a column


def directions(attributes: Sequence[str]) -> list[str]:
  """Rows of the table: every attribute given, taken, both; then all."""
  signs = ("+", "-", "")
  return [sign + name for name in attributes for sign in signs] + ["all"]


def summary(
  rows: Mapping[str, Mapping[str, np.ndarray]], attributes: Sequence[str]
) -> dict[str, float]:
  """Means over the examples of each direction, attribute, and over all.

  Args:
    rows: {direction: {"method/measure": (n,)}}; NaN is left out of a mean.
    attributes: names that were edited.

  Returns:
    {"method/direction/measure": mean}, and "count/direction".
  """
  scores = {}
  for whole in directions(attributes):
    parts = [
      found
      for direction, found in rows.items()
      if whole in ("all", direction, direction[1:])
    ]
    if not parts:
      continue
    for name in parts[0]:
      method, measure = name.split("/")
      value = scoring_lib.mean([part[name] for part in parts])
      if not np.isnan(value):
        scores[f"{method}/{whole}/{measure}"] = value
    # Every measure has one value per example.
    lengths = [len(next(iter(part.values()), ())) for part in parts]
    scores[f"count/{whole}"] = float(sum(lengths))
  return scores


def table(
  scores: Mapping[str, float],
  title: str,
  notes: Sequence[str],
  attributes: Sequence[str],
) -> str:
  """The table as text: three lines per direction, then notes.

  Args:
    scores: see `attribute_scores.AttributeEvaluator.run`.
    title: first line.
    notes: last lines.
    attributes: names that were edited.
  """
  measures = [m for m in COLUMNS if any(n.endswith(f"/{m}") for n in scores)]
  columns = measures + sorted({n.split("/")[2] for n in scores if "/FID-" in n})
  left = max(len(name) for name in [*directions(attributes), "attribute"]) + 2
  middle = max(map(len, METHODS.values())) + 2
  heads = [COLUMNS[c][0] if c in COLUMNS else c for c in columns]
  widths = [max(_WIDTH, len(head) + 2) for head in heads]
  lines = [title, f"{'attribute':<{left}}{'':<{middle}}{_line(heads, widths)}"]
  for direction in directions(attributes):
    for method, label in METHODS.items():
      values = [scores.get(f"{method}/{direction}/{c}") for c in columns]
      if all(value is None for value in values):
        continue
      texts = [_text(c, v) for c, v in zip(columns, values, strict=True)]
      named = direction if method == "edit" else ""
      lines.append(f"{named:<{left}}{label:<{middle}}{_line(texts, widths)}")
  lines += [f"{COLUMNS[m][0]}: {COLUMNS[m][2]}" for m in measures]
  if "inside_l1" in measures:
    lines.append(REGION)
  lines += _accuracy(scores)
  return "\n".join([*lines, *notes])


def _accuracy(scores):
  """One line on how well the classifier reads true pictures."""
  parts = []
  for name, value in scores.items():
    if name.startswith("classifier/"):
      _, attribute, kind = name.split("/")
      what = kind.removeprefix("accuracy_")
      parts.append(f"{attribute} {value:.3f} of the {what}")
  return ["classifier on true pictures, right: " + ", ".join(parts)][
    : len(parts)
  ]


def _text(column, value):
  if value is None:
    return "-"
  return f"{value:.{COLUMNS[column][1] if column in COLUMNS else 2}f}"


def _line(values, widths):
  return "".join(
    f"{value:>{width}}" for value, width in zip(values, widths, strict=True)
  )


def write(
  scores: Mapping[str, float],
  title: str,
  notes: Sequence[str],
  attributes: Sequence[str],
  out_dir: pathlib.Path,
  log: Callable[[str], None],
) -> None:
  """Writes table.txt and table.json, and logs the table."""
  text = table(scores, title, notes, attributes)
  (out_dir / "table.txt").write_text(text + "\n", encoding="utf-8")
  whole = {"scores": dict(scores), "notes": [title, *notes]}
  (out_dir / "table.json").write_text(
    json.dumps(whole, indent=1), encoding="utf-8"
  )
  log("\n" + text)


def save_sheet(
  shown: Mapping[str, Sequence[tuple[str, np.ndarray]]], path: pathlib.Path
) -> None:
  """One example per line, directions one after the other.

  Args:
    shown: {direction: (name, pictures (n, h, w, 3) in [-1, 1]) of each column}.
    path: of the sheet.
  """
  lines = [
    sheets.labelled((name, writers.to_uint8(c[i])) for name, c in columns)
    for columns in shown.values()
    for i in range(len(columns[0][1]))
  ]
  wide = max(line.shape[1] for line in lines)
  padded = [
    np.pad(
      line, ((0, 0), (0, wide - line.shape[1]), (0, 0)), constant_values=255
    )
    for line in lines
  ]
  Image.fromarray(np.concatenate(padded)).save(path)
