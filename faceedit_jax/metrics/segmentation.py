"""How well unnamed slots cover named regions (NumPy, counted over a set).

Intersections and unions are summed over the whole set before dividing, and
one assignment of slots to regions is used for the whole set.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax


def confusion(
  prediction: np.ndarray,
  truth: np.ndarray,
  predicted: int,
  classes: int,
  ignore: int | None = None,
) -> np.ndarray:
  """Pixel counts (predicted, classes); add those of all batches.

  Args:
    prediction: integer labels of any shape, below `predicted`.
    truth: integer labels of the same shape, below `classes`.
    predicted: number of predicted labels.
    classes: number of true labels.
    ignore: true label whose pixels are left out.
  """
  prediction = np.asarray(prediction).astype(np.int64).ravel()
  truth = np.asarray(truth).astype(np.int64).ravel()
  if prediction.shape != truth.shape:
    raise ValueError(
      f"{prediction.size} predicted and {truth.size} true labels; resize the "
      "predicted masks to the size of the true ones"
    )
  if ignore is not None:
    kept = truth != ignore
    prediction, truth = prediction[kept], truth[kept]
  for name, labels, count in (
    ("predicted", prediction, predicted),
    ("true", truth, classes),
  ):
    if labels.size and (labels.min() < 0 or labels.max() >= count):
      raise ValueError(
        f"{name} labels run from {labels.min()} to {labels.max()}, want "
        f"0..{count - 1}"
      )
  flat = np.bincount(
    prediction * classes + truth, minlength=predicted * classes
  )
  return flat.reshape(predicted, classes)


def iou_table(counts: np.ndarray) -> np.ndarray:
  """(predicted, classes) intersection over union of every pair."""
  counts = np.asarray(counts, np.float64)
  union = counts.sum(1)[:, None] + counts.sum(0)[None] - counts
  return np.where(union > 0, counts / np.where(union > 0, union, 1), np.nan)


def assign(score: np.ndarray) -> np.ndarray:
  """One-to-one assignment of rows to columns with the largest total score.

  Args:
    score: (rows, columns).

  Returns:
    (columns,) row of each column, -1 for columns left over.
  """
  rows, columns = score.shape
  # A square of zeros round it gives what is left over something to take.
  square = np.zeros((max(rows, columns),) * 2)
  square[:rows, :columns] = -np.asarray(score, np.float64)
  row, column = optax.assignment.hungarian_algorithm(jnp.asarray(square))
  row, column = np.asarray(row), np.asarray(column)
  result = np.full(columns, -1)
  real = (row < rows) & (column < columns)
  result[column[real]] = row[real]
  return result


def best_assignment(counts: np.ndarray) -> np.ndarray:
  """(classes,) predicted label of each class that maximises the mean IoU."""
  return assign(np.nan_to_num(iou_table(counts)))


def iou(counts: np.ndarray, assignment: np.ndarray | None = None) -> np.ndarray:
  """(classes,) IoU of each class; NaN where neither side has a pixel.

  Args:
    counts: from `confusion`, summed over the set.
    assignment: predicted label of each class; its own number by default. A
      class with -1 scores 0.
  """
  table = iou_table(counts)
  classes = table.shape[1]
  if assignment is None:
    assignment = np.arange(classes)
  assignment = np.asarray(assignment)
  scores = table[assignment, np.arange(classes)]
  absent = np.asarray(counts).sum(0) == 0
  return np.where(assignment < 0, np.where(absent, np.nan, 0.0), scores)


def mean_iou(counts: np.ndarray, assignment: np.ndarray | None = None) -> float:
  """Mean of `iou` over the classes that occur."""
  return float(np.nanmean(iou(counts, assignment)))


@dataclasses.dataclass(frozen=True)
class MajorityState:
  """How often each pixel place has each label: the constant-mask baseline.

  Attributes:
    counts: (h, w, classes).
  """

  counts: np.ndarray

  @classmethod
  def of(cls, truth: np.ndarray, classes: int) -> MajorityState:
    """State of one batch of label pictures (n, h, w)."""
    truth = np.asarray(truth)
    return cls(np.stack([(truth == k).sum(0) for k in range(classes)], axis=-1))

  def merge(self, other: MajorityState) -> MajorityState:
    """State of both sets."""
    return MajorityState(self.counts + other.counts)

  @property
  def mask(self) -> np.ndarray:
    """(h, w) most frequent label of every pixel place."""
    return self.counts.argmax(-1)

  def confusion(self) -> np.ndarray:
    """Counts of the constant mask against the very set it came from."""
    classes = self.counts.shape[-1]
    hot = np.eye(classes, dtype=self.counts.dtype)[self.mask]
    return np.einsum("hwp,hwk->pk", hot, self.counts)


def between_variance(masks: np.ndarray) -> float:
  """Variance between pictures of soft masks (n, h, w, k), mean over places.

  0 when every picture gets the same masks, whatever it shows.
  """
  masks = np.asarray(masks, np.float64)
  return float(masks.var(axis=0).mean())


def mask_entropy(masks: np.ndarray) -> float:
  """Mean entropy over the last axis, as a share of the largest, 0..1."""
  masks = np.asarray(masks, np.float64)
  terms = masks * np.log(np.maximum(masks, 1e-12))
  return float(-terms.sum(-1).mean() / np.log(masks.shape[-1]))
