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
from data_pipelines.videos import index, settings, splits
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


def _prepare(clips, output, chosen=VOX, **options):
  options = {"processes": 0, "progress": False, **options}
  return videos.prepare_videos(clips, output, chosen, **options)


@pytest.fixture(scope="module")
def prepared(clips, tmp_path_factory):
  output = tmp_path_factory.mktemp("set")
  return output, _prepare(clips, output)


def _examples(output):
  """{(clip, frame): (split, example)} of a whole set."""
  out = {}
  for split in splits.SPLITS:
    source = records.RecordSource(output / split)
    names = source.metadata["names"]
    for i in range(len(source)):
      example = source[i]
      clip = names["video"][example["video"]]
      assert names["identity"][example["identity"]] in clip
      out[clip, int(example["frame"])] = (split, example)
  return out


def _equal_sets(one, two):
  first, second = _examples(one), _examples(two)
  assert list(first) == list(second)
  for key, (split, example) in first.items():
    other_split, other = second[key]
    assert split == other_split and set(example) == set(other)
    assert all(np.array_equal(example[n], other[n]) for n in example), key
  texts = [(o / videos.SKIPPED).read_text() for o in (one, two)]
  assert texts[0] == texts[1]


def test_every_frame_of_every_good_clip_is_in(clips, prepared):
  found = _examples(prepared[0])
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
  for (clip, _), (split, _) in _examples(prepared[0]).items():
    people.setdefault(clip.split("/")[1].split("#")[0], set()).add(split)
  assert len(people) == PEOPLE
  assert all(len(found) == 1 for found in people.values())
  written = json.loads((prepared[0] / splits.FILE).read_text())
  assert [len(written[split]) for split in splits.SPLITS] == [3, 1, 1]


def test_bad_clips_are_reported(clips, prepared, tmp_path):
  output, report = prepared
  wanted = video_set.add_bad_clips(tmp_path)
  listed = json.loads((output / videos.SKIPPED).read_text())
  assert listed == {"clips": report.clips, "frames": {}}
  assert set(listed["clips"]) == set(wanted)
  for path, reason in wanted.items():
    assert reason in listed["clips"][path]


def test_processes_read_the_same_set(clips, prepared, tmp_path):
  _prepare(clips, tmp_path, processes=2)
  _equal_sets(prepared[0], tmp_path)


def test_a_stopped_run_continues(clips, prepared, tmp_path):
  """Stopped over and over it comes to the same set, clip by whole clip."""
  calls = stops = 0

  def stopping(frame):
    nonlocal calls
    calls += 1
    # A shard holds two clips at most: one is finished in every run.
    if calls % (2 * FRAMES + 5) == 0:
      raise KeyboardInterrupt
    return {}

  while stops < 40:
    try:
      _prepare(clips, tmp_path, annotators={"stopping": stopping})
      break
    except KeyboardInterrupt:
      stops += 1
      assert not list(tmp_path.rglob("*.tmp"))
      for shard in tmp_path.rglob("*.array_record"):
        with np.load(shard.with_suffix(".npz")) as summary:
          assert summary["__count__"] % FRAMES == 0
  assert 3 < stops < 40
  _equal_sets(prepared[0], tmp_path)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*/*")}
  _prepare(clips, tmp_path, annotators={"stopping": stopping})
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
  _prepare(clips, output, annotators={"deadly": lambda frame: {}})
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


def test_annotators_add_fields(clips, tmp_path):
  """One frame at a time, in full batches, and from fields given before."""
  seen = []

  def mean(frame):
    assert frame.shape == (SIZE, SIZE, 3) and frame.dtype == np.uint8
    return {"mean": frame.mean((0, 1)), "bright": np.int32(frame.max())}

  class Net:
    batch = 4
    version = "a1"
    needs = ("mean",)

    def __call__(self, frames, mean):
      seen.append(frames.shape)
      assert np.allclose(frames.mean((1, 2)), mean)
      return {"code": frames[:, :2, :2, 0].astype(np.float16)}

  report = _prepare(clips, tmp_path, annotators={"mean": mean, "net": Net()})
  assert set(seen) == {(4, SIZE, SIZE, 3)}
  assert not report.frames
  for _, example in _examples(tmp_path).values():
    assert np.array_equal(example["mean"], example["image"].mean((0, 1)))
    assert np.array_equal(example["code"], example["image"][:2, :2, 0])
    assert example["code"].dtype == np.float16
  column = records.RecordSource(tmp_path / "train").column("bright")
  assert len(column) == report.metadata["train"]["examples"]
  Net.version = "a2"
  with pytest.raises(records.RecordError, match="'net': 'a1'.*'net': 'a2'"):
    _prepare(clips, tmp_path, annotators={"mean": mean, "net": Net()})


def _numbered(tmp_path, count=7, people=2):
  """Clips of frames that say their own number in every pixel."""
  for person in range(people):
    for number in range(count):
      picture = np.full((16, 16, 3), 10 * person + number, np.uint8)
      path = tmp_path / "in" / f"p{person}" / "clip" / f"{number:03d}.png"
      images.write_image(path, picture)
  return tmp_path / "in", settings.VideoSet(size=16)


def test_frames_without_a_face_are_left_out(tmp_path):
  folder, chosen = _numbered(tmp_path, people=3)
  asked = []

  def odd(frame):
    if frame[0, 0, 0] in (2, 12):
      return None
    if frame[0, 0, 0] == 5:
      raise ValueError("two faces")
    return {}

  class Large:
    batch = 3

    def __call__(self, frames):
      numbers = frames[:, 0, 0, 0]
      asked.extend(numbers)
      if 16 in numbers:
        raise ValueError("this one spoils its batch")
      if numbers[0] == 20:
        return None
      return {"number": numbers.astype(np.int32), "valid": numbers % 10 != 0}

  report = _prepare(
    folder, tmp_path / "out", chosen, annotators={"odd": odd, "large": Large()}
  )
  assert report.frames == {
    "p0/clip": {
      "skipped": 3,
      "frames": 7,
      "first": "frame 0: large: nothing found",
    },
    "p1/clip": {
      "skipped": 3,
      "frames": 7,
      "first": "frame 0: large: nothing found",
    },
    "p2/clip": {
      "skipped": 3,
      "frames": 7,
      "first": "frame 0: large: nothing found",
    },
  }
  found = _examples(tmp_path / "out")
  assert {key[1] for key in found if key[0] == "p0/clip"} == {1, 3, 4, 6}
  assert {key[1] for key in found if key[0] == "p1/clip"} == {1, 3, 4, 5}
  assert {key[1] for key in found if key[0] == "p2/clip"} == {3, 4, 5, 6}
  assert all(
    example["number"] % 10 == f for (_, f), (_, example) in found.items()
  )
  assert not {2, 12, 5} & set(asked)  # nobody asks further about these


def test_clips_without_a_face_are_left_out(tmp_path):
  folder, chosen = _numbered(tmp_path)

  def faceless(frame):
    return None if frame[0, 0, 0] < 10 else {}

  report = _prepare(folder, tmp_path / "a", chosen, annotators={"f": faceless})
  assert report.clips == {
    "p0/clip": "not one frame could be used, first frame 0: f: nothing found"
  }
  with pytest.raises(records.RecordError, match="not one of 2 clips.*p0/clip"):
    _prepare(
      folder, tmp_path / "b", chosen, annotators={"f": lambda frame: None}
    )
  # A better annotator may try again.
  assert _prepare(folder, tmp_path / "b", chosen).metadata


def _batched(answer):
  def annotator(frames):
    return answer

  annotator.batch = 2
  return annotator


@pytest.mark.parametrize(
  ("annotator", "message"),
  [
    (
      lambda frame: {"x": np.zeros(frame[0, 0, 0] // 3)},
      r"annotator 'it' gave 'x' as float64 \(1,\) where it was float64 \(0,\): "
      "p0/clip",
    ),
    (
      lambda frame: {"xyz"[frame[0, 0, 0] // 3]: 0.0},
      r"gave 'x' as nothing where it was float64 \(\), 'y' as",
    ),
    (lambda frame: {"image": 0}, "a field 'image', which is there already"),
    (lambda frame: {"x": "text"}, "'x' of dtype <U4"),
    (lambda frame: 3, "gave a int for p0/clip"),
    (_batched({"x": np.zeros(3)}), r"'x' of shape \(3,\) .* wanted \(2, ...\)"),
  ],
)
def test_annotators_that_misbehave(tmp_path, annotator, message):
  folder, chosen = _numbered(tmp_path, people=1)
  with pytest.raises(records.RecordError, match=message) as error:
    _prepare(folder, tmp_path / "out", chosen, annotators={"it": annotator})
  assert "\n" not in str(error.value)
  assert not list((tmp_path / "out").rglob("*.array_record"))


def test_needs_that_nobody_gives(tmp_path):
  folder, chosen = _numbered(tmp_path, people=1)

  def late(frame, pose):
    return {}

  late.needs = ("pose",)
  with pytest.raises(records.RecordError, match="'late' needs 'pose'"):
    _prepare(folder, tmp_path / "out", chosen, annotators={"late": late})


def test_a_continued_run_keeps_its_fields(tmp_path):
  folder, chosen = _numbered(tmp_path, people=2)

  def first(frame):
    if frame[0, 0, 0] >= 10:
      raise KeyboardInterrupt
    return {"x": np.float32(0)}

  options = {"split_file": tmp_path / "split.json"}
  options["split_file"].write_text('{"train": ["p0", "p1"]}')
  with pytest.raises(KeyboardInterrupt):
    _prepare(
      folder, tmp_path / "out", chosen, annotators={"it": first}, **options
    )
  for fields in ({"x": np.float64(0)}, {}, {"x": np.float32(0), "y": 1}):
    with pytest.raises(records.RecordError, match="after a set begun with"):
      _prepare(
        folder,
        tmp_path / "out",
        chosen,
        annotators={"it": lambda frame, fields=fields: fields},
        **options,
      )


def test_landmarks_beside_clips(tmp_path):
  """Points follow the cut; frames and clips without them are left out."""
  folder = tmp_path / "in"
  marks = np.random.default_rng(0).uniform(0, 40, (4, 68, 2))
  for name in ("a_0", "a_1", "b_0", "b_1"):
    pictures = [np.zeros((24, 40, 3), np.uint8)] * 4
    # A white dot at the first point: pixel (x, y) of frame 0.
    pictures[0] = pictures[0].copy()
    pictures[0][8:10, 20:22] = 255
    for number, picture in enumerate(pictures):
      images.write_image(folder / name / f"{number}.png", picture)
  marks[0, 0] = (21, 9)
  np.savez(folder / "a_0.npz", landmarks=marks)
  lines = [
    ",".join(map(repr, [i, *marks[i].ravel().tolist()])) for i in (0, 1, 3)
  ]
  (folder / "a_1.csv").write_text("frame,x1,...\n" + "\n".join(lines))
  np.savez(folder / "b_0.npz", marks[:3])
  chosen = settings.VideoSet(
    size=12, identity="prefix", landmarks=True, test_share=0.0
  )

  def looks(frame, landmarks68):
    assert landmarks68.shape == (68, 2)
    return {"first": landmarks68[0]}

  looks.needs = ("landmarks68",)
  report = _prepare(
    folder, tmp_path / "out", chosen, annotators={"looks": looks}
  )
  assert "for 3 frames, and more" in report.clips["b_0"]
  assert "no landmarks beside it (b_1.npz or .csv)" in report.clips["b_1"]
  assert report.frames["a_1"]["first"] == "frame 2: no landmarks"
  (source,) = [
    records.RecordSource(tmp_path / "out" / split)
    for split, metadata in report.metadata.items()
    if metadata["examples"]
  ]
  found = [source[i] for i in range(len(source))]
  assert [(e["video"], e["frame"]) for e in found] == [
    *((0, i) for i in range(4)),
    *((1, i) for i in (0, 1, 3)),
  ]
  for example in found:
    wanted = (marks[example["frame"]] - (8, 0)) / 24
    assert np.allclose(example["landmarks68"], wanted, atol=1e-6)
    assert np.array_equal(example["landmarks68"][0], example["first"])
    assert example["landmarks68"].dtype == np.float32
  x, y = (found[0]["landmarks68"][0] * 12).astype(int)
  assert found[0]["image"][y, x].min() > 150


def test_steps_limits_and_sizes(tmp_path):
  folder, _ = _numbered(tmp_path, count=11, people=1)
  chosen = settings.VideoSet(
    size=16, frame_step=3, max_frames=2, min_side=0, identity="top"
  )
  _prepare(folder, tmp_path / "out", chosen)
  source = records.RecordSource(tmp_path / "out" / "train")
  assert source.column("frame").tolist() == [0, 3]
  assert [source[i]["image"][0, 0, 0] for i in range(2)] == [0, 3]
  too_large = settings.VideoSet(size=32)
  with pytest.raises(records.RecordError, match="16x16 pixels, wanted 32"):
    _prepare(folder, tmp_path / "large", too_large)
  enlarged = settings.VideoSet(size=32, min_side=8)
  _prepare(folder, tmp_path / "large", enlarged)
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
      _prepare(clips, output, settings.VideoSet(**values))
  with pytest.raises(records.RecordError, match="annotators: {} there"):
    _prepare(clips, output, annotators={"x": lambda frame: {}})
  folder, chosen = _numbered(tmp_path)
  _prepare(folder, tmp_path / "out", chosen)
  images.write_image(folder / "p0/b/0.png", np.zeros((16, 16, 3), np.uint8))
  with pytest.raises(records.RecordError, match="clips: 1 there, 2 wanted"):
    _prepare(folder, tmp_path / "out", chosen)


def test_split_files(clips, tmp_path):
  given = tmp_path / "mine.json"
  given.write_text(json.dumps({"train": ["id10003"], "test": ["id10001"]}))
  report = _prepare(clips, tmp_path / "out", split_file=given)
  assert list(report.metadata) == ["train", "test"]
  assert report.metadata["train"]["examples"] == CLIPS * FRAMES
  absent = [r for r in report.clips.values() if "is in no split of" in r]
  assert len(absent) == 3 * CLIPS + 2
  # Read again without being named; another one is refused.
  assert _prepare(clips, tmp_path / "out").metadata == report.metadata
  given.write_text(json.dumps({"train": ["id10001"], "test": ["id10003"]}))
  with pytest.raises(index.VideoError, match="another split was written"):
    _prepare(clips, tmp_path / "out", split_file=given)
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
      _prepare(clips, tmp_path / "fresh", split_file=given)
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
  assert "6 clips and 0 frames skipped, see" in printed
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
  assert prepare.main(command) == 0
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
    _prepare(clips, tmp_path, annotators={"deadly": deadly}, processes=1)
  assert "#" in str(error.value) and "\n" not in str(error.value)
  assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("processes", [0, 1])
def test_a_folder_that_vanishes_is_no_bad_clip(tmp_path, processes):
  folder, chosen = _numbered(tmp_path, people=2)

  def taken_away(frame):
    if folder.exists():
      folder.rename(tmp_path / "away")
    return {}

  with pytest.raises(index.VideoError, match="p1/clip: is gone since"):
    _prepare(
      folder,
      tmp_path / "out",
      chosen,
      annotators={"it": taken_away},
      split_file=_everybody(tmp_path),
      processes=processes,
    )


def _everybody(tmp_path):
  path = tmp_path / "split.json"
  path.write_text('{"train": ["p0", "p1"]}')
  return path
