"""Which examples go together: pairs of one person, balanced identities.

Each is again a source, and each choice a pure function of (seed, index), so
it does not depend on hosts, threads or where a run was resumed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def generator(seed: int, *indices: int) -> np.random.Generator:
  """A NumPy generator that depends on nothing but its arguments."""
  return np.random.default_rng([int(seed), *(int(i) for i in indices)])


def group_by(identities: Sequence[int] | np.ndarray) -> list[np.ndarray]:
  """Positions of each identity's examples, identities in rising order."""
  identities = np.asarray(identities)
  order = np.argsort(identities, kind="stable")
  _, starts = np.unique(identities[order], return_index=True)
  return np.split(order, starts[1:]) if len(order) else []


def identities_of(source: Any) -> np.ndarray:
  """The identity of every example of a source.

  Sources that keep the column (`source.column("identity")`) answer at once;
  any other is read through.
  """
  if hasattr(source, "column"):
    return np.asarray(source.column("identity"))
  return np.asarray([int(source[i]["identity"]) for i in range(len(source))])


class IdentityPairs:
  """Draws two different examples of one identity.

  Args:
    identities: the identity of every example.
    seed: of the choice.

  Raises:
    ValueError: no identity has two examples.
  """

  def __init__(self, identities: Sequence[int] | np.ndarray, seed: int = 0):
    self._groups = [g for g in group_by(identities) if len(g) > 1]
    if not self._groups:
      raise ValueError(
        f"no identity has two examples among {len(identities)}; pairs need "
        "sets with at least two frames for each person"
      )
    self._seed = seed
    # As many draws to an epoch as there are ordered pairs.
    self._length = sum(len(g) * (len(g) - 1) for g in self._groups)

  def __len__(self) -> int:
    return self._length

  def __call__(self, index: int) -> tuple[int, int]:
    """Returns the positions (i, j), i != j, of pair `index`."""
    rng = generator(self._seed, index)
    group = self._groups[rng.integers(len(self._groups))]
    i, j = rng.choice(len(group), 2, replace=False)
    return int(group[i]), int(group[j])


class PairSource:
  """Two frames of one person as one example.

  The second frame's fields carry `prefix`: `image` and `pair_image`.

  Args:
    source: any source with a field `identity`.
    seed: of the choice.
    prefix: of the second frame's fields.
  """

  def __init__(self, source: Any, seed: int = 0, prefix: str = "pair_"):
    self._source = source
    self._prefix = prefix
    self._pairs = IdentityPairs(identities_of(source), seed)

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> dict[str, Any]:
    i, j = self._pairs(index)
    second: Mapping[str, Any] = self._source[j]
    out = dict(self._source[i])
    out.update({self._prefix + name: value for name, value in second.items()})
    return out


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


class TakeSource:
  """The first `count` examples of a source."""

  def __init__(self, source: Any, count: int):
    if count < 1 or count > len(source):
      raise ValueError(
        f"wanted {count} examples of a source of {len(source)}; change `limit`"
      )
    self._source = source
    self._count = count

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < self._count:
      raise IndexError(f"example {index} of {self._count}")
    return self._source[index]

  def column(self, name: str) -> np.ndarray:
    """The values of one integer field."""
    return np.asarray(self._source.column(name))[: self._count]
