"""Measures of attribute edits on pictures whose numbers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.metrics import attributes
from faceedit_jax.metrics import image as image_metrics

LOGITS = jnp.asarray([[2.0, -1.0, 0.5], [-3.0, 1.0, -0.5]])


def test_correct_is_the_reading_that_was_wanted():
  np.testing.assert_array_equal(attributes.correctness(LOGITS, 0, True), [1, 0])
  np.testing.assert_array_equal(
    attributes.correctness(LOGITS, 1, False), [1, 0]
  )


def test_only_the_other_attributes_count():
  before = LOGITS * jnp.asarray([-1.0, -1.0, 1.0])
  flips, change = attributes.other_changes(LOGITS, before, 0)
  np.testing.assert_array_equal(flips, [0.5, 0.5])
  moved = abs(jax.nn.sigmoid(1.0) - jax.nn.sigmoid(-1.0)) / 2
  np.testing.assert_allclose(change, [moved, moved], rtol=1e-6)
  flips, _ = attributes.other_changes(LOGITS[:, :1], before[:, :1], 0)
  assert np.isnan(flips).all()


def test_the_region_is_where_any_truth_differs_and_two_pixels_more():
  source = np.full((2, 12, 12, 3), 100, np.uint8)
  truths = np.repeat(source[:, None], 3, axis=1)
  truths[0, 0, 5, 6, 2] = 105  # more than 4 levels, in one channel
  truths[0, 2, 0, 11, 0] = 95  # in a corner
  truths[0, 1, 9, 1] = 104  # not more than 4
  found = attributes.region(source, truths)
  wanted = np.zeros((12, 12), bool)
  wanted[3:8, 4:9] = True
  wanted[:3, 9:] = True
  np.testing.assert_array_equal(found[0], wanted)
  assert not found[1].any()


def test_the_nearest_truth_counts(rng):
  truths = rng.uniform(size=(2, 3, 16, 16, 3)).astype(np.float32)
  mask = np.zeros((2, 16, 16), bool)
  mask[0, 2:6, 3:9] = True
  picture = truths[:, 1].copy()
  picture[0, 2:6, 3:9] += 0.02
  picture[0, 10:] = 0.0  # outside
  absolute, squared = attributes.inside_error(picture, truths, mask)
  assert absolute[0] == pytest.approx(0.02, rel=1e-3)
  assert squared[0] == pytest.approx(4e-4, rel=1e-3)
  assert np.isnan(absolute[1]) and np.isnan(squared[1])


def test_absolute_and_squared_error_may_choose_two_truths():
  picture = np.zeros((1, 8, 8, 3), np.float32)
  truths = np.zeros((1, 2, 8, 8, 3), np.float32)
  truths[0, 0] = 0.2
  truths[0, 1, 0] = 0.8  # an eighth of the pixels: 0.1 and 0.08
  mask = np.ones((1, 8, 8), bool)
  absolute, squared = attributes.inside_error(picture, truths, mask)
  assert absolute[0] == pytest.approx(0.1, rel=1e-5)
  assert squared[0] == pytest.approx(0.04, rel=1e-5)


def test_psnr_outside_leaves_the_region_out():
  source = np.full((1, 16, 16, 3), 0.5, np.float32)
  picture = source + 0.1
  picture[0, :8] = 0.0
  mask = np.zeros((1, 16, 16), bool)
  mask[0, :8] = True
  found = attributes.outside_psnr(picture, source, mask)
  np.testing.assert_allclose(found, [20.0], rtol=1e-4)


def test_whole_pictures_are_held_against_the_nearest_truth(rng):
  truths = rng.uniform(size=(2, 4, 16, 16, 3)).astype(np.float32)
  picture = truths[:, 2] * 0.9
  psnr, ssim = attributes.to_nearest_truth(picture, truths)
  np.testing.assert_allclose(
    psnr, image_metrics.psnr(picture, truths[:, 2]), rtol=1e-5
  )
  np.testing.assert_allclose(
    ssim, image_metrics.ssim(picture, truths[:, 2]), rtol=1e-5
  )
