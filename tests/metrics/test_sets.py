"""Measures of whole sets: Frechet distance and segmentation."""

import itertools

import numpy as np
import pytest

from faceedit_jax.metrics import frechet, segmentation


@pytest.mark.shared
def test_recorded_frechet(shared):
  z = np.load(shared / "fixtures" / "metrics__fid.npz")
  a, b = z["in/f1"], z["in/f2"]
  state = frechet.FeatureState.of(a)
  np.testing.assert_allclose(state.mean, z["out/mu1"], atol=1e-6)
  np.testing.assert_allclose(state.covariance, z["out/sigma1"], atol=1e-5)
  np.testing.assert_allclose(
    frechet.frechet_from_features(a, b), z["out/fid"], rtol=1e-6
  )
  np.testing.assert_allclose(
    frechet.frechet_from_features(a, a), z["out/fid_self"], atol=1e-8
  )
  np.testing.assert_allclose(
    frechet.frechet_from_features(a[:8], b[:9]), z["out/fid_rank"], rtol=1e-6
  )


def test_frechet_of_known_normals(rng):
  mean_a, mean_b = rng.normal(size=(2, 5))
  a, b = rng.uniform(0.1, 3.0, (2, 5))
  rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
  actual = frechet.frechet_distance(
    mean_a,
    rotation @ np.diag(a) @ rotation.T,
    mean_b,
    rotation @ np.diag(b) @ rotation.T,
  )
  gap = ((mean_a - mean_b) ** 2).sum()
  spread = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
  np.testing.assert_allclose(actual, gap + spread, rtol=1e-10)


def test_feature_states_merge(rng):
  features = 1e4 + rng.normal(size=(50, 3))
  state = frechet.FeatureState.empty(3)
  for batch in np.split(features, [7, 8, 30]):
    state = state.add(batch)
  assert state.count == 50
  np.testing.assert_allclose(state.mean, features.mean(0))
  np.testing.assert_allclose(
    state.covariance, np.cov(features, rowvar=False), rtol=1e-9
  )
  other = frechet.FeatureState.of(features + 1.0)
  np.testing.assert_allclose(frechet.distance(state, other), 3.0, rtol=1e-6)
  with pytest.raises(ValueError, match="at least 2"):
    _ = frechet.FeatureState.empty(3).covariance
  with pytest.raises(ValueError, match="want \\(n, d\\)"):
    frechet.FeatureState.of(np.zeros(4))


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (6, 4), (3, 5), (7, 7)])
def test_assignment_is_the_best_of_all(rng, shape):
  for _ in range(10):
    score = np.round(rng.uniform(size=shape), 1)
    rows, columns = shape
    found = segmentation.assign(score)
    used = [r for r in found if r >= 0]
    assert len(set(used)) == len(used) == min(shape)
    value = sum(score[r, c] for c, r in enumerate(found) if r >= 0)
    if rows >= columns:
      best = max(
        score[list(p), range(columns)].sum()
        for p in itertools.permutations(range(rows), columns)
      )
    else:
      best = max(
        score[range(rows), list(p)].sum()
        for p in itertools.permutations(range(columns), rows)
      )
    np.testing.assert_allclose(value, best)


def test_permuted_labels_are_found(rng):
  truth = rng.integers(0, 4, (6, 8, 8))
  names = np.array([2, 0, 3, 1])
  counts = sum(
    segmentation.confusion(names[t], t, 4, 4) for t in np.split(truth, 3)
  )
  assert counts.sum() == truth.size
  order = segmentation.best_assignment(counts)
  np.testing.assert_array_equal(order, names)
  np.testing.assert_allclose(segmentation.iou(counts, order), 1)
  assert segmentation.mean_iou(counts) < 0.3


def test_iou_sums_before_dividing():
  truth = np.array([[0, 0, 0, 1], [1, 1, 1, 1]])
  guess = np.array([[0, 1, 1, 1], [1, 1, 1, 0]])
  counts = segmentation.confusion(guess, truth, 3, 3)
  scores = segmentation.iou(counts)
  np.testing.assert_allclose(scores[:2], [1 / 4, 4 / 7])
  assert np.isnan(scores[2])
  np.testing.assert_allclose(segmentation.mean_iou(counts), (1 / 4 + 4 / 7) / 2)
  left_out = segmentation.iou(counts, np.array([1, -1, -1]))
  np.testing.assert_allclose(left_out[:2], [2 / 7, 0])
  ignored = segmentation.confusion(guess, truth, 3, 3, ignore=1)
  np.testing.assert_array_equal(ignored.sum(0), [3, 0, 0])
  with pytest.raises(ValueError, match="want 0..1"):
    segmentation.confusion(guess + 1, truth, 2, 2)
  with pytest.raises(ValueError, match="resize"):
    segmentation.confusion(guess[:1], truth, 2, 2)


def test_majority_mask(rng):
  truth = rng.integers(0, 3, (9, 4, 4))
  truth[:, :2] = 1
  state = segmentation.MajorityState.of(truth[:4], 3).merge(
    segmentation.MajorityState.of(truth[4:], 3)
  )
  np.testing.assert_array_equal(state.mask[:2], 1)
  repeated = np.broadcast_to(state.mask, truth.shape)
  np.testing.assert_array_equal(
    state.confusion(), segmentation.confusion(repeated, truth, 3, 3)
  )


def test_variance_and_entropy():
  flat = np.full((5, 3, 3, 4), 0.25)
  assert segmentation.between_variance(flat) == 0
  np.testing.assert_allclose(segmentation.mask_entropy(flat), 1)
  hard = np.eye(4)[np.arange(4)][:, None, None]
  np.testing.assert_allclose(segmentation.mask_entropy(hard), 0, atol=1e-9)
  np.testing.assert_allclose(segmentation.between_variance(hard), 0.25 * 0.75)
