"""The alignments of faces, used by preparation, evaluation and editing.

A similarity (rotation, one scale, shift) carries five points of a face onto
those of a template, most often the mean frontal points of the synthetic heads;
`paste_back` undoes it.

Coordinates are continuous: (0, 0) is the upper left corner of the upper left
pixel, and pixel i covers [i, i + 1). Unit coordinates are the same, divided
by the picture's side.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from faceedit_jax.core.typing import typechecked

# Unit coordinates (x right, y down) of the five points in an aligned picture,
# in this order: left and right eye, tip of the nose, left and right corner of
# the mouth, as seen in the picture. Measured: the mean over the first 200
# synthetic people, frontal, with the expression at rest and the mean camera
# (a picture 31.5 cm high), made symmetric; a test compares.
CANONICAL5 = np.asarray(
  [
    (0.3971, 0.4380),
    (0.6029, 0.4380),
    (0.5000, 0.5661),
    (0.4168, 0.6717),
    (0.5832, 0.6717),
  ],
  np.float32,
)

# The same points in a picture of CelebA-HQ. Its crop (Karras et al. 2018,
# appendix C) is as wide as four distances of the eyes or 3.6 from eyes to
# mouth, whichever is more, and its middle a tenth of the latter below the eyes;
# of the mean face of CelebA (GeneGAN's preprocessing), made symmetric. Single
# pictures scatter: the crop is made from fewer points than five.
CELEBA_HQ5 = np.asarray(
  [
    (0.3750, 0.4733),
    (0.6250, 0.4733),
    (0.5000, 0.6229),
    (0.3959, 0.7405),
    (0.6041, 0.7405),
  ],
  np.float32,
)

# Where the pictures of a set have their faces.
TEMPLATES = {"synthetic_heads": CANONICAL5, "celeba_hq": CELEBA_HQ5}

# How far the aligned square may reach, in multiples of the picture's side.
_MAX_REACH = 8.0
# Large pictures are shrunk and pasted into by so many pixels at once: floats
# of all of them would take ten times the picture's memory.
_BAND = 1 << 21


class AlignError(ValueError):
  """Points or pictures that cannot be aligned; the message says why."""


@dataclasses.dataclass(frozen=True)
class Aligned:
  """An aligned picture and the way back.

  Attributes:
    image: uint8 (s, s, 3).
    matrix: (2, 3), from pixels of the original to pixels of `image`.
    landmarks5: (5, 2), the given points in unit coordinates of `image`.
  """

  image: np.ndarray
  matrix: np.ndarray
  landmarks5: np.ndarray


@typechecked
def similarity(
  source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "2 3"]:
  """The least-squares similarity from one set of points to another.

  Points are read as complex numbers, in which a similarity without mirroring
  is q = a p + b and a has a closed form.

  Args:
    source: (n, 2) points, n >= 2.
    target: (n, 2) points they should land on.

  Returns:
    The matrix (2, 3) that takes (x, y, 1) of the source to the target.

  Raises:
    AlignError: the points are not finite or all in one place.
  """
  if not (np.isfinite(source).all() and np.isfinite(target).all()):
    raise AlignError(f"landmarks are not finite: {source.tolist()}")
  p = source.astype(np.float64) @ np.array([1.0, 1.0j])
  q = target.astype(np.float64) @ np.array([1.0, 1.0j])
  p_mean, q_mean = p.mean(), q.mean()
  spread = np.sum(np.abs(p - p_mean) ** 2)
  if spread < 1e-12 * max(1.0, np.abs(p_mean) ** 2):
    raise AlignError(
      f"landmarks lie in one place: {np.round(source, 3).tolist()}; wanted "
      "five different points"
    )
  a = np.sum(np.conj(p - p_mean) * (q - q_mean)) / spread
  if abs(a) < 1e-9:
    raise AlignError(
      f"landmarks {np.round(source, 1).tolist()} have no likeness to a face; "
      "the wanted order is left eye, right eye, nose, left and right corner "
      "of the mouth, as seen in the picture"
    )
  b = q_mean - a * p_mean
  return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def invert(matrix: np.ndarray) -> np.ndarray:
  """The inverse (2, 3) of an affine map (2, 3)."""
  linear = np.linalg.inv(matrix[:, :2])
  return np.concatenate([linear, -linear @ matrix[:, 2:]], axis=1)


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
  """Applies an affine map (2, 3) to points (n, 2)."""
  return points @ matrix[:, :2].T + matrix[:, 2]


def _resample(
  image: np.ndarray, inverse: np.ndarray, size: tuple[int, int], method
) -> np.ndarray:
  """Pillow's affine resampling; `inverse` maps output to input pixels."""
  if image.ndim == 3:
    channels = [
      _resample(image[..., i], inverse, size, method)
      for i in range(image.shape[2])
    ]
    return np.stack(channels, -1)
  if method != Image.Resampling.NEAREST:
    # On bytes Pillow cuts off fractions, which would darken every picture.
    image = image.astype(np.float32)
  out = Image.fromarray(image).transform(
    (size[1], size[0]), Image.Transform.AFFINE, inverse.ravel().tolist(), method
  )
  return np.asarray(out)


def _warp(
  image: np.ndarray,
  matrix: np.ndarray,
  size: tuple[int, int],
  method: str,
) -> np.ndarray:
  """Warps (h, w) or (h, w, 3), uint8 or float32, onto a grid of `size`."""
  inverse = invert(np.asarray(matrix, np.float64))
  height, width = image.shape[:2]
  corners = np.array(
    [(0, 0), (size[1], 0), (0, size[0]), (size[1], size[0])], np.float64
  )
  reach = transform_points(inverse, corners)
  shrink = np.sqrt(abs(np.linalg.det(inverse[:, :2])))  # input px per output px
  margin = int(np.ceil(4 * max(shrink, 1.0)))
  low = np.floor(reach.min(0)).astype(int) - margin
  high = np.ceil(reach.max(0)).astype(int) + margin
  if (high - low).max() > _MAX_REACH * max(height, width) + 2 * margin:
    raise AlignError(
      f"the aligned square spans {(high - low).tolist()} pixels of a picture "
      f"of {width}x{height}: the landmarks do not fit this picture"
    )
  # Only the needed part is taken, its missing rim repeated from the edge.
  columns = np.clip(np.arange(low[0], high[0]), 0, width - 1)
  rows = np.clip(np.arange(low[1], high[1]), 0, height - 1)
  inverse = inverse.copy()
  inverse[:, 2] -= low
  if method == "nearest":
    image = image[rows[:, None], columns[None, :]]
    return _resample(image, inverse, size, Image.Resampling.NEAREST)
  # Strong shrinking: box-average whole blocks first, then the rest at twice
  # the wanted grid. Together they pass what the output grid can hold.
  factor = max(1, int(shrink))
  image = _block_means(image, rows, columns, factor)
  inverse, shrink = inverse / factor, shrink / factor
  fine = 1 if shrink <= 1.0 + 1e-6 else 2
  inverse = inverse.copy()
  inverse[:, :2] /= fine
  grid = (fine * size[0], fine * size[1])
  out = _resample(image, inverse, grid, Image.Resampling.BICUBIC)
  out = out.reshape(size[0], fine, size[1], fine, *out.shape[2:]).mean((1, 3))
  if image.dtype == np.uint8:
    return np.clip(np.round(out), 0, 255).astype(np.uint8)
  return out


def _block_means(
  image: np.ndarray, rows: np.ndarray, columns: np.ndarray, factor: int
) -> np.ndarray:
  """Means over blocks of factor x factor of some rows and columns."""
  if factor == 1:
    return image[rows[:, None], columns[None, :]]
  if image.dtype == np.uint8:
    band = max(1, _BAND // (len(columns) * factor)) * factor
    return np.concatenate(
      [
        np.asarray(
          Image.fromarray(
            image[rows[top : top + band, None], columns[None, :]]
          ).reduce(factor)
        )
        for top in range(0, len(rows), band)
      ]
    )
  rows = rows[: len(rows) // factor * factor]
  columns = columns[: len(columns) // factor * factor]
  image = image[rows[:, None], columns[None, :]]
  image = image.reshape(
    len(rows) // factor, factor, len(columns) // factor, factor
  )
  return image.mean((1, 3), dtype=np.float32)


@typechecked
def warp(
  image: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"],
  matrix: Float[np.ndarray, "2 3"],
  size: int,
  method: str = "smooth",
) -> UInt8[np.ndarray, "s s 3"] | UInt8[np.ndarray, "s s"]:
  """Resamples a picture of any size onto a square, without aliasing.

  Args:
    image: uint8 (h, w, 3), or (h, w) for labels and grays.
    matrix: (2, 3) from pixels of `image` to pixels of the square.
    size: side of the square in pixels.
    method: "smooth" (averaged when shrinking, bicubic) or "nearest" (labels).

  Returns:
    uint8 (size, size[, 3]); parts outside the picture repeat its edge.

  Raises:
    AlignError: the square lies absurdly far outside the picture.
  """
  if method not in ("smooth", "nearest"):
    raise AlignError(f"unknown method {method!r}, wanted smooth or nearest")
  return _warp(image, matrix, (size, size), method)


def check_points(points: np.ndarray, name: str = "") -> np.ndarray:
  """Returns five finite points as float64 (5, 2).

  Raises:
    AlignError: the shape is another one, or a number is not finite.
  """
  where = f"{name}: " if name else ""
  try:
    points = np.asarray(points)
  except ValueError as error:  # lists of several lengths
    raise AlignError(f"{where}landmarks are no array of numbers") from error
  if points.shape != (5, 2):
    raise AlignError(
      f"{where}landmarks have shape {points.shape}, wanted (5, 2): left eye, "
      "right eye, nose, left and right corner of the mouth"
    )
  if points.dtype.kind not in "iuf":
    raise AlignError(f"{where}landmarks are {points.dtype}, wanted numbers")
  points = points.astype(np.float64)
  if not np.isfinite(points).all():
    raise AlignError(f"{where}landmarks are not finite: {points.tolist()}")
  return points


def template(name: str) -> np.ndarray:
  """One of TEMPLATES, float32 (5, 2).

  Raises:
    AlignError: there is none of this name.
  """
  if name not in TEMPLATES:
    raise AlignError(
      f"alignment is {name!r}; wanted one of {', '.join(TEMPLATES)}"
    )
  return TEMPLATES[name]


@typechecked
def align(
  image: UInt8[np.ndarray, "h w 3"],
  points: Float[np.ndarray, "5 2"],
  size: int,
  template: Float[np.ndarray, "5 2"] = CANONICAL5,
) -> Aligned:
  """Cuts the upright square round a face.

  Args:
    image: uint8 (h, w, 3) of any size.
    points: (5, 2) in pixels, in the order of `CANONICAL5`.
    size: side of the square in pixels.
    template: (5, 2), where the points should land, in unit coordinates.

  Returns:
    The aligned picture, the matrix and the points in unit coordinates.

  Raises:
    AlignError: the points make no face or do not fit the picture.
  """
  points = check_points(points)
  matrix = similarity(points, template.astype(np.float64) * size)
  landmarks = transform_points(matrix, points) / size
  return Aligned(
    image=warp(image, matrix, size),
    matrix=matrix,
    landmarks5=landmarks.astype(np.float32),
  )


def centre_square(
  image: np.ndarray, size: int, template: np.ndarray = CANONICAL5
) -> Aligned:
  """The largest centred square, resized; for pictures already aligned.

  Args:
    image: uint8 (h, w, 3).
    size: side of the square in pixels.
    template: (5, 2), where their faces have the points, in unit coordinates.

  Returns:
    The square with the matrix used; `landmarks5` are the template's.
  """
  matrix = centre_matrix(*image.shape[:2], size)
  return Aligned(warp(image, matrix, size), matrix, template.copy())


def centre_matrix(height: int, width: int, size: int) -> np.ndarray:
  """The map (2, 3) from a picture to its largest centred square, resized."""
  side = min(height, width)
  scale = size / side
  return np.array(
    [
      [scale, 0.0, -scale * (width - side) / 2],
      [0.0, scale, -scale * (height - side) / 2],
    ]
  )


def feather_mask(size: int, feather: float = 0.08) -> np.ndarray:
  """A mask that is one inside a square and falls smoothly to zero at its rim.

  Args:
    size: side in pixels.
    feather: width of the falling rim as a share of the side.

  Returns:
    float32 (size, size) in [0, 1].
  """
  centre = (np.arange(size) + 0.5) / size
  edge = np.minimum(centre, 1.0 - centre) / max(feather, 1e-6)
  ramp = np.clip(edge, 0.0, 1.0)
  ramp = ramp * ramp * (3.0 - 2.0 * ramp)
  return np.minimum(ramp[:, None], ramp[None, :]).astype(np.float32)


@typechecked
def paste_back(
  canvas: UInt8[np.ndarray, "h w 3"],
  patch: UInt8[np.ndarray, "s s 3"],
  matrix: Float[np.ndarray, "2 3"],
  mask: Float[np.ndarray, "s s"] | None = None,
  feather: float = 0.08,
  in_place: bool = False,
) -> UInt8[np.ndarray, "h w 3"]:
  """Puts an edited square back where `align` cut it out.

  Args:
    canvas: uint8 (h, w, 3), the original picture.
    patch: uint8 (s, s, 3), the edited square.
    matrix: (2, 3) from pixels of the canvas to pixels of the patch.
    mask: float (s, s) in [0, 1], what of the patch to use; all by default.
    feather: width of the soft rim as a share of the patch's side.
    in_place: change the canvas itself; it is as large as the picture.

  Returns:
    uint8 (h, w, 3), new if not in place; pixels outside the square are the
    canvas's own.
  """
  size = patch.shape[0]
  alpha = feather_mask(size, feather)
  if mask is not None:
    alpha = alpha * np.clip(mask, 0.0, 1.0).astype(np.float32)
  corners = np.array([(0, 0), (size, 0), (0, size), (size, size)], np.float64)
  reach = transform_points(invert(matrix), corners)
  low = np.clip(np.floor(reach.min(0)).astype(int), 0, None)
  high = np.ceil(reach.max(0)).astype(int)
  high = np.minimum(high, (canvas.shape[1], canvas.shape[0]))
  out = canvas if in_place else canvas.copy()
  if (high <= low).any():
    return out
  band = max(1, _BAND // int(high[0] - low[0]))
  for top in range(int(low[1]), int(high[1]), band):
    bottom = min(top + band, int(high[1]))
    part = out[top:bottom, low[0] : high[0]]
    corner = np.array([low[0], top], np.float64)
    part[:] = _blend(part, patch, alpha, matrix, corner)
  return out


def _blend(
  part: np.ndarray,
  patch: np.ndarray,
  alpha: np.ndarray,
  matrix: np.ndarray,
  corner: np.ndarray,
) -> np.ndarray:
  """A part of a canvas, uint8 (h, w, 3), with what of the patch lies there.

  Args:
    part: of the canvas.
    patch: uint8 (s, s, 3).
    alpha: float32 (s, s), the patch's weight.
    matrix: (2, 3) from pixels of the canvas to pixels of the patch.
    corner: x and y of the part's upper left corner in the canvas.
  """
  to_part = matrix.astype(np.float64).copy()
  to_part[:, 2] += to_part[:, :2] @ corner  # the part's pixels to the patch's
  size, inverse = part.shape[:2], invert(to_part)
  # Outside the patch the weight is zero, whatever colour is repeated there.
  weight = np.clip(_warp(alpha, inverse, size, "smooth"), 0.0, 1.0)
  inside = transform_points(to_part, _pixel_centres(size))
  inside = ((inside >= 0) & (inside <= len(patch))).all(-1).reshape(size)
  weight = (weight * inside)[..., None]
  colour = _warp(patch, inverse, size, "smooth")
  blend = part * (1.0 - weight) + colour * weight
  return np.clip(np.round(blend), 0, 255).astype(np.uint8)


def _pixel_centres(size: tuple[int, int]) -> np.ndarray:
  """Centres of the pixels of a grid, (h * w, 2) as x, y."""
  y, x = np.mgrid[: size[0], : size[1]]
  return np.stack([x.ravel(), y.ravel()], -1) + 0.5
