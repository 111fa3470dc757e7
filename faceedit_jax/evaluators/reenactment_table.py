"""Table 1 of DiffFAE with our rows above the paper's, which nobody re-ran.

A published column holds values that were measured as it says; the same
measure read by another net has a column of its own, so that two scales never
share one.
"""

from collections.abc import Mapping, Sequence

from faceedit_jax.evaluators import report

PUBLISHED = ("FID", "APD", "AED", "ALD", "CSIM")
RISING = ("CSIM",)  # the larger, the better
# Our rows, by the name of the method in the scores.
OURS = {
  "edit": "measured here: edit",
  "copy_source": "measured here: source left as it is",
}
# DiffFAE, tables 1 to 3: {table: {method: values of PUBLISHED}}.
PAPER: Mapping[str, Mapping[str, tuple[float | None, ...]]] = {
  "Table 1": {
    "Hou et al.": (49.93, None, None, 0.1931, 0.8962),
    "StyleHEAT": (78.59, 0.0425, 0.1947, None, 0.8541),
    "DPE": (36.67, 0.0490, 0.1649, None, 0.9253),
    "DiffusionRig": (47.10, 0.0232, 0.1727, 0.1404, 0.9196),
    "DiffFAE": (31.83, 0.0191, 0.1532, 0.1511, 0.9458),
  },
  "Table 2": {
    "DiffFAE, 2 slots": (38.23, 0.0195, 0.1572, 0.1534, 0.9387),
    "DiffFAE, 8 slots": (35.49, 0.0198, 0.1554, 0.1541, 0.9404),
  },
  "Table 3": {
    "DiffFAE, no identity token": (None, None, None, None, 0.9309),
  },
}


def in_steps(name: str, steps: int) -> str:
  """The name of a score of the edit, made with another number of steps."""
  method, column = name.split("/")
  return f"{method}_{steps}_steps/{column}"


def _labels(scores: Mapping[str, float]) -> dict[str, str]:
  """{method: label} of our rows: the edit, also in other steps, the source."""
  made = [name.split("/")[0] for name in scores]
  found = {"edit": OURS["edit"]}
  for method in made:
    if method.startswith("edit_"):
      steps = method.removeprefix("edit_").removesuffix("_steps")
      found[method] = f"{OURS['edit']}, {steps} sampling steps"
  return found | OURS


def paper_rows() -> dict[str, dict[str, float]]:
  """{"paper, Table 1: method": {column: value}}."""
  return {
    f"paper, {table}: {method}": {
      name: value
      for name, value in zip(PUBLISHED, values, strict=True)
      if value is not None
    }
    for table, methods in PAPER.items()
    for method, values in methods.items()
  }


def table(
  scores: Mapping[str, float], title: str, notes: Sequence[str] = ()
) -> report.Table:
  """The table.

  Args:
    scores: {"method/column": value} of the methods of OURS.
    title: first line: pairs, split, protocol.
    notes: lines below: how each column was measured, what is missing and why.

  Returns:
    Our rows, then the paper's, each named as what it is.
  """
  ours = {
    label: {
      name.removeprefix(f"{method}/"): value
      for name, value in scores.items()
      if name.startswith(f"{method}/")
    }
    for method, label in _labels(scores).items()
  }
  further = {n for row in ours.values() for n in row} - set(PUBLISHED)
  further = sorted(further, key=lambda n: (PUBLISHED.index(n.split("-")[0]), n))
  columns = [
    report.Column(
      name,
      name + ("↑" if name.startswith(RISING) else "↓"),
      2 if name == "FID" else 4,
    )
    for name in (*PUBLISHED, *further)
  ]
  rows = [((label,), row) for label, row in (ours | paper_rows()).items()]
  return report.Table(title, columns, rows, notes=notes)
