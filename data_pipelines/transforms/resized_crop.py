"""Crops of any proportions, as torchvision's RandomResizedCrop."""

import dataclasses

import numpy as np

from data_pipelines.transforms.crops import Example, prefixes, stretch


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
  """Some crops of any proportions, stretched to the whole picture.

  As torchvision's RandomResizedCrop; cameras do not describe such a crop and
  are dropped, of every example alike.

  Attributes:
    probability: share of examples that are cropped.
    scale: smallest and largest area of the crop, as a share of the picture.
    ratio: smallest and largest width over height.
  """

  probability: float = 0.5
  scale: tuple[float, float] = (0.8, 1.0)
  ratio: tuple[float, float] = (0.9, 1.1)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    for prefix in prefixes(example):
      on, box = rng.random() < self.probability, self._box(rng)
      box = box if on else (0.0, 0.0, 1.0, 1.0)
      example = stretch(example, box, prefix)
    return example

  def _box(self, rng: np.random.Generator) -> tuple[float, ...]:
    low, high = np.log(self.ratio)
    for _ in range(10):
      area = rng.uniform(*self.scale)
      ratio = np.exp(rng.uniform(low, high))
      width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
      if width <= 1 and height <= 1:
        x, y = rng.random(2) * (1 - width, 1 - height)
        return x, y, width, height
    return 0.0, 0.0, 1.0, 1.0
