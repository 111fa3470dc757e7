"""Rotation matrices, their logarithm, Euler angles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.morphable import rotations


def _there_and_back(vector):
  return rotations.axis_angle(rotations.rotation_matrix(vector))


def test_axis_angle_inverts_the_matrix(rng):
  vector = rng.normal(size=(200, 3))
  angle = rng.uniform(0, np.pi, (200, 1))
  angle[:40] = np.pi - 10.0 ** -rng.uniform(1, 4, (40, 1))
  angle[40:80] = 10.0 ** -rng.uniform(1, 6, (40, 1))
  angle[80] = 0
  vector *= angle / np.linalg.norm(vector, axis=1, keepdims=True)
  vector = jnp.asarray(vector, jnp.float32)
  vector = vector.at[81].set(jnp.array([np.pi, 0.0, 0.0]))
  got = np.array(jax.jit(_there_and_back)(vector))
  got[81] = np.abs(got[81])  # either way round
  np.testing.assert_allclose(got, vector, atol=2e-6)


def test_axis_angle_has_a_gradient_at_rest():
  slope = jax.jit(jax.jacobian(_there_and_back))(jnp.zeros(3))
  np.testing.assert_allclose(slope, np.eye(3), atol=1e-3)


def test_euler_orders():
  angles = jnp.array([0.3, -0.7, 0.2])
  x, y, z = (rotations.rotation_matrix(v) for v in jnp.diag(angles))
  got = rotations.euler_matrix(angles)
  np.testing.assert_allclose(got, x @ y @ z, atol=1e-6)
  got = rotations.euler_matrix(angles[None], "zyx")[0]
  np.testing.assert_allclose(got, z @ y @ x, atol=1e-6)
  assert rotations.yaw(got) == pytest.approx(-0.7, abs=1e-6)
  with pytest.raises(ValueError, match="order='xyx'"):
    rotations.euler_matrix(angles, "xyx")
