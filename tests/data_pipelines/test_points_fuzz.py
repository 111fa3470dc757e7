"""Random files of points and lists end in a table or in one line."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import align, images, landmarks, prepare, tables
from data_pipelines.videos import index, reader, splits
from tests.data_pipelines.test_tables import HEADER, POINTS, lines

BOUNDED = settings(
  derandomize=True, max_examples=150, deadline=None, database=None
)
NUMBERS = ",".join(f"{value:.1f}" for value in POINTS.ravel())
GOOD = "\n".join(lines())
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252", "latin-1")

# Texts near those of lists, and any others.
CELLS = st.one_of(
  st.sampled_from(
    [
      "",
      "name",
      "a.jpg",
      "1",
      "-0,5",
      "nan",
      "1e999",
      '"',
      '""',
      "#",
      "\u2212",
      "sep=;",
      "\ufeff",
      "\x1a",
      "\0",
      "9" * 400,
      NUMBERS,
      HEADER,
    ]
  ),  # fmt: skip
  st.text(max_size=6),
)
LISTS = st.builds(
  lambda cells, between, ends, encoding: ends.join(
    between.join(row) for row in cells
  ).encode(encoding, "replace"),
  st.lists(st.lists(CELLS, max_size=13), max_size=5),
  st.sampled_from([",", ";", "\t", "|", " "]),
  st.sampled_from(["\n", "\r\n", "\r", "\u2028"]),
  st.sampled_from(ENCODINGS),
)


@st.composite
def damaged(draw, whole):
  """A good file with some bytes changed, cut out or put in."""
  data = bytearray(whole)
  for _ in range(draw(st.integers(0, 4))):
    place = draw(st.integers(0, len(data)))
    length = draw(st.integers(0, 9))
    data[place : place + length] = draw(st.binary(max_size=9))
  return bytes(data)


def npz(**arrays):
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


JSON = st.recursive(
  st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
  lambda inner: (
    st.lists(inner, max_size=6)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3)
  ),
  max_leaves=14,
)


def read(folder, suffix, data):
  """Points of a file, or None where one line refuses it."""
  path = folder / f"points{suffix}"
  path.write_bytes(data)
  try:
    table = landmarks.read_landmarks(path)
  except align.AlignError as error:
    assert "\n" not in str(error) and str(path) in str(error)
    return None
  assert table
  for points in table.values():
    assert points.shape == (5, 2) and np.isfinite(points).all()
  return table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("fuzz")


@BOUNDED
@given(
  data=st.one_of(LISTS, damaged(GOOD.encode()), st.binary(max_size=200)),
)
def test_tables_of_points(folder, data):
  read(folder, ".csv", data)


@BOUNDED
@given(
  data=st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    damaged(json.dumps({"a": POINTS.tolist()}).encode()),
    damaged(json.dumps({"a": POINTS.tolist()}).encode("utf-16")),
  )
)
def test_json_of_points(folder, data):
  read(folder, ".json", data)


@BOUNDED
@given(data=damaged(npz(a=POINTS, b=POINTS * 2)))
def test_archives_of_points(folder, data):
  read(folder, ".npz", data)


ARRAYS = st.sampled_from(
  [POINTS, POINTS.astype(np.float16), POINTS[:4], POINTS * np.nan, POINTS + 1j,
   POINTS.astype(int), POINTS.astype(str), POINTS.astype(object), np.zeros(0),
   np.zeros((5, 2), bool), np.zeros((5, 2), [("x", float)]), np.zeros(10**4),
   np.zeros((5, 2), "M8[s]")]
)  # fmt: skip


@BOUNDED
@given(arrays=st.dictionaries(st.text("ab/\\.e\u0301", max_size=4), ARRAYS))
def test_archives_of_other_arrays(folder, arrays):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    for name, array in arrays.items():
      content = io.BytesIO()
      np.save(content, array, allow_pickle=True)
      archive.writestr(f"{name}.npy", content.getvalue())
  table = read(folder, ".npz", file.getvalue())
  good = [a.dtype.kind in "iuf" and a.shape == (5, 2) for a in arrays.values()]
  assert table is None or all(good)


def test_headers_of_absurd_size(folder):
  content = io.BytesIO()
  np.save(content, POINTS)
  head = content.getvalue().replace(b"(5, 2)", b"(5000000000000, 2)")
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("a.npy", head)
  assert read(folder, ".npz", file.getvalue()) is None
  bomb = io.BytesIO()
  with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("a.npy", b"\0" * 10**7)
  assert read(folder, ".npz", bomb.getvalue()) is None


@BOUNDED
@given(data=st.one_of(LISTS, st.binary(max_size=100)))
def test_points_of_frames_and_splits(folder, data):
  (folder / "a.csv").write_bytes(data)
  try:
    reader.read_points(folder / "a.mp4")
  except reader.ClipError as error:
    assert "\n" not in str(error)
  (folder / "splits.json").write_bytes(data)
  try:
    splits.read(folder / "splits.json")
  except index.VideoError as error:
    assert "\n" not in str(error)
  try:
    tables.words(folder / "splits.json")
  except tables.TableError as error:
    assert "\n" not in str(error)


@settings(derandomize=True, max_examples=25, deadline=None, database=None)
@given(
  number=st.integers(0, 10**6),
  data=st.one_of(LISTS, damaged(f"{GOOD}\na,{NUMBERS}\n".encode())),
)
def test_the_command(folder, number, data):
  """Exit code 0 or 1, one line of error, and no set of nothing."""
  photos = folder / "photos"
  for name in ("a", "b"):
    if not (photos / f"{name}.png").exists():
      images.write_image(
        photos / f"{name}.png", np.full((90, 90, 3), 9, np.uint8)
      )
  (folder / "given.csv").write_bytes(data)
  out = folder / f"out{number}"
  said = io.StringIO()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("sys.stderr", said)
    code = prepare.main(
      ["image_folder", f"--input={photos}", f"--output={out}", "--size=16",
       "--holdout=0", "--splits=train", f"--landmarks={folder / 'given.csv'}"]
    )  # fmt: skip
  lines = said.getvalue().splitlines()
  assert code in (0, 1) and len(lines) == code, lines
  assert not lines or lines[0].startswith("error: ")
