"""How well slot masks agree with true regions, without labels in training."""

import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads import labels as labels_lib
from faceedit_jax.faces import slot_regions as regions_lib
from faceedit_jax.metrics import segmentation
from faceedit_jax.nn import layers


class SlotMeasures:
  """Collects slot masks and true regions of pictures."""

  def __init__(self):
    self._masks, self._batches = [], []

  def add(self, masks, batch):
    self._masks.append(masks)
    self._batches.append(batch)

  def scores(self, naming):
    """mIoU with one assignment that `naming`, other pictures, fixes.

    Labelled sets are measured twice: the neck is clothes in the regions, but
    skin for the 3D face, whose mesh includes it.
    """
    masks = np.concatenate(self._masks)
    out = {
      "slots/variance_between_pictures": float(
        segmentation.between_variance(jnp.asarray(masks))
      )
    }
    kinds = {"slots": _regions}
    if all("source_labels" in batch for batch in self._batches):
      kinds["slots_neck_as_face"] = _neck_as_face
    for kind, read in kinds.items():
      truth = np.concatenate([read(batch) for batch in self._batches])
      named = [(m, read(batch)) for m, batch in naming]
      for name, value in slot_agreement(masks, truth, named).items():
        out[f"{kind}/{name}"] = value
    return out


def _regions(batch):
  return batch["source_regions"]


def _neck_as_face(batch):
  neck = batch["source_labels"] == labels_lib.LABEL["neck"]
  return np.where(neck, 0, batch["source_regions"])


def slot_agreement(masks, regions, naming) -> dict[str, float]:
  """IoU of slot masks and true regions, and of a mask that never moves.

  Args:
    masks: (n, h, w, k).
    regions: (n, H, W), 0..3.
    naming: [(masks, regions)] of other pictures, which fix the region of
      each slot.

  Returns:
    "miou", "miou_constant_mask" and "iou_REGION".
  """
  counts = sum(_hard_confusion(m, r) for m, r in naming)
  assignment = np.asarray(regions_lib.assign(jnp.asarray(counts)))
  iou = region_iou(_hard_confusion(masks, regions), assignment)
  # The best that a mask which never moves can do on these very pictures.
  constant = segmentation.MajorityState.of(regions, len(regions_lib.REGIONS))
  fixed = region_iou(constant.confusion(), np.arange(4))
  out = {
    "miou": float(iou.mean()),
    "miou_constant_mask": float(fixed.mean()),
  }
  for region, value in zip(regions_lib.REGIONS, iou, strict=True):
    out[f"iou_{region}"] = float(value)
  return out


def region_iou(counts, assignment):
  """IoU (4,) of regions from counts (k, 4) and the region of each slot.

  A region that neither side has counts 0.
  """
  count = len(regions_lib.REGIONS)
  merged = np.zeros((count, count))
  np.add.at(merged, np.asarray(assignment), np.asarray(counts))
  return np.nan_to_num(segmentation.iou(merged))


def _hard_confusion(masks, regions):
  """Pixel counts (k, 4): maps upsampled bilinearly, then argmax."""
  k, (height, width) = masks.shape[-1], regions.shape[1:]
  counts = np.zeros((k, len(regions_lib.REGIONS)))
  for first in range(0, len(masks), 64):
    part = jnp.asarray(masks[first : first + 64])
    hard = layers.resize(part, height, width).argmax(-1)
    true = regions[first : first + 64]
    counts += segmentation.confusion(hard, true, k, counts.shape[1])
  return counts
