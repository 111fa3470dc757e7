"""Pictures as bytes and as numbers in [-1, 1]."""

import dataclasses

import numpy as np

from data_pipelines.transforms.crops import SMOOTH, Example


def to_float(image: np.ndarray) -> np.ndarray:
  """uint8 0..255 -> float32 [-1, 1]."""
  return image.astype(np.float32) / 127.5 - 1.0


def to_uint8(image: np.ndarray) -> np.ndarray:
  """float [-1, 1] -> uint8 0..255, rounded and clipped."""
  scaled = (np.asarray(image, np.float32) + 1.0) * 127.5
  return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class ToFloat:
  """Pictures from uint8 to float32 [-1, 1]; labels stay integers (int32)."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    del rng
    out = dict(example)
    for name, value in example.items():
      if isinstance(value, str):
        continue
      value = np.asarray(value)
      if name.endswith(SMOOTH) and value.dtype == np.uint8:
        out[name] = to_float(value)
      elif value.dtype in (np.uint8, np.int8, np.int64):
        out[name] = value.astype(np.int32)
    return out
