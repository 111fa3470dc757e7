"""Measures that blur does not please."""

import numpy as np
import pytest

from faceedit_jax.evaluators import truth_measures
from tests.evaluators.test_counterfactual import PerfectReader

SIZE = 16


def blurred(pictures):
  """Means of 3 x 3 pixels."""
  shifts = [
    np.roll(pictures, (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)
  ]
  return np.mean(shifts, axis=0)


@pytest.fixture(scope="module")
def scores():
  rng = np.random.default_rng(0)
  reading = truth_measures.FaceReading(PerfectReader(), {}, None)
  measures = truth_measures.TruthMeasures(reading)
  for _ in range(3):
    truth = rng.uniform(-1, 1, (6, SIZE, SIZE, 3)).astype(np.float32)
    regions = np.zeros((6, SIZE, SIZE), np.int32)
    regions[:, 8:] = 2
    # As sharp as the truth, and no pixel of it: two places to the right.
    moved = np.roll(truth, 2, 2)
    seen = measures.add(
      {"sharp": moved, "blurred": blurred(truth), "same": truth},
      truth,
      regions,
    )
    assert set(seen) == {"sharp", "blurred", "same", "truth"}
  return measures.scores(), measures.note()


def test_psnr_prefers_blur_and_sharpness_does_not(scores):
  found, _ = scores
  assert found["blurred/psnr"] > found["sharp/psnr"] + 1
  for region in ("face", "clothes"):
    assert found[f"same/sharpness_{region}"] == pytest.approx(1, abs=1e-5)
    assert found[f"sharp/sharpness_{region}"] == pytest.approx(1, abs=0.1)
    assert found[f"blurred/sharpness_{region}"] < 0.5
  assert np.isnan(found["same/sharpness_hair"])


def test_the_distance_of_sets_sees_the_blur(scores):
  found, note = scores
  for net in ("estimator", "identity"):
    assert found[f"same/frechet_{net}"] == pytest.approx(0, abs=1e-6)
  assert found["blurred/frechet_estimator"] > 1e-3
  assert "no FID" in note and "18 true pictures" in note
  assert not any("truth/" in name or "gradient" in name for name in found)


def test_without_nets_pictures_alone_are_compared():
  reading = truth_measures.FaceReading(PerfectReader(), None, None)
  measures = truth_measures.TruthMeasures(reading)
  truth = np.zeros((2, SIZE, SIZE, 3), np.float32)
  regions = np.zeros((2, SIZE, SIZE), np.int32)
  assert measures.add({"edit": truth}, truth, regions) == {}
  found = measures.scores()
  assert found["edit/psnr"] == 100
  # A flat truth has no sharpness to compare with.
  assert np.isnan(found["edit/sharpness_face"])
  assert not any("frechet" in name for name in found)
  assert measures.note() == ""
