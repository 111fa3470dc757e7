"""True heat-maps of points and lines, and the points found in them."""

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.faces import landmark_heatmaps
from faceedit_jax.models.faces import landmark_masks


def test_points_are_found_again(rng):
  points = jnp.asarray(rng.uniform(0.1, 0.9, (2, 68, 2)), jnp.float32)
  maps = landmark_heatmaps.true_maps(points, 32, 1.0)
  assert maps.shape == (2, 32, 32, 69)
  assert maps.min() >= 0 and maps.max() <= 1
  found = landmark_masks.peaks(maps[..., :68]) / 32
  # To a quarter of a pixel, from a half of it at most.
  assert np.abs(found - points).max() * 32 <= 0.26


def test_a_map_is_a_gaussian_round_its_point():
  points = jnp.array([[[0.5, 0.25], [1.2, 0.5]]])
  maps = landmark_heatmaps.point_maps(points, 4, 2.0)
  # Column 2.0 and row 1.0: half a pixel from four centres.
  np.testing.assert_allclose(maps[0, 0, 1, 0], np.exp(-0.25 / 4), rtol=1e-5)
  np.testing.assert_allclose(maps[0, 3, 3, 0], np.exp(-8.5 / 8), rtol=1e-5)
  assert maps[..., 1].max() == 0  # beside the picture


def test_lines_follow_the_parts_of_a_face():
  pairs = {tuple(pair) for pair in landmark_heatmaps.SEGMENTS.tolist()}
  assert {(0, 1), (15, 16), (41, 36), (59, 48), (67, 60)} <= pairs
  assert not {(16, 17), (21, 22), (26, 27), (30, 31), (35, 36)} & pairs
  assert len(pairs) == 16 + 4 + 4 + 3 + 4 + 6 + 6 + 12 + 8
  # All points in a corner but a jaw from left to right.
  points = np.full((1, 68, 2), -9.0, np.float32)
  points[0, :17] = np.stack([np.linspace(0.1, 0.9, 17), np.full(17, 0.5)], -1)
  line = np.asarray(landmark_heatmaps.line_map(jnp.asarray(points), 10, 1.0))
  np.testing.assert_allclose(line[0, 4:6, 1:9], np.exp(-0.125), rtol=1e-4)
  np.testing.assert_allclose(line[0, 8, 1:9], np.exp(-0.5 * 3.5**2), rtol=1e-4)
  # Its ends are round.
  assert line[0, 4, 0] == pytest.approx(np.exp(-0.5 * (0.25 + 0.25)), rel=1e-4)
