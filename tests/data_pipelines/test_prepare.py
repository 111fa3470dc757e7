"""Preparing sets: drawing, resuming, folders of portraits, the command."""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from data_pipelines import (
  align,
  folder,
  images,
  prepare,
  records,
  sources,
)
from data_pipelines.synthetic_heads import attribute_set, generate, pairs
from tests.data_pipelines import fake_world

WORLD = "tests.data_pipelines.fake_world"
TINY = prepare.SyntheticSet(
  size=16,
  identities=9,
  frames=2,
  validation_identities=0,
  test_identities=1,
  pairs=2,
  swaps=1,
  attributes=("Bangs", "Smiling"),
  edits=34,
  world=WORLD,
)


def _equal(a, b):
  return set(a) == set(b) and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp("heads")
  prepare.prepare_synthetic(path, TINY, processes=0, progress=False)
  return path


def test_generated_split(data_dir):
  source = sources.open_source("synthetic_heads", data_dir, "train")
  assert len(source) == 18
  assert source.column("identity").tolist() == sorted(list(range(9)) * 2)
  identity = fake_world.sample_identity(0, 4)
  frame = fake_world.sample_frame(0, 4, 1)
  (wanted,) = fake_world.render_frames(identity, [frame], 16)
  assert _equal(source[9], wanted)
  online = sources.open_source(
    {
      "source": "online",
      "size": 16,
      "identities": 9,
      "frames": 2,
      "world": WORLD,
    },
    data_dir,
  )
  assert len(online) == 18 and _equal(online[9], wanted)
  assert np.array_equal(online.column("identity"), source.column("identity"))


def test_splits_share_no_person(data_dir):
  people = {
    split: set(
      sources.open_source("synthetic_heads", data_dir, split).column("identity")
    )
    for split in ("train", "test")
  }
  assert people["train"].isdisjoint(people["test"])


def test_processes_draw_the_same_set(data_dir, tmp_path):
  metadata = generate.generate(
    tmp_path, "train", 9, 2, 16, processes=2, progress=False, world=WORLD
  )
  assert metadata["examples"] == 18
  one = records.RecordSource(data_dir / "train")
  two = records.RecordSource(tmp_path / "train")
  assert all(_equal(one[i], two[i]) for i in range(18))


def test_generation_continues_with_the_missing_shards(data_dir, tmp_path):
  generate.generate(
    tmp_path, "train", 9, 2, 16, processes=0, progress=False, world=WORLD
  )
  path = tmp_path / "train"
  metadata = json.loads((path / "metadata.json").read_text())
  metadata["complete"] = False
  (path / "metadata.json").write_text(json.dumps(metadata))
  files = sorted(path.glob("*.array_record"))
  kept = {f.name: f.stat().st_mtime_ns for f in files[1:]}
  files[0].unlink()
  generate.generate(
    tmp_path, "train", 9, 2, 16, processes=0, progress=False, world=WORLD
  )
  again = {f.name: f.stat().st_mtime_ns for f in files[1:]}
  assert again == kept
  one = records.RecordSource(data_dir / "train")
  assert all(_equal(one[i], records.RecordSource(path)[i]) for i in range(18))


def test_shards_cover_all_people_once():
  settings = generate.Settings("train", (5, 5 + 1237), 3, 64)
  parts = [settings.shard_identities(i) for i in range(settings.shards)]
  assert [p for part in parts for p in part] == list(range(5, 5 + 1237))
  with pytest.raises(ValueError, match="at least one identity"):
    generate.Settings("train", (5, 5), 3, 64)
  with pytest.raises(ValueError, match="no range of its own"):
    generate.generate("x", "mine", 3, 1, 16)


def test_pairs_change_everything_but_person_and_camera(data_dir):
  source = sources.open_source("synthetic_heads", data_dir, "pairs")
  assert len(source) == 2
  example = source[1]
  assert example["source_identity"] != example["query_identity"]
  for name in ("shape", "albedo", "camera"):
    key = f"truth_{name}"
    assert np.array_equal(example[key], example[f"source_{name}"])
    assert not np.array_equal(example[key], example[f"query_{name}"])
  for name in ("pose", "expression", "light"):
    key = f"truth_{name}"
    assert np.array_equal(example[key], example[f"query_{name}"])
    assert not np.array_equal(example[key], example[f"source_{name}"])


def test_swaps_take_one_thing_from_the_query(data_dir):
  example = sources.open_source("synthetic_heads", data_dir, "swaps")[0]
  # The discs' albedo is their hair.
  key = "hair_truth_albedo"
  assert np.array_equal(example[key], example["query_albedo"])
  assert np.array_equal(example["hair_truth_pose"], example["source_pose"])
  for name in ("clothes_truth_", "background_truth_"):
    assert np.array_equal(example[name + "albedo"], example["source_albedo"])
  with pytest.raises(ValueError, match="wanted pairs or swaps"):
    pairs.PairSettings("train", 1, 16)


def test_attribute_edits_change_one_attribute(data_dir):
  source = sources.open_source("synthetic_heads", data_dir, "attributes")
  assert len(source) == 34 and source.metadata["shards"] == 2
  names = source.metadata["settings"]["attributes"]
  assert names == ["Bangs", "Smiling"]
  assert source.column("attribute").tolist() == [0, 1] * 17
  assert set(source.column("target")) == {0, 1}
  people = source.column("source_identity")
  assert len(set(people)) == 34 and people.min() >= 5_000_000
  for index in range(34):
    example = source[index]
    name, target = names[example["attribute"]], int(example["target"])
    place = fake_world.ATTRIBUTE_NAMES.index(name)
    assert example["source_attributes"][place] == 1 - target
    person = fake_world.sample_identity(0, int(people[index]))
    frame = fake_world.sample_frame(0, int(people[index]), 0)
    assert fake_world.can_edit(person, name)
    for draw in range(8):
      edit = fake_world.attribute_counterfactual(
        person, frame, name, target, draw
      )
      (wanted,) = fake_world.render_frames(edit[0], [edit[1]], 16)
      truth = example[f"truth{draw}_image"]
      assert np.array_equal(truth, wanted["image"])
      assert not np.array_equal(truth, example["source_image"])
  with pytest.raises(ValueError, match="Young of .*; wanted some of Smiling"):
    attribute_set.AttributeSettings(("Young",), 1, 16, world=WORLD)
  with pytest.raises(ValueError, match="attributes .* of the split"):
    attribute_set.AttributeSettings((), 1, 16, world=WORLD)


def test_attribute_edits_are_part_of_a_set(tmp_path):
  data = {
    "source": "synthetic_heads",
    "identities": 1,
    "frames": 1,
    "test_identities": 0,
    "validation_identities": 0,
    "pairs": 0,
    "swaps": 0,
    "attributes": ["Smiling"],
    "edits": 2,
    "world": WORLD,
  }
  options = dict(processes=0, progress=False)
  assert prepare.ensure(data, tmp_path, 16, **options)
  assert not prepare.ensure(data, tmp_path, 16, **options)
  for change, message in (
    ({"edits": 3}, "count: 2 there, 3 wanted"),
    ({"attributes": ("Bangs",)}, r"attributes: \['Smiling'\] there"),
  ):
    with pytest.raises(records.RecordError, match=message):
      prepare.ensure({**data, **change}, tmp_path, 16, **options)
  assert not prepare.ensure({**data, "edits": 0}, tmp_path, 16, **options)


def test_ensure(tmp_path):
  data = {
    "source": "synthetic_heads",
    "batch_size": 4,
    "identities": 2,
    "frames": 2,
    "test_identities": 1,
    "validation_identities": 0,
    "pairs": 1,
    "swaps": 0,
    "world": WORLD,
  }
  options = dict(processes=0, progress=False)
  assert prepare.ensure(data, tmp_path, 16, **options)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
  assert not prepare.ensure(data, tmp_path, 16, **options)
  assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
  # What a config leaves open, the set may decide.
  assert not prepare.ensure(
    {"source": "synthetic_heads", "swaps": 0, "validation_identities": 0},
    tmp_path,
    16,
    **options,
  )
  for change, message in (
    ({"identities": 3}, r"identities: \[0, 2\] there"),
    ({"frames": 5}, "frames: 2 there, 5 wanted"),
    ({"size": 32}, "size: 16 there, 32 wanted"),
  ):
    with pytest.raises(records.RecordError, match=message):
      prepare.ensure({**data, **change}, tmp_path, 16, **options)
  assert not prepare.ensure({"source": "image_folder"}, tmp_path / "x")
  assert not (tmp_path / "x").exists()


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
  source = sources.open_source("array_record", tmp_path / "out", "train")
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
  spec = {"source": "image_folder", "size": 20, "holdout": 0.0}
  source = sources.open_source(spec, portraits)
  assert len(source) == 6 and source[5]["image"].shape == (20, 20, 3)
  assert source.column("identity").tolist() == [0, 0, 1, 1, 2, 2]
  paired = sources.open_source({**spec, "paired": True}, portraits)
  example = paired[3]
  assert example["identity"] == example["pair_identity"]
  assert example["frame"] != example["pair_frame"]
  points = {**spec, "landmarks": tmp_path / "points.json"}
  assert np.allclose(
    sources.open_source(points, portraits)[1]["landmarks5"],
    align.CANONICAL5,
    atol=1e-5,
  )
  images.write_image(portraits / "a" / "new.png", np.zeros((20, 20), np.uint8))
  with pytest.raises(sources.SourceError, match="no landmarks for 1 of 7"):
    sources.open_source(points, portraits)


def test_people_are_held_out_whole():
  splits = [sources.held_out_split(f"person {i}", 0.2) for i in range(3000)]
  share = {s: splits.count(s) / 3000 for s in set(splits)}
  assert abs(share["train"] - 0.8) < 0.03
  assert abs(share["test"] - 0.1) < 0.02
  assert sources.identity_name(pathlib.PurePath("012_smile.jpg")) == "012"
  assert sources.identity_name(pathlib.PurePath("anna/1.jpg")) == "anna"
  assert sources.identity_name(pathlib.PurePath("anna.jpg")) == "anna"


def test_unknown_sources(tmp_path):
  with pytest.raises(sources.SourceError, match="unknown source 'web'"):
    sources.open_source("web", tmp_path)
  with pytest.raises(sources.SourceError, match="needs `size`"):
    sources.open_source("online", tmp_path)
  with pytest.raises(sources.SourceError, match="no `source`"):
    sources.open_source({"batch_size": 3}, tmp_path)
  with pytest.raises(records.RecordError, match="data_pipelines.prepare"):
    sources.open_source("synthetic_heads", tmp_path)


def test_command_draws(tmp_path, capsys):
  command = [
    "synthetic_heads",
    f"--data_dir={tmp_path}",
    "--size=16",
    "--identities=2",
    "--frames=1",
    "--splits=train,test,attributes",
    "--test_identities=1",
    "--attributes=Bangs,Smiling",
    "--edits=3",
    "--processes=0",
    f"--world={WORLD}",
  ]
  assert prepare.main(command) == 0
  assert f"{tmp_path}/attributes: 3 examples" in capsys.readouterr().out
  command[2] = "--size=24"
  assert prepare.main(command) == 1
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith("error:") and "size: 16 there, 24 wanted" in error


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
  assert "7 examples, 3 pictures skipped" in capsys.readouterr().out
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
  source = sources.open_source(
    {
      "source": "image_folder",
      "size": 48,
      "landmarks": top / "landmarks5.npz",
      "folder": "img",
      "limit": 4,
    },
    top,
  )
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


@pytest.mark.slow
def test_builder(tmp_path):
  pytest.importorskip("tensorflow")
  from data_pipelines.synthetic_heads import builder

  config = builder.SyntheticHeadsConfig(
    name="tiny", size=16, identities=2, frames=2, world=WORLD
  )
  made = builder.SyntheticHeads(data_dir=str(tmp_path), config=config)
  made.download_and_prepare()
  source = sources.open_source("tfds:synthetic_heads/tiny", tmp_path, "train")
  assert len(source) == 4
  assert source.attribute_names == fake_world.ATTRIBUTE_NAMES
  for i in range(4):
    example = source[i]
    identity = fake_world.sample_identity(0, int(example["identity"]))
    drawn = fake_world.sample_frame(
      0, int(example["identity"]), int(example["frame"])
    )
    (wanted,) = fake_world.render_frames(identity, [drawn], 16)
    assert _equal(example, wanted)


@pytest.mark.slow
def test_the_real_world(tmp_path):
  settings = prepare.SyntheticSet(
    size=32,
    identities=1,
    frames=2,
    validation_identities=0,
    test_identities=0,
    pairs=1,
    swaps=1,
  )
  prepare.prepare_synthetic(tmp_path, settings, processes=0, progress=False)
  train = sources.open_source("synthetic_heads", tmp_path, "train")
  assert len(train) == 2 and train[0]["image"].shape == (32, 32, 3)
  swap = sources.open_source("synthetic_heads", tmp_path, "swaps")[0]
  # Another background changes the background and leaves the face.
  face = (swap["source_regions"] == 0) & (swap["background_truth_regions"] == 0)
  behind = (swap["source_regions"] == 3) & (
    swap["background_truth_regions"] == 3
  )
  change = np.abs(
    swap["background_truth_image"].astype(int) - swap["source_image"]
  ).mean(-1)
  assert face.any() and change[face].mean() < 3 < change[behind].mean()


def test_splits_are_drawn_by_the_same_processes(tmp_path, monkeypatch):
  started = []
  pool = concurrent.futures.ProcessPoolExecutor

  def counted(*args):
    started.append(args[0])
    return pool(*args)

  monkeypatch.setattr(
    generate.concurrent.futures, "ProcessPoolExecutor", counted
  )
  done = prepare.prepare_synthetic(tmp_path, TINY, processes=1, progress=False)
  assert len(done) > 1 and started == [1]
  for split in done:
    assert len(sources.open_source("synthetic_heads", tmp_path, split)) > 0


def test_workers_end_with_a_killed_parent(tmp_path):
  pid_file = tmp_path / "pid"
  code = (
    "from data_pipelines.synthetic_heads import generate\n"
    f"generate.generate({str(tmp_path)!r}, 'train', 2, 1, 16, processes=1, "
    "progress=False, world='tests.data_pipelines.slow_world')\n"
  )
  code = f"if __name__ == '__main__':\n  exec({code!r})"
  environment = {**os.environ, "SLOW_WORLD_PID": str(pid_file)}
  with subprocess.Popen([sys.executable, "-c", code], env=environment) as run:
    try:
      for _ in range(600):
        if pid_file.exists() and pid_file.read_text():
          break
        time.sleep(0.1)
      worker = psutil.Process(int(pid_file.read_text()))
    finally:
      run.kill()
  for _ in range(200):
    # Nobody may be there to collect what is left of it.
    if not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE:
      break
    time.sleep(0.1)
  else:
    worker.kill()
    pytest.fail("the worker outlives the process that started it")
