"""APD, AED and ALD on cases small enough to be worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.metrics import reenactment
from faceedit_jax.morphable.rotations import rotation_matrix


def coefficients(rng, n=2):
  return jnp.asarray(rng.normal(size=(n, 257)), jnp.float32)


def test_each_measure_reads_its_own_coefficients(rng):
  """One coefficient moved by 0.6 counts where it belongs, nowhere else."""
  a = coefficients(rng, 1) * 0.1
  owner = np.full(257, "", object)
  owner[80:144], owner[224:227], owner[227:254] = "AED", "APD", "ALD"
  sizes = {"AED": 64, "APD": 3, "ALD": 27}
  for k in (0, 79, 80, 143, 144, 223, 224, 226, 227, 253, 254, 256):
    found = reenactment.coefficient_distances(a, a.at[0, k].add(0.6))
    for name, size in sizes.items():
      wanted = 0.6 / size if owner[k] == name else 0.0
      np.testing.assert_allclose(found[name], [wanted], atol=1e-6, err_msg=k)


def test_means_are_over_coefficients_and_absolute():
  a = jnp.asarray([[0.1, -0.2, 0.3], [0.0, 0.0, 0.0]])
  b = jnp.asarray([[0.0, 0.0, 0.0], [0.3, -0.3, 0.9]])
  for measure in (
    reenactment.pose_distance,
    reenactment.expression_distance,
    reenactment.light_distance,
  ):
    np.testing.assert_allclose(measure(a, b), [0.2, 0.5], rtol=1e-6)


def test_heads_are_compared_the_short_way_round():
  """Turned by nearly half a circle to either side: 0.3 apart."""
  codes = {"expression": jnp.zeros((1, 4)), "light": jnp.zeros((1, 9, 3))}
  a, b = (
    {**codes, "pose": jnp.asarray([[0.0, 0.0, angle, 0.0, 0.0, 0.0]])}
    for angle in (np.pi - 0.1, -np.pi + 0.2)
  )
  found = reenactment.code_distances(a, b)["APD"]
  np.testing.assert_allclose(found, [0.3 / 3], rtol=1e-4)


def test_one_picture_does_not_touch_the_next(rng):
  a, b = coefficients(rng, 5), coefficients(rng, 5)
  every = reenactment.coefficient_distances(a, b)
  for i in range(5):
    alone = reenactment.coefficient_distances(a[i : i + 1], b[i : i + 1])
    for name in every:
      np.testing.assert_allclose(every[name][i], alone[name][0], rtol=1e-6)


def turned(axis, angle):
  """Rotation about one axis, written out."""
  c, s = np.cos(angle), np.sin(angle)
  i, j = ((1, 2), (2, 0), (0, 1))[axis]
  out = np.eye(3)
  out[i, i] = out[j, j] = c
  out[j, i], out[i, j] = s, -s
  return out


def test_euler_angles_rebuild_the_rotation(rng):
  angles = rng.uniform(-1.2, 1.2, (7, 3))
  rotations = np.stack(
    [turned(2, z) @ turned(1, y) @ turned(0, x) for x, y, z in angles]
  )
  found = reenactment.euler_angles(jnp.asarray(rotations, jnp.float32))
  np.testing.assert_allclose(found, angles, atol=1e-5)


def test_codes_of_a_known_edit():
  """A head turned by 0.3 about y, jaw opened by 0.2, one band of red light."""
  codes = {
    "pose": jnp.zeros((1, 6)),
    "expression": jnp.zeros((1, 50)),
    "light": jnp.zeros((1, 9, 3)),
  }
  other = {
    "pose": jnp.asarray([[0.0, 0.3, 0.0, 0.2, 0.0, 0.0]]),
    "expression": codes["expression"].at[0, 7].set(-0.86),
    "light": codes["light"].at[0, 0, 0].set(0.54),
  }
  found = reenactment.code_distances(codes, other)
  np.testing.assert_allclose(found["APD"], [0.1], rtol=1e-4)
  np.testing.assert_allclose(found["AED"], [(0.2 + 0.86) / 53], rtol=1e-5)
  np.testing.assert_allclose(found["ALD"], [0.54 / 27], rtol=1e-5)


def test_head_pose_is_the_one_of_the_axis_angle():
  """Euler angles of a rotation about a skew axis, through the matrix."""
  axis_angle = jnp.asarray([[0.3, -0.5, 0.2]])
  x, y, z = np.asarray(
    reenactment.euler_angles(rotation_matrix(axis_angle)), np.float64
  )[0]
  rebuilt = turned(2, z) @ turned(1, y) @ turned(0, x)
  np.testing.assert_allclose(rebuilt, rotation_matrix(axis_angle)[0], atol=1e-6)
  zero = {
    "pose": jnp.zeros((1, 6)),
    "expression": jnp.zeros((1, 4)),
    "light": jnp.zeros((1, 9, 3)),
  }
  moved = {**zero, "pose": zero["pose"].at[:, :3].set(axis_angle)}
  found = reenactment.code_distances(zero, moved)["APD"][0]
  np.testing.assert_allclose(found, (abs(x) + abs(y) + abs(z)) / 3, rtol=1e-5)


def test_another_number_of_coefficients_is_refused(rng):
  with pytest.raises(Exception, match="257"):
    reenactment.coefficient_distances(jnp.zeros((1, 256)), jnp.zeros((1, 256)))
