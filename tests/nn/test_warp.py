"""Alignment on the device."""

import jax.numpy as jnp
import numpy as np

from faceedit_jax.nn import warp


def test_similarity_is_recovered():
  rng = np.random.default_rng(0)
  points = rng.uniform(size=(3, 5, 2)).astype(np.float32)
  angle, scale = 0.4, 1.7
  turn = scale * np.array(
    [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
  )
  shift = np.array([0.3, -0.2])
  moved = (points @ turn.T + shift).astype(np.float32)
  found = warp.similarity(jnp.asarray(points), jnp.asarray(moved))
  np.testing.assert_allclose(found[:, :, :2], np.stack([turn] * 3), atol=1e-5)
  np.testing.assert_allclose(found[:, :, 2], np.stack([shift] * 3), atol=1e-5)


def test_identity_warp_changes_nothing():
  rng = np.random.default_rng(1)
  image = rng.uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
  same = jnp.broadcast_to(jnp.asarray([[1.0, 0, 0], [0, 1, 0]]), (2, 2, 3))
  np.testing.assert_allclose(
    warp.warp(jnp.asarray(image), same, 8), image, atol=1e-5
  )


def test_shift_moves_by_whole_pixels_and_repeats_the_border():
  image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
  right = jnp.asarray([[[1.0, 0, 0.25], [0, 1, 0]]])
  out = np.asarray(warp.warp(jnp.asarray(image), right, 4))[0, :, :, 0]
  np.testing.assert_allclose(out[:, :3], image[0, :, 1:, 0], atol=1e-5)
  np.testing.assert_allclose(out[:, 3], image[0, :, 3, 0], atol=1e-5)
  out = np.asarray(warp.warp(jnp.asarray(image), right, 4, -1.0))[0, :, :, 0]
  np.testing.assert_allclose(out[:, :3], image[0, :, 1:, 0], atol=1e-5)
  np.testing.assert_array_equal(out[:, 3], -1)


def test_crop_puts_the_points_on_the_template():
  points = jnp.asarray(warp.ARCFACE5)[None] * 0.5 + 0.25
  # A picture that holds its own x coordinate.
  x = (jnp.arange(64) + 0.5) / 64
  image = jnp.broadcast_to(x[None, None, :, None], (1, 64, 64, 1))
  crop = np.asarray(warp.face_crop(image, points, 32))[0, :, :, 0]
  wanted = 0.25 + 0.5 * (np.arange(32) + 0.5) / 32
  np.testing.assert_allclose(crop[16], wanted, atol=1e-4)
