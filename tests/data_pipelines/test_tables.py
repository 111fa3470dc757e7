"""Lists as people write them: separators, encodings, ends of lines."""

import json
import pathlib

import numpy as np
import pytest

from data_pipelines import align, landmarks, tables
from data_pipelines.celeba import files as celeba_files
from data_pipelines.videos import reader, splits

POINTS = align.CANONICAL5.astype(np.float64).round(4) * 100 + 0.5
HEADER = "name,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5"
NAMES = ("zo\u00eb/1.jpg", "a b.jpg")


def lines(separator=",", decimal=".", header=True, index=False):
  """Lines of a table of points of both NAMES."""
  rows = [HEADER.split(",")] if header else []
  for name in NAMES:
    rows.append([name, *(f"{v:.2f}" for v in POINTS.ravel())])
  if index:
    rows = [
      [str(i - header) if i >= header else "", *row]
      for i, row in enumerate(rows)
    ]
  for row in rows[header:]:
    row[1 + index :] = [v.replace(".", decimal) for v in row[1 + index :]]
  return [separator.join(row) for row in rows]


def read(tmp_path, data, name="points.csv"):
  path = tmp_path / name
  path.write_bytes(data if isinstance(data, bytes) else data.encode())
  return landmarks.read_landmarks(path)


def check(table):
  assert sorted(table) == sorted(NAMES)
  for points in table.values():
    np.testing.assert_allclose(points, POINTS, atol=0.01)


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-32", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_ends(tmp_path, encoding, end):
  check(read(tmp_path, end.join(lines()).encode(encoding)))


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(
  "separator, decimal", [(",", "."), (";", "."), (";", ","), ("\t", ",")]
)
def test_separators(tmp_path, separator, decimal, header, index):
  text = "\n".join(lines(separator, decimal, header, index))
  check(read(tmp_path, text))
  check(read(tmp_path, f"sep={separator}\r\n{text}"))
  # Empty columns and rows at the end, as spreadsheets leave them.
  rows = [row + 3 * separator for row in text.split("\n")]
  check(read(tmp_path, "\r\n".join([*rows, 5 * separator, ""])))


def test_quotes_comments_and_signs(tmp_path):
  rows = [f'"{row}"'.replace(",", '","') for row in lines()]
  check(read(tmp_path, "\n".join(["# mine", *rows])))
  moved = [row.replace("39.7", "\u221239.7", 1) for row in lines()]
  text = "\n".join(moved).replace(f"{POINTS[0, 0]:.2f}", "\u221240.21")
  assert read(tmp_path, text)[NAMES[0]][0, 0] == -40.21


def test_a_separator_of_unicode_is_part_of_a_name(tmp_path):
  text = "\n".join(lines()).replace("a b", "a\u2028b")
  assert "a\u2028b.jpg" in read(tmp_path, text)


def test_backslashes_and_forms_in_names(tmp_path):
  table = read(tmp_path, "\n".join(lines()).replace("/", "\\"))
  for path in ("zoe\u0308/1.jpg", "photos/zo\u00eb/1.jpg", "./zo\u00eb/1.jpg"):
    np.testing.assert_allclose(landmarks.find(table, path), POINTS, atol=0.01)
  for path in ("zo\u00eb/2.jpg", "zo\u00eb/1.png", "1.jpg", ".", ""):
    assert landmarks.find(table, path) is None


def test_a_bare_name_belongs_to_one_folder(tmp_path):
  table = read(tmp_path, "\n".join(lines()).replace("a b", "1"))
  paths = ("x/1.jpg", "y/1.jpg", "zo\u00eb/1.jpg")
  files = [pathlib.PurePath(path) for path in paths]
  found = landmarks.match(table, files)
  assert "fits pictures in 2 folders" in found[files[0]]
  assert isinstance(found[files[2]], np.ndarray)
  assert isinstance(landmarks.match(table, files[:1])[files[0]], np.ndarray)


@pytest.mark.parametrize(
  "text, message",
  [
    (
      "\n".join(lines(",", ",")),
      "20 numbers apart by commas, .*semicolons",
    ),
    ("\n".join(lines("|")), "points.csv"),
    ("\n".join(lines(" ")), "points.csv"),
    ('a.jpg,"1,2', "line 1: a quoted cell is broken"),
    ("\n".join(lines()) + '\n"x', "line 4: a quoted cell is broken"),
    ("a.jpg," + "9" * 200_000, "too long"),
    (lines()[1] + "\n" + lines()[1].replace("0", "1"), "line 2: other points"),
    ("a.jpg,1,2,3,4,5,6,7,8,9,x", "line 1: could not convert"),
    (b"\x81\x8d\x8f" * 9, "is no text in utf-8 or cp1252"),
    (b"\xff\xfe\x00", "is no text in utf-16-le"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is no text"),
    ("", "holds no landmarks"),
    (HEADER, "holds no landmarks"),
  ],
)
def test_lists_of_points_that_cannot_be_read(tmp_path, text, message):
  with pytest.raises(align.AlignError, match=message) as error:
    read(tmp_path, text)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_of_any_encoding(tmp_path, encoding):
  text = json.dumps(dict.fromkeys(NAMES, POINTS.tolist()), ensure_ascii=False)
  check(read(tmp_path, text.encode(encoding), "points.json"))


@pytest.mark.parametrize(
  "content, message",
  [
    ("[1]", "is a list, wanted"),
    ('{"a": [[1, 2], [3]]}', "no array of numbers"),
    ('{"a": {"x": 1}}', r"shape \(\)"),
    ('{"a": [["1", "2"], [3, 4], [5, 6], [7, 8], [9, 10]]}', "wanted numbers"),
    ('{"a": [[1e999, 2], [3, 4], [5, 6], [7, 8], [9, 10]]}', "not finite"),
    (f'{{"a": {[[10**400, 2]] + [[1, 2]] * 4}}}', "are object, wanted numbers"),
    ("[" * 100_000, "cannot be read"),
  ],
)
def test_json_that_holds_no_points(tmp_path, content, message):
  with pytest.raises(align.AlignError, match=message):
    read(tmp_path, content, "points.json")


@pytest.mark.parametrize("separator, decimal", [(",", "."), (";", ",")])
def test_points_of_frames(tmp_path, separator, decimal):
  points = np.arange(2 * 136.0).reshape(2, 68, 2) / 2
  rows = [["frame", *(f"x{i}" for i in range(136))]]
  for number, one in enumerate(points):
    values = [str(v).replace(".", decimal) for v in one.ravel()]
    rows.append([str(number), *values])
  text = "\r".join(separator.join(row) for row in rows)
  (tmp_path / "a.csv").write_bytes(text.encode("utf-16"))
  found = reader.read_points(tmp_path / "a.mp4")
  np.testing.assert_array_equal(found, points)


def test_splits_and_tables_of_attributes(tmp_path):
  path = tmp_path / "splits.json"
  text = json.dumps({"train": ["zoe\u0308"], "test": ["b"]}, ensure_ascii=False)
  path.write_bytes(text.encode("utf-16"))
  people, _ = splits.read(path)
  assert people == {"train": ["zo\u00eb"], "validation": [], "test": ["b"]}
  (tmp_path / "list.txt").write_bytes(
    b"\xef\xbb\xbf2\r\nA B\r\n\r\n0.jpg,1,\xe2\x88\x921\r\n1.jpg\t-1  1"
  )
  assert celeba_files._lines(tmp_path / "list.txt") == [
    ["2"], ["A", "B"], ["0.jpg", "1", "-1"], ["1.jpg", "-1", "1"]
  ]  # fmt: skip
  with pytest.raises(celeba_files.CelebaError, match="cannot be read .*wanted"):
    celeba_files._lines(tmp_path / "none.txt")


def test_running_numbers():
  def rows(*cells):
    return [tables.Row(i + 1, list(row)) for i, row in enumerate(cells)]

  plain = rows(("a", "b"), ("x", "y"))
  assert tables.without_index(plain) == plain
  for header in (("", "a", "b"), ("Unnamed: 0", "a", "b"), ("a", "b")):
    found = tables.without_index(rows(header, ("0", "x", "y"), ("1", "z", "w")))
    assert [row.cells for row in found] == [["a", "b"], ["x", "y"], ["z", "w"]]
  named = rows(("", "a", "b"), ("x", "y", "z"))
  assert tables.without_index(named) == named


@pytest.mark.parametrize(
  "text, value",
  [("0,5", 0.5), ("\u22120,5", -0.5), ("-1.5e2", -150.0), (" 3 ", 3.0)],
)
def test_numbers(text, value):
  assert tables.number(text) == value and tables.is_number(text)
  assert not tables.is_number(f"{text}x") and not tables.is_number("1,2,3")
