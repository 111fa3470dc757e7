"""Folders of portraits: prepared, and read as they are."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from data_pipelines import (
  align,
  detectors,
  folder,
  images,
  prepare,
  records,
  samplers,
  sources,
)
from data_pipelines.detectors import registry
from data_pipelines.sources import people
from tests import beads
from tests.data_pipelines import fake_world


@pytest.fixture
def portraits(tmp_path):
  """Three people with two good pictures each, and one of each bad kind."""
  top, table = tmp_path / "faces", {}
  for person in "abc":
    for frame in range(2):
      identity = fake_world.sample_identity(1, ord(person))
      drawn = fake_world.sample_frame(1, ord(person), frame)
      size = 40 + 20 * frame
      (example,) = fake_world.render_frames(identity, [drawn], size)
      images.write_image(top / person / f"{frame}.png", example["image"])
      table[f"{person}/{frame}.png"] = (align.CANONICAL5 * size).tolist()
  gray = np.full((30, 30), 99, np.uint8)
  images.write_image(top / "a" / "gray.png", gray)
  images.write_image(top / "b" / "tiny.png", gray[:5, :5])
  (top / "b" / "text.jpg").write_text("no picture")
  data = (top / "c" / "0.png").read_bytes()
  (top / "c" / "cut.png").write_bytes(data[: len(data) // 2])
  (tmp_path / "points.json").write_text(json.dumps(table))
  return top


def test_folder_without_landmarks(portraits, tmp_path):
  report = folder.prepare_folder(
    portraits, tmp_path / "out", 24, holdout=0.0, progress=False
  )
  assert report.written == 7
  skipped = dict(report.skipped)
  assert sorted(skipped) == ["b/text.jpg", "b/tiny.png", "c/cut.png"]
  assert "5x5" in skipped["b/tiny.png"] and "cut short" in skipped["c/cut.png"]
  source = sources.ArrayRecord().open(tmp_path / "out", "train")
  assert len(source) == 7 and source[0]["image"].shape == (24, 24, 3)
  people = [source[i]["file"].split("/")[0] for i in range(7)]
  numbers = dict(zip(people, source.column("identity").tolist(), strict=True))
  assert sorted(numbers) == ["a", "b", "c"] and len(set(numbers.values())) == 3
  again = folder.prepare_folder(
    portraits, tmp_path / "out", 24, holdout=0.0, progress=False
  )
  assert again.skipped == report.skipped and again.written == 7


def test_folder_with_landmarks(portraits, tmp_path):
  report = folder.prepare_folder(
    portraits,
    tmp_path / "out",
    32,
    holdout=0.0,
    landmarks_file=tmp_path / "points.json",
    progress=False,
  )
  assert report.written == 6
  assert "not in the landmarks file" in dict(report.skipped)["a/gray.png"]
  source = records.RecordSource(tmp_path / "out" / "train")
  for i in range(6):
    assert np.allclose(source[i]["landmarks5"], align.CANONICAL5, atol=1e-5)


def test_better_landmarks_make_another_set(portraits, tmp_path):
  good = tmp_path / "points.json"
  bad = tmp_path / "wrong.json"
  bad.write_text(good.read_text().replace("/0.png", "/8.png"))
  table = json.loads(bad.read_text())
  bad.write_text(json.dumps({f"x{name}": p for name, p in table.items()}))

  def prepared(points):
    return folder.prepare_folder(
      portraits,
      tmp_path / "out",
      16,
      holdout=0.0,
      landmarks_file=points,
      progress=False,
    )

  for _ in range(2):  # nothing of the failure stays behind
    with pytest.raises(records.RecordError, match="not one of"):
      prepared(bad)
  assert prepared(good).written == 6
  table = json.loads(good.read_text())
  del table["a/0.png"]
  bad.write_text(json.dumps(table))
  with pytest.raises(records.RecordError, match="a different set .*content"):
    prepared(bad)


def test_folder_with_detector_and_annotations(portraits, tmp_path):
  def detector(image):
    if image.shape[0] == 60:
      return None
    return align.CANONICAL5 * image.shape[0]

  def annotate(image, points):
    return {"mean": np.float32(image.mean()), "points": points * 2}

  report = folder.prepare_folder(
    portraits,
    tmp_path / "out",
    16,
    holdout=0.0,
    detector=detector,
    annotate=annotate,
    progress=False,
  )
  assert report.written == 4
  assert "no face found" in dict(report.skipped)["a/1.png"]
  example = records.RecordSource(tmp_path / "out" / "train")[0]
  assert example["mean"] == np.float32(example["image"].mean())


def scans(top):
  """Photos of heads: upright, on their side, two in one, none, one cut."""
  head = (60.0, 50.0, 70.0, 0.0)
  upright, _ = beads.heads(100, 120, head)
  pictures = {
    "a_1": upright,
    "a_2": np.rot90(upright),
    "b_1": np.rot90(upright, 2),
    "b_2": beads.heads(100, 220, head, (150.0, 50.0, 90.0, 5.0))[0],
    "c_1": beads.noise(),
    "c_2": beads.heads(100, 100, (50.0, 98.0, 90.0, 0.0))[0],
  }
  for name, picture in pictures.items():
    images.write_image(top / f"{name}.png", np.ascontiguousarray(picture))
  return top


def test_scans_are_turned_counted_or_refused(tmp_path):
  top = scans(tmp_path / "in")
  finder = detectors.Finder(beads.BeadDetector(), "beads")
  report = folder.prepare_folder(
    top, tmp_path / "out", 48, holdout=0.0, detector=finder, progress=False
  )
  assert report.written == 4 and report.several == 1
  skipped = dict(report.skipped)
  assert sorted(skipped) == ["c_1.png", "c_2.png"]
  assert all("no face found by beads" in why for why in skipped.values())
  source = records.RecordSource(tmp_path / "out" / "train")
  assert source.metadata["settings"]["landmarks"] == "beads"
  examples = [source[i] for i in range(4)]
  assert sorted(int(example["faces"]) for example in examples) == [1, 1, 1, 2]
  for example in examples:  # all stand upright, where the template wants them
    (points,) = beads.read_beads(example["image"])
    assert np.abs(points / 48 - align.CANONICAL5).max() < 0.03
    assert np.abs(example["landmarks5"] - align.CANONICAL5).max() < 0.03


def test_command_with_a_detector(tmp_path, monkeypatch, capsys):
  top = scans(tmp_path / "in")
  file = tmp_path / "mine.py"
  file.write_text("from tests.beads import BeadDetector\ndetect=BeadDetector()")
  command = [
    "image_folder",
    f"--input={top}",
    f"--output={tmp_path / 'out'}",
    "--size=32",
    "--holdout=0",
    "--splits=train",
  ]
  # Nothing is left of one person, which is said at the end.
  assert prepare.main([*command, f"--detector={file}"]) == 1
  printed, said = capsys.readouterr()
  assert "nothing is left of 'c' (train)" in said
  assert "pictures are aligned by the detector mine.py\n" in printed
  assert "took 4 of 6 pictures; left out 2 no face found" in printed
  assert "1 of them show several faces; the largest was taken" in printed
  # What was made otherwise is another set.
  assert prepare.main([*command, "--detector=none"]) == 1
  assert "a different set" in capsys.readouterr().err
  assert prepare.main([*command, "--detector=mtcn"]) == 1
  assert "--detector=mtcn: no such detector" in capsys.readouterr().err
  missing = registry.Entry("no_such_module_at_all", None, "pip install it")
  monkeypatch.setattr(registry, "DETECTORS", {"gone": missing})
  command[2] = f"--output={tmp_path / 'centre'}"
  assert prepare.main(command) == 0
  printed = capsys.readouterr().out
  assert "cut square (gone is not installed: pip install it)" in printed
  assert "took 6 of 6 pictures; left out none" in printed
  # A detector of one's own also serves pictures that the points leave out.
  (_, points) = beads.heads(10, 10, (60.0, 50.0, 70.0, 0.0))
  table = tmp_path / "points.json"
  table.write_text(json.dumps({"a_1": points[0].tolist()}))
  command[2] = f"--output={tmp_path / 'both'}"
  command.append(f"--landmarks={table}")
  assert prepare.main([*command, f"--detector={file}"]) == 1
  printed = capsys.readouterr().out
  assert f"by the points of {table}, else by the detector mine.py" in printed
  assert "took 4 of 6" in printed
  command[2] = f"--output={tmp_path / 'points'}"
  assert prepare.main(command) == 1
  assert "took 1 of 6 pictures" in capsys.readouterr().out


def test_folder_of_rubbish(tmp_path):
  (tmp_path / "in").mkdir()
  (tmp_path / "in" / "x.png").write_text("nothing")
  with pytest.raises(records.RecordError, match="not one of 1 pictures"):
    folder.prepare_folder(
      tmp_path / "in", tmp_path / "out", 16, holdout=0.0, progress=False
    )


def test_folder_as_source(portraits, tmp_path):
  for name in ("b/tiny.png", "b/text.jpg", "c/cut.png", "a/gray.png"):
    (portraits / name).unlink()
  faces = sources.ImageFolder(20, holdout=0.0)
  source = faces.open(portraits)
  assert len(source) == 6 and source[5]["image"].shape == (20, 20, 3)
  assert source.column("identity").tolist() == [0, 0, 1, 1, 2, 2]
  example = samplers.PairSource(source)[3]
  assert example["identity"] == example["pair_identity"]
  assert example["frame"] != example["pair_frame"]
  points = dataclasses.replace(faces, landmarks=str(tmp_path / "points.json"))
  assert np.allclose(
    points.open(portraits)[1]["landmarks5"],
    align.CANONICAL5,
    atol=1e-5,
  )
  images.write_image(portraits / "a" / "new.png", np.zeros((20, 20), np.uint8))
  with pytest.raises(
    sources.SourceError, match="no landmarks for 1 of 7 .*new.png: not in"
  ):
    points.open(portraits)


def test_people_are_held_out_whole():
  splits = [people.held_out_split(f"person {i}", 0.2) for i in range(3000)]
  share = {s: splits.count(s) / 3000 for s in set(splits)}
  assert abs(share["train"] - 0.8) < 0.03
  assert abs(share["test"] - 0.1) < 0.02
  assert people.identity_name(pathlib.PurePath("012_smile.jpg")) == "012"
  assert people.identity_name(pathlib.PurePath("anna/1.jpg")) == "anna"
  assert people.identity_name(pathlib.PurePath("anna.jpg")) == "anna"


def test_command_aligns(portraits, tmp_path, capsys):
  command = [
    "image_folder",
    f"--input={portraits}",
    f"--output={tmp_path / 'out'}",
    "--size=16",
    "--holdout=0",
    "--splits=train",
  ]
  assert prepare.main(command) == 0
  said = capsys.readouterr().out
  assert "found 10 pictures of 3 people; left out none" in said
  assert "train: took 7 of 10 pictures; left out 1 is not a picture" in said
  for wrong, message in (
    ("--splits=trian", "--splits=trian; wanted some of train,validation"),
    ("--holdout=1", "--holdout=1.0; wanted 0 up to below 1"),
  ):
    assert prepare.main([*command, wrong]) == 1
    assert message in capsys.readouterr().err
  command[1] = "--input=/nowhere"
  assert prepare.main(command) == 1
  assert "no such folder" in capsys.readouterr().err


@pytest.mark.shared
def test_real_portraits(shared, tmp_path):
  top = shared / "data" / "london_ccby"
  faces = sources.ImageFolder(48, "img", landmarks=str(top / "landmarks5.npz"))
  source = samplers.TakeSource(faces.open(top), 4)
  assert len(source) == 4
  example = source[2]
  assert example["image"].shape == (48, 48, 3)
  assert np.abs(example["landmarks5"] - align.CANONICAL5).max() < 0.05
  report = folder.prepare_folder(
    top / "img",
    tmp_path,
    48,
    "test",
    0.1,
    top / "landmarks5.npz",
    progress=False,
  )
  assert report.written > 0 and not report.skipped
