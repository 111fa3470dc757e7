"""Preparing the embedded set: drawing, resuming, the command."""

import concurrent.futures
import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from data_pipelines import (
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
  eval_pairs=2,
  eval_swaps=1,
  edited_attributes=("Bangs", "Smiling"),
  eval_edits=34,
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
  source = sources.SyntheticHeads().open(data_dir, "train")
  assert len(source) == 18
  assert source.column("identity").tolist() == sorted(list(range(9)) * 2)
  identity = fake_world.sample_identity(0, 4)
  frame = fake_world.sample_frame(0, 4, 1)
  (wanted,) = fake_world.render_frames(identity, [frame], 16)
  assert _equal(source[9], wanted)
  online = sources.Online(16, 9, 2, world=WORLD).open(data_dir)
  assert len(online) == 18 and _equal(online[9], wanted)
  assert np.array_equal(online.column("identity"), source.column("identity"))


def test_splits_share_no_person(data_dir):
  people = {
    split: set(
      sources.SyntheticHeads().open(data_dir, split).column("identity")
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
  source = sources.SyntheticHeads().open(data_dir, "pairs")
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
  example = sources.SyntheticHeads().open(data_dir, "swaps")[0]
  # The discs' albedo is their hair.
  key = "hair_truth_albedo"
  assert np.array_equal(example[key], example["query_albedo"])
  assert np.array_equal(example["hair_truth_pose"], example["source_pose"])
  for name in ("clothes_truth_", "background_truth_"):
    assert np.array_equal(example[name + "albedo"], example["source_albedo"])
  with pytest.raises(ValueError, match="wanted pairs or swaps"):
    pairs.PairSettings("train", 1, 16)


def test_attribute_edits_change_one_attribute(data_dir):
  source = sources.SyntheticHeads().open(data_dir, "attributes")
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
  data = sources.SyntheticHeads(
    size=16,
    identities=1,
    frames=1,
    test_identities=0,
    validation_identities=0,
    eval_pairs=0,
    eval_swaps=0,
    edited_attributes=("Smiling",),
    eval_edits=2,
    world=WORLD,
  )
  options = dict(processes=0, progress=False)
  assert prepare.ensure(data, tmp_path, **options)
  assert not prepare.ensure(data, tmp_path, **options)
  for change, message in (
    ({"eval_edits": 3}, "count: 2 there, 3 wanted"),
    ({"edited_attributes": ("Bangs",)}, r"attributes: \['Smiling'\] there"),
  ):
    with pytest.raises(records.RecordError, match=message):
      prepare.ensure(dataclasses.replace(data, **change), tmp_path, **options)
  none = dataclasses.replace(data, eval_edits=0)
  assert not prepare.ensure(none, tmp_path, **options)


def test_ensure(tmp_path):
  data = sources.SyntheticHeads(
    size=16,
    identities=2,
    frames=2,
    test_identities=1,
    validation_identities=0,
    eval_pairs=1,
    eval_swaps=0,
    world=WORLD,
  )
  options = dict(processes=0, progress=False)
  assert prepare.ensure(data, tmp_path, **options)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
  assert not prepare.ensure(data, tmp_path, **options)
  assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
  # What a config leaves open, the set may decide.
  open_ended = sources.SyntheticHeads(
    size=16, eval_swaps=0, validation_identities=0
  )
  assert not prepare.ensure(open_ended, tmp_path, **options)
  for change, message in (
    ({"identities": 3}, r"identities: \[0, 2\] there"),
    ({"frames": 5}, "frames: 2 there, 5 wanted"),
    ({"size": 32}, "size: 16 there, 32 wanted"),
  ):
    with pytest.raises(records.RecordError, match=message):
      prepare.ensure(dataclasses.replace(data, **change), tmp_path, **options)


def test_68_points_are_stored_where_they_are_asked_for(tmp_path):
  plain = sources.SyntheticHeads(
    "plain",
    size=16,
    identities=2,
    frames=1,
    test_identities=1,
    validation_identities=0,
    eval_pairs=0,
    eval_swaps=0,
    world=WORLD,
  )
  options = dict(processes=0, progress=False)
  assert prepare.ensure(plain, tmp_path, **options)
  # As the sets of before: neither field nor setting is said.
  example = plain.open(tmp_path)[0]
  settings = records.read_metadata(tmp_path / "plain" / "train")["settings"]
  assert "landmarks68" not in example and "landmarks68" not in settings
  asked = dataclasses.replace(plain, landmarks68=True)
  with pytest.raises(records.RecordError, match="landmarks68: False there"):
    prepare.ensure(asked, tmp_path, **options)
  asked = dataclasses.replace(asked, folder="more")
  assert prepare.ensure(asked, tmp_path, **options)
  assert not prepare.ensure(asked, tmp_path, **options)
  for split in ("train", "test"):
    more = asked.open(tmp_path, split)[0]
    assert more["landmarks68"].shape == (68, 2)
    assert more["visible68"].dtype == np.int8
  # A config that does not read them takes either set; one that says no, not.
  either = dataclasses.replace(plain, folder="more")
  assert not prepare.ensure(either, tmp_path, **options)
  without = dataclasses.replace(either, landmarks68=False)
  with pytest.raises(records.RecordError, match="landmarks68: True there"):
    prepare.ensure(without, tmp_path, **options)
  rest = {k: v for k, v in asked.open(tmp_path)[0].items() if k in example}
  assert _equal(rest, example)
  online = sources.Online(16, 2, 1, world=WORLD, landmarks68=True)
  assert _equal(online.open(tmp_path)[0], asked.open(tmp_path)[0])


def test_a_set_that_is_not_there(tmp_path):
  with pytest.raises(records.RecordError, match="data_pipelines.prepare"):
    sources.SyntheticHeads().open(tmp_path)


def test_command_draws(tmp_path, capsys):
  command = [
    "synthetic_heads",
    f"--data_dir={tmp_path}",
    "--size=16",
    "--identities=2",
    "--frames=1",
    "--splits=train,test,attributes",
    "--test_identities=1",
    "--edited_attributes=Bangs,Smiling",
    "--eval_edits=3",
    "--processes=0",
    f"--world={WORLD}",
  ]
  assert prepare.main(command) == 0
  assert f"{tmp_path}/attributes: 3 examples" in capsys.readouterr().out
  command[2] = "--size=24"
  assert prepare.main(command) == 1
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith("error:") and "size: 16 there, 24 wanted" in error


@pytest.mark.slow
def test_builder(tmp_path):
  pytest.importorskip("tensorflow")
  from data_pipelines.synthetic_heads import builder

  config = builder.SyntheticHeadsConfig(
    name="tiny", size=16, identities=2, frames=2, world=WORLD
  )
  made = builder.SyntheticHeads(data_dir=str(tmp_path), config=config)
  made.download_and_prepare()
  source = sources.Tfds("synthetic_heads/tiny").open(tmp_path, "train")
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
    eval_pairs=1,
    eval_swaps=1,
  )
  prepare.prepare_synthetic(tmp_path, settings, processes=0, progress=False)
  train = sources.SyntheticHeads().open(tmp_path, "train")
  assert len(train) == 2 and train[0]["image"].shape == (32, 32, 3)
  swap = sources.SyntheticHeads().open(tmp_path, "swaps")[0]
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
    assert len(sources.SyntheticHeads().open(tmp_path, split)) > 0


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
