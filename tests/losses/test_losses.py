"""Reconstruction, perceptual, attention and parameter losses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.losses import (
  attention_consistency,
  identity,
  parameters,
  perceptual,
  reconstruction,
)
from tests.losses import reference


def _pair(shape=(3, 6, 6, 2)):
  return jax.random.normal(jax.random.key(0), (2, *shape))


@pytest.mark.parametrize(
  "loss, formula",
  [
    (reconstruction.l1, np.abs),
    (reconstruction.l2, np.square),
    (reconstruction.charbonnier, lambda d: np.sqrt(d**2 + 1e-6)),
  ],
)
def test_pixel_losses(loss, formula):
  a, b = _pair()
  gap = formula(np.asarray(a - b))
  np.testing.assert_allclose(loss(a, b), gap.mean((1, 2, 3)), rtol=1e-5)
  mask = jnp.zeros((3, 6, 6)).at[0, :2].set(1).at[1, 0, 0].set(0.5)
  wanted = [gap[0, :2].mean(), gap[1, 0, 0].mean(), 0.0]
  np.testing.assert_allclose(loss(a, b, mask), wanted, rtol=1e-5)
  gradient = jax.grad(lambda x: loss(x, b, mask).sum())(a)
  assert np.all(np.isfinite(gradient))


def test_kl_and_total_variation():
  mean, logvar = _pair((2, 3, 3, 1))
  variance = np.exp(np.asarray(logvar))
  wanted = 0.5 * (np.asarray(mean) ** 2 + variance - np.log(variance) - 1)
  np.testing.assert_allclose(
    reconstruction.kl_gaussian(mean, logvar), wanted.sum((1, 2, 3)), rtol=1e-5
  )
  np.testing.assert_allclose(
    reconstruction.kl_gaussian(jnp.zeros((1, 4)), jnp.zeros((1, 4))), 0
  )
  ramp = jnp.broadcast_to(jnp.arange(5.0)[None, :, None, None], (1, 5, 4, 1))
  np.testing.assert_allclose(reconstruction.total_variation(ramp), 1.0)


def test_lpips_distance_by_hand():
  a = [jnp.array([3.0, 4.0]).reshape(1, 1, 1, 2)]
  b = [jnp.array([0.0, 2.0]).reshape(1, 1, 1, 2)]
  weights = [jnp.array([1.0, 10.0])]
  wanted = 0.6**2 + 10 * (0.8 - 1.0) ** 2
  np.testing.assert_allclose(
    perceptual.lpips_distance(a, b, weights), wanted, rtol=1e-5
  )
  np.testing.assert_allclose(
    perceptual.lpips_map(a, b, weights, (2, 2)),
    np.full((1, 2, 2), wanted),
    rtol=1e-5,
  )
  dead = [jnp.zeros((1, 2, 2, 3))]
  gradient = jax.grad(
    lambda x: perceptual.lpips_distance(
      [x], [jnp.ones((1, 2, 2, 3))], [jnp.ones(3)]
    ).sum()
  )(dead[0])
  assert np.all(np.isfinite(gradient))
  with pytest.raises(ValueError, match="same layers"):
    perceptual.lpips_distance(a, b, weights * 2)


@pytest.mark.shared
def test_recorded_lpips(shared):
  folder = shared / "fixtures"
  z = np.load(folder / "metrics__lpips.npz")
  config = json.loads((folder / "metrics__lpips.json").read_text())["config"]
  if config["net"] != "vgg":
    pytest.skip("this recording uses another trunk")
  weights = reference.lpips_weights(z, "state/")
  a, b = (
    reference.vgg_features(
      jnp.moveaxis(jnp.asarray(z[f"in/{n}"]), 1, -1), z, "state/"
    )
    for n in ("x0", "x1")
  )
  distance = perceptual.lpips_distance(a, b, weights)
  np.testing.assert_allclose(distance, z["out/d"].reshape(-1), rtol=1e-5)
  maps = perceptual.lpips_map(a, b, weights, (config["hw"], config["hw"]))
  np.testing.assert_allclose(maps, z["out/spatial"][:, 0], atol=1e-4)


def test_feature_distance():
  a, b = _pair()
  actual = perceptual.feature_distance([a, a], [b, a], weights=[2.0, 5.0])
  np.testing.assert_allclose(actual, 2 * reconstruction.l1(a, b), rtol=1e-5)
  scaled = perceptual.feature_distance([3 * a], [a], "l2", normalize=True)
  np.testing.assert_allclose(scaled, 0, atol=1e-10)


def _maps(key, size, tokens=4):
  logits = jax.random.normal(key, (2, size, size, tokens))
  return jax.nn.softmax(3 * logits, axis=-1)


def test_attention_consistency_of_equal_maps_is_zero():
  masks = jnp.broadcast_to(jnp.array([0.1, 0.2, 0.3, 0.4]), (2, 8, 8, 4))
  maps = [masks, masks[:, :4, :4], masks[:, :2, :2]]
  loss = attention_consistency.attention_consistency(maps, masks)
  np.testing.assert_allclose(loss, 0, atol=1e-12)


def test_attention_consistency():
  keys = jax.random.split(jax.random.key(3), 4)
  maps = [_maps(keys[0], 8), _maps(keys[1], 4), _maps(keys[2], 16)]
  masks = _maps(keys[3], 8)
  merged = attention_consistency.merge_maps(maps, (8, 8))
  np.testing.assert_allclose(merged.sum(-1), 1, rtol=1e-5)
  # Halving with plain bilinear weights is the mean of 2 x 2 blocks.
  halved = np.asarray(maps[2]).reshape(2, 8, 2, 8, 2, 4).mean((2, 4))
  np.testing.assert_allclose(
    attention_consistency.merge_maps([maps[2]], (8, 8)), halved, atol=1e-6
  )
  loss = attention_consistency.attention_consistency(maps, masks)
  wanted = np.mean(np.square(np.asarray(merged - masks)), axis=(1, 2, 3))
  np.testing.assert_allclose(loss, wanted, rtol=1e-5)

  def total(maps, masks):
    return attention_consistency.attention_consistency(maps, masks).sum()

  of_maps, of_masks = jax.grad(total, (0, 1))(maps, masks)
  np.testing.assert_array_equal(of_masks, 0)
  assert all(np.abs(g).max() > 0 for g in of_maps)
  with pytest.raises(ValueError, match="tokens and slots must agree"):
    attention_consistency.attention_consistency(maps, masks[..., :3])
  with pytest.raises(ValueError, match="no attention maps"):
    attention_consistency.attention_consistency([], masks)


def test_landmark_and_parameter_losses():
  target = jnp.zeros((2, 3, 2))
  prediction = target.at[0, 1].set(0.6).at[1, 2].set(3.0)
  plain = parameters.landmark_loss(prediction, target)
  np.testing.assert_allclose(plain, [0.2, 1.0], rtol=1e-6)
  visible = jnp.array([[1, 1, 0], [1, 1, 0]])
  seen = parameters.landmark_loss(
    prediction, target, weights=jnp.array([1.0, 3.0, 1.0]), visible=visible
  )
  np.testing.assert_allclose(seen, [0.45, 0.0], rtol=1e-6)
  total, terms = parameters.parameter_loss(
    {"a": jnp.ones((2, 4)), "b": jnp.ones((2, 9, 3)), "c": jnp.ones((2, 1))},
    {"a": jnp.zeros((2, 4)), "b": -jnp.ones((2, 9, 3))},
    {"a": 0.5, "b": 2.0},
  )
  np.testing.assert_allclose(total, [8.5, 8.5])
  np.testing.assert_allclose(terms["b"], [4, 4])
  with pytest.raises(ValueError, match="c"):
    parameters.parameter_loss({"a": target}, {"a": target}, {"c": 1.0})


def test_rotation_distance():
  axis = jnp.array([0.0, 0.6, 0.8])
  angles = jnp.array([0.0, 1e-3, 0.5, 3.0])[:, None]
  zero = jnp.zeros((4, 3))
  np.testing.assert_allclose(
    parameters.rotation_distance(angles * axis, zero), angles[:, 0], atol=1e-5
  )
  # Rotations by angles that differ by a full turn are the same rotation.
  turned = (angles[2:] - 2 * np.pi) * axis
  np.testing.assert_allclose(
    parameters.rotation_distance(angles[2:] * axis, turned), 0, atol=1e-3
  )
  gradient = jax.grad(lambda a: parameters.rotation_distance(a, zero).sum())
  assert np.all(np.isfinite(gradient(zero)))


def test_identity_loss():
  a = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
  b = jnp.array([[5.0, 0.0], [-2.0, 0.0], [1.0, 0.0]])
  np.testing.assert_allclose(parameters.identity_loss(a, b), [0, 2, 1])


def test_identity_distance():
  a = jnp.array([[0.6, 0.8], [1.0, 0.0]])
  b = jnp.array([[0.6, 0.8], [0.0, -1.0]])
  got = identity.identity_distance(a, b)
  np.testing.assert_allclose(got, [0, 1], atol=1e-6)
