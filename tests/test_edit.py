"""The command line of editing: whole files out, one line per mistake."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipelines import align
from data_pipelines.detectors import registry
from faceedit_jax import edit, export, load_trained
from faceedit_jax.core.errors import CheckpointError
from tests.editing.toy_editor import (
  SIZE,
  command,
  config_of,
  one_line,
  save_run,
  write_portraits,
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Both stages as a finished run leaves them."""
  return save_run(tmp_path_factory.mktemp("run"), config_of())


@pytest.fixture
def files(tmp_path):
  """A folder with a.png and b.png."""
  return write_portraits(tmp_path)


def test_a_picture_in_and_a_picture_out(workdir, files, capsys):
  assert command(workdir, files, f"--pose_from={files / 'b.png'}") == 0
  said = capsys.readouterr().out.splitlines()
  assert [line.partition(" (")[0] for line in said] == [
    "source: 1 face found by the run's own net",
    "pose_from: 1 face found by the run's own net",
    f"wrote {files / 'out.png'}",
  ]
  with Image.open(files / "out.png") as made:
    assert made.size == (SIZE, SIZE) and made.mode == "RGB"
  assert {p.name for p in files.iterdir()} == {"a.png", "b.png", "out.png"}


def test_sheet_and_paste_back(workdir, files, capsys):
  options = ("--sheet", "--paste_back", "--steps", "2", "--mode=mean")
  other = f"--light_from={files / 'b.png'}"
  assert command(workdir, files, other, *options) == 0
  with Image.open(files / "out.png") as made:
    assert made.size == (90, 120)
  with Image.open(files / "out_sheet.png") as sheet:
    # Source, reference, rendering, edit, slots.
    assert sheet.size == (5 * 164 + 4, 184)
  assert capsys.readouterr().err == ""


def test_a_config_may_be_given(workdir, files, capsys):
  path = files / "config.py"
  text = "import ml_collections\ndef get_config():\n  return "
  path.write_text(f"{text}ml_collections.ConfigDict({config_of().to_dict()})")
  assert command(workdir, files, f"--config={path}", "--stage=head") == 0
  capsys.readouterr()
  changed = "--config.nets.enc.channels=5"
  assert command(workdir, files, f"--config={path}", changed) == 2
  assert "trained with other settings: nets.enc.channels: 4 -> 5" in one_line(
    capsys
  )
  assert command(workdir, files, changed) == 2
  assert "needs --config=FILE" in one_line(capsys)


def test_a_landmarks_file(workdir, files, capsys):
  Image.new("RGB", (60, 60), (9, 9, 9)).save(files / "a.png")
  assert command(workdir, files) == 2
  line = one_line(capsys)
  assert "a.png: no face found (best score -2.0)" in line
  assert "--landmarks=FILE, or --aligned" in line
  assert not (files / "out.png").exists()
  table = {"a": (align.CANONICAL5 * 60.0).tolist()}
  (files / "points.json").write_text(json.dumps(table))
  points = f"--landmarks={files / 'points.json'}"
  assert command(workdir, files, points) == 0
  assert (files / "out.png").exists()


def test_a_detector_file(workdir, files, capsys):
  Image.new("RGB", (60, 60), (9, 9, 9)).save(files / "a.png")
  file = files / "detector.py"
  option = f"--detector={file}"
  points = (align.CANONICAL5 * 60.0).tolist()
  broken = [
    (None, "detector.py: no such file"),
    ("import nothing_like_it", "ModuleNotFoundError: No module named"),
    ("found = 1", "defines no function detect(image)"),
    ("def detect(image): return 1 / 0", "ZeroDivisionError: division by zero"),
    ("def detect(image): return None", "no face found by the detector"),
    ("def detect(image): return [[1, 2]]", "wanted (5, 2)"),
  ]
  for body, message in broken:
    if body is not None:
      file.write_text(body)
    assert command(workdir, files, option) == 2
    assert message in one_line(capsys)
  assert not (files / "out.png").exists()
  file.write_text(
    f"def detect(image):\n  assert image.shape == (60, 60, 3)\n"
    f"  return {points}\n"
  )
  assert command(workdir, files, option) == 0
  assert (files / "out.png").exists()
  said = capsys.readouterr().out
  assert "source: 1 face found by the detector detector.py\n" in said


def test_the_detector_and_the_face_are_named(
  workdir, files, capsys, monkeypatch
):
  """Which one was used and why no other; which of several faces."""
  missing = registry.Entry("no_such_module_at_all", None, "pip install it")
  monkeypatch.setattr(registry, "DETECTORS", {"gone": missing})
  why = "(gone is not installed: pip install it)"
  assert command(workdir, files) == 0
  said = capsys.readouterr().out
  assert said.startswith(f"source: 1 face found by the run's own net {why}\n")
  assert command(workdir, files, "--detector=net") == 0
  said = capsys.readouterr().out
  assert said.startswith("source: 1 face found by the run's own net\n")
  for wrong, message in (
    ("--detector=gone", "--detector=gone is not installed: pip install it"),
    (
      "--detector=gnoe",
      "no such detector; wanted auto, none, gone or a P",
    ),
    ("--face=left", "--face is 'left'; wanted largest, a number from 1"),
    ("--face=2", "there is no face 2: faces by size: 1 at "),
    ("--face=5,5", "there is no face at 5,5: faces by size: 1 at "),
  ):
    assert command(workdir, files, wrong) == 2
    assert message in one_line(capsys)
  two = [(align.CANONICAL5 * side).tolist() for side in (30.0, 60.0)]
  (files / "detector.py").write_text(f"def detect(image):\n  return {two}\n")
  option = f"--detector={files / 'detector.py'}"
  for face, place in (("2", "2"), ("largest", "1, the largest")):
    assert command(workdir, files, option, f"--face={face}") == 0
    said = capsys.readouterr().out
    assert "source: 2 faces found by the detector detector.py; took" in said
    assert f"took {place} (faces by size: 1 at 30,33; 2 at 15,17)" in said
  (files / "list.csv").write_text(
    "source,output,face\na.png,1.png,2\na.png,2.png,\na.png,3.png,9\n"
  )
  code = edit.main(
    [f"--workdir={workdir}", f"--pairs={files / 'list.csv'}", option]
  )
  printed = capsys.readouterr()
  assert code == 1 and "line 4: " in printed.err
  assert "there is no face 9" in printed.err
  assert "line 2: source: 2 faces" in printed.out
  assert "; took 2 (" in printed.out and "; took 1, the la" in printed.out


def break_file(path, how):
  if how == "missing":
    path.unlink()
  elif how == "truncated":
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
  elif how == "tiny":
    Image.new("RGB", (9, 9)).save(path)
  else:
    path.write_text("no picture")


@pytest.mark.parametrize(
  "how, message",
  [
    ("missing", "b.png: no such file"),
    ("truncated", "b.png: is damaged or cut short"),
    ("tiny", "b.png: is 9x9 pixels, wanted at least 16x16"),
    ("text", "b.png: is not a picture"),
  ],
)
def test_unusable_pictures(workdir, files, how, message, capsys):
  (files / "out.png").write_bytes(b"an earlier result")
  break_file(files / "b.png", how)
  assert command(workdir, files, "--pose_from", files / "b.png") == 2
  line = one_line(capsys)
  assert message in line and "pose_from" in line
  assert (files / "out.png").read_bytes() == b"an earlier result"


def test_an_output_is_whole_or_the_old_one(workdir, files, monkeypatch, capsys):
  (files / "out.png").write_bytes(b"an earlier result")
  before = {p.name for p in files.iterdir()}

  def full(self, file, *arguments, **options):
    with open(file, "wb") as half:
      half.write(b"half")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(Image.Image, "save", full)
  assert command(workdir, files) == 2
  assert "out.png: cannot be written (No space left" in one_line(capsys)
  assert (files / "out.png").read_bytes() == b"an earlier result"
  assert {p.name for p in files.iterdir()} == before


@pytest.mark.parametrize(
  "output, message",
  [
    ("out.xyz", "unknown picture suffix '.xyz'"),
    ("a.png/out.png", "cannot be written"),
    (".", "unknown picture suffix"),
  ],
)
def test_unwritable_outputs(workdir, files, output, message, capsys):
  assert command(workdir, files, f"--output={files / output}") == 2
  assert message in one_line(capsys)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--stage=haed"], "did you mean 'head'"),
    (["--pose_form=b.png"], "did you mean 'pose_from'"),
    (["--noise"], "--noise has no value"),
    (["stray"], "unknown argument 'stray'"),
    (["--seed=x"], "argument --seed: invalid int value"),
    (["--pairs=p.csv"], "--source: with --pairs it is a column"),
    (["--config=none.py"], "no config file 'none.py'"),
    (["--landmarks=none.csv"], "none.csv: no such landmarks file"),
    (["--mode=other"], "mode is 'other'; it must be"),
  ],
)
def test_mistakes_on_the_command_line(
  workdir, files, arguments, message, capsys
):
  assert command(workdir, files, *arguments) == 2
  assert message in one_line(capsys)


def test_workdirs_that_do_not_fit(workdir, files, tmp_path, capsys):
  assert command(tmp_path / "none", files) == 2
  assert "none: no such directory" in one_line(capsys)
  (tmp_path / "empty").mkdir()
  assert command(tmp_path / "empty", files) == 2
  assert "holds no trained stage" in one_line(capsys)
  # The stage that the frozen nets come from is gone.
  (tmp_path / "half").mkdir()
  os.symlink(workdir / "head", tmp_path / "half" / "head")
  assert command(tmp_path / "half", files) == 2
  assert "comes from stage 'ae', which has no checkpoint" in one_line(capsys)
  with pytest.raises(CheckpointError, match="no checkpoint of step 7"):
    load_trained.load(workdir, step=7)


def test_the_exit_code_of_the_process(tmp_path):
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "faceedit_jax.edit",
      f"--workdir={tmp_path / 'none'}",
      "--source=a.png",
      f"--output={tmp_path / 'out.png'}",
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_run_is_exported_from_its_record(workdir, tmp_path, capsys):
  line = [f"--workdir={workdir}", f"--out={tmp_path}", "--platforms=cpu"]
  assert export.main([*line, '--options={"noise": 0.5}']) == 0
  bundle = export.load_bundle(tmp_path)
  assert sorted(bundle.manifest["inputs"]) == [
    "light_from", "pose_from", "source"
  ]  # fmt: skip
  assert bundle.manifest["info"]["stage"] == "head"
  for wrong, message in (
    ('--options={"noize": 1}', "did you mean 'noise'?"),
    ('--options={"steps": "many"}', "many"),
    ("--config.nets.head.width=4", "needs --config"),
  ):
    capsys.readouterr()
    assert export.main([*line, wrong]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and message in said[0], said
