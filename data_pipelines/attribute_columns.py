"""Narrows the binary attributes of examples to those that are asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.synthetic_heads import labels


def _names_of(source: Any) -> tuple[str, ...]:
  """What the values of the field `attributes` stand for.

  Raises:
    ValueError: the source does not say.
  """
  names = getattr(source, "attribute_names", None)
  if names:
    return tuple(names)
  metadata = getattr(source, "metadata", {})
  if metadata.get("settings", {}).get("generator") == "synthetic_heads":
    return labels.ATTRIBUTE_NAMES
  raise ValueError(
    "the data names no attributes; wanted a source with `attribute_names` "
    "(data.source)"
  )


class AttributeColumns:
  """Examples whose `attributes` are those of `names`, in this order.

  Args:
    source: its examples have `attributes` (all names,), 0 or 1.
    names: which to keep.

  Raises:
    ValueError: the source lacks one of them.
  """

  def __init__(self, source: Any, names: Sequence[str]):
    known = _names_of(source)
    missing = [name for name in names if name not in known]
    if missing or not names:
      raise ValueError(
        f"data.attributes is {tuple(names)}; wanted some of {known}"
      )
    self._source = source
    self._at = np.array([known.index(name) for name in names])
    self.attribute_names = tuple(names)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    example = dict(self._source[index])
    example["attributes"] = np.asarray(example["attributes"])[self._at]
    return example

  def column(self, name: str) -> np.ndarray:
    """The values of one integer field."""
    return self._source.column(name)
