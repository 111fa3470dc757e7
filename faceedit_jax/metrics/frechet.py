"""Frechet distance between two sets of features (FID, Heusel 2017, Eq. 6).

NumPy float64 on the host. The features come from any network; the value is
the published FID only with its Inception network and resizing rule.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class FeatureState:
  """Count, mean and scatter of a growing set of feature vectors.

  Attributes:
    count: number of vectors.
    mean: (d,).
    scatter: (d, d) sum of outer products of the deviations from the mean.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  @classmethod
  def empty(cls, size: int) -> FeatureState:
    """No vectors of `size` features."""
    return cls(0, np.zeros(size), np.zeros((size, size)))

  @classmethod
  def of(cls, features: np.ndarray) -> FeatureState:
    """State of one batch (n, d)."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or not len(features):
      raise ValueError(
        f"features have shape {features.shape}, want (n, d) with n > 0"
      )
    mean = features.mean(0)
    centred = features - mean
    return cls(len(features), mean, centred.T @ centred)

  def merge(self, other: FeatureState) -> FeatureState:
    """State of both sets; free of the cancellation of plain sums."""
    count = self.count + other.count
    if not count:
      return self
    gap = other.mean - self.mean
    share = other.count / count
    scatter = self.scatter + other.scatter
    scatter = scatter + np.outer(gap, gap) * self.count * share
    return FeatureState(count, self.mean + gap * share, scatter)

  def add(self, features: np.ndarray) -> FeatureState:
    """State with one more batch (n, d)."""
    return self.merge(FeatureState.of(features))

  @property
  def covariance(self) -> np.ndarray:
    """(d, d) unbiased covariance."""
    if self.count < 2:
      raise ValueError(
        f"a covariance needs at least 2 feature vectors, got {self.count}"
      )
    return self.scatter / (self.count - 1)


def _root(matrix: np.ndarray) -> np.ndarray:
  values, vectors = np.linalg.eigh(matrix)
  return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet_distance(
  mean_a: np.ndarray,
  covariance_a: np.ndarray,
  mean_b: np.ndarray,
  covariance_b: np.ndarray,
) -> float:
  """Squared Frechet distance of two normal distributions.

  The trace of sqrt(A B) is the sum of the roots of the eigenvalues of the
  symmetric sqrt(A) B sqrt(A), which is never complex and needs no correction
  for singular covariances.
  """
  root = _root(np.asarray(covariance_a, np.float64))
  middle = root @ np.asarray(covariance_b, np.float64) @ root
  values = np.linalg.eigvalsh((middle + middle.T) / 2)
  cross = np.sqrt(np.maximum(values, 0)).sum()
  gap = np.asarray(mean_a, np.float64) - np.asarray(mean_b, np.float64)
  trace = np.trace(covariance_a) + np.trace(covariance_b)
  return float(gap @ gap + trace - 2 * cross)


def distance(a: FeatureState, b: FeatureState) -> float:
  """Frechet distance of two states."""
  return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def frechet_from_features(a: np.ndarray, b: np.ndarray) -> float:
  """Frechet distance of two sets of features (n, d) and (m, d)."""
  return distance(FeatureState.of(a), FeatureState.of(b))
