"""All pictures at one size."""

import dataclasses

import numpy as np
from PIL import Image

from data_pipelines.transforms.crops import NEAREST, SMOOTH, Example


@dataclasses.dataclass(frozen=True)
class Resize:
  """Brings all pictures to one size: averaged down, bicubic up."""

  size: int

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    del rng
    out = dict(example)
    for name, value in example.items():
      if isinstance(value, str) or np.ndim(value) < 2:
        continue
      square = (self.size, self.size)
      if value.shape[:2] == square or value.dtype != np.uint8:
        continue
      picture = Image.fromarray(value)
      if name.endswith(NEAREST):
        method = Image.Resampling.NEAREST
      elif name.endswith(SMOOTH):
        shrinks = self.size < value.shape[0]
        method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
      else:
        continue
      out[name] = np.array(picture.resize(square, method))
    return out
