"""Pairs of two different examples of one identity."""

from collections.abc import Sequence

import numpy as np

from data_pipelines.samplers.columns import group_by
from data_pipelines.samplers.randomness import generator


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
