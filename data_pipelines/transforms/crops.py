"""Crops of pictures and their mirror images, and what moves along."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

Example = dict[str, Any]

# Fields that share the picture's grid, and how they are resampled.
SMOOTH = ("image",)
NEAREST = ("regions", "labels", "mask")
CAMERAS = ("camera", "eg3d_camera")
CODES = ("shape", "albedo", "expression", "pose", "gaze", "light")


def _pairs(count: int, *pairs: tuple[int, int]) -> tuple[int, ...]:
  """0, 1, ... with the places of each pair exchanged."""
  out = list(range(count))
  for a, b in pairs:
    out[a], out[b] = b, a
  return tuple(out)


# Points in unit coordinates, and which of them each one's mirror image is.
POINTS = {
  "landmarks5": _pairs(5, (0, 1), (3, 4)),
  # iBUG's 68: jaw, brows, nose, nostrils, eyes, outer and inner lips.
  "landmarks68": _pairs(
    68,
    *((i, 16 - i) for i in range(8)),
    *((17 + i, 26 - i) for i in range(5)),
    *((31, 35), (32, 34)),
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58)),
    *((60, 64), (61, 63), (65, 67)),
  ),
}
# What is known of each of such points, by the name of their field.
OF_POINTS = {"visible68": POINTS["landmarks68"]}
# Class of CelebAMask-HQ at the mirrored place: l_ and r_ eye, brow and ear.
_MIRRORED_CLASS = np.array(_pairs(256, (4, 5), (6, 7), (8, 9)), np.uint8)


def prefixes(example: Example) -> list[str]:
  """The prefixes under which pictures occur: "", "pair_", "source_", ..."""
  return [n[: -len("image")] for n in example if n.endswith("image")]


def crop(example: Example, box: Sequence[float], prefix: str = "") -> Example:
  """Looks at a crop of the picture, and moves everything that depends on it.

  Args:
    example: with `image` and any of regions, labels, points, camera and
      eg3d_camera, each behind `prefix`.
    box: (x0, y0, side) of the crop in unit coordinates; it may reach over
      the rim, where the picture's edge is repeated.
    prefix: of the fields.

  Returns:
    A new example; pictures keep their size in pixels.
  """
  x0, y0, side = (float(v) for v in box)
  out = _resampled(example, (x0, y0, side, side), prefix)
  if prefix + "camera" in example:
    # x' = s (x + tx) on [-1, 1], to the right; y likewise but upwards.
    s, tx, ty = example[prefix + "camera"]
    shift_x, shift_y = 2 * x0 + side - 1.0, 2 * y0 + side - 1.0
    camera = (s / side, tx - shift_x / s, ty + shift_y / s)
    out[prefix + "camera"] = np.asarray(camera, np.float32)
  if prefix + "eg3d_camera" in example:
    # The last nine numbers are the intrinsics of the unit picture.
    camera = np.array(example[prefix + "eg3d_camera"], np.float32)
    inner = camera[16:].reshape(3, 3)
    inner[:2] /= side
    inner[0, 2] -= x0 / side
    inner[1, 2] -= y0 / side
    out[prefix + "eg3d_camera"] = camera
  return out


def cut(
  image: np.ndarray, box: Sequence[float], size: int, method: Image.Resampling
) -> np.ndarray:
  """The box (x0, y0, x1, y1) of a picture in pixels, as `size` x `size`.

  Upright, so that Pillow resizes it in one go: with `align.warp` the
  estimator's transform took 3.7 ms a picture, so 1.3 (one core of an Intel
  Xeon), and half of a core went to it in training.
  """
  margin = 2 + math.ceil(2 * max(1.0, (box[2] - box[0]) / size))
  low = [math.floor(v) - margin for v in box[:2]]
  high = [math.ceil(v) + margin for v in box[2:]]
  columns, rows = (
    np.clip(np.arange(start, stop), 0, side - 1)
    for start, stop, side in zip(
      low, high, (image.shape[1], image.shape[0]), strict=True
    )
  )
  picture = Image.fromarray(image[rows[:, None], columns[None, :]])
  inner = (
    box[0] - low[0],
    box[1] - low[1],
    box[2] - low[0],
    box[3] - low[1],
  )
  return np.array(picture.resize((size, size), method, inner))


def stretch(
  example: Example, box: Sequence[float], prefix: str = ""
) -> Example:
  """Looks at a crop of any proportions, stretched to the whole picture.

  Args:
    example: with `image` and any of regions, labels and points, each behind
      `prefix`.
    box: (x0, y0, width, height) in unit coordinates.
    prefix: of the fields.

  Returns:
    A new example; pictures keep their size in pixels, cameras are dropped.
  """
  out = dict(example)
  if tuple(box) != (0.0, 0.0, 1.0, 1.0):
    out = _resampled(example, box, prefix)
  for name in CAMERAS:
    out.pop(prefix + name, None)
  return out


def _resampled(example: Example, box: Sequence[float], prefix: str) -> Example:
  """Pictures and points as a crop (x0, y0, width, height) shows them."""
  x0, y0, width, height = (float(v) for v in box)
  out, size = dict(example), example[prefix + "image"].shape[0]
  pixels = tuple(size * v for v in (x0, y0, x0 + width, y0 + height))
  for names, method in (
    (SMOOTH, Image.Resampling.BICUBIC),
    (NEAREST, Image.Resampling.NEAREST),
  ):
    for name in names:
      if prefix + name in example:
        out[prefix + name] = cut(example[prefix + name], pixels, size, method)
  for name in POINTS:
    if prefix + name in example:
      points = example[prefix + name] - np.array([x0, y0])
      points = points / np.array([width, height])
      out[prefix + name] = points.astype(np.float32)
  return out


def mirror(example: Example, prefix: str = "", flipped: bool = True) -> Example:
  """Mirrors a picture: left becomes right, for points and labels too.

  Args:
    example: with `image` and any of regions, labels, mask and points, each
      behind `prefix`.
    prefix: of the fields.
    flipped: whether to mirror at all; codes are dropped in any case.

  Returns:
    A new example without cameras and codes.
  """
  out = dict(example)
  for name in (*CAMERAS, *CODES):
    out.pop(prefix + name, None)
  if not flipped:
    return out
  for name in (*SMOOTH, *NEAREST):
    if prefix + name in example:
      out[prefix + name] = np.ascontiguousarray(example[prefix + name][:, ::-1])
  if prefix + "labels" in out:
    out[prefix + "labels"] = _MIRRORED_CLASS[out[prefix + "labels"]]
  for name, order in POINTS.items():
    if prefix + name in example:
      points = example[prefix + name][list(order)] * np.float32([-1, 1])
      out[prefix + name] = (points + np.float32([1, 0])).astype(np.float32)
  for name, order in OF_POINTS.items():
    if prefix + name in example:
      out[prefix + name] = example[prefix + name][list(order)]
  return out
