"""The variant for two folders of one's own, from pictures to what is scored."""

import jax
import numpy as np
import pytest

from data_pipelines import align, images
from faceedit_jax import input_pipeline, stages
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import attributes as attribute_evaluator

SIZE = 16
SHADES = {"bare": 40, "hat": 200}


@pytest.fixture
def config(tmp_path):
  for split, count in (("train", 4), ("val", 2)):
    for domain, shade in SHADES.items():
      for i in range(count):
        path = tmp_path / "faces" / split / domain / f"{i}.png"
        images.write_image(path, np.full((24, 20, 3), shade + i, np.uint8))
  loaded = config_lib.load("configs/l2m_gan.py:folders=hat")
  return config_lib.override(loaded, [f"image_size={SIZE}"])


def first_batch(config, name, tmp_path):
  """The stage and its first batch; the bright pictures have hats."""
  stage = stages.make_stage(config, name, tmp_path / "run")
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  made = input_pipeline.train_batches(
    stage.recipe, stage.data, tmp_path, device, 0, 0, "data"
  )
  batch = jax.device_get(next(made))
  made.close()
  has = batch["image"].mean((1, 2, 3)) > 0
  assert 0 < has.sum() < len(has)
  return stage, batch, has


def test_it_trains_on_both_and_evaluates_the_held_out(config, tmp_path):
  stage, batch, has = first_batch(config, "gan", tmp_path)
  assert stage.recipe.attributes == ("hat",)
  assert batch["image"].shape == (8, SIZE, SIZE, 3)
  assert (batch["domain"] == has).all()
  evaluator = stage.evaluators["attributes"]
  examples = attribute_evaluator.Examples(evaluator, tmp_path, quick=False)
  assert {k: len(v) for k, v in examples.jobs.items()} == {"+hat": 2, "-hat": 2}
  points = examples.batch(examples.jobs["+hat"])["points"]
  np.testing.assert_array_equal(points, [align.CELEBA_HQ5] * 2)


def test_mistakes(config, tmp_path):
  for wrong in ("long=hat", "folder=hat"):
    with pytest.raises(config_lib.ConfigError, match=f"no variant '{wrong}'"):
      config_lib.load(f"configs/l2m_gan.py:{wrong}")
  config = config_lib.override(config, ["stage.gan.recipe.alignment=ffhq"])
  with pytest.raises(UserError, match="alignment is 'ffhq'; wanted one of"):
    stages.make_stage(config, "gan", tmp_path / "run")


def test_its_classifier_reads_the_same(config, tmp_path):
  _, batch, has = first_batch(config, "eval_attributes", tmp_path)
  assert (batch["attributes"][:, 0] == has).all()
