"""The whole way on tiny nets: draw data, train every stage, score, edit."""

import json

import jax
import numpy as np
import pytest

from data_pipelines import images, prepare
from faceedit_jax import load_trained as trained_lib
from faceedit_jax import stages, train
from faceedit_jax.core import checkpoint
from faceedit_jax.core import config as config_lib
from faceedit_jax.editing import Editor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  root = tmp_path_factory.mktemp("run")
  config = config_lib.load("configs/difffae.py:smoke")
  config.tensorboard = False
  data = stages.make_stage(config, "denoiser", root / "work").data
  prepare.ensure(data.source, root / "data", processes=0)
  train.run(config, root / "work", data_dir=root / "data")
  return config, root


def test_every_stage_left_its_files(trained):
  config, root = trained
  for stage in config.stages:
    folder = root / "work" / stage
    assert json.loads((folder / "finished.json").read_text())["step"] == 3
    assert list((folder / "previews").glob("*.png"))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_a_second_run_has_nothing_to_do(trained):
  config, root = trained
  newest = root / "work" / "denoiser" / "checkpoints"
  before = checkpoint.steps_in(newest)
  assert train.run(config, root / "work", data_dir=root / "data")
  assert checkpoint.steps_in(newest) == before


def test_evaluation_trains_its_own_readers_and_writes_the_table(trained):
  config, root = trained
  train.run(
    config, root / "work", "evaluate", "denoiser", data_dir=root / "data"
  )
  folder = root / "work" / "denoiser" / "evaluation" / "00000003"
  scores = json.loads((folder / "results.json").read_text())["counterfactual"]
  for name in (
    "edit/psnr",
    "copy_source/pose",
    "reconstruction/ssim",
    "slots/miou",
  ):
    assert np.isfinite(scores[name]), name
  assert scores["eval_net_error/pose"] > 0
  assert (folder / "counterfactual" / "edits.png").is_file()
  assert (folder / "counterfactual" / "swaps.png").is_file()


def test_a_resumed_stage_is_the_uninterrupted_one(trained, tmp_path):
  config, root = trained
  other = config_lib.load("configs/difffae.py:smoke")
  other.tensorboard = False
  for stage in config.stages[:-1]:
    (tmp_path / stage).symlink_to(root / "work" / stage)
  other.stage.denoiser.steps = 2
  train.run(other, tmp_path, stage="denoiser", data_dir=root / "data")
  other.stage.denoiser.steps = 3
  train.run(other, tmp_path, stage="denoiser", data_dir=root / "data")
  one, two = (
    checkpoint.stored_shapes(workdir / "denoiser" / "checkpoints")
    for workdir in (root / "work", tmp_path)
  )
  assert one == two
  a, b = (
    trained_lib.load(w, config, "denoiser") for w in (root / "work", tmp_path)
  )
  for left, right in zip(
    jax.tree.leaves(a.variables), jax.tree.leaves(b.variables), strict=True
  ):
    np.testing.assert_array_equal(left, right)


def test_editing_from_files(trained, tmp_path):
  config, root = trained
  data = stages.make_stage(config, "denoiser", root / "work").data
  pair = data.source.open(root / "data", "pairs")[0]
  images.write_image(tmp_path / "a.png", pair["source_image"])
  images.write_image(tmp_path / "b.png", pair["query_image"])
  editor = Editor.from_workdir(root / "work", config)
  result = editor.edit(
    tmp_path / "a.png", pose_from=tmp_path / "b.png", aligned=True
  )
  assert result.image.shape == (64, 64, 3) and result.image.dtype == np.uint8
