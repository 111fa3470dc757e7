"""Weights and pictures that need no file, for recordings of torchvision."""

import zlib

import numpy as np


def uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
  """Numbers in [-1, 1) that hang on the key and the position alone.

  Whole-number arithmetic (splitmix64), so the same on every machine.
  """
  count = int(np.prod(shape))
  with np.errstate(over="ignore"):
    x = np.arange(1, count + 1, dtype=np.uint64)
    x = x + (np.uint64(zlib.crc32(key.encode())) << np.uint64(32))
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
  unit = (x >> np.uint64(11)).astype(np.float64) / 2.0**53
  return (2 * unit - 1).reshape(shape)


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
  """The array of a torch key, float32.

  Args:
    key: as in the state of torchvision's net.
    shape: in torch's layout.
  """
  x, leaf = uniform(key, shape), key.rsplit(".", 1)[-1]
  if leaf == "running_var":
    x = 0.7 + 0.3 * x
  elif leaf == "weight" and len(shape) == 1:
    x = 1.0 + 0.3 * x
  elif len(shape) > 1:  # outputs as large as inputs
    x = x * np.sqrt(3 / np.prod(shape[1:]))
  else:
    x = 0.1 * x
  return x.astype(np.float32)


def pictures(size: int) -> np.ndarray:
  """Two pictures (2, size, size, 3) in [-1, 1] with coarse and fine parts."""
  line = np.linspace(0, 7, size)
  coarse = np.sin(line)[:, None, None] * np.cos(0.7 * line)[:, None]
  fine = uniform("pictures", (2, size, size, 3))
  return (0.5 * coarse + 0.5 * fine).astype(np.float32)
