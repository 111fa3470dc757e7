"""Frozen nets without a source are the same alone and among the others."""

import jax
import numpy as np
import pytest

from faceedit_jax import stages
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import recipe as recipe_lib


@pytest.mark.parametrize(
  ("path", "stage", "names"),
  [
    ("configs/difffae.py:smoke", "denoiser", {"morphable"}),
    ("configs/l2m_gan.py:smoke", "gan", set()),
  ],
)
def test_values_drawn_alone(path, stage, names, tmp_path):
  recipe = stages.make_stage(config_lib.load(path), stage, tmp_path).recipe
  key = jax.random.key(0)
  alone = recipe.init_unsourced(key)
  assert set(alone) == names
  slow = recipe_lib.Recipe.init_unsourced

  @jax.jit
  def among_others():
    return slow(recipe, key)

  others = among_others()
  assert set(others) == names
  jax.tree.map(np.testing.assert_array_equal, alone, others)
