"""Label maps, sketches, texts, cameras and numbers, from files to the edit."""

import csv
import functools
import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines import images
from faceedit_jax import edit, export
from faceedit_jax.core import editing
from faceedit_jax.core.errors import UserError
from faceedit_jax.editing import Editor
from tests.editing import toy_editor, toy_painter
from tests.editing.toy_editor import SIZE, one_line
from tests.editing.toy_painter import ToyPainter, blue_of, tokenize

LAYOUT = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE) % 4
CAMERA = [float(i) for i in range(25)]  # its fourth number is 3


@pytest.fixture(scope="module")
def painter_run(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  return toy_editor.save_run(folder, toy_painter.config_of())


@pytest.fixture(scope="module")
def painter(painter_run):
  return Editor.from_workdir(painter_run, batch_size=2)


@pytest.fixture
def folder(tmp_path):
  """Files of every kind of input."""
  palette = Image.fromarray(LAYOUT).convert("P")
  palette.putpalette([90, 3, 250] * 256)
  palette.putdata(LAYOUT.ravel().tolist())
  palette.save(tmp_path / "palette.png")
  Image.fromarray(LAYOUT).save(tmp_path / "gray.png")
  Image.fromarray(np.full((40, 60), 128, np.uint8)).save(tmp_path / "lines.png")
  (tmp_path / "camera.json").write_text(
    json.dumps([np.reshape(CAMERA[:16], (4, 4)).tolist(), CAMERA[16:]])
  )
  (tmp_path / "camera.csv").write_text(",".join(map(str, CAMERA)) + "\n")
  (tmp_path / "camera.txt").write_text("\n".join(map(str, CAMERA)))
  return tmp_path


def red_of(classes):
  """The red of the edit of a label map."""
  rows = np.repeat(classes, 2, axis=0).astype(float)
  return np.round(rows * 255 / 3)


def test_a_label_map_keeps_its_classes(painter, folder):
  for layout in (LAYOUT, folder / "gray.png", folder / "palette.png"):
    result = painter.edit(layout=layout)
    assert result.image.shape == (2 * SIZE, SIZE, 3)
    np.testing.assert_array_equal(result.image[..., 0], red_of(LAYOUT))
    np.testing.assert_array_equal(result.inputs["layout"], LAYOUT)
  # Resized, it holds no classes but its own.
  for side in (3 * SIZE, 17):
    coarse = np.random.default_rng(0).choice([0, 3], (side, side))
    made = painter.edit(layout=coarse).image[..., 0]
    assert set(np.unique(made)) == {0, 255}
  large = np.kron(LAYOUT, np.ones((4, 4), np.uint8))
  np.testing.assert_array_equal(
    painter.edit(layout=large).inputs["layout"], LAYOUT
  )


def test_a_result_says_its_own_size(painter):
  result = painter.edit(layout=LAYOUT)
  assert result.source is result.points is result.matrix is None
  assert result.strip.shape == (2 * SIZE, 2 * SIZE, 3)
  assert result.strip_sheet().shape[1] == 2 * (192 + 4) + 4
  lines = np.zeros((20, 20), np.uint8)
  sheet = painter.edit(layout=LAYOUT, lines=lines).sheet()
  assert sheet.shape[1] == 3 * (192 + 4) + 4  # layout, lines, edit


def test_a_sketch_is_gray_and_interpolated(painter, folder):
  dots = np.zeros((64, 64, 4), np.uint8)
  dots[..., 3] = 255
  dots[::2, ::2, :3] = 255  # shrunk to a quarter, all of it is one gray
  result = painter.edit(layout=LAYOUT, lines=dots)
  assert result.inputs["lines"].shape == (16, 16)
  inner = result.inputs["lines"][2:-2, 2:-2]
  np.testing.assert_allclose(inner, 64, atol=24)
  green = painter.edit(layout=LAYOUT, lines=folder / "lines.png").image[..., 1]
  assert set(np.unique(green)) == {128}


def test_cameras_and_numbers(painter, folder):
  files = [folder / f"camera.{suffix}" for suffix in ("json", "csv", "txt")]
  text = " ".join(map(str, CAMERA))
  for camera in (*files, CAMERA, np.array(CAMERA), text):
    made = painter.edit(layout=LAYOUT, camera=camera)
    assert blue_of(made.image) == pytest.approx(3, abs=0.05)
  for amount in (2, 2.0, np.float32(2), "2"):
    made = painter.edit(layout=LAYOUT, amount=amount)
    assert blue_of(made.image) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(
  "given, message",
  [
    ({}, "edit lacks 'layout'; wanted it and any of .*'camera'"),
    ({"layout": LAYOUT + 1}, "layout holds class 4, wanted 0 to 3"),
    ({"layout": LAYOUT.astype(int) - 1}, "layout holds class -1"),
    ({"layout": LAYOUT * 1.0}, "layout is float64"),
    ({"layout": "colours.png"}, "layout: .*colours.png: holds colours"),
    ({"layout": "layout.jpg"}, "is JPEG, which changes classes"),
    ({"layout": "none.png"}, "none.png: no such file"),
    ({"lines": LAYOUT * 1.0}, "lines is float64"),
    ({"prompt": "loud"}, "prompt: 'loud': wanted at most 3 of"),
    ({"prompt": 3}, "prompt is 3, wanted a text"),
    ({"camera": CAMERA[1:]}, "camera: wanted 25 finite numbers"),
    ({"camera": [*CAMERA[1:], np.nan]}, "camera: wanted 25 finite numbers"),
    ({"camera": {"a": 1}}, "camera: wanted 25 finite numbers"),
    ({"camera": "none.json"}, "none.json: no such file, and not 25 finite"),
    ({"camera": "short.json"}, "short.json: wanted 25 finite numbers"),
    ({"camera": "words.txt"}, "words.txt: wanted 25 finite numbers"),
    ({"camera": "broken.json"}, "camera: .*broken.json: Expecting"),
    ({"amount": "much"}, "amount is 'much', wanted a finite number"),
    ({"amount": True}, "amount is True, wanted a finite number"),
    ({"amount": [1.0]}, r"amount is \[1.0\], wanted a finite number"),
    ({"ammount": 1}, "no input or option 'ammount'; did you mean 'amount'"),
    ({"gains": 1}, "no input or option 'gains'; did you mean 'gain'"),
    ({"source": LAYOUT}, "no input or option 'source'"),
  ],
)
def test_mistakes(painter, tmp_path, monkeypatch, given, message):
  monkeypatch.chdir(tmp_path)
  colours = np.random.default_rng(0).integers(0, 9, (20, 20, 3), np.uint8)
  Image.fromarray(colours).save("colours.png")
  Image.fromarray(LAYOUT).save("layout.jpg")
  (tmp_path / "short.json").write_text("[1, 2]")
  (tmp_path / "words.txt").write_text("one two")
  (tmp_path / "broken.json").write_text("{")
  if given and set(given) != {"layout"}:
    given = {"layout": LAYOUT, **given}
  with pytest.raises(UserError, match=message) as error:
    painter.edit(**given)
  assert len(str(error.value).splitlines()) == 1


def test_a_tokenizer_that_breaks_its_word_is_named(painter):
  short = editing.EditInput("prompt", "text", tokenizer=tokenize, length=5)

  class Wrong(ToyPainter):
    edit_inputs = (short,)

  with pytest.raises(UserError, match=r"gave int64 \(3,\), wanted .* \(5,\)"):
    Editor(Wrong(), {}, {}, SIZE).edit(prompt="dark")


def test_data_compile_nothing_anew(painter, monkeypatch):
  traces = []
  original = ToyPainter.edit

  @functools.wraps(original)
  def counted(self, *arguments, **options):
    traces.append(options)
    return original(self, *arguments, **options)

  monkeypatch.setattr(ToyPainter, "edit", counted)
  own = Editor(painter.recipe, painter._variables, painter._frozen, SIZE)

  def at(prompt, amount, gain):
    made = own.edit(
      layout=LAYOUT, prompt=prompt, amount=amount, camera=CAMERA, gain=gain
    )
    return blue_of(made.image)

  # The empty text is a text as well.
  for prompt, words in (("dark warm", 4), ("light", 2), ("", 0)):
    for amount, gain in ((1, 1), (0.5, 2), (3, 0)):
      wanted = 3 + words + amount * gain
      assert at(prompt, amount, gain) == pytest.approx(wanted, abs=0.05)
  assert len(traces) == 1
  own.edit(layout=LAYOUT, prompt="dark", invert=True)
  assert len(traces) == 2


def test_paste_back_is_refused_where_it_means_nothing(painter):
  with pytest.raises(UserError, match="^ToyPainter edits no photo"):
    painter.edit(layout=LAYOUT, paste_back=True)
  with pytest.raises(UserError, match="^ToyPainter edits no photo"):
    painter.edit_many([{"layout": LAYOUT}], paste_back=True)


# The command line, lists and exports.


def test_the_command_line(painter_run, folder, capsys):
  line = [
    f"--workdir={painter_run}",
    f"--output={folder / 'out.png'}",
    f"--layout={folder / 'palette.png'}",
    "--prompt=dark warm",
    f"--camera={folder / 'camera.json'}",
    "--amount=-1.5",
    "--gain=2",
  ]
  assert edit.main(line) == 0, capsys.readouterr().err
  made = images.read_image(folder / "out.png")
  np.testing.assert_array_equal(made[..., 0], red_of(LAYOUT))
  assert blue_of(made) == pytest.approx(3 + 4 - 3, abs=0.05)
  capsys.readouterr()
  for wrong, message in (
    ("--paste_back", "edits no photo"),
    ("--source=a.png", "no input or option 'source'"),
    ("--layouts=a.png", "did you mean 'layout'?"),
    ("--prompt=5", "prompt: '5': wanted"),
  ):
    assert edit.main([*line, wrong]) == 2
    assert message in one_line(capsys)
  assert edit.main([line[0], line[1]]) == 2
  assert "edit lacks 'layout'" in one_line(capsys)


def test_help_lists_the_inputs_of_a_run(painter_run, capsys):
  assert edit.main(["--help"]) == 0
  assert "layout" not in capsys.readouterr().out
  assert edit.main([f"--workdir={painter_run}", "--help"]) == 0
  said = capsys.readouterr().out
  for wanted in (
    "--layout                label_map: picture of classes 0 to 3",
    "--prompt                text",
    "--camera                camera: 25 numbers",
    "--amount                number",
    "--gain --invert",
  ):
    assert wanted in said
  assert edit.main([f"--workdir={painter_run}", "--help", "--stage=ae"]) == 2
  assert "net that others stand on" in one_line(capsys)


def test_a_list(painter_run, folder, capsys):
  path = folder / "list.csv"
  numbers = " ".join(map(str, CAMERA))
  with path.open("w", newline="") as file:
    csv.writer(file).writerows(
      [
        ("layout", "prompt", "camera", "amount", "invert", "output"),
        ("gray.png", "dark", "camera.csv", "1", "", "one.png"),
        ("gray.png", "warm, dark", "", "", "", "two.png"),
        ("palette.png", "warm dark", numbers, "0", "", "three.png"),
        ("gray.png", "", "", "2", "true", "four.png"),
        ("", "dark", "", "", "", "five.png"),
        ("lines.png", "dark", "", "", "", "six.png"),
      ]
    )
  line = [f"--workdir={painter_run}", f"--pairs={path}", "--gain=2"]
  assert edit.main(line) == 1
  said = capsys.readouterr()
  assert said.out == "3 of 6 edits written, 3 failed\n"
  errors = said.err.splitlines()
  wrong = {3: "'warm, dark'", 6: "lacks layout", 7: "class 128"}
  for number, text in wrong.items():
    assert any(f"line {number}: " in e and text in e for e in errors)
  for name, wanted in (("one", 6), ("three", 7)):
    made = images.read_image(folder / f"{name}.png")
    assert blue_of(made) == pytest.approx(wanted, abs=0.05)
  made = images.read_image(folder / "four.png")
  assert blue_of(made) == pytest.approx(20 - 4, abs=0.05)


def test_an_export(painter_run, painter, tmp_path):
  line = [f"--workdir={painter_run}", f"--out={tmp_path}", "--platforms=cpu"]
  names = "--inputs=layout,lines,prompt,camera,amount"
  assert export.main([*line, names, '--options={"gain": 3}']) == 0
  bundle = export.load_bundle(tmp_path)
  inputs = bundle.manifest["inputs"]
  assert inputs["layout"] == {
    "shape": ["b", SIZE, SIZE],
    "dtype": "uint8",
    "range": [0, 3],
    "kind": "label_map",
    "required": True,
  }
  assert {name: (i["shape"], i["dtype"]) for name, i in inputs.items()} == {
    "layout": (["b", SIZE, SIZE], "uint8"),
    "lines": (["b", 16, 16, 1], "float32"),
    "prompt": (["b", 3], "int32"),
    "camera": (["b", 25], "float32"),
    "amount": (["b"], "float32"),
  }
  assert bundle.manifest["outputs"]["image"]["shape"] == [
    "b", 2 * SIZE, SIZE, 3
  ]  # fmt: skip
  made = bundle(
    {
      "layout": LAYOUT[None],
      "lines": np.zeros((1, 16, 16, 1), np.float32),
      "prompt": tokenize("warm")[None].astype(np.int32),
      "camera": np.float32([CAMERA]),
      "amount": np.float32([1]),
    }
  )["image"][0]
  wanted = painter.edit(
    layout=LAYOUT, prompt="warm", camera=CAMERA, amount=1, gain=3
  )
  as_bytes = (np.asarray(made) + 1) * 127.5
  for channel in (0, 2):  # a black sketch is not the same as none
    np.testing.assert_allclose(
      as_bytes[..., channel], wanted.image[..., channel], atol=1
    )
  # Without names a bundle takes what is required.
  assert export.main(line) == 0
  assert list(export.load_bundle(tmp_path).manifest["inputs"]) == ["layout"]
