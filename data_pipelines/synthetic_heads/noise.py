"""Value noise from an integer hash, the same in NumPy and under jit.

Textures of the synthetic heads (skin mottling, strands, cloth) are built from
it; the caller's array type decides whether NumPy or JAX does the arithmetic.
"""

import jax
import jax.numpy as jnp
import numpy as np


def _module(x):
  return jnp if isinstance(x, jax.Array) else np


def smoothstep(a, b, x):
  """Hermite step from 0 at `a` to 1 at `b`; falls where a > b."""
  xp = _module(x)
  t = xp.clip((x - a) / (b - a), 0.0, 1.0)
  return t * t * (3.0 - 2.0 * t)


def lerp(a, b, t):
  """a + (b - a) t."""
  return a + (b - a) * t


def hash_unit(i):
  """Uniform number in [0, 1] of each integer lattice index (any int array)."""
  xp = _module(i)
  h = i.astype(xp.int32).astype(xp.uint32)
  h = (h ^ (h >> 16)) * xp.uint32(0x7FEB352D)
  h = (h ^ (h >> 15)) * xp.uint32(0x846CA68B)
  h = h ^ (h >> 16)
  return (h & xp.uint32(0xFFFF)).astype(xp.float32) * np.float32(1 / 65535)


def _split(x):
  xp = _module(x)
  i = xp.floor(x)
  f = x - i
  return i.astype(xp.int32), f * f * (3.0 - 2.0 * f)


def noise1(x):
  """One-dimensional value noise in [0, 1]."""
  i, f = _split(x)
  return lerp(hash_unit(i), hash_unit(i + 1), f)


def _noise2_lattice(i, j, f, g, plane):
  a = i * 157 + j * 7919 + plane
  low = lerp(hash_unit(a), hash_unit(a + 157), f)
  high = lerp(hash_unit(a + 7919), hash_unit(a + 7919 + 157), f)
  return lerp(low, high, g)


def noise2(x, y):
  """Two-dimensional value noise in [0, 1]; x and y broadcast."""
  (i, f), (j, g) = _split(x), _split(y)
  return _noise2_lattice(i, j, f, g, 0)


def noise3(x, y, z):
  """Three-dimensional value noise in [0, 1]; the arguments broadcast."""
  (i, f), (j, g), (k, h) = _split(x), _split(y), _split(z)
  low = _noise2_lattice(i, j, f, g, k * 104729)
  high = _noise2_lattice(i, j, f, g, (k + 1) * 104729)
  return lerp(low, high, h)


def fbm(x, y, z):
  """Three octaves of `noise3`, in [0, 1]."""
  return (
    0.55 * noise3(x, y, z)
    + 0.30 * noise3(x * 2.1, y * 2.1, z * 2.1)
    + 0.15 * noise3(x * 4.3, y * 4.3, z * 4.3)
  )
