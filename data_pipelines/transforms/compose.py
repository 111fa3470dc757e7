"""One transform after the other."""

import dataclasses

import numpy as np

from data_pipelines.transforms.crops import Example


@dataclasses.dataclass(frozen=True)
class Compose:
  """One transform after the other, with one generator."""

  transforms: tuple

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    for transform in self.transforms:
      example = transform(example, rng)
    return example
