"""Light conventions and the tone curve."""

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.morphable import shading


def sphere_normals(size=24):
  y, x = np.mgrid[1 : -1 : size * 1j, -1 : 1 : size * 1j]
  inside = x * x + y * y < 1
  z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
  return np.stack([x, y, z], -1).astype(np.float32), inside


def real_basis(n):
  """Real orthonormal harmonics by their numbers, order 1, y, z, x, ..."""
  x, y, z = n[..., 0], n[..., 1], n[..., 2]
  return np.stack(
    [
      0.282095 + 0 * x,
      0.488603 * y,
      0.488603 * z,
      0.488603 * x,
      1.092548 * x * y,
      1.092548 * y * z,
      0.315392 * (3 * z * z - 1),
      1.092548 * x * z,
      0.546274 * (x * x - y * y),
    ],
    -1,
  )


def test_sphere_looks_the_same_in_both_conventions():
  normals, inside = sphere_normals()
  rng = np.random.default_rng(0)
  real = rng.normal(size=(9, 3)).astype(np.float32)
  wanted = real_basis(normals) @ real
  light = shading.light_from_real(real)
  got = shading.shade(jnp.asarray(normals), jnp.asarray(light))
  np.testing.assert_allclose(got[inside], wanted[inside], atol=5e-6)
  np.testing.assert_allclose(shading.light_to_real(light), real, rtol=1e-5)


def test_constants_are_those_of_deca():
  wanted = [0.28209479] + [1.02332671] * 3 + [0.85808553] * 3
  wanted += [0.42904277, 0.24770796]
  np.testing.assert_allclose(shading.SH_CONSTANTS, wanted, rtol=1e-6)


def test_lamp_lights_the_side_that_faces_it():
  direction = np.array([0.5, 0.3, 0.8])
  direction /= np.linalg.norm(direction)
  light = shading.directional_light(direction, np.ones(3))
  normals = jnp.asarray(np.stack([direction, -direction]), jnp.float32)
  facing, away = shading.shade(normals, jnp.asarray(light, jnp.float32))[:, 0]
  # Order 2 of a clamped cosine: 1/4 + 1/2 + 5/16 towards the lamp.
  assert facing == pytest.approx(0.25 + 0.5 + 0.3125, abs=1e-5)
  assert away == pytest.approx(0.25 - 0.5 + 0.3125, abs=1e-5)


def test_lamps_far_and_near():
  normals = jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
  lamps = jnp.array([[0, 0, 3, 1, 0, 0.5], [0, 4, 3, 0, 1, 0]], jnp.float32)
  got = shading.distant_lamps(normals, lamps)
  np.testing.assert_allclose(got, [[0.5, 0.3, 0.25], [0, 0, 0]], atol=1e-6)
  # A point at (0, 4, 0) sees the first lamp as the origin sees the second.
  points = jnp.array([[0.0, 4.0, 0.0], [0.0, 4.0, 0.0]])
  got = shading.near_lamps(normals, points, lamps)
  wanted = [0.3, 0.5, 0.15]
  np.testing.assert_allclose(got, [wanted, np.negative(wanted)], atol=1e-6)


def test_ambient_is_exact_above_and_below():
  light = shading.ambient_light([0.4, 0.5, 0.6], [0.1, 0.1, 0.0])
  up_down = jnp.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
  got = shading.shade(up_down, jnp.asarray(light, jnp.float32))
  np.testing.assert_allclose(got, [[0.4, 0.5, 0.6], [0.1, 0.1, 0.0]], atol=1e-6)


def test_tone_curve():
  grey = jnp.linspace(0, 1.3, 20)[:, None] * jnp.ones(3)
  out = shading.tone(grey)
  assert float(out[0].max()) == 0
  np.testing.assert_allclose(out[-1], 1.0, atol=1e-4)
  assert (jnp.diff(out[:, 0]) > 0).all()
  np.testing.assert_allclose(out[:, 0], out[:, 2], atol=1e-5)
  colour = np.array([[0.4, 0.2, 0.1]], np.float32)
  np.testing.assert_allclose(
    shading.tone(colour, np), shading.tone(jnp.asarray(colour)), atol=1e-6
  )
  assert out.dtype == jnp.float32
