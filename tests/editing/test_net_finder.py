"""A run's own net as a detector: what it takes for a face must be one."""

import numpy as np
import pytest

from data_pipelines import align, detectors
from faceedit_jax.editing import find_face, plausible
from faceedit_jax.editing.net_finder import NetFinder
from tests import beads

SIZE = 96
TURNS = (0, 90, 180, 270)


def credulous(views):
  """Reads beads, and is sure of a face in everything else as well.

  As a net that has seen upright heads and empty corners only: whatever is no
  upright head gives the points of a mean one, with a high score.
  """
  points, scores = [], []
  for view in views:
    five = align.CANONICAL5.astype(np.float64)
    score = 4.0
    for found in beads.read_beads(view):
      if abs(detectors.Face(found).angle) < 50:
        five, score = found / SIZE, 6.0
    points.append(five)
    scores.append(score)
  return np.array(points), np.array(scores)


def scan(turn, *faces):
  """A photo of heads that stands upright after a counter-clockwise turn."""
  faces = faces or ((70.0, 60.0, 80.0, 0.0),)
  photo, _ = beads.heads(130, 150, *faces)
  return np.ascontiguousarray(np.rot90(photo, -turn // 90))


@pytest.mark.parametrize("turn", TURNS)
def test_turned_scans_are_turned_back(turn):
  photo = scan(turn)
  found = NetFinder(credulous, SIZE).find(photo)
  assert found.turn == turn and found.faces[0].score == 6
  (true,) = beads.read_beads(photo)
  np.testing.assert_allclose(found.points, true, atol=2.0)
  words = found.describe()
  assert words.startswith("1 face found by the run's own net")


@pytest.mark.parametrize(
  "photo",
  [
    beads.noise(),
    beads.noise(60, 200, seed=1),
    np.full((90, 90, 3), 120, np.uint8),
    beads.heads(90, 90)[0],
    beads.heads(100, 100, (50.0, 95.0, 90.0, 0.0))[0],
  ],
)
def test_what_does_not_stay_in_place_is_no_face(photo):
  with pytest.raises(
    align.AlignError, match="^no face found .best score 4.0, but its points do"
  ):
    NetFinder(credulous, SIZE).find(photo)


def test_evidence_of_a_face_and_of_none():
  photo = scan(0)
  (true,) = beads.read_beads(photo)
  face = detectors.Face(true, 6.0)
  good = plausible.examine(credulous, photo, face, SIZE)
  assert good.score == 6 and set(good.turned.values()) == {4.0}
  assert good.unrest < 0.06 and good.skew < 0.06 and not good.doubt()
  turned = scan(180)
  # The mean face, upright, in the square of one that is upside down.
  (upside,) = beads.read_beads(turned)
  middle, side = upside.mean(0), detectors.Face(upside).side
  five = middle + (align.CANONICAL5 - align.CANONICAL5.mean(0)) * side
  bad = plausible.examine(credulous, turned, detectors.Face(five, 4.0), SIZE)
  assert bad.score == 4 and bad.turned[180] == 6
  assert bad.doubt() == "it looks more like a face after a turn of 180 degrees"
  none = beads.noise(100, 100)
  five = detectors.Face(align.CANONICAL5.astype(float) * 80 + 10, 4.0)
  bad = plausible.examine(credulous, none, five, SIZE)
  assert bad.unrest > 0.3 and bad.skew < 0.01

  def lopsided(views):
    points, scores = credulous(views)
    return points + [0.1, 0.0], scores

  assert plausible.examine(lopsided, none, five, SIZE).skew > 0.5


def test_a_reader_without_numbers_is_no_evidence():
  photo = scan(0)
  (true,) = beads.read_beads(photo)

  def broken(views):
    points, scores = credulous(views)
    points[3:] = np.nan
    return points, scores

  face = detectors.Face(true, 6.0)
  assert plausible.examine(broken, photo, face, SIZE).doubt()


def test_the_face_that_is_meant():
  two = ((45.0, 60.0, 70.0, 0.0), (115.0, 80.0, 55.0, 0.0))
  photo, points = beads.heads(130, 150, *two)
  finder = NetFinder(one_of_several, SIZE)
  found = finder.find(photo)
  np.testing.assert_allclose(found.points, points[0], atol=2.5)
  for value, place in ((2, 1), ("112,85", 1), ("45,60", 0), (1, 0)):
    found = finder.find(photo, detectors.choice_of(value))
    assert len(found.faces) == 2
    np.testing.assert_allclose(found.points, points[place], atol=2.5)
  with pytest.raises(align.AlignError, match="there is no face 3: faces by"):
    finder.find(photo, detectors.choice_of(3))


def one_of_several(views):
  """Reads the head nearest to the middle of each view, unsure of others."""
  points, scores = [], []
  for view in views:
    five, score = align.CANONICAL5.astype(np.float64), -3.0
    heads = [
      found / SIZE
      for found in beads.read_beads(view)
      if abs(detectors.Face(found).angle) < 50
    ]
    if heads:
      away = [np.linalg.norm(head.mean(0) - 0.5) for head in heads]
      five, score = heads[int(np.argmin(away))], 2.5 - min(away)
    points.append(five)
    scores.append(score)
  return np.array(points), np.array(scores)


def test_faces_in_one_place_are_one():
  _, points = beads.heads(
    9, 9, (50, 50, 40, 0.0), (53, 50, 42, 0.0), (90, 50, 40, 0.0)
  )
  faces = [
    detectors.Face(five, score)
    for five, score in zip(points, (1.0, 2.0, 0.5), strict=True)
  ]
  kept = find_face.apart(faces)
  assert [face.score for face in kept] == [2.0, 0.5]
