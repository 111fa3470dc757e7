"""Weight files that a later stage lacks are named before the first one runs."""

import pytest

from faceedit_jax import train
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import CheckpointError
from faceedit_jax.core.recipe import WeightSource
from tests import toy_config, toy_evaluators, toy_recipes

GONE = WeightSource(path="no.safetensors")


@pytest.mark.parametrize(
  ("method", "found"),
  [
    ("frozen", {"enc": GONE}),
    ("init_from", {"enc": GONE}),
  ],
)
def test_nothing_begins(tmp_path, monkeypatch, method, found):
  config = config_lib.from_dict(toy_config.get_config("latent"))
  monkeypatch.setattr(toy_recipes.ToyLatent, method, lambda self: found)
  with pytest.raises(CheckpointError, match="'enc': there is no file no.safe"):
    train.run(config, tmp_path, data_dir=tmp_path)
  assert not list(tmp_path.iterdir())


def test_nor_before_a_file_of_an_evaluator_is_missed(tmp_path, monkeypatch):
  config = toy_config.get_config("latent")
  config.stage.head.evaluators = dict(
    error=dict(kind="tests.toy_evaluators:ReconstructionError")
  )
  monkeypatch.setattr(
    toy_evaluators.ReconstructionError, "eval_nets", lambda self: {"enc": GONE}
  )
  with pytest.raises(CheckpointError, match="'enc': there is no file no.safe"):
    train.run(config_lib.from_dict(config), tmp_path, data_dir=tmp_path)
  assert not list(tmp_path.iterdir())
