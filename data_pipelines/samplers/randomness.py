"""Random choices as pure functions of (seed, index)."""

import numpy as np


def generator(seed: int, *indices: int) -> np.random.Generator:
  """A NumPy generator that depends on nothing but its arguments."""
  return np.random.default_rng([int(seed), *(int(i) for i in indices)])
