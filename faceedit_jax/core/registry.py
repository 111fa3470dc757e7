"""Classes that configs name: a name of a registry, or "module:Class"."""

import importlib
from collections.abc import Mapping
from typing import Any

from faceedit_jax.core import options
from faceedit_jax.core.errors import UserError


def load(name: str, registry: Mapping[str, str], where: str) -> Any:
  """Imports a class, when it is first asked for.

  Args:
    name: a name of the registry, or "module:Class" of a class elsewhere.
    registry: {name: "module:Class"}.
    where: what is named, for errors ("recipe").

  Returns:
    The class.

  Raises:
    UserError: one line with the nearest name, or with what cannot be imported.
  """
  path = name if ":" in name else registry.get(name)
  if path is None:
    raise UserError(f"no {where} {name!r}{options.nearest(name, registry)}")
  module, _, attribute = path.partition(":")
  try:
    return getattr(importlib.import_module(module), attribute)
  except (ModuleNotFoundError, AttributeError) as e:
    if isinstance(e, ModuleNotFoundError) and e.name != module:
      raise  # an import inside the module is broken: show where
    raise UserError(f"{where} {name!r}: cannot import {path}: {e}") from e
