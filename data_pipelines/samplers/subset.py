"""Some of a source's examples."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class SubsetSource:
  """Some examples of a source, in a given order.

  Args:
    source: any source.
    positions: of the examples to keep.
  """

  def __init__(self, source: Any, positions: Sequence[int] | np.ndarray):
    self._source = source
    self._positions = np.asarray(positions)

  def __len__(self) -> int:
    return len(self._positions)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f"example {index} of {len(self)}")
    return self._source[int(self._positions[index])]

  def column(self, name: str) -> np.ndarray:
    """The values of one integer field."""
    return np.asarray(self._source.column(name))[self._positions]

  @property
  def attribute_names(self) -> tuple[str, ...]:
    """Names of the field `attributes`, as the source has them."""
    return self._source.attribute_names

  def attribute_table(
    self, positions: Sequence[int] | np.ndarray | None = None
  ) -> np.ndarray:
    """Attributes of all examples, or of those at `positions`; int8 (n, A)."""
    kept = self._positions
    kept = kept if positions is None else kept[np.asarray(positions)]
    return self._source.attribute_table(kept)


class TakeSource(SubsetSource):
  """The first `count` examples of a source."""

  def __init__(self, source: Any, count: int):
    if count < 1 or count > len(source):
      raise ValueError(
        f"wanted {count} examples of a source of {len(source)}; change "
        "`loader.limit`"
      )
    super().__init__(source, np.arange(count))
