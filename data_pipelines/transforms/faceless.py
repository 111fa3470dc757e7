"""Crops without a face."""

import dataclasses

import numpy as np

from data_pipelines.transforms.crops import Example, crop

_FACE_REGION = 0


@dataclasses.dataclass(frozen=True)
class Faceless:
  """Turns some examples into crops without a face; adds the field `face`.

  The crop is drawn until no pixel of the face region lies in it; should
  none of the draws do, a corner of the picture is taken. Points are set to 0.

  Attributes:
    probability: share of examples that lose their face.
    low: smallest side of the crop, as a share of the picture.
    high: largest side.
  """

  probability: float = 0.25
  low: float = 0.15
  high: float = 0.45
  tries: int = 20

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    lost = rng.random() < self.probability
    example = dict(example, face=np.float32(not lost))
    if not lost:
      return example
    regions = example.get("regions")
    box = (0.0, 0.0, self.low)
    if regions is not None:
      face = regions == _FACE_REGION
      size = face.shape[0]
      for _ in range(self.tries):
        side = rng.uniform(self.low, self.high)
        x, y = rng.uniform(0.0, 1.0 - side, 2)
        rows = slice(int(y * size), int(np.ceil((y + side) * size)))
        columns = slice(int(x * size), int(np.ceil((x + side) * size)))
        if not face[rows, columns].any():
          box = (x, y, side)
          break
    example = crop(example, box)
    if "landmarks5" in example:
      example["landmarks5"] = np.zeros((5, 2), np.float32)
    return example
