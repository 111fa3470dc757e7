"""The adaptive wing loss against its formula, and the pixels' weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.losses import adaptive_wing


def one(found, true, alpha=2.1, omega=14.0, epsilon=1.0, theta=0.5):
  """The formula of Wang et al. for one pixel."""
  error, power = abs(found - true), alpha - true
  if error < theta:
    return omega * math.log(1 + (error / epsilon) ** power)
  bend = (theta / epsilon) ** power
  slope = omega / (1 + bend) * power * (theta / epsilon) ** (power - 1)
  slope /= epsilon
  return slope * error - (theta * slope - omega * math.log(1 + bend))


def test_formula(rng):
  found, true = rng.uniform(-1, 2, 200), rng.uniform(0, 1, 200)
  got = adaptive_wing.adaptive_wing(
    jnp.asarray(found, jnp.float32), jnp.asarray(true, jnp.float32)
  )
  wanted = [one(f, t) for f, t in zip(found, true, strict=True)]
  np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("true", [0.0, 0.5, 1.0])
def test_both_parts_meet_and_slopes_are_finite(true):
  slope = jax.grad(lambda x: adaptive_wing.adaptive_wing(x, jnp.float32(true)))
  below, above = (float(slope(jnp.float32(true + e))) for e in (0.4999, 0.5001))
  assert below == pytest.approx(above, rel=1e-2)
  assert slope(jnp.float32(true)) == 0
  # Small errors count more at a point than in the background.
  small = [
    adaptive_wing.adaptive_wing(jnp.float32(t + 0.05), jnp.float32(t))
    for t in (0.0, 1.0)
  ]
  assert small[1] > 5 * small[0]


def test_pixels_round_a_point_weigh_more():
  true = jnp.zeros((1, 6, 6, 2)).at[0, 0, 3, 1].set(0.2)
  true = true.at[0, 4, 4, 0].set(0.19)
  weights = adaptive_wing.foreground_weights(true)
  heavy = np.zeros((6, 6), bool)
  heavy[:2, 2:5] = True
  np.testing.assert_array_equal(weights[0, ..., 1], np.where(heavy, 11, 1))
  np.testing.assert_array_equal(weights[0, ..., 0], 1)
