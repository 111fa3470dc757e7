"""Deep3DFaceRecon's coefficients of a face, with which papers measure edits.

DiffFAE Sec. 5.1 (APD, AED and ALD, through DPE and PIRender); structure and
alignment of sicxu/Deep3DFaceRecon_pytorch (Deng et al. 2019). No file of it
ships with the library: weights and standard points are the user's.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import Image as Pillow

from faceedit_jax.core.typing import Array, Float, Image, UInt8, typechecked
from faceedit_jax.models.perception.resnet import ResNet
from faceedit_jax.nn.layers import dense

# Order and sizes of the 257 coefficients. "id", "exp" and "tex" belong to the
# Basel face model, "angle" is three Euler angles in radians (R = Rz Ry Rx),
# "gamma" the spherical harmonics of the light as (3 colours, 9 bands), "trans"
# the translation.
COEFFICIENTS: Mapping[str, int] = {
  "id": 80,
  "exp": 64,
  "tex": 80,
  "angle": 3,
  "gamma": 27,
  "trans": 3,
}
# The published network has one layer for each, but two for "trans".
_HEADS = (80, 64, 80, 3, 27, 2, 1)
SIZE = 224  # side of the crop that the network reads, in pixels
# The scale of the standard points in that crop.
_RESCALE = 102.0
# A crop cut out of a picture enlarged more than this holds no face.
_LARGEST = 32 * SIZE
# Positions in the 68 points that the five are means of: left and right eye as
# seen in the picture, tip of the nose, corners of the mouth.
_OF_68 = ((36, 39), (42, 45), (30,), (48,), (54,))


class Deep3D(nn.Module):
  """Aligned face to 257 coefficients.

  Attributes:
    stages: blocks of each stage of the trunk; (3, 4, 6, 3) as published.
    width: channels inside its first stage; 64 as published.
    dtype: compute dtype.
  """

  stages: tuple[int, ...] = (3, 4, 6, 3)
  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, image: Image) -> Float[Array, "b 257"]:
    """Reads crops of `crop`; always with the stored statistics.

    Args:
      image: (b, 224, 224, 3) RGB in [-1, 1].

    Returns:
      (b, 257) float32, see `split`.
    """
    # The published network sees pictures in [0, 1].
    trunk = ResNet(self.stages, self.width, self.dtype, name="encoder")
    h = trunk((image + 1) / 2)
    heads = [dense(size, name=f"head_{k}")(h) for k, size in enumerate(_HEADS)]
    return jnp.concatenate(heads, axis=-1)


@typechecked
def split(coefficients: Float[Array, "b 257"]) -> dict[str, Array]:
  """Names the parts of (b, 257) as in COEFFICIENTS, each (b, size)."""
  ends = np.cumsum(list(COEFFICIENTS.values()))[:-1]
  parts = jnp.split(coefficients, [int(end) for end in ends], axis=-1)
  return dict(zip(COEFFICIENTS, parts, strict=True))


def five_points(points: np.ndarray) -> np.ndarray:
  """Five points (5, d) of 68 (68, d), or the five that are given.

  Returns:
    Left and right eye as seen in the picture, nose, corners of the mouth.

  Raises:
    ValueError: another number of points.
  """
  points = np.asarray(points, np.float64)
  if points.ndim != 2 or len(points) not in (5, 68):
    raise ValueError(
      f"points have shape {points.shape}, wanted (5, d) or (68, d)"
    )
  if len(points) == 5:
    return points
  return np.stack([points[list(of)].mean(0) for of in _OF_68])


def read_standard_points(path: str | pathlib.Path) -> np.ndarray:
  """Five points (5, 3) of the standard 3D face, y up.

  Args:
    path: `similarity_Lm3D_all.mat`, or its `lm` as .npy or .txt; 5 or 68
      points.

  Raises:
    ValueError: one line.
  """
  path = pathlib.Path(path)
  try:
    if not path.is_file():
      raise ValueError("there is no such file")
    if path.suffix == ".mat":
      import scipy.io  # slow to import

      found = scipy.io.loadmat(path)
      if "lm" not in found:
        raise ValueError("it has no array 'lm'")
      points = found["lm"]
    elif path.suffix == ".npy":
      points = np.load(path, allow_pickle=False)
    else:
      points = np.loadtxt(path)
    points = five_points(points)
    if points.shape[1] != 3:
      raise ValueError(f"its points have {points.shape[1]} numbers, wanted 3")
  except (OSError, ValueError, NotImplementedError) as e:
    line = str(e).split("\n")[0]
    raise ValueError(f"standard points {path} cannot be read: {line}") from e
  return points


def scaled_projection(
  points: np.ndarray, standard: np.ndarray
) -> tuple[float, np.ndarray]:
  """Scale and shift of a scaled orthographic camera (POS).

  Least squares for x = r X + t, with r (2, 3) free: the mean length of its
  rows is the scale (DeMenthon and Davis 1995, the first step of POSIT).

  Args:
    points: (n, 2), y up.
    standard: (n, 3) points of the standard face.

  Returns:
    Pixels per unit of the standard face, and where its origin lies (2,).
  """
  rows = np.concatenate([standard, np.ones((len(standard), 1))], axis=1)
  solved, *_ = np.linalg.lstsq(rows, points, rcond=None)
  return float(np.linalg.norm(solved[:3], axis=0).mean()), solved[3]


@typechecked
def crop(
  image: UInt8[np.ndarray, "h w 3"], points: np.ndarray, standard: np.ndarray
) -> UInt8[np.ndarray, "224 224 3"]:
  """The crop that the published network reads.

  The picture is resized as a whole, bicubically, so that the standard face
  gets its scale, and cut at whole pixels; what lies outside is black.

  Args:
    image: uint8 (h, w, 3).
    points: (5, 2) or (68, 2) in pixels, pixel i covering [i, i + 1), y down.
    standard: (5, 3), see `read_standard_points`.

  Raises:
    ValueError: the points have no likeness to a face.
  """
  height, width = image.shape[:2]
  # The published code counts from the centre of the first pixel, and upwards.
  found = five_points(points) - 0.5
  found[:, 1] = height - 1 - found[:, 1]
  size, (x, y) = scaled_projection(found, standard)
  scale = _RESCALE / size if size else np.inf
  if not max(height, width) * scale < _LARGEST:
    raise ValueError(
      f"points {np.round(found, 1).tolist()} have no likeness to a face"
    )
  wide, high = int(width * scale), int(height * scale)
  if min(wide, high) < 1:
    raise ValueError(f"points {np.round(found, 1).tolist()} lie too far apart")
  left = int(wide / 2 - SIZE / 2 + (x - width / 2) * scale)
  top = int(high / 2 - SIZE / 2 + (height / 2 - y) * scale)
  resized = Pillow.fromarray(image).resize(
    (wide, high), Pillow.Resampling.BICUBIC
  )
  return np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)))
