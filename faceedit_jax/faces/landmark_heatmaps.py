"""Heat-maps that a landmark net is to give for known points.

A map for each of the 68 points (iBUG order), as Bulat and Tzimiropoulos 2017
have it, and behind them one of the lines of the face (Wang et al. 2019).
"""

import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, typechecked

LANDMARKS = 68
# (first, last, whether the line is closed).
LINES = (
  (0, 16, False),  # jaw
  (17, 21, False),  # eyebrows
  (22, 26, False),
  (27, 30, False),  # nose and nostrils
  (31, 35, False),
  (36, 41, True),  # eyes
  (42, 47, True),
  (48, 59, True),  # lips
  (60, 67, True),
)


def _segments() -> np.ndarray:
  """(n, 2) points that a line joins."""
  pairs = []
  for first, last, closed in LINES:
    pairs += [(at, at + 1) for at in range(first, last)]
    if closed:
      pairs.append((last, first))
  return np.array(pairs)


SEGMENTS = _segments()


def _centres(side: int) -> Array:
  """(side, side, 2) column and row of the pixels' centres, in pixels."""
  places = jnp.arange(side) + 0.5
  return jnp.stack(jnp.meshgrid(places, places), -1)


@typechecked
def point_maps(
  points: Float[Array, "b n 2"], side: int, sigma: float
) -> Float[Array, "b side side n"]:
  """A Gaussian round each point, 1 at the point itself.

  Args:
    points: unit coordinates of the picture, x right and y down.
    side: of the maps in pixels.
    sigma: standard deviation in pixels of the maps.

  Returns:
    The maps; that of a point beside the picture is empty.
  """
  away = _centres(side)[None, :, :, None] - points[:, None, None] * side
  maps = jnp.exp(-0.5 * jnp.square(away / sigma).sum(-1))
  inside = ((points >= 0) & (points <= 1)).all(-1)
  return maps * inside[:, None, None]


@typechecked
def line_map(
  points: Float[Array, "b 68 2"], side: int, sigma: float
) -> Float[Array, "b side side"]:
  """A Gaussian of the distance to the nearest of the face's lines.

  Args:
    points, side, sigma: as of `point_maps`.
  """
  start, end = (points[:, None, None, SEGMENTS[:, k]] * side for k in (0, 1))
  edge = end - start
  away = _centres(side)[None, :, :, None] - start
  length = jnp.maximum(jnp.square(edge).sum(-1), 1e-12)
  along = jnp.clip((away * edge).sum(-1) / length, 0, 1)
  nearest = jnp.square(away - along[..., None] * edge).sum(-1).min(-1)
  return jnp.exp(-0.5 * nearest / sigma**2)


@typechecked
def true_maps(
  points: Float[Array, "b 68 2"], side: int, sigma: float
) -> Float[Array, "b side side 69"]:
  """What `models.faces.fan.FAN` is to give: 68 points, then the lines."""
  lines = line_map(points, side, sigma)
  return jnp.concatenate(
    [point_maps(points, side, sigma), lines[..., None]], -1
  )
