"""Pictures without an upright face: turned, cut, noise and mixed-up ones."""

import numpy as np
import pytest

from data_pipelines import align, detectors, transforms
from data_pipelines.transforms import textures
from tests import beads

BEADS = (beads.EYE, beads.NOSE, beads.MOUTH)


def _off(face):
  """How far the points lie from those of a mean face, in eye distances."""
  mean = align.CANONICAL5.astype(np.float64)
  away = align.transform_points(
    align.similarity(face.points, mean), face.points
  )
  return np.linalg.norm(away - mean, axis=1).mean() / (mean[1, 0] - mean[0, 0])


def test_one_kind_of_faceless_picture_draws_nothing_for_it():
  example = _bead_example()
  y, x = np.mgrid[:96, :96] / 96 - 0.5
  example["regions"] = np.where(x**2 + y**2 < 0.04, 0, 3).astype(np.uint8)
  for seed in range(3):
    before = transforms.Faceless(0.5)(example, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    lost = rng.random() < 0.5
    assert before["face"] == float(not lost)
    if lost:  # the crop of before, from the same numbers
      side = rng.uniform(0.15, 0.45)
      box = (*rng.uniform(0.0, 1.0 - side, 2), side)
      found = transforms.crop(example, box)
      if not (found["regions"] == 0).any():
        assert np.array_equal(before["image"], found["image"])


def _bead_example(angle=0.0, size=96):
  photo, (points,) = beads.heads(size, size, (size / 2,) * 2 + (size, angle))
  points = (points / size).astype(np.float32)
  return {"image": photo, "landmarks5": points, "identity": np.int32(3)}


@pytest.mark.parametrize("kind", ["turned", "noise", "texture", "cut"])
def test_faceless_pictures_of_every_kind(kind):
  example = _bead_example()
  heads = []
  for seed in range(25):
    lose = transforms.Faceless(1.0, kinds=(kind,))
    out = lose(example, np.random.default_rng(seed))
    assert out["face"] == 0.0 and (out["landmarks5"] == 0).all()
    assert out["image"].shape == (96, 96, 3) and out["image"].dtype == np.uint8
    assert out["identity"] == 3
    again = lose(example, np.random.default_rng(seed))
    assert np.array_equal(out["image"], again["image"])
    heads += [detectors.Face(p) for p in beads.read_beads(out["image"])]
  if kind == "turned":
    assert len(heads) == 25 and max(map(_off, heads)) < 0.1
    assert min(abs(face.angle) for face in heads) > 65
    angles = np.array([face.angle for face in heads])
    assert (angles > 90).any() and (angles < -90).any()
  elif kind == "cut":
    assert not heads
  else:
    # Beads mixed up do not lie like those of a head.
    assert all(_off(face) > 0.15 for face in heads)
  assert np.array_equal(example["image"], _bead_example()["image"])


def test_cut_faces_keep_some_of_the_face():
  """They are faces cut, and no empty corners."""
  seen = []
  for seed in range(30):
    cut = transforms.Faceless(1.0, kinds=("cut",))
    image = cut(_bead_example(), np.random.default_rng(seed))["image"]
    colours = [
      (np.abs(image.astype(int) - c).max(-1) < 70).any() for c in BEADS
    ]
    seen.append(sum(colours))
  assert np.mean(seen) > 0.8


def test_kinds_are_drawn_alike():
  example = _bead_example()
  lose = transforms.Faceless(1.0, kinds=("noise", "turned"))
  count = 0
  for seed in range(100):
    image = lose(example, np.random.default_rng(seed))["image"]
    count += len(beads.read_beads(image)) == 1
  assert 35 < count < 65
  for wrong in ((), ("crop", "shake")):
    with pytest.raises(ValueError, match="kinds is .*some of crop, tu"):
      transforms.Faceless(kinds=wrong)


def test_textures_keep_the_colours():
  image = _bead_example()["image"]
  for seed in range(6):
    mixed = textures.mixed_up(image, np.random.default_rng(seed))
    means = np.abs(mixed.mean((0, 1)) - image.mean((0, 1)))
    assert means.max() < 15 and not np.array_equal(mixed, image)
  odd = np.arange(50 * 37 * 3, dtype=np.uint32).reshape(50, 37, 3) % 256
  for seed in range(4):
    mixed = textures.mixed_up(odd.astype(np.uint8), np.random.default_rng(seed))
    assert mixed.shape == (50, 37, 3)
    noise = textures.noise((50, 37, 3), np.random.default_rng(seed))
    assert noise.shape == (50, 37, 3) and noise.std() > 2
