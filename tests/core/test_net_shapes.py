"""Shapes of a recipe's nets are found by one trace, and belong to it alone."""

import types

import jax.numpy as jnp

from faceedit_jax.core import net_shapes


def _recipe(width, traced):
  def init(rng):
    del rng
    traced.append("init")
    return {"net": {"params": {"kernel": jnp.zeros((width, 2))}}}

  def init_frozen(rng):
    del rng
    traced.append("init_frozen")
    return {"face": {"params": {"mean": jnp.zeros((3, width))}}}

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
