"""Shapes of a recipe's nets are found by one trace, and belong to it alone."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core import net_shapes


def _recipe(width, traced):
  def init(rng):
    del rng
    traced.append("init")
    return {"net": {"params": {"kernel": jnp.zeros((width, 2))}}}

  def init_frozen(rng):
    traced.append("init_frozen")
    fixed = np.arange(3.0 * width, dtype=np.float32).reshape(3, width)
    return {
      "reader": {"params": {"bias": jax.random.normal(rng, (width,))}},
      "face": {"params": {"mean": jnp.asarray(fixed)}},
    }

  return types.SimpleNamespace(init=init, init_frozen=init_frozen)


def test_a_recipe_is_traced_once():
  traced = []
  recipe = _recipe(5, traced)
  for _ in range(3):
    net = net_shapes.trained(recipe)["net"]["params"]["kernel"]
    face = net_shapes.frozen(recipe)["face"]["params"]["mean"]
    assert (net.shape, face.shape) == ((5, 2), (3, 5))
  assert traced == ["init", "init_frozen"]


def test_equal_looking_recipes_are_not_mixed_up():
  # SimpleNamespaces compare by their fields and have no hash.
  traced = []
  shapes = [
    net_shapes.trained(_recipe(width, traced))["net"]["params"]["kernel"].shape
    for width in (1, 2, 1)
  ]
  assert shapes == [(1, 2), (2, 2), (1, 2)]
  assert len(traced) == 3


def test_values_are_drawn_without_another_trace():
  traced = []
  recipe = _recipe(2, traced)
  assert set(net_shapes.frozen(recipe)) == {"face", "reader"}
  draw = functools.partial(net_shapes.draw_frozen, recipe)
  (face,) = jax.jit(functools.partial(draw, ["face"]))().values()
  np.testing.assert_array_equal(
    face["params"]["mean"], [[0, 1], [2, 3], [4, 5]]
  )
  (reader,) = draw(["reader"]).values()
  np.testing.assert_allclose(
    reader["params"]["bias"],
    recipe.init_frozen(jax.random.key(0))["reader"]["params"]["bias"],
    rtol=1e-6,
  )
  assert traced == ["init_frozen"] * 2  # one of them is this test's own
