"""Squares round faces: where they lie, what they show, and the way back.

A square (b, 3) is its left and top edge and its side in unit coordinates of
the picture (x right, y down, 0..1). DECA reads codes from such a crop
(decalib/datasets/datasets.py); the codes' camera is turned back afterwards, so
that everything is rendered in the whole picture.
"""

import jax.numpy as jnp

from faceedit_jax.nn import warp

# DECA's square is 1.25 x 1.1 times the mean side of the box round 68 points,
# and the network reads it at 224 x 224 pixels.
_DECA_SHARE, _DECA_SIZE = 1.25 * 1.1, 224
DECA_OUTSIDE = -1.0  # it sees black beyond the picture, of [-1, 1]
# The same square told from five points, in root mean square distances of the
# points from their mean: its side, how far its middle lies below the mean, and
# how far against the nose's sideways shift. Least squares over 512 synthetic
# heads turned up to 60 degrees; what is left is .2 of the side of 4.58 and .1
# of the middle.
_SIDE, _BELOW, _AGAINST_NOSE = 4.58, 0.2, 1.4


def round_points(points, reach: float):
  """Squares (b, 3) round faces.

  Args:
    points: five points (b, 5, 2) in unit coordinates.
    reach: side, in root mean square distances of the points from their mean.
  """
  middle, spread = _middle_and_spread(points)
  return _square(middle, reach * spread)


def deca_from_five(points):
  """DECA's square (b, 3), told from five points (b, 5, 2)."""
  middle, spread = _middle_and_spread(points)
  others = points[:, jnp.asarray([0, 1, 3, 4])].mean(axis=1)
  nose = points[:, 2, 0] - others[:, 0]
  shift = jnp.stack([-_AGAINST_NOSE * nose, _BELOW * spread[:, 0]], axis=-1)
  return _square(middle + shift, _SIDE * spread)


def deca_from_68(points, size: int):
  """DECA's square (b, 3) exactly as its own loader cuts it.

  Args:
    points: 68 landmarks (b, 68, 2) in unit coordinates.
    size: side of the picture in pixels.
  """
  low, high = points.min(axis=1), points.max(axis=1)
  old = (high - low).mean(axis=-1, keepdims=True) * size
  # Whole pixels, and the corners of the crop are centres of its pixels.
  side = jnp.floor(old * _DECA_SHARE)
  step = side / (_DECA_SIZE - 1)
  corner = (low + high) / 2 * size - side / 2 + (1 - step) / 2
  return jnp.concatenate([corner, step * _DECA_SIZE], axis=-1) / size


def five_of_68(points):
  """Eyes, nose tip and mouth corners (b, 5, 2) of 68 landmarks (b, 68, 2)."""
  left, right = points[:, 36:42].mean(axis=1), points[:, 42:48].mean(axis=1)
  rest = (points[:, 30], points[:, 48], points[:, 54])
  return jnp.stack([left, right, *rest], axis=1)


def outer(box):
  """The picture as a square (b, 3) in the coordinates of a square in it."""
  corner, side = box[:, :2], box[:, 2:]
  return jnp.concatenate([-corner / side, 1 / side], axis=-1)


def look(image, box, size: int, outside: float | None = None):
  """The part of pictures (b, h, w, 3) in squares (b, 3), (b, size, size, 3).

  `outside` is seen beyond the picture's border; None repeats the border.
  """
  (x, y, side), zero = box.T, jnp.zeros(box.shape[:1])
  rows = jnp.stack([side, zero, x, zero, side, y], axis=-1)
  return warp.warp(image, rows.reshape(-1, 2, 3), size, outside)


def points_in(points, box):
  """Points (b, n, 2) in the coordinates of squares (b, 3)."""
  return (points - box[:, None, :2]) / box[:, None, 2:]


def camera_in(camera, box):
  """Cameras [s, tx, ty] (b, 3) of what the squares (b, 3) show.

  x' = s (x + tx) on [-1, 1] to the right, y likewise but upwards. With
  `outer(box)` it is DECA's transform of points from the crop to the picture.
  """
  (scale, x, y), (left, top, side) = camera.T, box.T
  x = x - (2 * left + side - 1) / scale
  y = y + (2 * top + side - 1) / scale
  return jnp.stack([scale / side, x, y], axis=-1)


def _middle_and_spread(points):
  middle = points.mean(axis=1)
  spread = jnp.square(points - middle[:, None]).sum(-1).mean(-1)
  return middle, jnp.sqrt(spread)[:, None]


def _square(middle, side):
  # Points of a picture without a face may coincide.
  side = jnp.maximum(side, 1e-2)
  return jnp.concatenate([middle - side / 2, side], axis=-1)
