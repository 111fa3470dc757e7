"""Spherical-harmonic light of order 2 and the pictures' tone curve.

Nine functions in DECA's order and constants (DiffFAE, section 4.1, through
DECA's SRenderY): 1, x, y, z, xy, xz, yz, x^2 - y^2, 3 z^2 - 1.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, typechecked

# The constants fold in the Lambert factors pi, 2 pi / 3 and pi / 4, the first
# without its pi, as DECA writes them.
SH_CONSTANTS = np.array(
  [1 / math.sqrt(4 * math.pi)]
  + [2 * math.pi / 3 * math.sqrt(3 / (4 * math.pi))] * 3
  + [math.pi / 4 * 3 * math.sqrt(5 / (12 * math.pi))] * 3
  + [math.pi / 4 * 1.5 * math.sqrt(5 / (12 * math.pi))]
  + [math.pi / 4 * 0.5 * math.sqrt(5 / (4 * math.pi))],
  np.float32,
)

# Real orthonormal harmonics in the order 1, y, z, x, xy, yz, 3z^2-1, xz,
# x^2-y^2: position of each of DECA's functions, and its constant.
_REAL_INDEX = np.array([0, 3, 1, 2, 4, 7, 5, 8, 6])
_REAL_CONSTANTS = np.array(
  [math.sqrt(1 / (4 * math.pi))]
  + [math.sqrt(3 / (4 * math.pi))] * 3
  + [math.sqrt(15 / (4 * math.pi))] * 3
  + [math.sqrt(15 / (16 * math.pi)), math.sqrt(5 / (16 * math.pi))],
  np.float32,
)

# Least light a surface receives, so that no side is pitch black.
MIN_IRRADIANCE = 0.03

_LUMINANCE = (0.30, 0.55, 0.15)
_EXPOSURE, _WHITE, _SATURATION, _GAMMA = 1.45, 1.3, 1.2, 2.2


def _polynomials(normals, xp):
  x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
  return xp.stack(
    [
      xp.ones_like(x),
      x,
      y,
      z,
      x * y,
      x * z,
      y * z,
      x * x - y * y,
      3 * z * z - 1,
    ],
    -1,
  )


@typechecked
def sh_basis(normals: Float[Array, "*s 3"]) -> Float[Array, "*s 9"]:
  """The nine functions, times DECA's constants, at unit normals."""
  return _polynomials(normals, jnp) * SH_CONSTANTS


@typechecked
def shade(
  normals: Float[Array, "*s 3"], light: Float[Array, "9 3"]
) -> Float[Array, "*s 3"]:
  """Irradiance over pi at each normal, not clipped.

  Args:
    normals: world-space normals.
    light: coefficients by function and colour, DECA's order.
  """
  return jnp.einsum(
    "...k,kc->...c",
    sh_basis(normals),
    light,
    precision=jax.lax.Precision.HIGHEST,
  )


@typechecked
def lit(
  albedo: Float[Array, "b h w 3"],
  normals: Float[Array, "b h w 3"],
  light: Float[Array, "b 9 3"],
  least: float | None = None,
) -> Float[Array, "b h w 3"]:
  """Albedo times light, in a picture or in texture space.

  Args:
    albedo: linear colour.
    normals: world-space normals.
    light: see `shade`.
    least: least light and, with it, no albedo below 0.
  """
  shaded = jax.vmap(shade)(normals, light)
  if least is None:
    return albedo * shaded
  return jnp.maximum(albedo, 0.0) * jnp.maximum(shaded, least)


@typechecked
def distant_lamps(
  normals: Float[Array, "*s 3"], lamps: Float[Array, "l 6"]
) -> Float[Array, "*s 3"]:
  """Mean over distant lamps of their light on Lambert surfaces.

  Args:
    normals: world-space normals.
    lamps: direction towards each lamp, any length, and its colour
      (SRenderY.add_directionlight of DECA).
  """
  towards = _unit(lamps[:, :3])
  facing = jnp.einsum("...k,lk->...l", normals, towards, precision="highest")
  return _mean_light(facing.clip(0.0, 1.0), lamps[:, 3:])


@typechecked
def near_lamps(
  normals: Float[Array, "*s 3"],
  positions: Float[Array, "*s 3"],
  lamps: Float[Array, "l 6"],
) -> Float[Array, "*s 3"]:
  """Mean over lamps in the scene of their light, without falling off.

  Args:
    normals: world-space normals.
    positions: world-space points, metres.
    lamps: place of each lamp and its colour (SRenderY.add_pointlight of
      DECA). As there, what faces away gets negative light.
  """
  towards = _unit(lamps[:, :3] - positions[..., None, :])
  facing = (normals[..., None, :] * towards).sum(-1)
  return _mean_light(facing, lamps[:, 3:])


def _unit(x: Array) -> Array:
  length = jnp.linalg.norm(x, axis=-1, keepdims=True)
  return x / jnp.maximum(length, 1e-12)


def _mean_light(facing: Array, colours: Array) -> Array:
  total = jnp.einsum("...l,lc->...c", facing, colours, precision="highest")
  return total / len(colours)


def light_from_real(coefficients):
  """Converts coefficients of real orthonormal harmonics to DECA's.

  Args:
    coefficients: (..., 9, 3) by function in the order 1, y, z, x, xy, yz,
      3z^2-1, xz, x^2-y^2; irradiance over pi, Lambert factors folded in.
      NumPy or JAX.

  Returns:
    (..., 9, 3) light for `shade` that gives the same shading.
  """
  ratio = (_REAL_CONSTANTS / SH_CONSTANTS)[:, None]
  return coefficients[..., _REAL_INDEX, :] * ratio


def light_to_real(light):
  """Inverse of `light_from_real`."""
  ratio = (SH_CONSTANTS / _REAL_CONSTANTS)[:, None]
  return (light * ratio)[..., np.argsort(_REAL_INDEX), :]


def directional_light(direction, colour, xp=np):
  """Coefficients, DECA's order, of a distant lamp on a Lambert surface.

  Args:
    direction: (3,) towards the lamp, any length.
    colour: (3,) irradiance over pi of a surface that faces the lamp.
    xp: numpy or jax.numpy.

  Returns:
    (9, 3) coefficients, exact up to order 2.
  """
  direction = xp.asarray(direction) / xp.linalg.norm(xp.asarray(direction))
  lambert = np.array([1.0] + [2 / 3] * 3 + [1 / 4] * 5)
  real = _polynomials(direction, xp) * _REAL_CONSTANTS
  weights = real * lambert * np.pi * _REAL_CONSTANTS / SH_CONSTANTS
  return weights[:, None] * xp.asarray(colour)[None]


def ambient_light(sky, ground, xp=np):
  """Coefficients, DECA's order, of a sky above and a ground below.

  Args:
    sky: (3,) irradiance over pi of a surface that faces up.
    ground: (3,) the same for one that faces down.
    xp: numpy or jax.numpy.
  """
  sky, ground = xp.asarray(sky), xp.asarray(ground)
  zero = xp.zeros_like(sky)
  mean = (sky + ground) / 2 / SH_CONSTANTS[0]
  slope = (sky - ground) / 2 / SH_CONSTANTS[2]
  return xp.stack([mean, zero, slope] + [zero] * 6)


def tone(linear, xp=jnp):
  """Tone curve of all pictures: linear colour to display values.

  A shoulder on luminance, partly on each channel; on the channels alone it
  turns all skin a greyish pink.

  Args:
    linear: (..., 3) linear colour, at least 0.
    xp: numpy or jax.numpy.

  Returns:
    (..., 3) values in 0..1.
  """
  weights = xp.asarray(_LUMINANCE, linear.dtype)
  limit = 1 - math.exp(-_EXPOSURE * _WHITE)
  shoulder = lambda c: (1 - xp.exp(-_EXPOSURE * c)) / limit  # noqa: E731
  luminance = (linear * weights).sum(-1, keepdims=True)
  ratio = shoulder(luminance) / xp.maximum(luminance, 1e-4)
  out = 0.55 * linear * ratio + 0.45 * shoulder(linear)
  grey = (out * weights).sum(-1, keepdims=True)
  return xp.clip(grey + (out - grey) * _SATURATION, 0, 1) ** (1 / _GAMMA)
