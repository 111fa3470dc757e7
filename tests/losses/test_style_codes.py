"""Losses of style codes against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.losses import style_codes


def test_orthogonality():
  a = jnp.array([[1.0, -2.0, 0.0], [1.0, 1.0, 1.0]])
  b = jnp.array([[3.0, 0.5, 9.0], [1.0, -1.0, 0.0]])
  got = style_codes.orthogonality(a, b)
  # Products do not cancel, as they would in a scalar product.
  np.testing.assert_allclose(got, [4 / 3, 2 / 3])
  np.testing.assert_allclose(
    style_codes.factor_orthogonality(a, b, -2 * b), 3 * got, rtol=1e-6
  )
  apart = style_codes.orthogonality(a[:1], jnp.array([[0.0, 0.0, 9.0]]))
  np.testing.assert_array_equal(apart, [0.0])


def test_diversity_pulls_at_one_side(rng):
  a, b = (jnp.asarray(rng.normal(size=(2, 3, 3, 1))) for _ in "ab")
  np.testing.assert_allclose(
    style_codes.diversity(a, b), jnp.abs(a - b).mean((1, 2, 3)), rtol=1e-6
  )
  slopes = jax.grad(
    lambda a, b: style_codes.diversity(a, b).sum(), argnums=(0, 1)
  )(a, b)
  np.testing.assert_allclose(slopes[0], jnp.sign(a - b) / 9, rtol=1e-6)
  assert np.abs(slopes[1]).max() == 0
