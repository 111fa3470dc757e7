"""Batch specifications, named streams and the recipe's defaults."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import rng as rng_lib
from faceedit_jax.core.batch import Field
from tests import toy_recipes

SPEC = {
  "image": Field((4, 4, 3), "float32", (-1.0, 1.0)),
  "identity": Field((), "int32", (0, 9)),
  "points": Field((5, 2)),
  "labels": Field((4, 4), "uint8"),
}


def test_example_batch_fits_its_own_spec():
  batch = batch_lib.example_batch(SPEC, 3, seed=0)
  assert batch_lib.check_batch(SPEC, batch, "here").keys() == SPEC.keys()
  shapes = batch_lib.abstract_batch(SPEC, 3)
  for name, value in batch.items():
    assert (value.shape, value.dtype) == (
      shapes[name].shape,
      shapes[name].dtype,
    )
  again = batch_lib.example_batch(SPEC, 3, seed=0)
  other = batch_lib.example_batch(SPEC, 3, seed=1)
  np.testing.assert_array_equal(batch["image"], again["image"])
  assert (batch["image"] != other["image"]).any()


def spoiled(**changes):
  return {**batch_lib.example_batch(SPEC, 3, seed=0), **changes}


@pytest.mark.parametrize(
  "changes, message",
  [
    (
      {"image": np.zeros((3, 4, 5, 3), np.float32)},
      r"data: image has shape \(3, 4, 5, 3\), wanted \(b, 4, 4, 3\)",
    ),
    ({"identity": np.zeros((3,), np.int64)}, "identity is int64, wanted int32"),
    ({"points": np.zeros((2, 5, 2), np.float32)}, "points holds 2 examples"),
    (
      {"image": np.full((3, 4, 4, 3), 2.0, np.float32)},
      r"image spans \[2, 2\], wanted \[-1, 1\]",
    ),
    ({"image": np.full((3, 4, 4, 3), np.nan, np.float32)}, "image spans"),
    ({"identity": np.full((3,), 10, np.int32)}, "identity spans"),
  ],
)
def test_check_batch_errors(changes, message):
  with pytest.raises(ValueError, match=message):
    batch_lib.check_batch(SPEC, spoiled(**changes), "data")


def test_check_batch_drops_what_is_not_asked_and_names_what_lacks():
  batch = spoiled(extra=np.zeros((3,)))
  assert "extra" not in batch_lib.check_batch(SPEC, batch, "data")
  del batch["points"]
  with pytest.raises(ValueError, match="batch lacks points; it has .*extra"):
    batch_lib.check_batch(SPEC, batch, "data")


def test_name_hash_does_not_depend_on_the_process():
  # Python's own hash would be another number in every process.
  assert rng_lib.name_hash("noise") == 0xFDA99629


def test_streams_differ_by_step_and_name():
  root = jax.random.key(0)
  keys = [
    rng_lib.key(root, step, name) for step in (0, 1) for name in ("a", "b")
  ]
  assert len({tuple(map(int, jax.random.key_data(k))) for k in keys}) == 4
  ctx = recipe_lib.Ctx({}, {}, {}, {}, jnp.asarray(1), root)
  assert ctx.key("b") == keys[3]


def test_recipe_defaults():
  recipe = toy_recipes.ToyGan()
  assert recipe.frozen() == recipe.init_from() == {}
  assert recipe.init_frozen(None) == {}


def test_frozen_structure_matches_what_is_promised():
  recipe = toy_recipes.ToyLatent()
  shapes = jax.eval_shape(recipe.init_frozen, jax.random.key(0))
  assert shapes.keys() == recipe.frozen().keys()


def test_small_values():
  with pytest.raises(ValueError, match="wanted one of them"):
    recipe_lib.WeightSource(stage="a", path="/b")
  with pytest.raises(ValueError, match="every=0"):
    recipe_lib.Phase("p", (), lambda p, c: None, every=0)
  assert recipe_lib.at(2.0, 5) == 2.0
  assert recipe_lib.at(lambda n: n * 3, 5) == 15
