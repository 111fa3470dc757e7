"""People equally often, however many pictures there are of each."""

import dataclasses
from typing import Any

import numpy as np

from data_pipelines.samplers.columns import group_by, identities_of


@dataclasses.dataclass(frozen=True)
class Balanced:
  """Options of people equally often: none."""

  def sample(self, source: Any, seed: int) -> "BalancedSource":
    """The examples of a source, people taking turns."""
    del seed  # the order of people is their numbers'
    return BalancedSource(source)


class BalancedSource:
  """Every identity equally often, however many frames it has.

  Identities take turns and each goes through its frames; one epoch is as many
  turns as the longest identity has frames, so no frame is left out.

  Args:
    source: any source with a field `identity`.
  """

  def __init__(self, source: Any):
    self._source = source
    self._groups = group_by(identities_of(source))
    if not self._groups:
      raise ValueError("the data source is empty")

  def __len__(self) -> int:
    return len(self._groups) * max(len(group) for group in self._groups)

  def _position(self, index: int) -> int:
    turn, person = divmod(index, len(self._groups))
    group = self._groups[person]
    return int(group[turn % len(group)])

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._source[self._position(index)]

  def column(self, name: str) -> np.ndarray:
    """The values of one integer field, in the order of this source."""
    values = np.asarray(self._source.column(name))
    return values[[self._position(i) for i in range(len(self))]]
