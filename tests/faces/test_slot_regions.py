"""Naming slots by regions."""

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.evaluators import slot_measures
from faceedit_jax.faces import slot_regions


def test_confusion_counts_shares():
  masks = np.zeros((1, 2, 2, 4), np.float32)
  masks[0, :, 0, 2] = 1
  masks[0, :, 1, 0] = 1
  truth = np.array([[[1, 1, 3, 3], [1, 0, 3, 3], [1, 1, 3, 3], [1, 1, 3, 3]]])
  counts = np.asarray(
    slot_regions.confusion(jnp.asarray(masks), jnp.asarray(truth))
  )
  assert counts[2].tolist() == [0.25, 1.75, 0, 0]
  assert counts[0].tolist() == [0, 0, 0, 2]
  assert counts[1].sum() == counts[3].sum() == 0


def test_assignment_is_one_to_one_and_best():
  counts = np.full((4, 4), 1.0)
  order = [2, 0, 3, 1]
  for slot, region in enumerate(order):
    counts[slot, region] = 20 + slot
  assert np.asarray(slot_regions.assign(jnp.asarray(counts))).tolist() == order
  # A greedy choice would give both of the first slots region 0.
  counts = np.diag([5.0, 5.0, 5.0, 5.0])
  counts[1] = [6, 5, 0, 0]
  assert np.asarray(slot_regions.assign(jnp.asarray(counts))).tolist() == [
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
    np.asarray(slot_regions.assign(jnp.asarray(counts))).tolist()
    == [0] + [3] * 7
  )


def test_perfect_masks_have_iou_one():
  truth = np.random.default_rng(0).integers(0, 4, (3, 8, 8))
  masks = np.eye(4, dtype=np.float32)[np.roll(np.arange(4), 1)[truth]]
  counts = slot_regions.confusion(jnp.asarray(masks), jnp.asarray(truth))
  assignment = slot_regions.assign(counts)
  assert float(slot_regions.mean_iou(counts, assignment)) == 1.0
  assert slot_measures.region_iou(counts, np.asarray(assignment)).min() == 1


def test_painted_colours_are_those_of_the_regions():
  masks = np.zeros((1, 2, 2, 4), np.float32)
  masks[..., 1] = 1
  picture = slot_regions.paint(jnp.asarray(masks), jnp.asarray([3, 2, 1, 0]), 4)
  assert picture.shape == (1, 4, 4, 3)
  colour = (np.asarray(picture)[0, 0, 0] + 1) * 127.5
  np.testing.assert_allclose(colour, slot_regions.COLOURS[2], atol=0.01)


def test_names_given_by_hand_are_the_assignment():
  names = ("hair", "background", "face", "clothes")
  table = jnp.asarray(slot_regions.from_names(names, 4))
  assert [slot_regions.REGIONS[i] for i in slot_regions.assign(table)] == list(
    names
  )
  two = jnp.asarray(slot_regions.from_names(("face", "background"), 2))
  assert list(slot_regions.assign(two)) == [0, 3]


@pytest.mark.parametrize(
  "names, slots",
  [
    (("face", "hair"), 4),
    (("face", "hair", "clothes", "sky"), 4),
    (("face", "face", "clothes", "background"), 4),
  ],
)
def test_wrong_names_are_refused(names, slots):
  with pytest.raises(ValueError, match="slot_names is .*wanted one of"):
    slot_regions.from_names(names, slots)


def test_named_slots_are_lit_where_they_look():
  image = jnp.ones((1, 64, 64, 3))
  masks = np.zeros((1, 16, 16, 4), np.float32)
  masks[0, :, :8, 2] = masks[0, :, 8:, 1] = 1
  order = jnp.asarray([1, 3, 0, 2])
  shown = slot_regions.named(image, jnp.asarray(masks), order)
  assert list(shown) == ["slot_0", "slot_1", "slot_2", "slot_3"]
  shown = np.stack([np.asarray(v[0]) for v in shown.values()])
  assert shown.shape == (4, 64, 64, 3)
  tiles = shown[:, 32:].mean((1, 3))
  assert (tiles[2, :32] > 0.9).all() and (tiles[2, 32:] < -0.5).all()
  assert (tiles[1, 32:] > 0.9).all() and (tiles[0] < -0.5).all()
  # Another name is another caption; a number tells equal names apart.
  other = slot_regions.named(image, jnp.asarray(masks), order[::-1])
  assert np.abs(shown[0, :12] - other["slot_0"][0, :12]).max() > 0.5
  same = slot_regions.named(image, jnp.asarray(masks), order * 0)
  assert np.abs(same["slot_0"] - same["slot_3"])[:, :12].max() > 0.5


def test_slots_that_nobody_named_have_no_region():
  nothing = np.zeros((4, 4), np.float32)
  assert not slot_regions.are_named(nothing)
  unnamed = slot_regions.named_regions(jnp.asarray(nothing))
  assert unnamed.tolist() == [slot_regions.UNNAMED] * 4
  counted = jnp.asarray(np.eye(4, dtype=np.float32)[[1, 0, 3, 2]])
  assert slot_regions.are_named(counted)
  assert slot_regions.named_regions(counted).tolist() == [1, 0, 3, 2]


def test_a_slot_without_a_name_has_a_colour_and_a_caption_of_its_own():
  masks = jnp.asarray(np.eye(4, dtype=np.float32).reshape(1, 2, 2, 4))
  unnamed = jnp.full((4,), slot_regions.UNNAMED)
  painted = slot_regions.paint(masks, unnamed, 2)
  wanted = slot_regions.MORE_COLOURS.reshape(1, 2, 2, 3) / 127.5 - 1
  np.testing.assert_allclose(painted, wanted, atol=1e-6)
  picture = jnp.zeros((1, 64, 64, 3))
  shown = [
    slot_regions.named(picture, masks, regions)["slot_0"][0]
    for regions in (unnamed, jnp.arange(4))
  ]
  bright = [int((np.asarray(tile)[:16] > 0.5).sum()) for tile in shown]
  assert 0 < bright[0] < bright[1], "the number alone is shorter"
