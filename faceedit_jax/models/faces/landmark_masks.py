"""Heat-maps of a face's points to masks of its parts, and to the points.

StarGAN v2 Sec. 4 (high-pass skips), taken over by L2M-GAN; from the formulas of
clovaai/stargan-v2, core/wing.py, which are about WFLW's 98 points. Masks from
iBUG's 68 points are not published: here each point does what the same point of
WFLW does, by the usual table between the two sets: jaw 0, 2, ..., 32; upper
edges of the eyebrows 33..37, 42..46; nose 51..59; eyes 60, 61, 63, 64, 65, 67
and 68, 69, 71, 72, 73, 75; lips 76..95. What 68 lack: every second point of the
chin, the lower edges of the eyebrows, the middles of the lids, the pupils.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, typechecked
from faceedit_jax.nn.layers import Features

Heatmaps = Float[Array, "b h w k"]

_THRESHOLD = 0.1


@dataclasses.dataclass(frozen=True)
class Layout:
  """Which heat-maps make which part of a mask.

  Attributes:
    name: of the points.
    parts: (first, last, shift up in rows of 256, power) of chin, eyebrows,
      nostrils, upper, lower and inner lip.
    left_out: cheeks beside the chin, ends of eyebrows and lips.
    nose_tail: (first, last, shift up).
    eyes: (first, last); their shifts and power are in `face_masks`.
    large: left out of the second mask: chin, lips, eyebrows.
  """

  name: str
  parts: tuple[tuple[int, int, int, int], ...]
  left_out: tuple[int, ...]
  nose_tail: tuple[int, int, int]
  eyes: tuple[int, int]
  large: tuple[int, ...]


# {number of points: their layout}.
LAYOUTS: Mapping[int, Layout] = {
  98: Layout(
    name="WFLW's",
    parts=(
      (8, 24, 0, 3),  # chin
      (33, 50, -7, 2),  # eyebrows
      (55, 59, 8, 4),  # nostrils
      (77, 81, -8, 4),  # upper lip
      (83, 87, 8, 4),  # lower lip
      (88, 95, -2, 3),  # inner lip
    ),
    left_out=(*range(8), *range(25, 33), 33, 46, 76, 82),
    nose_tail=(52, 54, 4),
    eyes=(60, 75),
    large=(*range(8, 25), *range(76, 96), *range(33, 51)),
  ),
  # Not published; see above.
  68: Layout(
    name="iBUG's",
    parts=(
      (4, 12, 0, 3),
      (17, 26, -7, 2),
      (31, 35, 8, 4),
      (49, 53, -8, 4),
      (55, 59, 8, 4),
      (60, 67, -2, 3),
    ),
    left_out=(*range(4), *range(13, 17), 17, 26, 48, 54),
    nose_tail=(28, 30, 4),
    eyes=(36, 47),
    large=(*range(4, 13), *range(48, 68), *range(17, 27)),
  ),
}


def layout_of(landmarks: int) -> Layout:
  """The layout of so many points.

  Raises:
    ValueError: there is none.
  """
  if landmarks not in LAYOUTS:
    known = " or ".join(f"{n} ({LAYOUTS[n].name})" for n in sorted(LAYOUTS))
    raise ValueError(
      f"no masks of {landmarks} landmarks; wanted {known} (nets.fan.landmarks)"
    )
  return LAYOUTS[landmarks]


@typechecked
def enlarged(heatmaps: Heatmaps, factor: int = 4) -> Features:
  """Bilinear, with the corner pixels staying at the corners.

  Args:
    heatmaps: (b, h, w, k).
    factor: of height and width.
  """
  # Places are rounded as torch rounds them: a threshold follows.
  for axis in (2, 1):
    side = heatmaps.shape[axis]
    steps = np.arange(factor * side, dtype=np.float32)
    place = steps * np.float32((side - 1) / (factor * side - 1))
    low = np.minimum(place.astype(int), side - 1)
    high = np.minimum(low + 1, side - 1)
    share = (place - low).reshape(-1, *(1,) * (3 - axis))
    heatmaps = (1 - share) * heatmaps.take(low, axis) + share * heatmaps.take(
      high, axis
    )
  return heatmaps


@typechecked
def face_masks(
  heatmaps: Heatmaps, landmarks: int = 98
) -> Float[Array, "b _ _ 2"]:
  """Masks of the parts of faces.

  Args:
    heatmaps: (b, h, w, landmarks or more) of `FAN`; further channels are not
      looked at.
    landmarks: number of points, one of LAYOUTS.

  Returns:
    (b, 4 h, 4 w, 2) in [0, 1], without a gradient: the first of eyes,
    eyebrows, nose, lips and chin, the second of eyes and nose.

  Raises:
    ValueError: fewer channels, or a number of points without a layout.
  """
  layout = layout_of(landmarks)
  if heatmaps.shape[-1] < landmarks:
    raise ValueError(
      f"got {heatmaps.shape[-1]} heat-maps, wanted the {landmarks} of "
      f"{layout.name} points"
    )
  x = enlarged(jax.lax.stop_gradient(heatmaps[..., :landmarks]))
  x = jnp.where(x < _THRESHOLD, 0, x)
  low = x.min((1, 2), keepdims=True)
  x = (x - low) / (x.max((1, 2), keepdims=True) - low + 1e-6)
  for first, last, rows, power in layout.parts:
    part = slice(first, last + 1)
    x = x.at[..., part].set(_shift(x[..., part], rows) ** power)
  x = x.at[..., np.array(layout.left_out)].set(0)
  first, last, rows = layout.nose_tail
  part = slice(first, last + 1)
  x = x.at[..., part].set(_shift(x[..., part], rows))
  part = slice(layout.eyes[0], layout.eyes[1] + 1)
  eyes = x[..., part]
  x = x.at[..., part].set(_shift(eyes, -8) ** 3 + _shift(eyes, -24))
  second = x.at[..., np.array(layout.large)].set(0)
  masks = jnp.stack([x.sum(-1), second.sum(-1)], -1)
  return jnp.clip(jnp.nan_to_num(masks), 0, 1)


def _shift(x: Array, rows: int) -> Array:
  """Moves the content up by rows of 256; what leaves comes in below."""
  # Published for maps of 256 alone; elsewhere in proportion.
  return jnp.roll(x, -round(rows * x.shape[1] / 256), 1)


@typechecked
def peaks(heatmaps: Heatmaps) -> Float[Array, "b k 2"]:
  """Where the heat-maps are highest, to a quarter of a pixel.

  Args:
    heatmaps: (b, h, w, k).

  Returns:
    (b, k, 2) column and row in pixels of the maps, edges being whole numbers.
    Times the ratio of the sides they are pixels of the picture.
  """
  b, h, w, k = heatmaps.shape
  flat = heatmaps.reshape(b, h * w, k)
  row, column = jnp.divmod(flat.argmax(1), w)

  def at(r, c):
    index = jnp.clip(r, 0, h - 1) * w + jnp.clip(c, 0, w - 1)
    return jnp.take_along_axis(flat, index[:, None], 1)[:, 0]

  toward = jnp.stack(
    [
      jnp.sign(at(row, column + 1) - at(row, column - 1)),
      jnp.sign(at(row + 1, column) - at(row - 1, column)),
    ],
    -1,
  )
  inside = (row > 0) & (row < h - 1) & (column > 0) & (column < w - 1)
  found = jnp.stack([column, row], -1) + 0.5
  return found + 0.25 * toward * inside[..., None]
