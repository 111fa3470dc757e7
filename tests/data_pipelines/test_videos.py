"""Sets of videos: whole clips or none, resuming, annotators, skipped clips."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from data_pipelines import images, prepare, records
from data_pipelines.videos import index, settings, skips, splits
from data_pipelines.videos import prepare as videos
from tests import video_set

WORLD = "tests.data_pipelines.fake_world"
PEOPLE, CLIPS, FRAMES, SIZE = 5, 3, 9, 32
VOX = settings.VideoSet(size=SIZE, identity="voxceleb1")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  """Good clips of five people, one in train/ and test/ both, and bad ones."""
  folder = tmp_path_factory.mktemp("clips")
  video_set.make_video_set(folder, PEOPLE, CLIPS, FRAMES, SIZE, WORLD)
  video_set.add_bad_clips(folder)
  return folder


@pytest.fixture(scope="module")
def prepared(clips, tmp_path_factory):
  output = tmp_path_factory.mktemp("set")
  return output, video_set.prepare_quietly(clips, output, VOX)


def _equal_sets(one, two):
  first, second = video_set.examples_of(one), video_set.examples_of(two)
  assert list(first) == list(second)
  for key, (split, example) in first.items():
    other_split, other = second[key]
    assert split == other_split and set(example) == set(other)
    assert all(np.array_equal(example[n], other[n]) for n in example), key
  texts = [(o / skips.FILE).read_text() for o in (one, two)]
  assert texts[0] == texts[1]


def test_every_frame_of_every_good_clip_is_in(clips, prepared):
  found = video_set.examples_of(prepared[0])
  assert len(found) == PEOPLE * CLIPS * FRAMES
  for person in range(PEOPLE):
    for clip in range(CLIPS):
      drawn = video_set.draw_clip(person, clip, FRAMES, SIZE, WORLD)
      name = f"id{10001 + person}#vid{clip}#000000#{FRAMES:06d}.mp4"
      path = next(path for path, _ in found if path.endswith(name))
      for number, picture in enumerate(drawn):
        example = found[path, number][1]
        assert set(example) == {"image", "identity", "video", "frame"}
        if (clips / path).is_dir():
          assert np.array_equal(example["image"], picture)
        else:  # compressed; colours are thinned at the disc's edge
          error = np.abs(example["image"].astype(float) - picture)
          assert np.median(error) < 4, (path, number)
  assert (clips / "train/id10001#vid0#000000#000009.mp4").is_dir()


def test_people_are_split_whole(prepared):
  people = {}
  for (clip, _), (split, _) in video_set.examples_of(prepared[0]).items():
    people.setdefault(clip.split("/")[1].split("#")[0], set()).add(split)
  assert len(people) == PEOPLE
  assert all(len(found) == 1 for found in people.values())
  written = json.loads((prepared[0] / splits.FILE).read_text())
  assert [len(written[split]) for split in splits.SPLITS] == [3, 1, 1]


def test_bad_clips_are_reported(clips, prepared, tmp_path):
  output, report = prepared
  wanted = video_set.add_bad_clips(tmp_path)
  listed = json.loads((output / skips.FILE).read_text())
  assert listed == {"clips": report.clips, "frames": {}}
  assert set(listed["clips"]) == set(wanted)
  for path, reason in wanted.items():
    assert reason in listed["clips"][path]


def test_processes_read_the_same_set(clips, prepared, tmp_path, monkeypatch):
  monkeypatch.setattr(videos, "_WAITING_BYTES", 1000)  # clips wait on disk
  video_set.prepare_quietly(clips, tmp_path, VOX, processes=2)
  _equal_sets(prepared[0], tmp_path)


def test_a_stopped_run_continues(clips, prepared, tmp_path):
  """Stopped over and over it comes to the same set, clip by whole clip."""
  calls = stops = 0

  def stopping(frame):
    nonlocal calls
    calls += 1
    # A shard holds two clips at most: one is finished in every run.
    if calls % 45 == 0:
      raise KeyboardInterrupt
    return {}

  while stops < 40:
    try:
      video_set.prepare_quietly(
        clips, tmp_path, VOX, annotators={"stopping": stopping}
      )
      break
    except KeyboardInterrupt:
      stops += 1
      assert not list(tmp_path.rglob("*.tmp"))
      for shard in tmp_path.rglob("*.array_record"):
        with np.load(shard.with_suffix(".npz")) as summary:
          assert summary["__count__"] % FRAMES == 0
  assert 2 < stops < 40
  _equal_sets(prepared[0], tmp_path)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*/*")}
  video_set.prepare_quietly(
    clips, tmp_path, VOX, annotators={"stopping": stopping}
  )
  assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*/*")}


KILLED = """
import os, pathlib, signal, sys
import psutil
from data_pipelines.videos import prepare, settings

def deadly(frame):
  output = pathlib.Path(sys.argv[2])
  if any(output.rglob("*.array_record")) and any(output.rglob("*.tmp")):
    children = psutil.Process().children(recursive=True)
    print("\\n", *(child.pid for child in children), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
  return {}

if __name__ == "__main__":
  prepare.prepare_videos(
    sys.argv[1],
    sys.argv[2],
    settings.VideoSet(size=32, identity="voxceleb1"),
    {"deadly": deadly},
    processes=2,
    progress=False,
  )
"""


def test_a_killed_run_continues(clips, prepared, tmp_path, root):
  script, output = tmp_path / "killed.py", tmp_path / "out"
  script.write_text(KILLED)
  run = subprocess.run(
    [sys.executable, script, clips, output],
    capture_output=True,
    text=True,
    env={**os.environ, "PYTHONPATH": str(root)},
  )
  assert run.returncode == -9, run.stderr
  children = [int(pid) for pid in run.stdout.splitlines()[-1].split()]
  assert len(children) >= 2
  done = list(output.rglob("*.array_record"))
  assert done and list(output.rglob("*.tmp"))
  kept = {path: path.stat().st_mtime_ns for path in done}
  video_set.prepare_quietly(
    clips, output, VOX, annotators={"deadly": lambda frame: {}}
  )
  assert kept == {path: path.stat().st_mtime_ns for path in done}
  assert not list(output.rglob("*.tmp"))
  _equal_sets(prepared[0], output)
  for _ in range(200):
    if not any(map(_runs, children)):
      break
    time.sleep(0.1)
  else:
    pytest.fail("reading processes outlived the one that started them")


def _runs(pid):
  try:
    return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False


def test_steps_limits_and_sizes(tmp_path):
  folder, _ = video_set.numbered_clips(tmp_path, count=11, people=1)
  chosen = settings.VideoSet(
    size=16, frame_step=3, max_frames=2, min_side=0, identity="top"
  )
  video_set.prepare_quietly(folder, tmp_path / "out", chosen)
  source = records.RecordSource(tmp_path / "out" / "train")
  assert source.column("frame").tolist() == [0, 3]
  assert [source[i]["image"][0, 0, 0] for i in range(2)] == [0, 3]
  too_large = settings.VideoSet(size=32)
  with pytest.raises(records.RecordError, match="16x16 pixels, wanted 32"):
    video_set.prepare_quietly(folder, tmp_path / "large", too_large)
  enlarged = settings.VideoSet(size=32, min_side=8)
  video_set.prepare_quietly(folder, tmp_path / "large", enlarged)
  source = records.RecordSource(tmp_path / "large" / "train")
  assert source[7]["image"].shape == (32, 32, 3)
  assert (source[7]["image"] == 7).all()


def test_another_setting_is_refused(clips, prepared, tmp_path):
  output = prepared[0]
  for change, message in (
    ({"frame_step": 2}, "frame_step: 1 there, 2 wanted"),
    ({"max_frames": 5}, "max_frames: 0 there, 5 wanted"),
    ({"landmarks": True}, "landmarks: False there, True wanted"),
    ({"size": 24}, "min_side: 32 there, 24 wanted, size: 32 there, 24"),
    ({"split_seed": 1}, "split_seed: 0 there, 1 wanted"),
    ({"test_share": 0.3}, "test_share: 0.2 there, 0.3 wanted"),
  ):
    values = {"size": SIZE, "identity": "voxceleb1", **change}
    with pytest.raises(ValueError, match=message):
      video_set.prepare_quietly(clips, output, settings.VideoSet(**values))
  with pytest.raises(records.RecordError, match="annotators: {} there"):
    video_set.prepare_quietly(
      clips, output, VOX, annotators={"x": lambda frame: {}}
    )
  folder, chosen = video_set.numbered_clips(tmp_path)
  video_set.prepare_quietly(folder, tmp_path / "out", chosen)
  images.write_image(folder / "p0/b/0.png", np.zeros((16, 16, 3), np.uint8))
  with pytest.raises(records.RecordError, match="clips: 1 there, 2 wanted"):
    video_set.prepare_quietly(folder, tmp_path / "out", chosen)


def test_split_files(clips, tmp_path):
  given = tmp_path / "mine.json"
  given.write_text(json.dumps({"train": ["id10003"], "test": ["id10001"]}))
  report = video_set.prepare_quietly(
    clips, tmp_path / "out", VOX, split_file=given
  )
  assert list(report.metadata) == ["train", "test"]
  assert report.metadata["train"]["examples"] == CLIPS * FRAMES
  absent = [r for r in report.clips.values() if "is in no split of" in r]
  assert len(absent) == 3 * CLIPS + 3
  # Read again without being named; another one is refused.
  assert (
    video_set.prepare_quietly(clips, tmp_path / "out", VOX).metadata
    == report.metadata
  )
  given.write_text(json.dumps({"train": ["id10001"], "test": ["id10003"]}))
  with pytest.raises(index.VideoError, match="another split was written"):
    video_set.prepare_quietly(clips, tmp_path / "out", VOX, split_file=given)
  for text, message in (
    ("{", "cannot be read as a split file"),
    ("[]", "got a list"),
    ("{}", r"got \[\]"),
    ('{"train": ["a"], "val": ["b"]}', r"got \['val'\]"),
    ('{"train": "a"}', "train is no list of texts"),
    ('{"train": ["a"], "test": ["a"]}', "'a' is in train and in test"),
    ('{"train": ["a"]}', "none of its 5 persons is in a wanted split"),
  ):
    given.write_text(text)
    with pytest.raises(index.VideoError, match=message):
      video_set.prepare_quietly(
        clips, tmp_path / "fresh", VOX, split_file=given
      )
    for left in (tmp_path / "fresh").glob("*"):
      left.unlink()


def test_drawn_splits():
  people = [f"id{i:05d}" for i in range(1000)]
  first = splits.draw(people, 0, 0.2, 0.05)
  assert {s: len(p) for s, p in first.items()} == {
    "train": 760,
    "validation": 40,
    "test": 200,
  }
  assert sorted(sum(first.values(), [])) == people
  assert splits.draw(people[::-1], 0, 0.2, 0.05) == first
  other = splits.draw(people, 1, 0.2, 0.05)
  assert len(set(other["test"]) & set(first["test"])) < 80
  assert splits.draw(["a"], 0, 0.2, 0.05)["train"] == ["a"]
  few = splits.draw("abc", 0, 0.2, 0.05)
  assert [len(few[split]) for split in splits.SPLITS] == [1, 1, 1]
  assert splits.draw("abc", 0, 0.0, 0.0)["train"] == ["a", "b", "c"]


def test_commands(clips, prepared, tmp_path, capsys, monkeypatch):
  command = [
    "voxceleb1",
    f"--input={clips}",
    f"--output={tmp_path / 'out'}",
    f"--size={SIZE}",
    "--processes=0",
  ]
  assert prepare.main(command) == 0
  printed = capsys.readouterr().out
  assert f"train: {9 * FRAMES} frames of 9 clips" in printed
  assert "7 clips and 0 frames skipped, see" in printed
  _equal_sets(prepared[0], tmp_path / "out")
  (tmp_path / "none").mkdir()
  for change, message in (
    (f"--input={tmp_path / 'none'}", "no clip found"),
    ("--input=/nowhere", "/nowhere: no such folder of videos"),
    ("--size=0", "--size=0; wanted 8 or more"),
    ("--test_share=1", "--test_share=1.0; wanted 0 up to below 1"),
    ("--splits=train,dev", "no split 'dev'"),
    ("--processes=-1", "--processes=-1; wanted 0 or more"),
    ("--split_file=/nowhere", "cannot be read as a split file"),
    ("--frame_step=2", "a different set lies there"),
  ):
    assert prepare.main([*command, change]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0], error
  command = [
    "videos",
    f"--input={clips / 'train'}",
    f"--output={tmp_path / 'videos'}",
    f"--size={SIZE}",
    "--identity=prefix",
    "--separator=#0000",
    "--splits=test",
    "--processes=0",
  ]
  # By this rule a clip that cannot be read is all there is of a person.
  assert prepare.main(command) == 1
  assert "nothing is left of person 'id10001#cut" in capsys.readouterr().err
  assert [p.name for p in (tmp_path / "videos").glob("*/")] == ["test"]
  monkeypatch.setitem(sys.modules, "av", None)
  assert prepare.main(command) == 1
  assert "pip install 'faceedit_jax[video]'" in capsys.readouterr().err


def test_a_killed_reader_is_one_line(clips, tmp_path):
  """The clip it was at is named; what was finished stays."""

  def deadly(frame):
    for child in multiprocessing.active_children():
      child.kill()
    return {}

  with pytest.raises(records.RecordError, match="read it was killed") as error:
    video_set.prepare_quietly(
      clips, tmp_path, VOX, annotators={"deadly": deadly}, processes=1
    )
  assert "#" in str(error.value) and "\n" not in str(error.value)
  assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("processes", [0, 1])
def test_a_folder_that_vanishes_is_no_bad_clip(tmp_path, processes):
  folder, chosen = video_set.numbered_clips(tmp_path, people=2)

  def taken_away(frame):
    if folder.exists():
      folder.rename(tmp_path / "away")
    return {}

  with pytest.raises(index.VideoError, match="p1/clip: is gone since"):
    video_set.prepare_quietly(
      folder,
      tmp_path / "out",
      chosen,
      annotators={"it": taken_away},
      split_file=video_set.everybody(tmp_path),
      processes=processes,
    )
