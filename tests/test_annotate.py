"""Videos prepared with what a recipe's frozen nets say of each frame."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import sources
from data_pipelines.videos import prepare
from faceedit_jax import annotate, feature_cache, train
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import UserError, WorkdirError
from tests import video_set


class Recipe:
  """Sees a face in bright frames, whose brightness its net scales."""

  def prepared_nets(self):
    return ("gain",)

  def frozen(self):
    return {
      "gain": recipe_lib.WeightSource(stage="first"),
      "other": recipe_lib.WeightSource(stage="second"),
    }

  def prepare_features(self, frozen, image, points68=None):
    level = frozen["gain"]["params"]["w"] * image.mean((1, 2, 3))
    found = {"level": level, "face": image.mean((1, 2, 3)) + 0.95}
    if points68 is not None:
      found["nose"] = points68[:, 30]
    return found


def stage(stored=("level",)):
  return types.SimpleNamespace(
    name="last",
    recipe=Recipe(),
    options=types.SimpleNamespace(recipe={"prepared_features": stored}),
    workdir="work",
    data_dir="data",
  )


def data_of(folder):
  source = sources.ArrayRecord(folder)
  return types.SimpleNamespace(source=source)


def net(gain):
  return {"gain": {"params": {"w": jnp.asarray(gain)}}}


def test_frames_carry_what_the_nets_say(tmp_path):
  clips, chosen = video_set.numbered_clips(tmp_path)
  made = annotate.make_annotator(stage(), net(2.0))
  report = video_set.prepare_quietly(
    clips,
    tmp_path / "out",
    chosen,
    annotators={"last": made},
    split_file=video_set.everybody(tmp_path),
  )
  found = video_set.examples_of(tmp_path / "out")
  # The other clip's frames, up to level 6 of 255, show no face.
  assert len(found) == 7 and list(report.clips) == ["p0/clip"]
  for _, example in found.values():
    wanted = 2 * (example["image"].mean() / 127.5 - 1)
    np.testing.assert_allclose(example["level"], wanted, rtol=1e-5)
    assert "face" not in example


def test_points_of_the_data_reach_the_recipe():
  made = annotate.make_annotator(stage(), net(1.0), landmarks=True)
  assert made.needs == ("landmarks68",)
  frames = np.zeros((annotate.BATCH, 8, 8, 3), np.uint8)
  points = np.random.default_rng(0).random((annotate.BATCH, 68, 2), np.float32)
  np.testing.assert_array_equal(
    made(frames, landmarks68=points)["nose"], points[:, 30]
  )
  assert not annotate.make_annotator(stage(), net(1.0)).needs


def test_other_nets_make_another_set(tmp_path):
  made = [
    annotate.make_annotator(stage(stored), net(gain), least=least)
    for stored, gain, least in (
      (("level",), 1.0, 0.0),
      (("level",), 1.5, 0.0),
      (("level", "nose"), 1.0, 0.0),
      (("level",), 1.0, 0.5),
    )
  ]
  assert len({m.version for m in made}) == 4
  clips, chosen = video_set.numbered_clips(tmp_path)
  options = {"split_file": video_set.everybody(tmp_path)}

  def run(one):
    return video_set.prepare_quietly(
      clips, tmp_path / "out", chosen, annotators={"last": one}, **options
    )

  assert isinstance(run(made[0]), prepare.Report)
  with pytest.raises(ValueError, match="a different set lies there"):
    run(made[1])


def test_a_set_of_other_nets_is_refused(tmp_path):
  clips, chosen = video_set.numbered_clips(tmp_path)
  video_set.prepare_quietly(
    clips,
    tmp_path / "toy",
    chosen,
    annotators={"last": annotate.make_annotator(stage(), net(1.0))},
    split_file=video_set.everybody(tmp_path),
  )
  trained = stage()
  trained.data = data_of("toy")
  trained.data_dir = tmp_path
  feature_cache.check_prepared(trained, net(1.0))
  with pytest.raises(WorkdirError, match="other weights of gain .* annotate"):
    feature_cache.check_prepared(trained, net(1.5))
  trained.data = data_of("prepared_by_others")
  feature_cache.check_prepared(trained, net(1.5))

  # An annotator of one's own says nothing of nets.
  def level(frame):
    return {"level": np.float32(frame.mean())}

  level.version = "of my own"
  video_set.prepare_quietly(
    clips,
    tmp_path / "own",
    chosen,
    annotators={"level": level},
    split_file=video_set.everybody(tmp_path),
  )
  trained.data = data_of("own")
  feature_cache.check_prepared(trained, net(1.5))


def test_stages_that_are_needed_are_trained_first(monkeypatch):
  trained, drawn = [], []
  monkeypatch.setattr(
    annotate.stages_lib, "make_stage", lambda config, name, *_: name
  )
  monkeypatch.setattr(
    annotate.main_lib, "prepare_data", lambda made, _: drawn.extend(made)
  )
  monkeypatch.setattr(
    train, "run", lambda config, workdir, mode, name, data: trained.append(name)
  )
  assert annotate.load_nets(stage(), {}) is None  # the training was stopped
  assert trained == drawn == ["first"]


def test_missing_files_are_said_before_anything_is_trained(
  monkeypatch, tmp_path, capsys
):
  trained = []
  monkeypatch.setattr(train, "run", lambda *a: trained.append(a))
  lacking = stage()
  lacking.recipe.frozen = lambda: {
    "gain": recipe_lib.WeightSource(stage="first"),
    "other": recipe_lib.WeightSource(path="no.safetensors"),
  }
  with pytest.raises(UserError, match="'other': there is no file no.safetens"):
    annotate.load_nets(lacking, {})
  flags = ("config=configs/difffae.py:smoke", "workdir=w", "output=o")
  arguments = ["videos", "--input=nowhere", "--size=64"]
  assert annotate.main(arguments + [f"--{f}" for f in flags]) == 2
  assert "--input=nowhere" in capsys.readouterr().err
  assert not trained


def test_a_config_that_prepares_nothing_is_one_line():
  nothing = stage(())
  nothing.recipe.prepared_nets = lambda: ()
  with pytest.raises(UserError, match="recipe.prepared_features is empty"):
    annotate.load_nets(nothing, {})


def test_the_size_is_the_configs(tmp_path, capsys):
  flags = ("config=configs/difffae.py:smoke", "workdir=w", "output=o")
  code = annotate.main(
    ["videos", f"--input={tmp_path}", "--size=32", *(f"--{f}" for f in flags)]
  )
  assert code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "--size=32" in line and "pictures of 64 px" in line
