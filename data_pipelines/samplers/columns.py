"""What a source says of all its examples at once, and groups of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def group_by(identities: Sequence[int] | np.ndarray) -> list[np.ndarray]:
  """Positions of each identity's examples, identities in rising order."""
  identities = np.asarray(identities)
  order = np.argsort(identities, kind="stable")
  _, starts = np.unique(identities[order], return_index=True)
  return np.split(order, starts[1:]) if len(order) else []


def column_of(source: Any, name: str) -> np.ndarray | None:
  """The values of one integer field, or None if a source keeps no such column.

  Nothing is read through: sources without columns have none.
  """
  if not hasattr(source, "column"):
    return None
  try:
    return np.asarray(source.column(name))
  except (ValueError, KeyError):  # what sources say of an unknown column
    return None


def identities_of(source: Any) -> np.ndarray:
  """The identity of every example of a source.

  Sources that keep the column (`source.column("identity")`) answer at once;
  any other is read through.
  """
  if hasattr(source, "column"):
    return np.asarray(source.column("identity"))
  return np.asarray([int(source[i]["identity"]) for i in range(len(source))])
