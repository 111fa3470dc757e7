"""Agreement of slot masks and regions."""

import numpy as np
import pytest

from data_pipelines.synthetic_heads import labels as labels_lib
from faceedit_jax.evaluators import slot_measures


def test_the_neck_may_count_as_face():
  """Slot 0 takes face and neck: wrong by the regions, right as skin."""
  regions = np.zeros((2, 4, 4), np.int32)
  regions[:, 2:] = 2
  regions[:, 3] = 3
  labels = np.full((2, 4, 4), labels_lib.LABEL["skin"])
  labels[:, 2] = labels_lib.LABEL["neck"]
  masks = np.zeros((2, 4, 4, 4), np.float32)
  masks[:, :3, :, 0] = 1
  masks[:, 3, :, 3] = 1
  batch = {"source_regions": regions, "source_labels": labels}
  slots = slot_measures.SlotMeasures()
  slots.add(masks, batch)
  found = slots.scores([(masks, batch)])
  assert found["slots/iou_face"] == pytest.approx(8 / 12)
  assert found["slots/iou_clothes"] == 0
  assert found["slots_neck_as_face/iou_face"] == 1
  assert found["slots_neck_as_face/iou_background"] == 1
