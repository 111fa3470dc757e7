"""Editing: pictures of every kind in, whole files out, one line per mistake."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipelines import align
from faceedit_jax import edit, export, load_trained
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import CheckpointError, UserError
from tests.editing.toy_editor import (
  MIDDLE,
  SIZE,
  ToyEditor,
  config_of,
  portrait,
  save_run,
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Both stages as a finished run leaves them."""
  return save_run(tmp_path_factory.mktemp("run"), config_of())


@pytest.fixture(scope="module")
def editor(workdir):
  return edit.Editor.from_workdir(workdir, batch_size=2)


@pytest.fixture
def files(tmp_path):
  """a.png and b.png."""
  for name, ground in (("a", 90), ("b", 200)):
    Image.fromarray(portrait(ground=ground)[0]).save(tmp_path / f"{name}.png")
  return tmp_path


def command(workdir, folder, *arguments):
  """The exit code of a command line on a.png."""
  return edit.main(
    [
      f"--workdir={workdir}",
      f"--source={folder / 'a.png'}",
      f"--output={folder / 'out.png'}",
      *map(str, arguments),
    ]
  )


def one_line(capsys):
  """The error printed, which must be one line and nothing else."""
  printed = capsys.readouterr()
  assert printed.out == ""
  assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
  return printed.err


# The Python side.


def test_the_last_editing_stage_is_loaded_from_the_record(workdir):
  config = load_trained.recorded_config(workdir)
  assert config["stages"] == ("ae", "head") and config["image_size"] == SIZE
  loaded = load_trained.load(workdir)
  assert isinstance(loaded.recipe, ToyEditor)
  assert set(loaded.variables) == {"head"}
  assert set(loaded.frozen) == {"enc", "dec"}


def test_an_edit_of_arrays(editor):
  source, points = portrait()
  query, _ = portrait(200, 150, 120, 70, 80, ground=200)
  result = editor.edit(source, pose_from=query, steps=3)
  assert result.image.shape == (SIZE, SIZE, 3)
  assert result.image.dtype == np.uint8 and result.pasted is None
  both = result.source.astype(float) + result.queries["pose_from"]
  np.testing.assert_allclose(result.image, both / 2, atol=1)
  np.testing.assert_allclose(result.points, points, atol=2)
  assert result.rendering.shape == (SIZE, SIZE, 3)
  assert result.outputs["slots"].shape == (SIZE // 2, SIZE // 2, 4)
  assert "steps" not in result.outputs
  assert result.shown["slots"].dtype == np.uint8
  # The face is where alignment wants it.
  red = result.source[..., 0].astype(int) - result.source[..., 1] > 100
  centre = np.argwhere(red).mean(0)[::-1] + 0.5
  np.testing.assert_allclose(centre / SIZE, MIDDLE, atol=0.03)


def test_points_may_be_given(editor):
  picture, points = portrait()
  wrong = points + [10.0, 0.0]
  result = editor.edit(picture, landmarks={"source": wrong})
  np.testing.assert_allclose(result.points.mean(0), wrong.mean(0), atol=1e-6)


def test_a_detector_may_be_given(editor):
  picture, points = portrait()
  loaded = load_trained.Trained(
    editor.recipe, editor._variables, editor._frozen, SIZE
  )
  calls = []

  def detector(image):
    calls.append(image.shape)
    return points if image[0, 0, 0] == 90 else None

  own = edit.Editor(
    loaded.recipe, loaded.variables, loaded.frozen, SIZE, detector=detector
  )
  np.testing.assert_allclose(own.edit(picture).points, points, atol=1e-4)
  assert calls == [picture.shape]
  with pytest.raises(UserError, match="^light_from: no face .*detector"):
    own.edit(picture, light_from=np.zeros((40, 40, 3), np.uint8))


def test_framed_pictures_are_only_cut(editor):
  picture = np.tile(np.uint8([10, 100, 200]), (SIZE, SIZE, 1))
  result = editor.edit(picture, aligned=True)
  np.testing.assert_array_equal(result.source, picture)
  np.testing.assert_allclose(result.image, picture, atol=1)


def test_paste_back_changes_the_face_alone(editor):
  source, _ = portrait(200, 160, 100, 80, 60)
  query, _ = portrait(ground=200)
  result = editor.edit(source, light_from=query, paste_back=True)
  assert result.pasted.shape == source.shape
  changed = (result.pasted != source).any(-1)
  rows, columns = np.nonzero(changed)
  assert changed.sum() > 500
  assert rows.min() > 30 and rows.max() < 130
  assert columns.min() > 60 and columns.max() < 140


def test_many_edits_are_the_single_ones(editor):
  pictures = [portrait(ground=g)[0] for g in (40, 90, 140, 190)]
  bad = np.zeros((40, 40, 3), np.uint8)
  rows = [
    {"source": bad},
    {"source": pictures[0], "pose_from": pictures[1]},
    {"source": pictures[2], "pose_from": pictures[3]},
    {"source": bad},
    {"source": pictures[3], "pose_from": None},
    {"source": pictures[1], "pose_from": pictures[0]},
    {"pose_from": pictures[1]},
  ]
  results = list(editor.edit_many(rows, noise=0.3, seed=5))
  assert len(results) == len(rows)
  wrong = [i for i, r in enumerate(results) if isinstance(r, UserError)]
  assert wrong == [0, 3, 6]
  for i in (1, 2, 4, 5):
    alone = editor.edit(noise=0.3, seed=5, **rows[i])
    np.testing.assert_array_equal(results[i].image, alone.image)
  other = editor.edit(noise=0.3, seed=6, **rows[1])
  assert (other.image != results[1].image).mean() > 0.5


@pytest.mark.parametrize(
  "arguments, message",
  [
    ({"pose_form": "b.png"}, "no query or setting 'pose_form'; did you mean "
     "pose_from"),
    ({"strength": 2}, "it knows .*'light_from', 'steps', 'mode', 'noise'"),
    ({"steps": "many"}, "edit with .*'many'"),
    ({"mode": "other"}, "mode is 'other'; it must be"),
    ({"mode": "nan"}, "diverged"),
    ({"light_from": np.zeros((40, 40, 3))}, "light_from is float64"),
    ({"light_from": np.zeros((4, 4, 3), np.uint8)}, "is 4x4 pixels"),
    ({"landmarks": {"source": np.zeros((5, 2))}}, "source: .*in one place"),
    ({"landmarks": {"source": np.zeros((4, 2))}}, r"source: .*shape \(4, 2\)"),
  ],
)  # fmt: skip
def test_mistakes_from_python(editor, arguments, message):
  with pytest.raises(UserError, match=message) as error:
    editor.edit(portrait()[0], **arguments)
  assert len(str(error.value).splitlines()) == 1


def test_a_stage_that_edits_nothing_is_refused(editor):
  class Trains(recipe_lib.Recipe):
    groups = phases = batch_spec = init = lambda self: {}

  with pytest.raises(UserError, match="Trains trains a net for later stages"):
    edit.Editor(Trains(), {}, {}, SIZE)


# The command line.


@pytest.mark.parametrize("kind", ["gray", "rgba", "wide", "jpg"])
def test_pictures_of_every_kind(editor, files, kind):
  picture = portrait()[0]
  path = files / ("kind.jpg" if kind == "jpg" else "kind.png")
  colourless = kind in ("gray", "wide")
  if kind == "gray":
    Image.fromarray(picture[..., 0]).save(path)
  elif kind == "wide":
    Image.fromarray(picture[..., 0].astype(np.uint16) * 257).save(path)
  elif kind == "rgba":
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    Image.fromarray(np.concatenate([picture, alpha], -1)).save(path)
  else:
    Image.fromarray(picture).save(path, quality=95)
  result = editor.edit(path, aligned=colourless)
  if colourless:
    picture = picture[..., :1].repeat(3, -1)
  wanted = editor.edit(picture, aligned=colourless)
  difference = np.abs(result.image.astype(int) - wanted.image)
  assert difference.mean() < (2 if kind == "jpg" else 1e-6)


def test_a_picture_in_and_a_picture_out(workdir, files, capsys):
  assert command(workdir, files, f"--pose_from={files / 'b.png'}") == 0
  assert capsys.readouterr().out == f"wrote {files / 'out.png'}\n"
  with Image.open(files / "out.png") as made:
    assert made.size == (SIZE, SIZE) and made.mode == "RGB"
  assert {p.name for p in files.iterdir()} == {"a.png", "b.png", "out.png"}


def test_sheet_and_paste_back(workdir, files, capsys):
  options = ("--sheet", "--paste_back", "--steps", "2", "--mode=mean")
  query = f"--light_from={files / 'b.png'}"
  assert command(workdir, files, query, *options) == 0
  with Image.open(files / "out.png") as made:
    assert made.size == (90, 120)
  with Image.open(files / "out_sheet.png") as sheet:
    # Source, query, rendering, edit, slots.
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
    (["--pose_form=b.png"], "did you mean pose_from"),
    (["--noise"], "--noise has no value"),
    (["stray"], "unknown argument 'stray'"),
    (["--seed=x"], "argument --seed: invalid int value"),
    (["--pairs=p.csv"], "wanted either --source and --output, or --pairs"),
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


# Lists of edits.


def write_pairs(path, rows, columns=("source", "pose_from", "output")):
  with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(rows)


def test_a_list_of_edits(workdir, files, capsys):
  write_pairs(
    files / "pairs.csv",
    [("a.png", "b.png", "one.png"), ("b.png", "", "two.jpg")],
  )
  pairs = [f"--workdir={workdir}", f"--pairs={files / 'pairs.csv'}"]
  assert edit.main([*pairs, f"--output={files / 'made'}", "--sheet"]) == 0
  assert capsys.readouterr().out == "2 of 2 edits written\n"
  made = {p.name for p in (files / "made").iterdir()}
  assert made == {"one.png", "one_sheet.png", "two.jpg", "two_sheet.png"}
  query = f"--pose_from={files / 'b.png'}"
  assert command(workdir, files, query) == 0
  with (
    Image.open(files / "out.png") as a,
    Image.open(files / "made/one.png") as b,
  ):
    np.testing.assert_allclose(
      np.asarray(a, float), np.asarray(b, float), atol=1
    )


def test_bad_lines_are_named_and_the_others_done(workdir, files, capsys):
  (files / "dark.png").write_bytes((files / "a.png").read_bytes())
  Image.new("RGB", (60, 60)).save(files / "dark.png")
  write_pairs(
    files / "pairs.csv",
    [
      ("a.png", "b.png", "one.png"),
      ("none.png", "b.png", "two.png"),
      ("a.png", "dark.png", "three.png"),
      ("a.png", "b.png"),
      ("a.png", "b.png", "four.png", "more"),
      ("a.png", "b.png", "one.png"),
      ("a.png", "b.png", "five.xyz"),
      ("b.png", "a.png", "six.png"),
    ],
  )
  pairs = [f"--workdir={workdir}", f"--pairs={files / 'pairs.csv'}"]
  assert edit.main(pairs) == 1
  printed = capsys.readouterr()
  assert printed.out == "2 of 8 edits written, 6 failed\n"
  lines = [x for x in printed.err.splitlines() if x.startswith("error")]
  for number, text in {
    3: "none.png: no such file",
    4: "dark.png: no face found",
    5: "lacks output",
    6: "too many columns",
    7: "is that of line 2",
    8: "unknown picture suffix",
  }.items():
    [line] = [x for x in lines if f"pairs.csv line {number}: " in x]
    assert text in line
  assert len(lines) == 6
  made = {p.name for p in files.iterdir()}
  assert {"one.png", "six.png"} <= made
  assert not {"two.png", "three.png", "four.png"} & made


@pytest.mark.parametrize(
  "columns, rows, message",
  [
    (("source", "pose_form", "output"), [("a", "b", "c")], "line 1: columns"),
    (("source", "pose_from"), [("a.png", "b.png")], "line 1: columns"),
    (("source", "output"), [], "lists no edits"),
  ],
)
def test_unusable_lists(workdir, files, columns, rows, message, capsys):
  write_pairs(files / "pairs.csv", rows, columns)
  pairs = [f"--workdir={workdir}", f"--pairs={files / 'pairs.csv'}"]
  assert edit.main(pairs) == 2
  assert message in one_line(capsys)


def test_a_missing_list_and_a_query_beside_it(workdir, files, capsys):
  pairs = [f"--workdir={workdir}", f"--pairs={files / 'pairs.csv'}"]
  assert edit.main(pairs) == 2
  assert "pairs.csv: " in one_line(capsys)
  write_pairs(files / "pairs.csv", [("a.png", "b.png", "one.png")])
  assert edit.main([*pairs, "--pose_from=b.png"]) == 2
  assert "with --pairs it is a column" in one_line(capsys)


def test_a_run_is_exported_from_its_record(workdir, tmp_path, capsys):
  line = [f"--workdir={workdir}", f"--out={tmp_path}", "--platforms=cpu"]
  assert export.main([*line, '--knobs={"noise": 0.5}']) == 0
  bundle = export.load_bundle(tmp_path)
  assert sorted(bundle.manifest["inputs"]) == [
    "light_from", "pose_from", "row", "source"
  ]  # fmt: skip
  assert bundle.manifest["info"]["stage"] == "head"
  for wrong, message in (
    ('--knobs={"noize": 1}', "did you mean noise?"),
    ('--knobs={"steps": "many"}', "many"),
    ("--config.nets.head.width=4", "needs --config"),
  ):
    capsys.readouterr()
    assert export.main([*line, wrong]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and message in said[0], said
