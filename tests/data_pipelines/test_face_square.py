"""Clips cut round their face: one square a clip, or a reason why not."""

import numpy as np
import pytest

from data_pipelines import align, images, prepare, records
from data_pipelines.videos import face_square, reader, settings
from tests import beads, video_set

HEIGHT, WIDTH, SIDE = 90, 160, 60.0


@pytest.fixture
def detector(tmp_path):
  """A file of one's own that reads beads."""
  file = tmp_path / "mine.py"
  file.write_text("from tests.beads import BeadDetector\ndetect=BeadDetector()")
  return str(file)


def write_clip(path, frames):
  for number, frame in enumerate(frames):
    picture = np.ascontiguousarray(frame)
    images.write_image(path / f"{number:04d}.png", picture)
  return path


def talking(count=12, x=100.0, others=()):
  """A head that moves to and fro by 8 pixels about x."""
  return [
    beads.heads(
      HEIGHT, WIDTH, (x + 8 * np.sin(n), 45.0, SIDE, 4 * np.cos(n)), *others
    )[0]
    for n in range(count)
  ]


def test_one_square_for_all_frames(tmp_path, detector):
  clip = write_clip(tmp_path / "clip", talking())
  found = face_square.of_clip(clip, detector)
  left, top, side = found.box
  assert abs(side - SIDE) < 2 and found.faces == 1
  assert abs(left + side / 2 - 100) < 4 and abs(top + side / 2 - 45) < 2


def test_the_square_stays_in_the_picture(tmp_path, detector):
  near_rim = write_clip(tmp_path / "rim", talking(x=138.0))
  left, top, side = face_square.of_clip(near_rim, detector).box
  assert left + side == pytest.approx(WIDTH) and top >= 0
  large = beads.heads(HEIGHT, WIDTH, (80.0, 50.0, 150.0, 0.0))[0]
  clip = write_clip(tmp_path / "large", [large] * 3)
  left, top, side = face_square.of_clip(clip, detector).box
  assert (top, side) == (0, HEIGHT) and 0 <= left <= WIDTH - side


def test_the_largest_face_is_followed(tmp_path, detector):
  other = (30.0, 50.0, 40.0, 0.0)
  frames = talking(others=[other])
  # Now and then only the other one is seen.
  frames[4] = beads.heads(HEIGHT, WIDTH, other)[0]
  found = face_square.of_clip(write_clip(tmp_path / "c", frames), detector)
  left, _, side = found.box
  assert found.faces == 2
  assert abs(side - SIDE) < 2 and abs(left + side / 2 - 100) < 4


def test_clips_without_a_face_are_named(tmp_path, detector):
  empty = beads.heads(HEIGHT, WIDTH)[0]
  frames = [empty] * 12
  frames[0] = talking()[0]
  clip = write_clip(tmp_path / "few", frames)
  with pytest.raises(reader.ClipError, match="5 of 6 frames .* show no face"):
    face_square.of_clip(clip, detector)
  lying = [np.rot90(frame) for frame in talking(4)]
  clip = write_clip(tmp_path / "lying", lying)
  with pytest.raises(reader.ClipError, match="only after a turn of 270 deg"):
    face_square.of_clip(clip, detector)


def test_frames_are_cut_by_it():
  frame, (points,) = beads.heads(HEIGHT, WIDTH, (100.0, 45.0, SIDE, 0.0))
  picture, (scale, *shift) = reader.square(frame, 48, 48, (70.0, 15.0, SIDE))
  placed = (points * scale + shift) / 48
  np.testing.assert_allclose(placed, align.CANONICAL5, atol=1e-6)
  (seen,) = beads.read_beads(picture)
  np.testing.assert_allclose(seen / 48, align.CANONICAL5, atol=0.03)
  with pytest.raises(reader.ClipError, match="the face has 60 pixels, wanted"):
    reader.square(frame, 64, 64, (70.0, 15.0, SIDE))
  square = np.zeros((48, 48, 3), np.uint8)
  square[10:20] = 200
  part, _ = reader.square(square, 48, 20, (0.0, 10.0, 24.0))
  # Though the frame has the wanted size already.
  assert part[4, 0, 0] > 190 and part[30, 0, 0] < 9


def test_the_command_cuts_counts_and_names(tmp_path, detector, capsys):
  clips = tmp_path / "in"
  write_clip(clips / "anna/one", talking())
  write_clip(clips / "anna/two", talking(others=[(30.0, 50.0, 40.0, 0.0)]))
  write_clip(clips / "anna/none", [beads.heads(HEIGHT, WIDTH)[0]] * 3)
  command = [
    "videos",
    f"--input={clips}",
    f"--output={tmp_path / 'out'}",
    "--size=48",
    "--identity=top",
    "--processes=0",
    "--splits=train",
    f"--detector={detector}",
  ]
  assert prepare.main(command) == 0
  printed = capsys.readouterr().out
  assert f"round their largest face, found by {detector}\n" in printed
  assert "train: 24 frames of 2 clips" in printed
  assert "train: 1 clips show several faces; the largest was taken" in printed
  assert "1 clips and 0 frames skipped" in printed
  source = records.RecordSource(tmp_path / "out" / "train")
  for i in range(len(source)):
    (points,) = beads.read_beads(source[i]["image"])[:1]
    assert np.abs(points / 48 - align.CANONICAL5).max() < 0.25
  assert set(source.column("faces").tolist()) == {1, 2}
  assert prepare.main([*command[:-1], "--detector=none"]) == 1
  assert "a different set" in capsys.readouterr().err
  assert prepare.main([*command[:-1], "--detector=mtcn"]) == 1
  assert "no such detector" in capsys.readouterr().err


def test_a_set_without_a_detector_is_the_set_of_before(tmp_path):
  folder, chosen = video_set.numbered_clips(tmp_path, count=2, people=1)
  assert "detector" not in chosen.metadata()
  assert settings.VideoSet(detector="x").metadata()["detector"] == "x"
  video_set.prepare_quietly(folder, tmp_path / "out", chosen)
  source = records.RecordSource(tmp_path / "out" / "train")
  assert "faces" not in source.metadata["fields"]
