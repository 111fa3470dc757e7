"""Pictures with some of their attributes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import records
from data_pipelines.attributes import columns


def narrowed(example: Mapping[str, Any], at: Sequence[int]) -> dict[str, Any]:
  """An example with some of its attributes, in the order of `at`."""
  values = np.asarray(example[records.ATTRIBUTES])[at]
  return {**example, records.ATTRIBUTES: values}


@dataclasses.dataclass(frozen=True)
class Attributes:
  """Options of pictures with some of their attributes.

  Attributes:
    attributes: names, in the order of the batch's field `attributes`.
  """

  attributes: tuple[str, ...]

  def sample(self, source: Any, seed: int) -> "AttributeColumns":
    """The examples of a source with these attributes alone."""
    del seed
    return AttributeColumns(source, self.attributes)


class AttributeColumns:
  """Examples whose field `attributes` holds those of `names`, in this order.

  Args:
    source: its examples have `attributes` (all names,), 0 or 1.
    names: which to keep.

  Raises:
    ValueError: the source lacks one of them.
  """

  def __init__(self, source: Any, names: Sequence[str]):
    if not names:
      raise ValueError(
        "sampler.attributes is empty; name at least one attribute"
      )
    self._source, self._at = source, columns(source, names)
    self.attribute_names = tuple(names)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return narrowed(self._source[index], self._at)

  def column(self, name: str) -> np.ndarray:
    """The values of one integer field."""
    return self._source.column(name)
