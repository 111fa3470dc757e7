"""Pictures without a face: noise of any grain, and mixed-up pictures."""

import numpy as np
from PIL import Image


def noise(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
  """Noise of one to three grains, in random colours.

  Args:
    shape: (h, w, 3) of the picture.
    rng: draws it.

  Returns:
    uint8 (h, w, 3).
  """
  height, width, _ = shape
  total = np.zeros(shape)
  for _ in range(rng.integers(1, 4)):
    # From single pixels to spots as large as the picture.
    grain = 2.0 ** rng.uniform(0.0, np.log2(max(2, min(height, width) / 2)))
    cells = [max(1, round(side / grain)) for side in (height, width)]
    channels = 3 if rng.random() < 0.7 else 1
    drawn = rng.normal(size=(*cells, channels))
    if rng.random() < 0.3:
      drawn = np.sign(drawn)
    total += _enlarged(drawn, (height, width)) * rng.uniform(0.3, 1.0)
  ground, contrast = rng.uniform(40, 215, 3), rng.uniform(5, 90)
  return np.clip(ground + contrast * total, 0, 255).astype(np.uint8)


def _enlarged(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """(a, b, c) interpolated to (h, w, c)."""
  planes = [
    np.asarray(
      Image.fromarray(cells[..., i].astype(np.float32)).resize(
        (size[1], size[0]), Image.Resampling.BICUBIC
      )
    )
    for i in range(cells.shape[2])
  ]
  return np.stack(planes, axis=-1)


def mixed_up(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """A picture whose parts are no longer where they belong.

  Args:
    image: uint8 (h, w, 3).
    rng: draws which way, and how.

  Returns:
    uint8 (h, w, 3), of the same colours: tiles in another order, each turned
    or mirrored, or the spectrum of the picture with other phases.
  """
  if rng.random() < 0.5:
    return _other_phases(image, rng)
  return _tiles(image, rng)


def _tiles(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  # A face takes a fifth of the side: of so many tiles none holds a whole one,
  # and where there are four, their corners meet in the middle of it.
  count = int(rng.integers(4, 8))
  side = -(-min(image.shape[:2]) // count)
  rows, columns = (-(-size // side) for size in image.shape[:2])
  padded = np.pad(
    image,
    (
      (0, rows * side - image.shape[0]),
      (0, columns * side - image.shape[1]),
      (0, 0),
    ),
    mode="reflect",
  )
  tiles = padded.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
  tiles = tiles.reshape(-1, side, side, 3)[rng.permutation(rows * columns)]
  for place, turns in enumerate(rng.integers(4, size=len(tiles))):
    tiles[place] = np.rot90(tiles[place], turns)
  whole = tiles.reshape(rows, columns, side, side, 3).swapaxes(1, 2)
  whole = whole.reshape(rows * side, columns * side, 3)
  return np.ascontiguousarray(whole[: image.shape[0], : image.shape[1]])


def _other_phases(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  height, width = image.shape[:2]
  # Those of real noise, so that the result is real; the same for all channels
  # keeps the colours together.
  angles = np.angle(np.fft.rfft2(rng.normal(size=(height, width))))
  angles[0, 0] = 0.0  # the mean colour
  spectrum = np.fft.rfft2(image.astype(np.float64), axes=(0, 1))
  turned = spectrum * np.exp(1j * angles)[..., None]
  mixed = np.fft.irfft2(turned, s=(height, width), axes=(0, 1))
  return np.clip(mixed, 0, 255).astype(np.uint8)
