"""Binary attributes of a source's pictures, by name."""

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np


def names_of(source: Any) -> tuple[str, ...]:
  """Names of the attributes of a source's examples, in their order.

  Raises:
    ValueError: its examples have none.
  """
  names = getattr(source, "attribute_names", None)
  if not names:
    raise ValueError(
      f"{type(source).__name__} has no attributes; wanted synthetic heads, "
      "folders of domains, or a set prepared with attributes (data.source.kind)"
    )
  return tuple(names)


def columns(source: Any, names: Sequence[str]) -> list[int]:
  """Where attributes stand in a source's field `attributes`.

  Raises:
    ValueError: the source does not know one of them, with the nearest name.
  """
  known = names_of(source)
  for name in names:
    if name not in known:
      near = difflib.get_close_matches(name, known, n=1)
      hint = f"did you mean {near[0]!r}?" if near else f"it has {list(known)}"
      raise ValueError(f"the data have no attribute {name!r}; {hint}")
  return [known.index(name) for name in names]


def table_of(source: Any, names: Sequence[str]) -> np.ndarray:
  """Values (n, len(names)) int8, 0 or 1, of every example of a source."""
  at = columns(source, names)
  return np.asarray(source.attribute_table(), np.int8)[:, at]
