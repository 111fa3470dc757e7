"""PSNR, SSIM and MS-SSIM per picture, on values in [0, 1].

The structural measures follow Wang et al. 2003/2004 with the window, scales
and weights of the published MS-SSIM.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def to_unit(x: Array) -> Array:
  """Pictures from [-1, 1] to [0, 1], clipped."""
  return jnp.clip(x.astype(jnp.float32) * 0.5 + 0.5, 0.0, 1.0)


def mse(
  a: Float[Array, "b h w c"],
  b: Float[Array, "b h w c"],
  mask: Array | None = None,
) -> Float[Array, "b"]:
  """Mean squared error of each picture, over masked pixels (b, h, w)."""
  squares = jnp.mean(jnp.square(a - b), axis=-1)
  if mask is None:
    return jnp.mean(squares, axis=(1, 2))
  mask = mask.astype(jnp.float32)
  total = jnp.sum(mask, axis=(1, 2))
  return jnp.sum(squares * mask, axis=(1, 2)) / total


def psnr(
  a: Float[Array, "b h w c"],
  b: Float[Array, "b h w c"],
  mask: Array | None = None,
) -> Float[Array, "b"]:
  """Peak signal-to-noise ratio of each picture in decibels.

  Args:
    a: pictures in [0, 1].
    b: pictures in [0, 1].
    mask: (b, h, w) pixels that count.

  Returns:
    (b,), at most 100 so that equal pictures keep means finite; NaN for an
    empty mask.
  """
  return -10.0 * jnp.log10(jnp.maximum(mse(a, b, mask), 1e-10))


def gaussian_window(size: int, sigma: float) -> np.ndarray:
  """(size,) normal weights that sum to 1."""
  offsets = np.arange(size) - size // 2
  weights = np.exp(-(offsets**2) / (2 * sigma**2))
  return weights / weights.sum()


def _blur(x: Array, window: np.ndarray) -> Array:
  """Separable filtering without padding, each channel by itself."""
  b, h, w, c = x.shape
  kernel = jnp.asarray(window, jnp.float32)
  x = x.transpose(0, 3, 1, 2).reshape(b * c, h, w, 1)
  for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
    x = jax.lax.conv_general_dilated(
      x,
      kernel.reshape(shape),
      (1, 1),
      "VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision=jax.lax.Precision.HIGHEST,
    )
  return x.reshape(b, c, *x.shape[1:3]).transpose(0, 2, 3, 1)


def _statistics(a, b, window, k1=0.01, k2=0.03):
  """Similarity and its contrast part per picture and channel."""
  c1, c2 = k1**2, k2**2
  mean_a, mean_b = _blur(a, window), _blur(b, window)
  var_a = _blur(a * a, window) - mean_a**2
  var_b = _blur(b * b, window) - mean_b**2
  covariance = _blur(a * b, window) - mean_a * mean_b
  contrast = (2 * covariance + c2) / (var_a + var_b + c2)
  light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
  return jnp.mean(light * contrast, (1, 2)), jnp.mean(contrast, (1, 2))


def _check_size(x: Array, least: int, name: str) -> None:
  if min(x.shape[1:3]) < least:
    raise ValueError(
      f"{name} needs pictures of at least {least} pixels a side, got "
      f"{x.shape[1]} x {x.shape[2]}; use a smaller window or fewer scales"
    )


def ssim(
  a: Float[Array, "b h w c"],
  b: Float[Array, "b h w c"],
  window: int = 11,
  sigma: float = 1.5,
  nonnegative: bool = False,
) -> Float[Array, "b"]:
  """Structural similarity, mean over channels.

  Args:
    a: pictures in [0, 1].
    b: pictures in [0, 1].
    window: odd side of the Gaussian window.
    sigma: its standard deviation in pixels.
    nonnegative: raises negative channels to 0.
  """
  _check_size(a, window, "ssim")
  values, _ = _statistics(a, b, gaussian_window(window, sigma))
  return jnp.mean(jax.nn.relu(values) if nonnegative else values, axis=-1)


def _halve(x: Array) -> Array:
  """2 x 2 means; odd sides get a ring of zeros that counts, as published."""
  h, w = x.shape[1] % 2, x.shape[2] % 2
  x = jnp.pad(x, ((0, 0), (h, h), (w, w), (0, 0)))
  x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
  return x.reshape(
    x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3]
  ).mean((2, 4))


def ms_ssim(
  a: Float[Array, "b h w c"],
  b: Float[Array, "b h w c"],
  window: int = 11,
  sigma: float = 1.5,
  weights: Sequence[float] = MS_SSIM_WEIGHTS,
) -> Float[Array, "b"]:
  """Similarity over scales: contrast at all, light at the coarsest.

  Args:
    a: pictures in [0, 1], side above `(window - 1) * 2 ** (scales - 1)`.
    b: pictures in [0, 1].
    window: odd side of the Gaussian window.
    sigma: its standard deviation in pixels.
    weights: exponent of each scale, finest first.
  """
  _check_size(a, (window - 1) * 2 ** (len(weights) - 1) + 1, "ms_ssim")
  kernel = gaussian_window(window, sigma)
  product = 1.0
  for scale, weight in enumerate(weights):
    whole, contrast = _statistics(a, b, kernel)
    last = scale == len(weights) - 1
    product = product * jax.nn.relu(whole if last else contrast) ** weight
    if not last:
      a, b = _halve(a), _halve(b)
  return jnp.mean(product, axis=-1)
