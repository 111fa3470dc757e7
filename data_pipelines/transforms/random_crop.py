"""Random square crops, and the points, camera and labels with them."""

import dataclasses

import numpy as np

from data_pipelines.transforms.crops import Example, crop, prefixes


@dataclasses.dataclass(frozen=True)
class RandomCrop:
  """A random loose crop, and the points, camera and labels with it.

  Attributes:
    low: smallest side of the crop, as a share of the picture.
    high: largest side; above 1 the face gets smaller.
    shift: largest shift of the crop's centre, as a share of its side.
    probability: share of examples that are cropped.
  """

  low: float = 0.7
  high: float = 1.1
  shift: float = 0.1
  probability: float = 1.0

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if rng.random() >= self.probability:
      return example
    for prefix in prefixes(example):
      side = rng.uniform(self.low, self.high)
      x, y = 0.5 + rng.uniform(-self.shift, self.shift, 2) * side - side / 2
      example = crop(example, (x, y, side), prefix)
    return example
