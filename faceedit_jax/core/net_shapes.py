"""The nets of a recipe as shapes: each recipe is traced once in a process."""

import dataclasses
import functools
from collections.abc import Mapping

import jax

from faceedit_jax.core.recipe import Recipe
from faceedit_jax.core.typing import PyTree

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
  return _frozen(_Same(recipe))


@functools.lru_cache(maxsize=_KEPT)
def _trained(key: _Same):
  return jax.eval_shape(key.recipe.init, jax.random.key(0))


@functools.lru_cache(maxsize=_KEPT)
def _frozen(key: _Same):
  return jax.eval_shape(key.recipe.init_frozen, jax.random.key(0))
