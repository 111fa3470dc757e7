"""Pictures that cannot be read are found before they are needed."""

import json
import os
import pathlib

import numpy as np
import pytest

from data_pipelines import broken_pictures, images, sources
from data_pipelines.sources import image_folder


@pytest.fixture
def faces(tmp_path, monkeypatch, rng):
  """Two domains of six pictures each; one of them is cut short."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  top = tmp_path / "faces"
  for split, domain in (("train", "bare"), ("train", "hat"), ("val", "bare")):
    for number in range(6):
      picture = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
      images.write_image(top / split / domain / f"{number}.jpg", picture)
  cut(top / "train" / "bare" / "3.jpg")
  return top


def cut(path):
  """Leaves the first 600 bytes of a file."""
  path.write_bytes(path.read_bytes()[:600])


def files_of(folder):
  return [pathlib.PurePath(p) for p in images.list_images(folder).files]


def count_reads(monkeypatch):
  """The names of the files that are decoded from now on."""
  read, names = images.read_image, []

  def counted(path, *arguments):
    names.append(pathlib.Path(path).name)
    return read(path, *arguments)

  monkeypatch.setattr(images, "read_image", counted)
  return names


@pytest.mark.parametrize("kind", ["domain_folder", "image_folder"])
def test_they_are_named_before_anything_is_read(faces, tmp_path, kind):
  opened = {
    "domain_folder": sources.DomainFolder(16, folder="faces"),
    "image_folder": sources.ImageFolder(16, folder="faces"),
  }[kind]
  with pytest.raises(images.ImageError) as error:
    opened.open(tmp_path, "train")
  text = str(error.value)
  kept = faces / "train" / broken_pictures.NAME
  assert text == (
    f"{faces}/train: 1 of 12 pictures cannot be read, first bare/3.jpg is "
    f"damaged or cut short (JPEG without its end) (list: {kept}); mend or "
    "remove them, or leave them out with `source.broken='skip'`"
  )
  listed = json.loads(kept.read_text())
  assert list(listed["broken"]) == ["bare/3.jpg"] and len(listed["good"]) == 11
  with pytest.raises(images.ImageError, match="1 of 12 pictures"):
    opened.check(tmp_path)


def test_or_left_out_and_counted(faces, tmp_path, capsys):
  opened = sources.DomainFolder(16, folder="faces", broken="skip")
  source = opened.open(tmp_path, "train")
  assert len(source) == 11
  names = [source[i]["file"] for i in range(11)]
  assert "bare/3.jpg" not in names and "bare/4.jpg" in names
  assert source.attribute_table().sum() == 6
  opened.open(tmp_path, "train")
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1  # once
  assert "1 of 12 pictures cannot be read and are left out" in lines[0]
  people = sources.ImageFolder(16, folder="faces", broken="skip")
  source = people.open(tmp_path, "train")
  assert len(source) == 11
  assert source.column("identity").tolist() == 5 * [0] + 6 * [1]
  assert source.column("frame").tolist() == [*range(5), *range(6)]
  assert len([source[i] for i in range(11)]) == 11


def test_or_found_when_they_are_read(faces, tmp_path):
  opened = sources.DomainFolder(16, folder="faces", broken="unchecked")
  source = opened.open(tmp_path, "train")
  assert len(source) == 12 and not list(faces.rglob(".*"))
  with pytest.raises(images.ImageError, match=r"bare/3.jpg: is damaged or cut"):
    source[3]


def test_what_was_sound_is_not_decoded_again(faces, monkeypatch):
  names = count_reads(monkeypatch)
  folder = faces / "train" / "hat"
  files = files_of(folder)
  assert broken_pictures.check(folder, files)[0] == {}
  assert sorted(names) == [f"{i}.jpg" for i in range(6)]
  names.clear()
  assert broken_pictures.check(folder, files)[0] == {}
  assert names == []
  cut(folder / "2.jpg")
  images.write_image(folder / "new.jpg", np.zeros((20, 20, 3), np.uint8))
  for _ in range(2):  # what is wrong is looked at again
    names.clear()
    found, kept = broken_pictures.check(folder, files_of(folder))
    assert list(found) == ["2.jpg"] and kept == folder / broken_pictures.NAME
    assert "2.jpg" in names and len(names) <= 2
  # Mended, with the same size and time as the sound one had.
  images.write_image(folder / "2.jpg", np.zeros((20, 20, 3), np.uint8))
  assert broken_pictures.check(folder, files_of(folder))[0] == {}
  # One that is gone between listing and checking.
  (folder / "0.jpg").unlink()
  found, _ = broken_pictures.check(folder, files)
  assert found == {"0.jpg": "no such file"}


def test_splits_of_one_folder_share_a_list(faces, monkeypatch):
  names, folder = count_reads(monkeypatch), faces / "train"
  files = files_of(folder)
  for part in (files[:5], files[5:], files):
    broken_pictures.check(folder, part)
  assert len(names) == 12 + 1  # the broken one twice


def test_a_folder_that_may_not_be_written(faces, tmp_path, monkeypatch):
  """Not even by root, as whom containers run."""
  folder, names = faces / "train" / "hat", count_reads(monkeypatch)
  folder.chmod(0o555)
  try:
    for _ in range(2):
      found, kept = broken_pictures.check(folder, files_of(folder))
      assert found == {} and tmp_path / "cache" in kept.parents
      assert len(names) == 6
    assert not [p for p in folder.iterdir() if p.suffix != ".jpg"]
    # A list that came with the folder may be older than that in the cache.
    folder.chmod(0o755)
    (folder / broken_pictures.NAME).write_text('{"version": 1}')
    cut(folder / "1.jpg")
    found, _ = broken_pictures.check(folder, files_of(folder))
    assert list(found) == ["1.jpg"] and len(names) == 7
  finally:
    folder.chmod(0o755)


def test_no_place_for_a_list(faces, monkeypatch):
  def refused(path, *arguments, **options):
    raise OSError(30, "Read-only file system")

  monkeypatch.setattr(pathlib.Path, "write_text", refused)
  folder = faces / "train"
  files = files_of(folder)
  found, kept = broken_pictures.check(folder, files)
  assert list(found) == ["bare/3.jpg"] and kept is None
  with pytest.raises(images.ImageError, match="cannot be read, first bare/3"):
    broken_pictures.usable(folder, files, "refuse")


@pytest.mark.parametrize(
  "text", ["", "{", "[]", '{"version": 0}', '{"version": 1, "good": 3}']
)
def test_a_list_that_is_none(faces, text):
  folder = faces / "train" / "hat"
  (folder / broken_pictures.NAME).write_text(text)
  assert broken_pictures.check(folder, files_of(folder))[0] == {}


def test_many_are_counted_and_the_first_named(faces, tmp_path):
  for path in (faces / "train" / "hat").iterdir():
    cut(path)
  with pytest.raises(images.ImageError) as error:
    sources.DomainFolder(16, folder="faces").open(tmp_path, "train")
  text = str(error.value)
  assert "7 of 12 pictures cannot be read, first bare/3.jpg" in text
  assert "hat/1.jpg" in text and "hat/2.jpg" not in text and "\n" not in text
  with pytest.raises(ValueError, match="train/hat: not one picture can be"):
    sources.DomainFolder(16, folder="faces", broken="skip").open(tmp_path)
  cut(faces / "val" / "bare" / "0.jpg")
  with pytest.raises(images.ImageError, match="not one of 1 pictures"):
    broken_pictures.usable(
      faces / "val" / "bare", [pathlib.PurePath("0.jpg")], "skip"
    )


def test_one_that_breaks_later_is_found_by_the_next_check(faces, tmp_path):
  """Even where its size and time of change stay, as with a bad disk."""
  opened = sources.ImageFolder(16, folder="faces", broken="skip")
  source = opened.open(tmp_path, "train")
  path = faces / "train" / "hat" / "5.jpg"
  stat = path.stat()
  path.write_bytes(b"\0" * stat.st_size)
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
  with pytest.raises(images.ImageError, match="hat/5.jpg: is not a picture"):
    source[len(source) - 1]
  assert len(opened.open(tmp_path, "train")) == len(source) - 1


def test_every_source_of_picture_files_checks(faces, tmp_path):
  """Sources that read files of people's own; a new one must join."""
  folders = [
    kind
    for kind in sources.KINDS.values()
    if "broken" in getattr(kind, "__dataclass_fields__", {})
  ]
  assert folders == [sources.ImageFolder, sources.DomainFolder]
  assert image_folder.ImageFolder(8).broken == "refuse"
  for kind in folders:
    with pytest.raises(images.ImageError, match="cannot be read"):
      kind(size=16, folder="faces").check(tmp_path)


@pytest.mark.shared
def test_the_folder_of_the_report(shared, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  top = shared / "field_cases" / "P8-cut-in-training"
  faces = sources.DomainFolder(64, folder="faces")
  with pytest.raises(images.ImageError, match="24 pictures .* bare/3.jpg is"):
    faces.check(top)
  kept = sources.DomainFolder(64, folder="faces", broken="skip").open(top)
  assert len(kept) == 23
