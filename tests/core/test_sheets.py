"""Labelled sheets and colours of masks."""

import numpy as np
import pytest

from faceedit_jax.core import sheets


def test_what_counts_as_a_picture():
  assert sheets.picture_of(np.zeros(5)) is None
  gray = sheets.picture_of(np.full((4, 4), 0.5))
  assert (gray == 128).all() and gray.shape == (4, 4, 3)
  bytes_ = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
  np.testing.assert_array_equal(sheets.picture_of(bytes_), bytes_)
  masks = sheets.picture_of(np.eye(4)[None].repeat(2, 0))
  assert len({tuple(colour) for colour in masks[0]}) == 4


def test_a_sheet_holds_its_pictures():
  pictures = {
    "one": np.full((20, 20, 3), 10, np.uint8),
    "two": np.full((40, 20, 3), 200, np.uint8),
  }
  sheet = sheets.labelled(pictures)
  assert sheet.shape[2] == 3
  assert (sheet == 10).all(-1).sum() >= 160 * 160
  assert (sheet == 200).all(-1).sum() >= 160 * 80
  with pytest.raises(ValueError, match="at least one picture"):
    sheets.labelled({})
