"""Options of an edit: the keyword-only arguments of `recipe.edit`.

They are settings, not data: numbers, words or lists. Those that a recipe
declares as traced may change without a new compilation.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from faceedit_jax.core import options as options_lib
from faceedit_jax.core.editing import Editable
from faceedit_jax.core.errors import UserError


def names(recipe: Editable) -> tuple[str, ...] | None:
  """Names of the options of `recipe.edit`; None where it takes any."""
  parameters = inspect.signature(recipe.edit).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return None
  return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def check(
  recipe: Editable, given: Mapping[str, Any], fields: Sequence[str] = ()
) -> None:
  """Refuses options that `recipe.edit` does not know.

  Args:
    recipe: whose edit.
    given: {option: value}.
    fields: names of inputs, to be proposed as well.

  Raises:
    UserError: one line with the nearest name.
  """
  known = names(recipe)
  for name in given:
    if known is not None and name not in known:
      near = options_lib.nearest(name, [*fields, *known])
      raise UserError(
        f"{type(recipe).__name__} has no input or option {name!r}{near}"
      )


def settle(recipe: Editable, given: Mapping[str, Any]) -> dict[str, Any]:
  """Options without None and NumPy types; one number for a list is a list."""
  settled = {}
  for name, value in given.items():
    if isinstance(value, np.ndarray | np.generic):
      value = value.tolist()
    one = _are_numbers(value) and not isinstance(value, list | tuple)
    if one and _takes_a_list(recipe, name):
      value = (value,)
    if value is not None:
      settled[name] = value
  return settled


def lists(recipe: Editable) -> tuple[str, ...]:
  """Names of the options of `recipe.edit` that are lists."""
  return tuple(n for n in names(recipe) or () if _takes_a_list(recipe, n))


def traced(recipe: Editable, given: Mapping[str, Any]) -> dict[str, Any]:
  """Those of the settled options that may be traced, as floats."""
  return {
    name: tuple(map(float, value))
    if isinstance(value, list | tuple)
    else float(value)
    for name, value in given.items()
    if name in recipe.traced_options
    and _are_numbers(value)
    and isinstance(value, list | tuple) == _takes_a_list(recipe, name)
  }


def _takes_a_list(recipe: Editable, name: str) -> bool:
  """Whether an option of `recipe.edit` is a tuple by default."""
  known = inspect.signature(recipe.edit).parameters
  return name in known and isinstance(known[name].default, tuple)


def _are_numbers(value: Any) -> bool:
  """Whether an option is a finite number or a list of them."""
  values = value if isinstance(value, list | tuple) else (value,)
  return all(type(v) in (int, float) and math.isfinite(v) for v in values)
