"""Naming slots by regions."""

import jax.numpy as jnp
import numpy as np

from faceedit_jax.recipes import counterfactual, regions


def test_confusion_counts_shares():
  masks = np.zeros((1, 2, 2, 4), np.float32)
  masks[0, :, 0, 2] = 1
  masks[0, :, 1, 0] = 1
  truth = np.array([[[1, 1, 3, 3], [1, 0, 3, 3], [1, 1, 3, 3], [1, 1, 3, 3]]])
  counts = np.asarray(regions.confusion(jnp.asarray(masks), jnp.asarray(truth)))
  assert counts[2].tolist() == [0.25, 1.75, 0, 0]
  assert counts[0].tolist() == [0, 0, 0, 2]
  assert counts[1].sum() == counts[3].sum() == 0


def test_assignment_is_one_to_one_and_best():
  counts = np.full((4, 4), 1.0)
  order = [2, 0, 3, 1]
  for slot, region in enumerate(order):
    counts[slot, region] = 20 + slot
  assert np.asarray(regions.assign(jnp.asarray(counts))).tolist() == order
  # A greedy choice would give both of the first slots region 0.
  counts = np.diag([5.0, 5.0, 5.0, 5.0])
  counts[1] = [6, 5, 0, 0]
  assert np.asarray(regions.assign(jnp.asarray(counts))).tolist() == [
    0,
    1,
    2,
    3,
  ]


def test_other_slot_counts_may_share_a_region():
  counts = np.zeros((8, 4))
  counts[:, 3] = 1
  counts[0, 0] = 2
  assert (
    np.asarray(regions.assign(jnp.asarray(counts))).tolist() == [0] + [3] * 7
  )


def test_perfect_masks_have_iou_one():
  truth = np.random.default_rng(0).integers(0, 4, (3, 8, 8))
  masks = np.eye(4, dtype=np.float32)[np.roll(np.arange(4), 1)[truth]]
  counts = regions.confusion(jnp.asarray(masks), jnp.asarray(truth))
  assignment = regions.assign(counts)
  assert float(regions.mean_iou(counts, assignment)) == 1.0
  assert counterfactual.region_iou(counts, np.asarray(assignment)).min() == 1


def test_painted_colours_are_those_of_the_regions():
  masks = np.zeros((1, 2, 2, 4), np.float32)
  masks[..., 1] = 1
  picture = regions.paint(jnp.asarray(masks), jnp.asarray([3, 2, 1, 0]), 4)
  assert picture.shape == (1, 4, 4, 3)
  colour = (np.asarray(picture)[0, 0, 0] + 1) * 127.5
  np.testing.assert_allclose(colour, regions.COLOURS[2], atol=0.01)
