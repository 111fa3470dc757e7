"""What a stranger's camera does to a picture."""

import dataclasses

import numpy as np
from PIL import Image, ImageFilter

from data_pipelines.transforms.crops import Example, prefixes


@dataclasses.dataclass(frozen=True)
class Photometric:
  """What a stranger's camera does to a picture; nothing else changes.

  Contrast, colour cast, grey, blur and noise. Points and codes stay as they
  are; mind that the light is then read against the cast.

  Attributes:
    probability: share of examples that are changed.
    cast: largest change of a colour channel's gain.
    contrast: largest change of the contrast.
    noise: largest standard deviation of noise, in grey levels.
    grey: share of the changed examples that lose their colour.
    blur: share of the changed examples that lose their detail.
  """

  probability: float = 0.5
  cast: float = 0.12
  contrast: float = 0.2
  noise: float = 8.0
  grey: float = 0.05
  blur: float = 0.3

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    out = dict(example)
    for prefix in prefixes(example):
      # All draws are made in any case, so that one never shifts another.
      on, grey, blur = rng.random(3) < (self.probability, self.grey, self.blur)
      gain = 1 + rng.uniform(-1, 1, 3) * self.cast
      contrast = 1 + rng.uniform(-1, 1) * self.contrast
      radius, level = rng.uniform(0.3, 1.2), rng.uniform(0, self.noise)
      if not on:
        continue
      image = example[prefix + "image"]
      if blur:
        filtered = Image.fromarray(image).filter(
          ImageFilter.GaussianBlur(radius * image.shape[0] / 64)
        )
        image = np.asarray(filtered)
      value = image.astype(np.float32)
      value = (value - 127.5) * contrast * gain + 127.5
      if grey:
        value = value.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
      value = value + rng.normal(0, level, value.shape)
      out[prefix + "image"] = np.clip(np.round(value), 0, 255).astype(np.uint8)
    return out
