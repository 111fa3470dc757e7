"""Mirror images."""

import dataclasses

import numpy as np

from data_pipelines.transforms.crops import Example, mirror, prefixes


@dataclasses.dataclass(frozen=True)
class Flip:
  """Mirrors some pictures, and the points and labels with them.

  Codes have no exact mirror image and are dropped, of every example alike.

  Attributes:
    probability: share of examples that are mirrored.
  """

  probability: float = 0.5

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    for prefix in prefixes(example):
      example = mirror(example, prefix, bool(rng.random() < self.probability))
    return example
