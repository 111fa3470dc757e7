"""Editing by words and strengths: command line, lists, Python and export."""

import csv
import functools
import json

import numpy as np
import pytest
from PIL import Image

from faceedit_jax import edit, export
from faceedit_jax.core.errors import UserError
from faceedit_jax.editing import Editor
from tests.editing.toy_editor import SIZE, save_run
from tests.toy_attributes import COLOURS, ToyAttributes, config_of

GRAY = 120
CELL = 164  # of a labelled sheet


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Both stages as a finished run leaves them."""
  return save_run(tmp_path_factory.mktemp("run"), config_of())


@pytest.fixture(scope="module")
def editor(workdir):
  return Editor.from_workdir(workdir, batch_size=2)


@pytest.fixture
def files(tmp_path):
  """Framed pictures a.png, gray, and b.png, reddish."""
  for name, colour in (("a", (GRAY,) * 3), ("b", (200, 100, 100))):
    Image.new("RGB", (SIZE, SIZE), colour).save(tmp_path / f"{name}.png")
  return tmp_path


def command(workdir, folder, *arguments):
  """The exit code of a command line on a.png."""
  return edit.main(
    [
      f"--workdir={workdir}",
      f"--source={folder / 'a.png'}",
      f"--output={folder / 'out.png'}",
      "--aligned",
      *map(str, arguments),
    ]
  )


def colour_of(picture):
  """The one colour of a picture or file."""
  if not isinstance(picture, np.ndarray):
    with Image.open(picture) as image:
      picture = np.asarray(image)
  assert (picture == picture[0, 0]).all()
  return picture[0, 0].astype(int)


def gray_plus(**strengths):
  """The colour of a.png after attributes at these strengths."""
  colour = np.full(3, float(GRAY))
  for name, strength in strengths.items():
    colour += 127.5 * strength * np.array(COLOURS[name])
  return colour


@pytest.mark.parametrize(
  "arguments, wanted",
  [
    (["--attribute=+Smiling", "--strength=0.8"], {"Smiling": 0.8}),
    (["--attribute", "-Bangs"], {"Bangs": -1}),
    (["--attribute", "+Bangs", "--strength", "-0.5"], {"Bangs": -0.5}),
    (["--attribute=-Smiling,+Eyeglasses"], {"Smiling": -1, "Eyeglasses": 1}),
    (["--attribute=Bangs", "--has=true"], {}),
    (["--attribute=Bangs", "--has=false"], {"Bangs": 1}),
    ([], {"Smiling": 1}),
  ],
)
def test_words_on_the_command_line(workdir, files, arguments, wanted):
  assert command(workdir, files, *arguments) == 0
  got = colour_of(files / "out.png")
  np.testing.assert_allclose(got, gray_plus(**wanted), atol=1)


def test_attributes_are_edited_in_their_order(editor):
  source = np.full((SIZE, SIZE, 3), 240, np.uint8)
  up, down = (
    colour_of(editor.edit(source, attribute=text, aligned=True).image)
    for text in ("+Smiling,-Smiling", "-Smiling,+Smiling")
  )
  # The first is clipped at white before it comes down again.
  np.testing.assert_allclose(up, [240, 255 - 51, 240], atol=1)
  np.testing.assert_allclose(down, [240, 240, 240], atol=1)


def test_an_attribute_from_another_picture(workdir, files):
  other = f"--attribute_from={files / 'b.png'}"
  assert command(workdir, files, "--attribute=Bangs", other, "--sheet") == 0
  change = np.array([200, 100, 100]) - 127.5
  np.testing.assert_allclose(
    colour_of(files / "out.png"), GRAY + change, atol=1
  )
  with Image.open(files / "out_sheet.png") as sheet:
    assert sheet.size[0] == 3 * CELL + 4  # source, other picture, edit


@pytest.mark.parametrize(
  "text, strengths",
  [
    ("-0.5,0,0.5,1,1.5", (-0.5, 0, 0.5, 1, 1.5)),
    ("0:1.5:4", (0, 0.5, 1, 1.5)),
    ("0.5", (0.5,)),
  ],
)
def test_a_strip_of_strengths(workdir, files, text, strengths, capsys):
  option = f"--strengths={text}"
  assert command(workdir, files, "--attribute=Smiling", option, "--sheet") == 0
  out, strip = files / "out.png", files / "out_strip.png"
  assert capsys.readouterr().out == f"wrote {out} and {strip}\n"
  np.testing.assert_allclose(colour_of(out), gray_plus(Smiling=1), atol=1)
  with Image.open(strip) as made:
    made = np.asarray(made)
  assert made.shape[1] == (len(strengths) + 1) * CELL + 4
  middles = [made[100, 4 + i * CELL + 80] for i in range(len(strengths) + 1)]
  # The source comes first; it is at strength 0 too.
  for got, strength in zip(middles, (0, *strengths), strict=True):
    np.testing.assert_allclose(got, gray_plus(Smiling=strength), atol=1)
  # Every cell has a label of its own.
  labels = [made[:20, 4 + i * CELL :][:, :160] for i in range(len(middles))]
  assert all((label < 128).any() for label in labels)
  assert len({label.tobytes() for label in labels}) == len(labels)
  with Image.open(files / "out_sheet.png") as sheet:
    assert sheet.size == (2 * CELL + 4, 184)  # the strip is not in it


def test_a_strip_from_python(editor, files):
  result = editor.edit(
    source=files / "a.png",
    attribute="+Smiling",
    strengths=np.linspace(0, 1, 3),
    aligned=True,
  )
  assert result.strip.shape == (SIZE, 3 * SIZE, 3)
  assert result.strip.dtype == np.uint8
  assert result.options == {
    "attribute": "+Smiling",
    "strengths": [0.0, 0.5, 1.0],
  }
  for i, picture in enumerate(np.split(result.strip, 3, 1)):
    np.testing.assert_allclose(
      colour_of(picture), gray_plus(Smiling=i / 2), atol=1
    )
  plain = editor.edit(files / "a.png", aligned=True)
  assert plain.strip is None
  one = editor.edit(files / "a.png", strengths=0.5, aligned=True)
  assert one.options == {"strengths": (0.5,)}
  with pytest.raises(UserError, match="made no strip"):
    plain.strip_sheet()


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--attribute=Smilling"], "'Smilling' is unknown; did you mean Smiling?"),
    (["--attribute=Male"], "it knows Smiling, Eyeglasses, Bangs"),
    (["--attribute=+Smiling,"], "no name in '+Smiling,'"),
    (["--attribute=3"], "attribute is 3, wanted names"),
    (["--strength=much"], "strength: 'much' is no number"),
    (["--strength=0,1"], "strength: (0, 1) is no number"),
    (["--strengths=0,0.5,l"], "strengths: '0,0.5,l' are no numbers; wanted"),
    (["--strengths=0:1.5"], "FIRST:LAST:COUNT like 0:1.5:7"),
    (["--strengths=0:1.5:x"], "'0:1.5:x' are no numbers"),
    (["--strengths=0:1:1"], "'0:1:1' are no numbers"),
    (["--strengths=nan:1:3"], "strengths: nan is no number"),
    (["--strengths", "0,", "1"], "unknown argument '1'"),
    (["--attribut=Bangs"], "did you mean 'attribute'?"),
    (["--attribute", "--sheet"], "--attribute has no value"),
    (["--attribute_from=none.png"], "none.png: no such file"),
  ],
)
def test_mistakes(workdir, files, arguments, message, capsys):
  assert command(workdir, files, *arguments) == 2
  printed = capsys.readouterr()
  assert printed.out == "" and printed.err.startswith("error: ")
  assert printed.err.count("\n") == 1 and message in printed.err
  assert {p.name for p in files.iterdir()} == {"a.png", "b.png"}


def test_a_strength_moves_without_a_new_compilation(editor, files, monkeypatch):
  traces = []
  original = ToyAttributes.edit

  @functools.wraps(original)
  def counted(self, *arguments, **options):
    traces.append(options)
    return original(self, *arguments, **options)

  monkeypatch.setattr(ToyAttributes, "edit", counted)
  own = Editor(editor.recipe, editor._variables, editor._frozen, SIZE)

  def at(**options):
    return own.edit(files / "a.png", attribute="Bangs", aligned=True, **options)

  for strength in (1, 0.5, -0.5, 1.5, 0):
    got = colour_of(at(strength=strength).image)
    np.testing.assert_allclose(got, gray_plus(Bangs=strength), atol=1)
  assert len(traces) == 1
  for low in (0.0, 0.5):
    result = at(strengths=(low, 1))
    got = colour_of(result.strip[:, :SIZE])
    np.testing.assert_allclose(got, gray_plus(Bangs=low), atol=1)
    assert result.options["strengths"] == (low, 1)
  assert len(traces) == 2
  for wrong in (True, float("inf"), "1"):
    with pytest.raises(UserError, match="is no number"):
      at(strength=wrong)


# Lists of edits.


def run_pairs(workdir, files, rows, columns, *options):
  path = files / "pairs.csv"
  with path.open("w", newline="") as file:
    csv.writer(file).writerows([columns, *rows])
  return edit.main(
    [f"--workdir={workdir}", f"--pairs={path}", "--aligned", *options]
  )


def test_a_list_with_shared_options(workdir, files):
  rows = [("a.png", "one.png"), ("b.png", "two.png")]
  options = ("--attribute=-Smiling", "--strengths=0,1")
  assert run_pairs(workdir, files, rows, ("source", "output"), *options) == 0
  made = {p.name for p in files.iterdir()}
  assert made >= {"one.png", "one_strip.png", "two.png", "two_strip.png"}
  np.testing.assert_allclose(
    colour_of(files / "one.png"), gray_plus(Smiling=-1), atol=1
  )


def test_a_list_with_options_of_each_line(workdir, files, capsys):
  rows = [
    ("a.png", "+Smiling", "0.5", "one.png"),
    ("a.png", "+Smiling", "", "two.png"),
    ("a.png", "Moustache", "", "three.png"),
    ("a.png", "-Bangs,+Eyeglasses", "0", "four.png"),
    ("a.png", "", "much", "five.png"),
    ("a.png", "", "", "six.png"),
  ]
  columns = ("source", "attribute", "strength", "output")
  options = ("--attribute=-Eyeglasses", "--strength=0.25")
  assert run_pairs(workdir, files, rows, columns, *options) == 1
  printed = capsys.readouterr()
  assert printed.out == "4 of 6 edits written, 2 failed\n"
  lines = [x for x in printed.err.splitlines() if x.startswith("error")]
  assert len(lines) == 2
  assert "line 4: " in lines[0] and "'Moustache' is unknown" in lines[0]
  assert "line 6: " in lines[1] and "'much' is no number" in lines[1]
  for name, wanted in {
    "one": {"Smiling": 0.5},
    "two": {"Smiling": 0.25},
    "four": {"Smiling": 0},
    "six": {"Eyeglasses": -0.25},
  }.items():
    np.testing.assert_allclose(
      colour_of(files / f"{name}.png"), gray_plus(**wanted), atol=1
    )


def test_a_shared_option_that_is_wrong_ends_the_list(workdir, files, capsys):
  rows = [("a.png", "one.png"), ("b.png", "two.png")]
  wrong = "--attribute=Moustache"
  assert run_pairs(workdir, files, rows, ("source", "output"), wrong) == 2
  assert capsys.readouterr().err.count("\n") == 1


# Export.


def test_an_export_fixes_the_words(workdir, editor, tmp_path):
  options = {"attribute": "-Bangs,+Smiling", "strengths": [0, 0.5, 2]}
  line = [f"--workdir={workdir}", f"--out={tmp_path}", "--platforms=cpu"]
  assert export.main([*line, f"--options={json.dumps(options)}"]) == 0
  bundle = export.load_bundle(tmp_path)
  assert list(bundle.manifest["inputs"]) == ["source"]
  assert "-Bangs,+Smiling" in bundle.manifest["options"]["attribute"]
  assert bundle.manifest["outputs"]["strip"]["shape"] == [
    "b", SIZE, 3 * SIZE, 3
  ]  # fmt: skip
  draw = np.random.default_rng(0)
  for n in (1, 3):
    source = draw.uniform(-1, 1, (n, SIZE, SIZE, 3)).astype(np.float32)
    made = bundle({"source": source})
    wanted = editor.recipe.edit(
      editor._variables, editor._frozen, {"source": source}, None, **options
    )
    for name in ("image", "strip"):
      np.testing.assert_allclose(made[name], wanted[name], atol=1e-6)


def test_an_export_with_another_picture(workdir, tmp_path):
  line = [f"--workdir={workdir}", f"--out={tmp_path}", "--platforms=cpu"]
  assert export.main([*line, "--inputs=source,attribute_from"]) == 0
  bundle = export.load_bundle(tmp_path)
  assert sorted(bundle.manifest["inputs"]) == ["attribute_from", "source"]
  gray = np.zeros((1, SIZE, SIZE, 3), np.float32)
  made = bundle({"source": gray, "attribute_from": gray + 0.25})
  np.testing.assert_allclose(made["image"], gray + 0.25, atol=1e-6)


@pytest.mark.parametrize(
  "options, message",
  [
    ('{"attribute": "Smilling"}', "did you mean Smiling?"),
    ('{"strengths": "0,1"}', "'0,1' are no numbers"),
    ('{"strenght": 1}', "did you mean 'strength'?"),
    ("{attribute: +Smiling}", '--options: wanted JSON like {"NAME": VALUE}'),
    ('["+Smiling"]', '--options: wanted JSON like {"NAME": VALUE}'),
  ],
)
def test_exports_that_are_refused(workdir, tmp_path, options, message, capsys):
  line = [f"--workdir={workdir}", f"--out={tmp_path / 'out'}"]
  assert export.main([*line, f"--options={options}"]) == 2
  said = capsys.readouterr().err.splitlines()
  assert len(said) == 1 and message in said[0], said
  assert not (tmp_path / "out").exists()
