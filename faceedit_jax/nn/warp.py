"""Similarity alignment and bilinear resampling on the device.

The five-point similarity is the one of ArcFace's preprocessing
(insightface, recognition/common/face_align.py); the crop template is given in
unit coordinates so that it serves every input size.
"""

import jax
import jax.numpy as jnp
from jax.scipy import ndimage

from faceedit_jax.core.typing import Array, Float, typechecked

# ArcFace's five points for a 112 x 112 crop, as fractions of the picture:
# left-in-picture eye, right-in-picture eye, nose tip, mouth corners.
ARCFACE5 = (
  (38.2946 / 112, 51.6963 / 112),
  (73.5318 / 112, 51.5014 / 112),
  (56.0252 / 112, 71.7366 / 112),
  (41.5493 / 112, 92.3655 / 112),
  (70.7299 / 112, 92.2041 / 112),
)


@typechecked
def similarity(
  source: Float[Array, "b n 2"], target: Float[Array, "b n 2"]
) -> Float[Array, "b 2 3"]:
  """Least-squares similarity (rotation, scale, shift) from source to target.

  Args:
    source: points (b, n, 2), any unit.
    target: points (b, n, 2).

  Returns:
    Matrices (b, 2, 3) with `target ~ source @ m[:, :, :2].T + m[:, :, 2]`.
  """
  mean_s = source.mean(axis=1, keepdims=True)
  mean_t = target.mean(axis=1, keepdims=True)
  s, t = source - mean_s, target - mean_t
  norm = jnp.maximum((s**2).sum(axis=(1, 2)), 1e-8)
  a = (s * t).sum(axis=(1, 2)) / norm
  b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(axis=1) / norm
  rot = jnp.stack([jnp.stack([a, -b], -1), jnp.stack([b, a], -1)], axis=1)
  shift = mean_t[:, 0] - jnp.einsum("bij,bj->bi", rot, mean_s[:, 0])
  return jnp.concatenate([rot, shift[..., None]], axis=-1)


@typechecked
def warp(
  image: Float[Array, "b h w c"],
  matrix: Float[Array, "b 2 3"],
  size: int,
  outside: float | None = None,
) -> Float[Array, "b size size c"]:
  """Samples a picture at transformed positions, bilinearly.

  Args:
    image: pictures (b, h, w, c).
    matrix: (b, 2, 3), from unit coordinates of the output (x right, y down,
      0..1 over the picture) to unit coordinates of the input.
    size: side of the square output in pixels.
    outside: value of positions outside; None repeats the border.

  Returns:
    (b, size, size, c).
  """
  height, width = image.shape[1:3]
  unit = (jnp.arange(size) + 0.5) / size
  x, y = jnp.meshgrid(unit, unit)
  grid = jnp.stack([x, y, jnp.ones_like(x)], axis=-1)
  where = jnp.einsum("bij,hwj->bhwi", matrix, grid)
  rows = where[..., 1] * height - 0.5
  cols = where[..., 0] * width - 0.5

  border: dict = {"mode": "nearest"}
  if outside is not None:
    border = {"mode": "constant", "cval": outside}

  def one(channel, r, c):
    return ndimage.map_coordinates(channel, [r, c], order=1, **border)

  over_channels = jax.vmap(one, in_axes=(2, None, None), out_axes=2)
  return jax.vmap(over_channels)(image, rows, cols)


@typechecked
def face_crop(
  image: Float[Array, "b h w c"], points: Float[Array, "b 5 2"], size: int
) -> Float[Array, "b size size c"]:
  """Aligned crop in which ArcFace-style identity nets read a face.

  Args:
    image: pictures (b, h, w, c).
    points: five face points in unit coordinates of the picture.
    size: side of the crop in pixels.

  Returns:
    (b, size, size, c).
  """
  template = jnp.broadcast_to(jnp.asarray(ARCFACE5), points.shape)
  return warp(image, similarity(template, points), size)
