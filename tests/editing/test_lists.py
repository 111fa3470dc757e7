"""Lists of edits: what is wrong with a line is said, the others are done."""

import csv

import numpy as np
import pytest
from PIL import Image

from faceedit_jax import edit
from tests.editing.toy_editor import command, one_line


def write_pairs(path, rows, columns=("source", "pose_from", "output")):
  with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(rows)


def test_a_list_of_edits(workdir, files, capsys):
  write_pairs(
    files / "pairs.csv",
    [("a.png", "b.png", "one.png"), ("b.png", "", "two.jpg")],
  )
  pairs = [f"--workdir={workdir}", f"--pairs={files / 'pairs.csv'}"]
  assert edit.main([*pairs, f"--output={files / 'made'}", "--sheet"]) == 0
  assert capsys.readouterr().out == "2 of 2 edits written\n"
  made = {p.name for p in (files / "made").iterdir()}
  assert made == {"one.png", "one_sheet.png", "two.jpg", "two_sheet.png"}
  other = f"--pose_from={files / 'b.png'}"
  assert command(workdir, files, other) == 0
  with (
    Image.open(files / "out.png") as a,
    Image.open(files / "made/one.png") as b,
  ):
    np.testing.assert_allclose(
      np.asarray(a, float), np.asarray(b, float), atol=1
    )


def test_bad_lines_are_named_and_the_others_done(workdir, files, capsys):
  (files / "dark.png").write_bytes((files / "a.png").read_bytes())
  Image.new("RGB", (60, 60)).save(files / "dark.png")
  write_pairs(
    files / "pairs.csv",
    [
      ("a.png", "b.png", "one.png"),
      ("none.png", "b.png", "two.png"),
      ("a.png", "dark.png", "three.png"),
      ("a.png", "b.png"),
      ("a.png", "b.png", "four.png", "more"),
      ("a.png", "b.png", "one.png"),
      ("a.png", "b.png", "five.xyz"),
      ("b.png", "a.png", "six.png"),
    ],
  )
  pairs = [f"--workdir={workdir}", f"--pairs={files / 'pairs.csv'}"]
  assert edit.main(pairs) == 1
  printed = capsys.readouterr()
  assert printed.out == "2 of 8 edits written, 6 failed\n"
  lines = [x for x in printed.err.splitlines() if x.startswith("error")]
  for number, text in {
    3: "none.png: no such file",
    4: "dark.png: no face found",
    5: "lacks output",
    6: "too many columns",
    7: "is that of line 2",
    8: "unknown picture suffix",
  }.items():
    [line] = [x for x in lines if f"pairs.csv line {number}: " in x]
    assert text in line
  assert len(lines) == 6
  made = {p.name for p in files.iterdir()}
  assert {"one.png", "six.png"} <= made
  assert not {"two.png", "three.png", "four.png"} & made


@pytest.mark.parametrize(
  "columns, rows, message",
  [
    (("source", "pose_form", "output"), [("a", "b", "c")], "line 1: columns"),
    (("source", "pose_from"), [("a.png", "b.png")], "line 1: columns"),
    (("source", "output"), [], "lists no edits"),
  ],
)
def test_unusable_lists(workdir, files, columns, rows, message, capsys):
  write_pairs(files / "pairs.csv", rows, columns)
  pairs = [f"--workdir={workdir}", f"--pairs={files / 'pairs.csv'}"]
  assert edit.main(pairs) == 2
  assert message in one_line(capsys)


def test_a_missing_list_and_an_input_beside_it(workdir, files, capsys):
  pairs = [f"--workdir={workdir}", f"--pairs={files / 'pairs.csv'}"]
  assert edit.main(pairs) == 2
  assert "pairs.csv: " in one_line(capsys)
  write_pairs(files / "pairs.csv", [("a.png", "b.png", "one.png")])
  assert edit.main([*pairs, "--pose_from=b.png"]) == 2
  assert "with --pairs it is a column" in one_line(capsys)
