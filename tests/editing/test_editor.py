"""The Python editor: pictures of every kind in, one line per mistake."""

import time

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines import align
from faceedit_jax import load_trained
from faceedit_jax.core import compile_cache, partial_restore, run_cache
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.editing import Editor
from tests.editing.toy_editor import (
  MIDDLE,
  SIZE,
  ToyEditor,
  portrait,
)


def test_the_last_editing_stage_is_loaded_from_the_record(workdir):
  config = load_trained.recorded_config(workdir)
  assert config["stages"] == ("ae", "head") and config["image_size"] == SIZE
  loaded = load_trained.load(workdir)
  assert isinstance(loaded.recipe, ToyEditor)
  assert set(loaded.variables) == {"head"}
  assert set(loaded.frozen) == {"enc", "dec"}


def test_nets_are_loaded_without_tracing_the_recipe(workdir, monkeypatch):
  whole = load_trained.load(workdir)

  def traced(self, rng):
    raise AssertionError("traced")

  monkeypatch.setattr(ToyEditor, "init", traced)
  monkeypatch.setattr(ToyEditor, "init_frozen", traced)
  monkeypatch.setattr(ToyEditor, "init_unsourced", lambda self, rng: {})
  found = load_trained.load(workdir)
  for kind in ("variables", "frozen"):
    one, other = getattr(whole, kind), getattr(found, kind)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert len(jax.tree.leaves(one)) > 0


def test_the_next_process_edits_without_tracing(workdir, tmp_path, monkeypatch):
  monkeypatch.setattr(compile_cache, "enable", lambda: tmp_path)
  source, _ = portrait()
  first = Editor.from_workdir(workdir)
  made = first.edit(source, aligned=True)
  end = time.monotonic() + 30
  while not list(tmp_path.rglob("*.program")) and time.monotonic() < end:
    time.sleep(0.05)

  def traced(*args):
    raise AssertionError("traced, or read from checkpoints")

  monkeypatch.setattr(partial_restore, "load_view", traced)
  monkeypatch.setattr(run_cache.Program, "_compile", traced)
  again = Editor.from_workdir(workdir)
  np.testing.assert_array_equal(
    again.edit(source, aligned=True).image, made.image
  )
  # Other options are another program.
  with pytest.raises(AssertionError, match="traced"):
    again.edit(source, steps=3, aligned=True)


def test_a_run_of_other_code_is_one_line(workdir, monkeypatch):
  """Shapes are those of the run, so a net that has changed since meets them."""
  changed = Editor.from_workdir(workdir)

  def edit(self, variables, frozen, inputs, rng, **options):
    del rng, options
    net = nn.Dense(7)
    return {"image": net.apply(variables["head"], inputs["source"])}

  monkeypatch.setattr(ToyEditor, "edit", edit)
  source, _ = portrait()
  with pytest.raises(UserError, match="other nets than this version") as error:
    changed.edit(source)
  assert "\n" not in str(error.value) and "http" not in str(error.value)


def test_an_edit_of_arrays(editor):
  source, points = portrait()
  other, _ = portrait(200, 150, 120, 70, 80, ground=200)
  result = editor.edit(source, pose_from=other, steps=3)
  assert result.image.shape == (SIZE, SIZE, 3)
  assert result.image.dtype == np.uint8 and result.pasted is None
  both = result.source.astype(float) + result.references["pose_from"]
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

  own = Editor(
    loaded.recipe, loaded.variables, loaded.frozen, SIZE, detector=detector
  )
  np.testing.assert_allclose(own.edit(picture).points, points, atol=1e-4)
  assert calls == [picture.shape]
  with pytest.raises(UserError, match="^light_from: no face .*detector"):
    own.edit(picture, light_from=np.zeros((40, 40, 3), np.uint8))
  assert own.edit(picture, aligned=True).faces == {}
  assert own.edit(picture).faces["source"].by == "the detector"
  with pytest.raises(UserError, match="--detector=mtcn: no such detector"):
    Editor(editor.recipe, {}, {}, SIZE, detector="mtcn")


def test_one_of_several_faces_is_edited(editor):
  one, points = portrait(200, 120, 50, 60, 60)
  two, more = portrait(200, 120, 150, 60, 80)
  picture = np.where(two == 90, one, two)
  both = [points, more]

  def detector(image):
    return np.array(both)

  own = Editor(
    editor.recipe, editor._variables, editor._frozen, SIZE, detector=detector
  )
  for given, place in (("largest", 1), (1, 1), ("2", 0), ((45, 70), 0)):
    result = own.edit(picture, light_from=picture, face=given)
    np.testing.assert_allclose(result.points, both[place], atol=1e-4)
    # Of references the largest is taken.
    light = result.faces["light_from"]
    assert len(light.faces) == 2 and light.chosen == 0
  with pytest.raises(UserError, match="^source: there is no face 3: faces by"):
    own.edit(picture, face=3)
  with pytest.raises(UserError, match="^face is 'left'; wanted largest, a num"):
    own.edit(picture, face="left")
  rows = [{"source": picture, "face": f} for f in (2, None, "", "x", "140,50")]
  results = list(own.edit_many(rows, face=1))
  assert isinstance(results[3], UserError)
  for i, place in ((0, 0), (1, 1), (2, 1), (4, 1)):
    np.testing.assert_allclose(results[i].points, both[place], atol=1e-4)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_photo_is_pasted_back_as_it_lies(editor, turn):
  # Where the disc lies tells which way up the photo is.
  upright, points = portrait(200, 160, 70, 60, 60)
  other, _ = portrait(ground=200)

  def detector(image):
    return (
      points
      if image.shape[:2] == (160, 200) and image[60, 70, 1] == 20
      else None
    )

  own = Editor(
    editor.recipe, editor._variables, editor._frozen, SIZE, detector=detector
  )
  given = {"light_from": align.CANONICAL5 * 90.0}
  straight = own.edit(
    upright, light_from=other, landmarks=given, paste_back=True
  )
  lying = np.ascontiguousarray(np.rot90(upright, -turn))
  result = own.edit(lying, light_from=other, landmarks=given, paste_back=True)
  assert result.faces["source"].turn == 90 * turn
  assert np.abs(result.image.astype(int) - straight.image).mean() < 1
  assert result.pasted.shape == lying.shape
  wanted = np.rot90(straight.pasted, -turn).astype(int)
  changed = np.abs(wanted - lying) > 8
  assert changed.sum() > 500
  assert np.abs(result.pasted - wanted)[changed].mean() < 3


def test_framed_pictures_are_only_cut(editor):
  picture = np.tile(np.uint8([10, 100, 200]), (SIZE, SIZE, 1))
  result = editor.edit(picture, aligned=True)
  np.testing.assert_array_equal(result.source, picture)
  np.testing.assert_allclose(result.image, picture, atol=1)


def test_paste_back_changes_the_face_alone(editor):
  source, _ = portrait(200, 160, 100, 80, 60)
  other, _ = portrait(ground=200)
  result = editor.edit(source, light_from=other, paste_back=True)
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
    ({"pose_form": "b.png"}, "no input or option 'pose_form'; did you mean "
     "'pose_from'"),
    ({"strength": 2}, "it has light_from, mode, noise, pose_from, "
     "source, steps"),
    ({"steps": "many"}, "edit with .*'many'"),
    ({"mode": "other"}, "mode is 'other'; it must be"),
    ({"mode": "nan"}, "diverged"),
    ({"light_from": np.zeros((40, 40, 3))}, "light_from is float64"),
    ({"light_from": np.zeros((4, 4, 3), np.uint8)}, "is 4x4 pixels"),
    ({"landmarks": {"source": np.full((5, 2), 9)}}, "source: .*within 0.0"),
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

  with pytest.raises(UserError, match="Trains trains a net that others"):
    Editor(Trains(), {}, {}, SIZE)


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


class Choosy(ToyEditor):
  """Its nets cannot take light from another photo."""

  def check_edit(self, variables, inputs):
    assert set(variables) == {"head"}
    if "light_from" in inputs:
      raise ValueError("light_from needs names;\n there are none")


def test_what_trained_nets_cannot_do_is_said_before_they_run(editor):
  choosy = Editor(
    Choosy(), editor._variables, editor._frozen, SIZE, batch_size=2
  )
  source, _ = portrait()
  with pytest.raises(UserError, match="^light_from needs names; there are no"):
    choosy.edit(source, light_from=source)
  rows = [
    dict(source=source, light_from=source),
    dict(source=source, pose_from=source),
  ]
  refused, made = choosy.edit_many(rows)
  assert isinstance(refused, UserError) and made.image.shape[0] == SIZE
