"""Functions that add fields to frames, and points beside clips."""

import numpy as np
import pytest

from data_pipelines import align, face_points, images, prepare, records
from data_pipelines.videos import settings
from tests import video_set

pytest.importorskip("av")

SIZE = 32
VOX = settings.VideoSet(size=SIZE, identity="voxceleb1")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  folder = tmp_path_factory.mktemp("clips")
  world = "tests.data_pipelines.fake_world"
  video_set.make_video_set(folder, 3, 2, 9, SIZE, world)
  return folder


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

  report = video_set.prepare_quietly(
    clips, tmp_path, VOX, annotators={"mean": mean, "net": Net()}
  )
  assert set(seen) == {(4, SIZE, SIZE, 3)}
  assert not report.frames
  for _, example in video_set.examples_of(tmp_path).values():
    assert np.array_equal(example["mean"], example["image"].mean((0, 1)))
    assert np.array_equal(example["code"], example["image"][:2, :2, 0])
    assert example["code"].dtype == np.float16
  column = records.RecordSource(tmp_path / "train").column("bright")
  assert len(column) == report.metadata["train"]["examples"]
  Net.version = "a2"
  with pytest.raises(records.RecordError, match="'net': 'a1'.*'net': 'a2'"):
    video_set.prepare_quietly(
      clips, tmp_path, VOX, annotators={"mean": mean, "net": Net()}
    )


def test_frames_without_a_face_are_left_out(tmp_path):
  folder, chosen = video_set.numbered_clips(tmp_path, people=3)
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

  report = video_set.prepare_quietly(
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
  found = video_set.examples_of(tmp_path / "out")
  assert {key[1] for key in found if key[0] == "p0/clip"} == {1, 3, 4, 6}
  assert {key[1] for key in found if key[0] == "p1/clip"} == {1, 3, 4, 5}
  assert {key[1] for key in found if key[0] == "p2/clip"} == {3, 4, 5, 6}
  assert all(
    example["number"] % 10 == f for (_, f), (_, example) in found.items()
  )
  assert not {2, 12, 5} & set(asked)  # nobody asks further about these


def test_clips_without_a_face_are_left_out(tmp_path):
  folder, chosen = video_set.numbered_clips(tmp_path)

  def faceless(frame):
    return None if frame[0, 0, 0] < 10 else {}

  report = video_set.prepare_quietly(
    folder, tmp_path / "a", chosen, annotators={"f": faceless}
  )
  assert report.clips == {
    "p0/clip": "not one frame could be used, first frame 0: f: nothing found"
  }
  with pytest.raises(records.RecordError, match="not one of 2 clips.*p0/clip"):
    video_set.prepare_quietly(
      folder, tmp_path / "b", chosen, annotators={"f": lambda frame: None}
    )
  # A better annotator may try again.
  assert video_set.prepare_quietly(folder, tmp_path / "b", chosen).metadata


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
  folder, chosen = video_set.numbered_clips(tmp_path, people=1)
  with pytest.raises(records.RecordError, match=message) as error:
    video_set.prepare_quietly(
      folder, tmp_path / "out", chosen, annotators={"it": annotator}
    )
  assert "\n" not in str(error.value)
  assert not list((tmp_path / "out").rglob("*.array_record"))


def test_needs_that_nobody_gives(tmp_path):
  folder, chosen = video_set.numbered_clips(tmp_path, people=1)

  def late(frame, pose):
    return {}

  late.needs = ("pose",)
  with pytest.raises(records.RecordError, match="'late' needs 'pose'"):
    video_set.prepare_quietly(
      folder, tmp_path / "out", chosen, annotators={"late": late}
    )


def test_a_continued_run_keeps_its_fields(tmp_path):
  folder, chosen = video_set.numbered_clips(tmp_path, people=2)

  def first(frame):
    if frame[0, 0, 0] >= 10:
      raise KeyboardInterrupt
    return {"x": np.float32(0)}

  options = {"split_file": tmp_path / "split.json"}
  options["split_file"].write_text('{"train": ["p0", "p1"]}')
  with pytest.raises(KeyboardInterrupt):
    video_set.prepare_quietly(
      folder, tmp_path / "out", chosen, annotators={"it": first}, **options
    )
  for fields in ({"x": np.float64(0)}, {}, {"x": np.float32(0), "y": 1}):
    with pytest.raises(records.RecordError, match="after a set begun with"):
      video_set.prepare_quietly(
        folder,
        tmp_path / "out",
        chosen,
        annotators={"it": lambda frame, fields=fields: fields},
        **options,
      )


def with_face(marks, five):
  """68 points (frames, 68, 2) whose five are those of a face."""
  marks = marks.copy()
  marks[:, 36:42], marks[:, 42:48] = five[0], five[1]
  marks[:, [30, 48, 54]] = five[2:]
  return marks


def test_landmarks_beside_clips(tmp_path):
  """Points follow the cut; frames and clips without them are left out."""
  folder = tmp_path / "in"
  marks = np.random.default_rng(0).uniform(0, 40, (4, 68, 2))
  marks = with_face(marks, align.CANONICAL5 * 24.0 + (8, 0))
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
  report = video_set.prepare_quietly(
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


def test_points_that_make_no_face_leave_frames_out(tmp_path, capsys):
  """No set is made from them; a person of whom nothing is left is named."""
  folder, out = tmp_path / "in", tmp_path / "out"
  face = align.CANONICAL5.astype(np.float64) * 24
  marks = with_face(np.zeros((4, 68, 2)), face)
  wrong = marks[..., ::-1].copy()
  for name in ("a_0", "a_1", "b_0"):
    for number in range(4):
      picture = np.full((24, 24, 3), 20 * number, np.uint8)
      images.write_image(folder / name / f"{number + 9}.png", picture)
  np.savez(folder / "a_0.npz", marks)
  np.savez(folder / "a_1.npz", np.concatenate([marks[:2], wrong[:2]]))
  np.savez(folder / "b_0.npz", with_face(marks, face[[1, 0, 2, 4, 3]]))
  command = ["videos", f"--input={folder}", f"--output={out}", "--size=12"]
  command += ["--identity=prefix", "--landmarks", "--processes=0"]
  command += ["--test_share=0", "--validation_share=0"]
  assert prepare.main(command) == 1
  said = capsys.readouterr()
  assert (
    "found 3 clips" in said.out and "train: 6 frames of 2 clips" in said.out
  )
  assert "the sides are swapped" in said.out
  assert "error: nothing is left of person 'b' (train)" in said.err
  source = records.RecordSource(out / "train")
  assert source.column("frame").tolist() == [0, 1, 2, 3, 0, 1]
  # Frames 9, 10, 11, 12 in this order.
  grays = [int(source[i]["image"][0, 0, 0]) for i in range(4)]
  assert grays == [0, 20, 40, 60]
  assert all(
    face_points.fault(face_points.of_68(source[i]["landmarks68"] * 12)) is None
    for i in range(6)
  )


def test_a_split_that_gets_nobody(tmp_path, capsys):
  folder, _ = video_set.numbered_clips(tmp_path, people=1)
  command = ["videos", f"--input={folder}", "--size=16", "--processes=0"]
  command += ["--identity=top", f"--output={tmp_path / 'out'}"]
  assert prepare.main(command) == 1
  error = capsys.readouterr().err.splitlines()[-1]
  assert "nothing is left of split 'validation', split 'test'" in error
  assert prepare.main([*command, "--splits=train"]) == 0
