"""Lists of edits as spreadsheets and programs write them, edited."""

import pathlib
import unicodedata

import numpy as np
import pytest
from PIL import Image

from data_pipelines import tables
from faceedit_jax import edit
from faceedit_jax.core import signs
from faceedit_jax.core.editing import EditInput
from faceedit_jax.core.errors import UserError
from faceedit_jax.editing import lists
from tests.editing.toy_editor import SIZE, one_line, save_run
from tests.toy_attributes import config_of

HEADER = ["source", "attribute", "strength", "output"]
ROW = ["a.jpg", "+Smiling", "0.5", "o1.png"]
INPUTS = (
  EditInput("source", "photo", required=True),
  EditInput("age", "number"),
)
OPTIONS = ("attribute", "strength", "strengths")


def read(path, data, options=OPTIONS):
  path = path / "pairs.csv"
  path.write_bytes(data if isinstance(data, bytes) else data.encode())
  return lists.read_list(path, INPUTS, options, None, ("strengths",))


def text(separator=",", *rows):
  return "\r\n".join(separator.join(row) for row in (HEADER, *(rows or (ROW,))))


def row_of(found, folder):
  ((line, made, output),) = found
  assert output == folder / "o1.png"
  return line, {**made, "source": pathlib.Path(made["source"]).name}


WANTED = {"source": "a.jpg", "attribute": "+Smiling", "strength": 0.5}


@pytest.mark.parametrize(
  "data",
  [
    text(),
    text(";"),
    text("\t"),
    text(";", [c.replace("0.5", "0,5") for c in ROW]),
    text("\t", [c.replace("0.5", "0,5") for c in ROW]),
    text().replace("\r\n", "\r"),
    text().replace("\r\n", "\n") + "\n\n",
    text().encode("utf-16"),
    text().encode("utf-16-le"),
    text(";").encode("utf-8-sig"),
    "sep=;\r\n" + text(";"),
    text().replace("\r\n", ",,\r\n") + ",,\r\n,,,,,",
    ",".join(["", *HEADER]) + "\n" + ",".join(["0", *ROW]),
    ",".join(["Unnamed: 0", *HEADER]) + "\n" + ",".join(["17", *ROW]),
    ",".join(HEADER) + "\n" + ",".join(["1", *ROW]),
    text().replace("source", '"Source"').replace("a.jpg", '"a.jpg"'),
    text().replace("source,attribute", " source , attribute"),
  ],
)
def test_a_list_in_any_dialect(tmp_path, data):
  line, row = row_of(read(tmp_path, data), tmp_path)
  assert row == WANTED
  first = data if isinstance(data, str) else ""
  assert line == (3 if first.startswith("sep=") else 2)


def test_cells_keep_what_is_theirs(tmp_path):
  rows = ["a.jpg", '"+Smiling,\u2212Bangs"', "\u22120.5", '"0,0.5,1"', "o1.png"]
  head = ["source", "attribute", "strength", "strengths", "output"]
  _, row = row_of(
    read(tmp_path, f"{','.join(head)}\n{','.join(rows)}"), tmp_path
  )
  assert row["attribute"] == "+Smiling,\u2212Bangs"
  assert row["strength"] == -0.5 and row["strengths"] == (0, 0.5, 1)
  found = read(
    tmp_path, "source,output\nline\u2028sep.jpg,o1.png\na.jpg,o2.png"
  )
  assert [pathlib.Path(row["source"]).name for _, row, _ in found] == [
    "line\u2028sep.jpg", "a.jpg"
  ]  # fmt: skip
  ((_, row, output),) = read(tmp_path, "source,output\nb\\c d.jpg,x\\o1.png")
  assert output == tmp_path / "x" / "o1.png"


def test_a_decimal_comma_where_several_numbers_may_stand(tmp_path):
  data = "source;strengths;output\na.jpg;0,5;o1.png\na.jpg;0,0.5,1;o2.png"
  (_, _, error), (_, row, _) = read(tmp_path, data)
  assert isinstance(error, UserError)
  assert "'0,5' may be one number or several; write 0.5 or [0, 5]" in str(error)
  assert row["strengths"] == (0, 0.5, 1)


@pytest.mark.parametrize(
  "data, message",
  [
    (text("|"), r"\['source\|attribute.* apart by .*wanted source, out"),
    (text(" "), "apart by .*wanted source, output"),
    (text().replace("attribute", "source"), "each once"),
    ("source,x,output\n", r"\['source', 'x', 'output'\] apart by commas"),
    ('source,output\n"a.jpg,o.png\n', "line 2: a quoted cell is broken"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "is no text"),
    (b"\x81\x8d", "is no text in utf-8 or cp1252; save it as UTF-8"),
    ("", "lists no edits"),
    ("source,output\n,,\n", "lists no edits"),
    ("x" * 5000, r"xxx\.\.\. apart by"),
  ],
)  # fmt: skip
def test_lists_that_cannot_be_read(tmp_path, data, message):
  with pytest.raises(UserError, match=message) as error:
    read(tmp_path, data)
  assert "\n" not in str(error.value) and len(str(error.value)) < 700


@pytest.mark.parametrize(
  "given, value",
  [
    ("\u22120.5", -0.5),
    ("\u20130.5", -0.5),
    ("0,\u22121", (0, -1)),
    ("\u22121:1:3", (-1.0, 0.0, 1.0)),
    ("\u2212Smiling", "\u2212Smiling"),
    ("0:1:99999999999", None),
    ("1if 2else 3", "1if 2else 3"),
    ("\\d", "\\d"),
    ("9" * 5000, "9" * 5000),
    ("(" * 300, "(" * 300),
  ],
)
def test_values_of_options(given, value, recwarn):
  if value is None:
    with pytest.raises(UserError, match="wanted at most 1000"):
      lists.option_value(given)
  else:
    assert lists.option_value(given) == value
  assert not recwarn.list


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Both stages as a finished run leaves them."""
  return save_run(tmp_path_factory.mktemp("run"), config_of())


def write_pictures(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(exist_ok=True)
    Image.new("RGB", (SIZE, SIZE), (120,) * 3).save(folder / name)


def edits(workdir, folder, *more):
  path = f"--pairs={folder / 'pairs.csv'}"
  return edit.main([f"--workdir={workdir}", path, "--aligned", *more])


# As in C1-excel of the field cases.
EXCEL = {
  "backslash": b"source,attribute,output\r\nsub\\b c.jpg,+Smiling,o1.png\r\n",
  "comma_decimal": text(";", [c.replace("0.5", "0,5") for c in ROW]).encode(),
  "cp1252": b"source,attribute,output\r\nzo\xeb.jpg,+Smiling,o1.png\r\n",
  "index": b",source,attribute,output\n0,a.jpg,+Smiling,o1.png\n",
  "linesep": "source,attribute,output\nline\u2028sep.jpg,+Smiling,o1.png\n"
  "a.jpg,+Smiling,o2.png\n".encode(),
  "semicolon": b"\xef\xbb\xbfsource;attribute;output\r\na.jpg;+Smiling;o1.png",
  "tab": b"source\tattribute\toutput\na.jpg\t+Smiling\to1.png\n",
  "trailing": b"source,attribute,output,\na.jpg,+Smiling,o1.png,\n,,,\n",
  "utf16": "source,attribute,output\r\na.jpg,+Smiling,o1.png\r\n".encode(
    "utf-16"
  ),
}


def check_excel(workdir, folder, name, capsys):
  decomposed = unicodedata.normalize("NFD", "zo\u00eb.jpg")
  write_pictures(
    folder, "a.jpg", "sub/b c.jpg", "line\u2028sep.jpg", decomposed
  )
  assert edits(workdir, folder) == 0, capsys.readouterr().err
  count = 2 if name == "linesep" else 1
  said = capsys.readouterr()
  assert said.out == f"{count} of {count} edits written\n" and not said.err
  with Image.open(folder / "o1.png") as picture:
    colour = np.asarray(picture)[0, 0]
  strength = 0.5 if name == "comma_decimal" else 1.0
  assert abs(int(colour[1]) - 120 - 127.5 * 0.4 * strength) < 2


@pytest.mark.parametrize("name", EXCEL)
def test_the_lists_of_spreadsheets(workdir, tmp_path, name, capsys):
  (tmp_path / "pairs.csv").write_bytes(EXCEL[name])
  check_excel(workdir, tmp_path, name, capsys)


@pytest.mark.shared
@pytest.mark.parametrize("name", EXCEL)
def test_the_field_cases(workdir, shared, tmp_path, name, capsys):
  case = shared / "field_cases/C1-excel" / f"{name}.csv"
  (tmp_path / "pairs.csv").write_bytes(case.read_bytes())
  check_excel(workdir, tmp_path, name, capsys)


@pytest.mark.parametrize("sign", ["-", "\u2212", "\u2013", "\u2010"])
def test_a_typographic_minus_takes_away(workdir, tmp_path, sign, capsys):
  write_pictures(tmp_path, "a.jpg")
  for given, green in (
    ([f"--attribute={sign}Smiling"], 120 - 51),
    (["--attribute", f"{sign}Smiling"], 120 - 51),
    (["--attribute=Smiling", f"--strength={sign}0.5"], 120 - 25),
  ):
    done = edit.main(
      [f"--workdir={workdir}", f"--source={tmp_path / 'a.jpg'}", "--aligned",
       f"--output={tmp_path / 'o.png'}", *given]
    )  # fmt: skip
    assert done == 0, capsys.readouterr().err
    with Image.open(tmp_path / "o.png") as picture:
      assert abs(int(np.asarray(picture)[0, 0, 1]) - green) < 2


def test_the_signs_are_those_of_lists():
  assert signs.MINUSES == tables.MINUSES


def test_names_in_another_unicode_form(workdir, tmp_path, capsys):
  """C2-nfd of the field cases, as edits."""
  composed = "zo\u00eb.jpg"
  write_pictures(tmp_path, unicodedata.normalize("NFD", composed))
  source = f"--source={tmp_path / composed}"
  done = edit.main(
    [f"--workdir={workdir}", source, "--aligned", "--attribute=Smiling",
     f"--output={tmp_path / 'o.png'}"]
  )  # fmt: skip
  assert done == 0, capsys.readouterr().err
  capsys.readouterr()
  missing = f"--source={tmp_path / 'none.jpg'}"
  assert edit.main([f"--workdir={workdir}", missing, "--output=o.png"]) == 2
  assert "none.jpg: no such file" in one_line(capsys)
