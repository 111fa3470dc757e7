"""Names of files: order, links, Unicode forms, and what is left out."""

import os
import pathlib
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import align, images, listing, prepare, records
from data_pipelines.sources import people
from data_pipelines.videos import index, reader
from tests.data_pipelines import fake_world

COMPOSED = "Ren\u00e9e"
APART = unicodedata.normalize("NFD", COMPOSED)
KINDS = (".png", ".jpg")


def touch(folder, *names, data="x"):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data)


def draw(folder, *names):
  """Pictures, each of another gray."""
  for number, name in enumerate(names):
    gray = np.full((20, 20), 10 * number, np.uint8)
    images.write_image(folder / name, gray)


def test_numbers_in_names_sort_as_numbers():
  names = [f"{i}.png" for i in (1, 10, 11, 12, 2, 3)]
  assert sorted(names, key=listing.order) == [
    f"{i}.png" for i in (1, 2, 3, 10, 11, 12)
  ]
  mixed = ["b10/f2.png", "b9/f11.png", "b9/f2.png", "a/2.png", "b9.png"]
  assert sorted(mixed, key=listing.order) == [
    "a/2.png", "b9/f2.png", "b9/f11.png", "b9.png", "b10/f2.png"
  ]  # fmt: skip


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(
  st.lists(
    st.tuples(
      st.text("ab-_.#A é", max_size=3),
      st.integers(0, 999),
      st.text("ab-_.#A é", max_size=3),
    ),
    max_size=8,
  )
)
def test_padded_names_keep_the_order_of_plain_sorting(parts):
  names = [f"{a}{number:03}{b}" for a, number, b in parts]
  assert sorted(names, key=listing.order) == sorted(names, key=listing.normal)


def test_order_of_every_listing(tmp_path):
  names = [f"{number}.png" for number in range(1, 13)]
  draw(tmp_path / "p/clip", *names)
  found = [file.name for file in images.list_images(tmp_path).files]
  assert found == names
  grays = [frame[0, 0, 0] for _, frame in reader.frames(tmp_path / "p/clip")]
  assert grays == [10 * i for i in range(12)]
  for number in (2, 10):
    draw(tmp_path / f"q/{number}", "0.png")
  clips = [clip.path for clip in index.find_clips(tmp_path, "top")[0]]
  assert clips == ["p/clip", "q/2", "q/10"]
  assert list(people.FolderIndex(tmp_path, "all").numbers) == [
    "p/clip", "q/2", "q/10"
  ]  # fmt: skip


def test_links_are_followed_and_loops_end(tmp_path):
  touch(tmp_path / "real/anna", "1.png", "2.png")
  photos = tmp_path / "photos"
  touch(photos, "ben/1.png", "ben/.hidden.png", "ben/notes.txt")
  (photos / "anna").symlink_to("../real/anna")
  (photos / "again").symlink_to(photos / "ben")
  (photos / "ben/up").symlink_to("..")
  (photos / "ben/self").symlink_to("self")
  (photos / "ben/2.png").symlink_to("../../real/anna/1.png")
  (photos / "gone").symlink_to("nowhere")
  (photos / "none").mkdir()
  found = listing.find(photos, KINDS)
  assert [file.as_posix() for file in found.files] == [
    "anna/1.png", "anna/2.png", "ben/1.png", "ben/2.png"
  ]  # fmt: skip
  assert dict(found.left) == {
    "again": "the same folder as ben",
    "ben/.hidden.png": listing.HIDDEN,
    "ben/notes.txt": "of another kind (.txt)",
    "ben/self": listing.DANGLING,
    "ben/up": "the same folder as .",
    "gone": listing.DANGLING,
  }
  assert found.empty == ("none",)


def test_a_link_out_of_the_folder_and_back(tmp_path):
  touch(tmp_path, "photos/a/1.png", "other/2.png")
  (tmp_path / "photos/z").symlink_to(tmp_path)
  found = listing.find(tmp_path / "photos", KINDS)
  assert [str(f) for f in found.files] == ["a/1.png", "z/other/2.png"]


def test_names_are_one_in_every_form(tmp_path):
  touch(tmp_path, f"{APART}/sub/1.png")
  given = tmp_path / COMPOSED / "sub" / "1.png"
  assert not given.exists() and listing.existing(given).is_file()
  slashes = f"{tmp_path}/{APART}\\sub\\1.png"
  assert listing.existing(slashes).is_file()
  missing = tmp_path / "none" / "1.png"
  assert listing.existing(missing) == missing
  assert listing.existing("x" * 5000) == pathlib.Path("x" * 5000)
  path = pathlib.PurePath(APART, "1.png")
  assert people.identity_name(path) == COMPOSED
  assert index.person_of(path, "parent", "_") == COMPOSED


def test_names_that_are_no_utf8_are_left_out(tmp_path):
  touch(tmp_path, "a.png")
  try:
    os.mkdir(os.fsencode(tmp_path) + b"/zo\xeb")
  except OSError:
    pytest.skip("this file system takes no such names")
  found = listing.find(tmp_path, KINDS)
  assert [str(f) for f in found.files] == ["a.png"]
  ((name, reason),) = found.left
  assert reason == listing.UNNAMED and name.encode()


def test_a_summary_names_the_reasons():
  left = [(f"{i}.png", f"{i}.png: is {i}x{i} pixels (a)") for i in range(5)]
  left += [("x", "hidden")]
  assert listing.summary(left) == (
    "5 is 0x0 pixels (a) (0.png, 1.png, 2.png, ...); 1 hidden (x)"
  )
  many = [(str(i), chr(97 + i)) for i in range(9)]
  assert listing.summary(many).endswith("1 f (5); 3 for other reasons")


def portrait(path):
  identity = fake_world.sample_identity(1, 3)
  frame = fake_world.sample_frame(1, 3, 0)
  (example,) = fake_world.render_frames(identity, [frame], 40)
  images.write_image(path, example["image"])


def command(folder, output, *more):
  return prepare.main(
    ["image_folder", f"--input={folder}", f"--output={output}", "--size=16",
     "--holdout=0", "--splits=train", *more]
  )  # fmt: skip


def test_a_linked_person_is_taken(tmp_path, capsys):
  """D1-symlinks of the field cases."""
  for person in ("anna", "ben"):
    for number in (1, 2, 3):
      portrait(tmp_path / f"real/{person}/{number}.png")
  photos = tmp_path / "photos"
  photos.mkdir()
  (photos / "anna").symlink_to("../real/anna")
  (photos / "ben").symlink_to("../real/ben")
  assert command(photos, tmp_path / "out") == 0
  said = capsys.readouterr().out
  assert "found 6 pictures of 2 people; left out none" in said
  assert "train: took 6 of 6 pictures" in said
  assert len(records.RecordSource(tmp_path / "out/train")) == 6


def test_names_of_another_form_have_their_points(tmp_path, capsys):
  """C2-nfd of the field cases."""
  photos = tmp_path / "photos"
  portrait(photos / f"{APART}_1.png")
  portrait(photos / APART / "1.png")
  numbers = ",".join(map(str, (align.CANONICAL5 * 40.0).ravel()))
  names = (f"{COMPOSED}_1.png", f"{COMPOSED}/1.png")
  table = "\n".join(f"{name},{numbers}" for name in names)
  (tmp_path / "points.csv").write_text(table, encoding="utf-8")
  points = f"--landmarks={tmp_path / 'points.csv'}"
  assert command(photos, tmp_path / "out", points) == 0
  assert "took 2 of 2 pictures; left out none" in capsys.readouterr().out
  # Both are of one person.
  source = records.RecordSource(tmp_path / "out/train")
  assert set(source.column("identity").tolist()) == {0}


@pytest.mark.shared
def test_the_field_case_of_names(shared, tmp_path, capsys):
  case = shared / "field_cases/C2-nfd"
  points = f"--landmarks={case / 'points.csv'}"
  assert command(case / "photos", tmp_path / "out", points) == 0
  assert "took 2 of 2 pictures; left out none" in capsys.readouterr().out


@pytest.mark.parametrize(
  "lose, reason",
  [
    (lambda path: path.mkdir(), "left out none"),
    (lambda path: path.symlink_to("nowhere"), "1 a link to nothing (anna)"),
    (lambda path: path.write_text("ben"), "turned into a text file (anna)"),
    (
      lambda path: touch(path, "1.heic", "2.heic"),
      "2 of another kind (.heic) (anna/1.heic, anna/2.heic)",
    ),
  ],
)
def test_a_person_of_whom_nothing_is_left(tmp_path, lose, reason, capsys):
  portrait(tmp_path / "photos/ben/1.png")
  lose(tmp_path / "photos/anna")
  assert command(tmp_path / "photos", tmp_path / "out") == 1
  said = capsys.readouterr()
  assert reason in said.out
  assert "nothing is left of 'anna' (train)" in said.err
  # The others are there.
  assert len(records.RecordSource(tmp_path / "out/train")) == 1


def test_damaged_pictures_of_a_person_and_empty_splits(tmp_path, capsys):
  for name in ("ben/1.png", "anna/1.png", "anna/2.png"):
    portrait(tmp_path / "photos" / name)
  for name in ("1.png", "2.png"):
    (tmp_path / "photos/anna" / name).write_text("no picture")
  touch(tmp_path / "photos", "points.csv", "tables/a.txt")
  assert command(tmp_path / "photos", tmp_path / "out") == 1
  said = capsys.readouterr()
  assert "1 of 3 pictures; left out 2 is not a picture" in said.out
  assert said.err.count("\n") == 1 and "'anna' (train)" in said.err
  assert "tables" not in said.err
  more = "--splits=train,test"
  assert command(tmp_path / "photos", tmp_path / "two", more) == 1
  assert command(tmp_path / "photos", tmp_path / "three", "--holdout=.9") == 1


@pytest.mark.parametrize(
  "arguments",
  [
    ["image_folder"],
    ["image_folder", "--input=x", "--output=y", "--size=x"],
    ["image_folder", "--input=x", "--output=y", "--size=0"],
    ["image_folder", "--input=x", "--output=y", "--size=9999999"],
    ["image_folder", "--input=x", "--output=y", "--holdout=nan"],
    ["image_folder", "--input=x", "--output=y", "--landmarks=/nowhere"],
    ["image_folder", "--input=x", "--output=y", "--other=1"],
    ["videos", "--input=x", "--output=y", "--identity=no"],
    ["videos", "--input=x\0y", "--output=y"],
    ["pictures"],
    [],
  ],
)
def test_mistakes_on_the_command_line_are_one_line(arguments, capsys):
  try:
    code = prepare.main(arguments)
  except SystemExit as done:
    code = done.code
  said = capsys.readouterr().err
  assert code in (1, 2) and said.startswith("error: ")
  assert said.count("\n") == 1


def test_split_folders_are_not_mixed(tmp_path, capsys):
  portrait(tmp_path / "photos/train/ben/1.png")
  portrait(tmp_path / "photos/val/cleo/1.png")
  splits = "--splits=train,validation,test"
  assert command(tmp_path / "photos", tmp_path / "out", splits) == 1
  said = capsys.readouterr().err
  assert "has a folder train, val, but none for the split 'test'" in said
  for split, person in (("train", "ben"), ("validation", "cleo")):
    (file,) = [
      example["file"]
      for example in records.RecordSource(tmp_path / "out" / split)
    ]
    assert file == f"{person}/1.png"
  assert not (tmp_path / "out/test").exists()


@pytest.mark.shared
def test_the_field_case(shared, tmp_path, capsys):
  folder = shared / "field_cases/D1-symlinks"
  photos = tmp_path / "photos"
  photos.mkdir()
  (photos / "anna").symlink_to(folder / "real/anna")
  (photos / "ben").symlink_to(folder / "real/ben")
  assert command(photos, tmp_path / "out") == 0
  assert "found 6 pictures of 2 people" in capsys.readouterr().out
