"""Tables, their JSON and their sheets."""

import json

import numpy as np
from PIL import Image

from faceedit_jax import evaluators
from faceedit_jax.evaluators import report

TABLE = report.Table(
  "two pictures",
  [report.Column("psnr", "PSNR", 2), report.Column("n", "a long heading")],
  [(("edit",), {"psnr": 1.234, "n": 5.0}), (("nothing at all",), {"n": 1.5})],
  ("method",),
  ("a note",),
)


def test_a_table_is_aligned():
  assert TABLE.text().splitlines() == [
    "two pictures",
    "method               PSNR  a long heading",
    "edit                 1.23          5.0000",
    "nothing at all          -          1.5000",
    "a note",
  ]


def test_a_value_that_is_not_a_number_is_missing():
  table = report.Table("t", TABLE.columns, [(("x",), {"psnr": np.nan})])
  assert table.text().splitlines()[-1].split() == ["x", "-", "-"]


def test_what_a_report_leaves(tmp_path):
  sheet = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  said: list[str] = []
  scores = {"edit/psnr": 1.234}
  made = report.Report(
    scores, TABLE, {"edits": sheet}, {"paper": {"psnr": 9.0}}
  )
  made.write(tmp_path / "new", said.append)
  text = (tmp_path / "new" / "table.txt").read_text()
  assert said == ["\n" + TABLE.text()] and text == TABLE.text() + "\n"
  assert json.loads((tmp_path / "new" / "table.json").read_text()) == {
    "scores": scores,
    "notes": ["two pictures", "a note"],
    "published, not measured here": {"paper": {"psnr": 9.0}},
  }
  kept = np.asarray(Image.open(tmp_path / "new" / "edits.png"))
  np.testing.assert_array_equal(kept, sheet)


def test_a_labelled_sheet_pads_narrow_rows():
  wide = [("a", np.zeros((1, 160, 160, 3))), ("b", np.ones((1, 160, 160, 3)))]
  narrow = [("a", np.zeros((2, 160, 160, 3)))]
  one = report.labelled_grid([narrow])
  both = report.labelled_grid([wide, narrow])
  assert both.shape[1] > one.shape[1] and 2 * both.shape[0] == 3 * one.shape[0]
  # White beside the narrow rows.
  assert (both[-one.shape[0] :, one.shape[1] :] == 255).all()


def test_an_overview_of_all_results():
  assert evaluators.overview({"a": {"x": 1.0, "long": 10.0}}) == (
    "a/x      1.0000\na/long  10.0000"
  )
  assert evaluators.overview({}) == "no metrics"
