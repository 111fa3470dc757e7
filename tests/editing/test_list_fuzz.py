"""Random lists of edits: a line for each mistake, the others done."""

import contextlib
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceedit_jax import edit
from faceedit_jax.core.errors import UserError
from faceedit_jax.editing import Editor, lists
from tests.editing import toy_editor
from tests.editing.test_list_dialects import INPUTS, OPTIONS

HEADER = ("source", "pose_from", "noise", "output")
GOOD = ("a.png", "b.png", "", "good.png")
CELLS = st.sampled_from(
  ["", "a.png", "b.png", "none.png", "text.png", "/", "..", "~", "x" * 300,
   "\u2212", "a\0b", "0,5", "nan", "1e999", "{", "None", "'", '"', '"a.png"',
   "out.xyz", "o.png", "a.png/o.png", "sub\\o.png", "\u2028", "\x1b[31m"]
)  # fmt: skip
ROWS = st.lists(st.lists(CELLS, max_size=5), max_size=3)
ANY = st.one_of(
  st.binary(max_size=120),
  st.text(max_size=80).map(str.encode),
  st.builds(
    lambda rows, sign, head: "\n".join(
      sign.join(row) for row in [head, *rows]
    ).encode("utf-8", "replace"),
    ROWS,
    st.sampled_from(",;\t|"),
    st.sampled_from([HEADER, HEADER[::-1], HEADER[1:], (*HEADER, "noise")]),
  ),
)


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(data=ANY)
def test_reading(tmp_path_factory, data):
  path = tmp_path_factory.getbasetemp() / "pairs.csv"
  path.write_bytes(data)
  try:
    rows = lists.read_list(path, INPUTS, OPTIONS, None)
  except UserError as error:
    assert "\n" not in str(error) and str(path) in str(error)
    return
  assert rows
  for line, row, output in rows:
    assert line > 1 and (isinstance(output, UserError) or "source" in row)


@pytest.fixture(scope="module")
def command(workdir, tmp_path_factory):
  """The command line with one editor for all, and its folder of pictures."""
  folder = toy_editor.write_portraits(tmp_path_factory.mktemp("fuzz"))
  (folder / "text.png").write_text("no picture")
  editor = Editor.from_workdir(workdir, batch_size=2)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(edit.Editor, "from_workdir", lambda *_, **__: editor)
    yield folder, lambda *given: edit.main([f"--workdir={workdir}", *given])


@settings(derandomize=True, max_examples=40, deadline=None, database=None)
@given(rows=ROWS, place=st.integers(0, 3), sign=st.sampled_from(",;\t"))
def test_the_others_are_done(command, rows, place, sign):
  folder, run = command
  place = min(place, len(rows))
  rows = [HEADER, *rows[:place], GOOD, *rows[place:]]
  text = "\n".join(sign.join(row) for row in rows)
  (folder / "pairs.csv").write_text(text, encoding="utf-8")
  (folder / "out").mkdir(exist_ok=True)
  (folder / "out/good.png").unlink(missing_ok=True)
  code, said = _quietly(
    run, f"--pairs={folder / 'pairs.csv'}", f"--output={folder / 'out'}"
  )
  assert code in (0, 1, 2) and len(said) <= 3, said
  assert all(line.startswith("error: ") for line in said)
  assert bool(said) == bool(code)
  assert (code == 2) != (folder / "out/good.png").is_file()
  # What is no list at all is refused whole: quotes that never end, no text.
  if code == 2:
    assert '"' in text or "\0" in text or "\x1b" in text, said


@settings(derandomize=True, max_examples=40, deadline=None, database=None)
@given(
  points=st.lists(
    st.one_of(
      st.lists(st.floats(width=32), min_size=2, max_size=2),
      st.lists(st.integers(-50, 200), min_size=2, max_size=2),
      st.none(),
      st.text(max_size=3),
    ),
    min_size=4,
    max_size=6,
  )
)
def test_random_points(command, points):
  folder, run = command
  (folder / "points.json").write_text(json.dumps({"a.png": points}))
  output = folder / "one.png"
  output.unlink(missing_ok=True)
  code, said = _quietly(
    run,
    f"--source={folder / 'a.png'}",
    f"--landmarks={folder / 'points.json'}",
    f"--output={output}",
  )
  assert code == 2 and not output.exists()  # none of them makes a face
  (line,) = said
  assert line.startswith("error: ") and "points.json" in line or "a.png" in line


def _quietly(run, *arguments):
  """Exit code, and the lines on standard error."""
  said = io.StringIO()
  with contextlib.redirect_stderr(said), contextlib.redirect_stdout(None):
    code = run(*arguments)
  return code, said.getvalue().splitlines()
