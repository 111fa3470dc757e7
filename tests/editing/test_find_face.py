"""The search for a face: anywhere, any size, and the answer "there is none"."""

import jax
import numpy as np
import pytest

from data_pipelines import align
from faceedit_jax.editing import find_face
from faceedit_jax.editing.net_finder import NetFinder
from tests.editing.toy_editor import SIZE, ToyEditor, portrait

_jitted = jax.jit(lambda views: ToyEditor(SIZE).find_points({}, {}, views))


def read(views):
  """The toy recipe's reader on whole batches."""
  count = len(views)
  batch = np.zeros((find_face.VIEWS, *views.shape[1:]), np.float32)
  batch[:count] = views / 127.5 - 1.0
  return [np.asarray(v)[:count] for v in _jitted(batch)]


@pytest.mark.parametrize(
  "width, height, x, y, side",
  [
    (90, 120, 45, 60, 60),
    (400, 300, 120, 170, 150),
    (300, 700, 210, 520, 130),
    (1600, 1200, 1100, 500, 700),
  ],
)
def test_a_face_is_found_anywhere(width, height, x, y, side):
  picture, points = portrait(width, height, x, y, side)
  found = NetFinder(read, SIZE).find(picture)
  assert found.faces[0].score > 2 and not found.turn
  np.testing.assert_allclose(found.points, points, atol=0.03 * side)


def test_no_face_is_an_error():
  with pytest.raises(align.AlignError, match="no face found .best score -2"):
    NetFinder(read, SIZE).find(np.full((60, 80, 3), 90, np.uint8))


def test_a_reader_without_numbers_finds_nothing():
  def nothing(views):
    return np.full((len(views), 5, 2), np.nan), np.full(len(views), 9.0)

  with pytest.raises(align.AlignError, match="no finite numbers"):
    NetFinder(nothing, SIZE).find(np.zeros((40, 40, 3), np.uint8))


def test_squares_cover_the_picture():
  seen = np.zeros((3, 50, 120), bool)
  levels = list(find_face.squares(50, 120))
  assert levels[0] == [(0.0, -35.0, 120)]
  for level, squares in enumerate(levels[1:4]):
    for x, y, side in squares:
      assert -1e-6 < x < 120 - side + 1e-6 and -1e-6 < y < 50 - side + 1e-6
      rows = slice(int(np.floor(y)), int(np.ceil(y + side)))
      seen[level, rows, int(np.floor(x)) : int(np.ceil(x + side))] = True
  assert seen.all()
  assert levels[-1][0][2] >= 16
