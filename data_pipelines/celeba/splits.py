"""Who is trained on and who is tested: the splits that papers use.

`hisd`: the first 3,000 pictures are tested (Li et al. 2021). The name of an
attribute: as many pictures with as without it are tested, 1,412 of each, which
are as many as CelebA's own test part has (songquanpeng/L2M-GAN,
bin/split_celeba.py).
`celeba`: CelebA's own parts, through the mapping of the pictures' numbers.
"""

from collections.abc import Sequence

import numpy as np

WHOLE = "all"  # folder of a set that is split when it is opened
FIRST, PARTS = "hisd", "celeba"
FIRST_TESTED = 3_000
TEST_PER_CLASS = 1_412
SEED = 0

_PLACES = {"train": 0, "validation": 1, "test": 2}


class SplitError(ValueError):
  """A split that does not exist; the message names those that do."""


def names_of_splits(split_by: str) -> tuple[str, ...]:
  """The splits that a way of splitting makes."""
  return tuple(_PLACES) if split_by == PARTS else ("train", "test")


def _tested(
  split_by: str, names: Sequence[str], table: np.ndarray, per_class: int
) -> np.ndarray:
  """Which pictures are tested, boolean (n,)."""
  count = len(table)
  if split_by == FIRST:
    if count <= FIRST_TESTED:
      raise SplitError(
        f"split_by {split_by!r} tests the first {FIRST_TESTED:,} pictures of "
        f"{count:,} and leaves none to train on"
      )
    return np.arange(count) < FIRST_TESTED
  if split_by not in names:
    raise SplitError(
      f"split_by is {split_by!r}, wanted {FIRST}, {PARTS} or one of the "
      f"attributes {', '.join(names)}"
    )
  tested = np.zeros(count, bool)
  rng = np.random.default_rng(SEED)
  for value in (0, 1):
    (places,) = np.nonzero(table[:, names.index(split_by)] == value)
    if len(places) <= per_class:
      raise SplitError(
        f"{len(places):,} pictures have {split_by} = {value}, wanted more than "
        f"the {per_class:,} that are tested; change `test_per_class`"
      )
    tested[rng.permutation(places)[:per_class]] = True
  return tested


def positions(
  split_by: str,
  split: str,
  names: Sequence[str],
  table: np.ndarray,
  partition: np.ndarray | None = None,
  test_per_class: int = TEST_PER_CLASS,
) -> np.ndarray:
  """The pictures of one split, in rising order.

  Args:
    split_by: "hisd", "celeba", or the name of an attribute.
    split: "train" or "test"; "celeba" also has "validation".
    names: of the attributes.
    table: int8 (n, A), 0 or 1.
    partition: (n,), 0, 1 or 2; only "celeba" needs it.
    test_per_class: how many pictures with and without an attribute are tested.

  Returns:
    int array.

  Raises:
    SplitError: there is no such split.
  """
  known = names_of_splits(split_by)
  if split not in known:
    raise SplitError(
      f"split_by {split_by!r} makes no split {split!r}; wanted one of "
      f"{', '.join(known)}"
    )
  if split_by != PARTS:
    tested = _tested(split_by, list(names), table, test_per_class)
    return np.flatnonzero(tested == (split == "test"))
  if partition is None:
    raise SplitError(
      f"split_by {PARTS!r} needs CelebA's list of parts; prepare the set again "
      "with list_eval_partition.txt beside the pictures"
    )
  return np.flatnonzero(partition == _PLACES[split])
