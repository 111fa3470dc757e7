"""The nets of a recipe as shapes: each recipe is traced once in a process."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.extend

from faceedit_jax.core.recipe import Recipe
from faceedit_jax.core.typing import PyTree, Variables

_KEPT = 16  # recipes whose shapes are remembered


@dataclasses.dataclass(frozen=True, eq=False)
class _Same:
  """A recipe by identity: its fields may be of types without a hash."""

  recipe: Recipe

  def __eq__(self, other):
    return isinstance(other, _Same) and self.recipe is other.recipe

  def __hash__(self):
    return id(self.recipe)


def trained(recipe: Recipe) -> Mapping[str, PyTree]:
  """{net: its variables as `ShapeDtypeStruct`s}, as `Recipe.init` gives them.

  The trees are shared: they must not be changed.
  """
  return _trained(_Same(recipe))


def frozen(recipe: Recipe) -> Mapping[str, PyTree]:
  """The same of `Recipe.init_frozen`."""
  return _frozen(_Same(recipe))[1]


def draw_frozen(recipe: Recipe, nets: Sequence[str]) -> Mapping[str, Variables]:
  """The values of some nets of `Recipe.init_frozen`; to be jitted.

  The nets are not traced again, and what the others would draw is dropped.
  """
  program, shapes = _frozen(_Same(recipe))
  flat = jax.extend.core.jaxpr_as_fun(program)(jax.random.key(0))
  made = jax.tree.unflatten(jax.tree.structure(shapes), flat)
  return {net: made[net] for net in nets}


@functools.lru_cache(maxsize=_KEPT)
def _trained(key: _Same):
  return jax.eval_shape(key.recipe.init, jax.random.key(0))


@functools.lru_cache(maxsize=_KEPT)
def _frozen(key: _Same):
  program = jax.make_jaxpr(key.recipe.init_frozen, return_shape=True)
  return program(jax.random.key(0))
