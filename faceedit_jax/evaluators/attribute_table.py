"""Table of attribute edits: by direction and method."""

from collections.abc import Mapping, Sequence

import numpy as np

from faceedit_jax.evaluators import common, report

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
      value = common.mean([part[name] for part in parts])
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
) -> report.Table:
  """The table: up to three rows per direction, then notes.

  Args:
    scores: see `attributes.AttributeEvaluator.run`.
    title: first line.
    notes: last lines.
    attributes: names that were edited.
  """
  measures = [m for m in COLUMNS if any(n.endswith(f"/{m}") for n in scores)]
  columns = [report.Column(m, *COLUMNS[m][:2]) for m in measures]
  for name in sorted({n.split("/")[2] for n in scores if "/FID-" in n}):
    columns.append(report.Column(name, name, 2))
  rows = []
  for direction in directions(attributes):
    for method, label in METHODS.items():
      row = {
        column.name: scores[name]
        for column in columns
        if (name := f"{method}/{direction}/{column.name}") in scores
      }
      if row:
        rows.append(((direction if method == "edit" else "", label), row))
  below = [f"{COLUMNS[m][0]}: {COLUMNS[m][2]}" for m in measures]
  if "inside_l1" in measures:
    below.append(REGION)
  below += _accuracy(scores)
  return report.Table(title, columns, rows, ("attribute", ""), (*below, *notes))


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
