"""Margin losses against angles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.losses import angular_margin


def _cases():
  rng = np.random.default_rng(0)
  angles = rng.uniform(0.1, 2.5, (6, 5)).astype(np.float32)
  labels = np.array([0, 4, -1, 2, 1, 3], np.int32)
  return angles, jnp.asarray(np.cos(angles)), jnp.asarray(labels)


@pytest.mark.parametrize(
  "m1, m2, m3", [(1.0, 0.5, 0.0), (1.0, 0.0, 0.4), (1.1, 0.2, 0.1)]
)
def test_margin_moves_the_labelled_angle_only(m1, m2, m3):
  angles, cosines, labels = _cases()
  actual = angular_margin.combined_margin(cosines, labels, m1, m2, m3, 30.0)
  wanted = 30.0 * np.cos(angles)
  for row, label in enumerate(np.asarray(labels)):
    if label >= 0:
      angle = m1 * angles[row, label] + m2
      wanted[row, label] = 30.0 * (np.cos(angle) - m3)
  np.testing.assert_allclose(actual, wanted, atol=2e-4)


def test_monotone_margin_falls_with_the_angle():
  angle = np.linspace(0.05, np.pi - 0.05, 60).astype(np.float32)
  cosines, labels = jnp.cos(angle)[:, None], jnp.zeros(60, jnp.int32)
  plain = angular_margin.arcface(cosines, labels, scale=1.0)[:, 0]
  kept = angular_margin.arcface(cosines, labels, scale=1.0, monotone=True)
  passed = angle + 0.5 > np.pi
  assert (np.diff(plain)[passed[1:]] > 0).any()
  assert (np.diff(kept[:, 0]) < 0).all()
  np.testing.assert_array_equal(kept[~passed, 0], plain[~passed])
  wanted = np.cos(angle) - 0.5 * np.sin(0.5)
  np.testing.assert_allclose(kept[passed, 0], wanted[passed], atol=1e-6)
  with pytest.raises(ValueError, match="m1 = 1, got 1.2"):
    angular_margin.combined_margin(cosines, labels, m1=1.2, monotone=True)


def test_filter_drops_other_near_classes():
  _, cosines, labels = _cases()
  plain = angular_margin.combined_margin(cosines, labels, scale=1.0)
  kept = angular_margin.combined_margin(
    cosines, labels, scale=1.0, filter_threshold=0.3
  )
  hot = np.asarray(jax.nn.one_hot(labels, 5, dtype=bool))
  dropped = (np.asarray(cosines) > 0.3) & ~hot
  assert dropped.any()
  np.testing.assert_array_equal(np.asarray(kept)[dropped], 0)
  np.testing.assert_array_equal(
    np.asarray(kept)[~dropped], np.asarray(plain)[~dropped]
  )


def test_gradients():
  _, cosines, labels = _cases()

  def total(cosines, gradient):
    return jnp.sum(
      angular_margin.arcface(cosines, labels, scale=2.0, gradient=gradient)
    )

  through = jax.grad(total)(cosines, "straight_through")
  np.testing.assert_allclose(through, 2.0, rtol=1e-6)
  exact = np.asarray(jax.grad(total)(cosines, "exact"))
  hot = np.asarray(jax.nn.one_hot(labels, 5, dtype=bool))
  np.testing.assert_allclose(exact[~hot], 2.0, rtol=1e-6)
  angle = np.arccos(np.asarray(cosines))[hot]
  np.testing.assert_allclose(
    exact[hot], 2 * np.sin(angle + 0.5) / np.sin(angle), rtol=1e-3
  )
  ends = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
  gradient = jax.grad(
    lambda c: jnp.sum(angular_margin.arcface(c, jnp.array([0, 0])))
  )(ends)
  assert np.all(np.isfinite(gradient))
  with pytest.raises(ValueError, match="gradient 'none'"):
    angular_margin.arcface(cosines, labels, gradient="none")


def test_cosines_and_loss():
  features = jnp.array([[3.0, 4.0], [0.0, 0.0]])
  centres = jnp.array([[1.0, 0.0], [0.0, -2.0]])
  cosines = angular_margin.cosine_logits(features, centres)
  np.testing.assert_allclose(cosines, [[0.6, -0.8], [0, 0]], atol=1e-6)
  loss = angular_margin.margin_loss(cosines, jnp.array([1, -1]))
  wanted = -np.log(np.exp(-0.8) / (np.exp(0.6) + np.exp(-0.8)))
  np.testing.assert_allclose(loss, [wanted, 0], rtol=1e-5)
