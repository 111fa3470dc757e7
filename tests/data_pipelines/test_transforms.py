"""Transforms: pictures, points, cameras and labels move together."""

import numpy as np
import pytest

from data_pipelines import align, transforms
from data_pipelines.transforms import crops
from faceedit_jax.core import options as options_lib


def _made(section, *args, **more):
  options = options_lib.build(transforms.Options, section, "transforms")
  return transforms.make(options, *args, **more)


def _project(camera, point):
  """A point (x, y) in metres to unit picture coordinates."""
  s, tx, ty = camera
  return np.array(
    [(s * (point[0] + tx) + 1) / 2, (1 - s * (point[1] + ty)) / 2]
  )


def _example(size=64):
  """Dots at the five points of a flat face seen by a camera."""
  camera = np.array([6.0, 0.004, 0.01], np.float32)
  metres = [
    (-0.03, 0.02),
    (0.03, 0.02),
    (0, -0.01),
    (-0.02, -0.04),
    (0.02, -0.04),
  ]
  points = np.stack([_project(camera, p) for p in metres])
  y, x = (np.mgrid[:size, :size] + 0.5) / size
  image = np.zeros((size, size, 3), np.uint8)
  for p in points:
    near = (x - p[0]) ** 2 + (y - p[1]) ** 2 < 0.0012
    image[near] = 255
  regions = np.where((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1, 0, 3)
  eg3d = np.eye(5, dtype=np.float32).ravel()
  eg3d[16:] = [4.2, 0, 0.5, 0, 4.2, 0.5, 0, 0, 1]
  return {
    "image": image,
    "regions": regions.astype(np.uint8),
    "landmarks5": points.astype(np.float32),
    "camera": camera,
    "eg3d_camera": eg3d,
    "identity": np.int64(3),
    "caption": "five dots",
  }, np.asarray(metres)


def _brightness_at(image, points):
  places = np.clip((points * image.shape[0]).astype(int), 0, image.shape[0] - 1)
  return image[places[:, 1], places[:, 0], 0]


def test_float_and_back():
  values = np.arange(256, dtype=np.uint8).reshape(16, 16)
  assert transforms.to_float(values).min() == -1.0
  assert transforms.to_float(values).max() == 1.0
  assert np.array_equal(
    transforms.to_uint8(transforms.to_float(values)), values
  )


def test_whole_crop_changes_nothing():
  example, _ = _example()
  out = transforms.crop(example, (0, 0, 1))
  for name, value in example.items():
    assert np.array_equal(out[name], value), name


def test_crop_moves_points_camera_and_labels():
  example, metres = _example()
  box = (0.1, 0.2, 0.7)
  out = transforms.crop(example, box)
  assert (_brightness_at(out["image"], out["landmarks5"]) > 200).all()
  seen = np.stack([_project(out["camera"], p) for p in metres])
  assert np.allclose(seen, out["landmarks5"], atol=1e-5)
  inner = out["eg3d_camera"][16:].reshape(3, 3)
  # The centre ray lands where the old centre is now; the focus grows.
  assert np.allclose(inner[:2, 2], [(0.5 - 0.1) / 0.7, (0.5 - 0.2) / 0.7])
  assert np.isclose(inner[0, 0], 4.2 / 0.7) and inner[2, 2] == 1
  assert set(np.unique(out["regions"])) <= {0, 3}
  assert example["eg3d_camera"][16] == np.float32(4.2)  # input untouched


@pytest.mark.parametrize("box", [(0.1, 0.2, 0.7), (-0.3, -0.1, 1.4)])
def test_crop_agrees_with_a_warp(box):
  """Inside, and beyond the rim, where the edge is repeated."""
  size = 64
  rows, columns = np.mgrid[:size, :size] / size
  waves = [np.sin(5 * rows + i) * np.cos(4 * columns) for i in range(3)]
  image = ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)
  out = transforms.crop({"image": image}, box)["image"]
  x0, y0, side = box
  matrix = np.array([[1, 0, -x0 * size], [0, 1, -y0 * size]]) / side
  expected = align.warp(image, matrix, size).astype(int)
  assert np.abs(out - expected).max() <= 3
  assert np.abs(out - expected).mean() < 0.5


def test_maps_that_no_batch_holds_are_dropped():
  example, _ = _example()
  options = {"faceless": {"probability": 1.0}, "jitter": {}}
  every = _made(options)
  few = _made(options, read=("image", "landmarks5"))
  whole = every(example, np.random.default_rng(0))
  part = few(example, np.random.default_rng(0))
  assert "regions" in whole and "regions" not in part
  # The regions were still there for `faceless`, which looks at them.
  assert np.array_equal(whole["image"], part["image"])


def test_a_map_under_another_name_is_kept():
  example, _ = _example()
  options = {"fields": {"seen": "image", "areas": "regions"}}
  transform = _made(options, read=("seen", "areas"))
  out = transform(example, np.random.default_rng(0))
  assert np.array_equal(out["areas"], example["regions"])


def test_random_crop_is_random_and_repeatable():
  example, _ = _example()
  crop = transforms.RandomCrop()
  a = crop(example, np.random.default_rng(1))
  b = crop(example, np.random.default_rng(1))
  c = crop(example, np.random.default_rng(2))
  assert np.array_equal(a["image"], b["image"])
  assert not np.array_equal(a["landmarks5"], c["landmarks5"])
  assert (_brightness_at(a["image"], a["landmarks5"]) > 200).all()


def test_faceless_crops_hold_no_face():
  example, _ = _example()
  for seed in range(10):
    out = transforms.Faceless(1.0)(example, np.random.default_rng(seed))
    assert out["face"] == 0.0 and not (out["regions"] == 0).any()
    assert (out["landmarks5"] == 0).all()
  kept = transforms.Faceless(0.0)(example, np.random.default_rng(0))
  assert kept["face"] == 1.0
  assert np.array_equal(kept["image"], example["image"])
  lost = [
    transforms.Faceless(0.25)(example, np.random.default_rng(s))["face"] == 0
    for s in range(200)
  ]
  assert 0.15 < np.mean(lost) < 0.35


def test_faceless_falls_back_to_a_corner():
  example, _ = _example()
  example["regions"] = np.zeros_like(example["regions"])
  out = transforms.Faceless(1.0)(example, np.random.default_rng(0))
  assert out["face"] == 0.0 and out["image"].max() == 0


def test_face_crop_puts_the_points_on_the_template():
  example, _ = _example()
  # Five points that are the template itself up to a similarity.
  points = transforms.ARCFACE5 * 0.5 + 0.2
  example["landmarks5"] = points.astype(np.float32)
  out = transforms.FaceCrop(32)(example, np.random.default_rng(0))
  assert out["image"].shape == (32, 32, 3)
  assert out["regions"].shape == (32, 32)
  assert np.allclose(out["landmarks5"], transforms.ARCFACE5, atol=1e-4)
  assert "camera" not in out and "camera" in example
  # All points move alike.
  more = example | {"landmarks68": np.tile(example["landmarks5"][:1], (68, 1))}
  both = transforms.FaceCrop(32)(more, np.random.default_rng(0))
  wanted = np.tile(transforms.ARCFACE5[:1], (68, 1))
  np.testing.assert_allclose(both["landmarks68"], wanted, atol=1e-4)
  moved = transforms.FaceCrop(32, jitter=0.05)(
    example, np.random.default_rng(0)
  )
  assert not np.allclose(moved["landmarks5"], transforms.ARCFACE5, atol=1e-3)


def test_resize():
  example, _ = _example()
  out = transforms.Resize(32)(example, np.random.default_rng(0))
  mean = example["image"].reshape(32, 2, 32, 2, 3).mean((1, 3))
  assert np.abs(out["image"] - mean).max() <= 1
  assert out["regions"].shape == (32, 32)
  assert set(np.unique(out["regions"])) <= {0, 3}
  assert out["eg3d_camera"].shape == (25,)


def test_options_and_fields():
  example, _ = _example()
  transform = _made(
    {
      "random_crop": {"low": 0.9, "high": 1.0},
      "faceless": {},
      "fields": {"picture": "image", "face": "face", "identity": "identity"},
    },
    size=16,
  )
  out = transform(example, np.random.default_rng(0))
  assert list(out) == ["picture", "face", "identity"]
  assert out["picture"].shape == (16, 16, 3)
  assert out["picture"].dtype == np.float32
  assert -1 <= out["picture"].min() <= out["picture"].max() <= 1
  assert out["identity"].dtype == np.int32
  crop = _made({"face_crop": {}}, 24, ["image"])
  assert crop(example, np.random.default_rng(0))["image"].shape == (24, 24, 3)
  with pytest.raises(KeyError, match="no field"):
    _made({"fields": ["depth"]})(example, np.random.default_rng(0))


def test_pairs_are_cropped_apart():
  example, _ = _example()
  both = {**example, **{f"pair_{k}": v for k, v in example.items()}}
  out = transforms.RandomCrop()(both, np.random.default_rng(0))
  assert not np.array_equal(out["landmarks5"], out["pair_landmarks5"])
  for prefix in ("", "pair_"):
    seen = _brightness_at(out[prefix + "image"], out[prefix + "landmarks5"])
    assert (seen > 200).all()


def test_the_template_of_recognition_nets_is_a_face():
  matrix = align.similarity(
    transforms.ARCFACE5.astype(np.float64), align.CANONICAL5.astype(np.float64)
  )
  moved = align.transform_points(matrix, transforms.ARCFACE5)
  assert np.abs(moved - align.CANONICAL5).max() < 0.05


def _face(size=64):
  """Labels of a lopsided face, points on them, and a picture of the labels."""
  labels = np.zeros((size, size), np.uint8)
  places = {5: (20, 20), 4: (44, 22), 2: (34, 34), 9: (4, 30), 8: (60, 28)}
  for label, (x, y) in places.items():
    labels[y - 3 : y + 3, x - 3 : x + 3] = label
  points = [places[5], places[4], places[2], (24, 50), (42, 48)]
  return {
    "image": np.repeat(labels[..., None] * 25, 3, -1),
    "labels": labels,
    "landmarks5": np.asarray(points, np.float32) / size,
    "landmarks68": np.linspace(0, 1, 136, dtype=np.float32).reshape(68, 2),
    "visible68": np.arange(68, dtype=np.int8),
    "pose": np.zeros(6, np.float32),
    "camera": np.ones(3, np.float32),
    "attributes": np.array([1, 0], np.int8),
  }


def test_a_mirrored_face_is_a_face():
  face = _face()
  flipped = transforms.mirror(face)
  assert set(face) - set(flipped) == {"pose", "camera"}
  np.testing.assert_array_equal(flipped["image"], face["image"][:, ::-1])
  # Left and right stay what they are called: by points and by labels.
  points = flipped["landmarks5"]
  assert points[0, 0] < points[2, 0] < points[1, 0]
  assert points[3, 0] < points[4, 0]
  for label, point in ((5, points[0]), (4, points[1]), (2, points[2])):
    y, x = np.nonzero(flipped["labels"] == label)
    np.testing.assert_allclose([x.mean() + 0.5, y.mean() + 0.5], point * 64)
  # What is known of a point stays with it.
  seen = flipped["visible68"]
  assert (seen[0], seen[16], seen[30], seen[36]) == (16, 0, 30, 45)
  twice = transforms.mirror(flipped)
  for name in flipped:
    np.testing.assert_allclose(twice[name], face[name], atol=1e-6)
  np.testing.assert_array_equal(flipped["attributes"], face["attributes"])


def test_68_points_are_mirrored_to_their_counterparts():
  order = list(crops.POINTS["landmarks68"])
  for middle in (8, 27, 28, 29, 30, 33, 51, 57, 62, 66):
    assert order[middle] == middle
  assert [order[i] for i in (0, 17, 21, 36, 39, 48, 60)] == [
    16,
    26,
    22,
    45,
    42,
    54,
    64,
  ]
  assert [order[i] for i in (37, 40, 31, 50, 59, 67)] == [
    44,
    47,
    35,
    52,
    55,
    65,
  ]
  assert [order[i] for i in order] == list(range(68))
  assert sum(order[i] == i for i in range(68)) == 10


def test_resized_crops_stretch_points_and_labels_with_the_picture():
  face, crop = _face(), transforms.ResizedCrop(1.0)
  areas = []
  for seed in range(60):
    box = crop._box(np.random.default_rng(seed))
    x, y, width, height = box
    assert x >= 0 and y >= 0 and x + width <= 1 and y + height <= 1
    assert 0.9 - 1e-9 <= width / height <= 1.1 + 1e-9
    areas.append(width * height)
  assert 0.8 <= min(areas) < 0.83 and 0.97 < max(areas) <= 1
  out = transforms.stretch(face, (0.05, 0.1, 0.9, 0.85))
  assert set(face) - set(out) == {"camera"}
  assert out["image"].shape == face["image"].shape
  for label, point in ((5, out["landmarks5"][0]), (4, out["landmarks5"][1])):
    y, x = np.nonzero(out["labels"] == label)
    centre = np.array([x.mean(), y.mean()]) + 0.5
    assert np.abs(centre - point * 64).max() < 0.6
  # Half of them stay, and no example keeps what others lose.
  kept = 0
  for seed in range(200):
    out = transforms.ResizedCrop()(face, np.random.default_rng(seed))
    kept += np.array_equal(out["image"], face["image"])
    assert "camera" not in out
  assert 75 < kept < 125


def test_flips_and_crops_by_config():
  data = {"resized_crop": {"scale": (0.8, 0.9)}, "flip": 0.5}
  made = _made(data, 64, ["image", "attributes"])
  flips = [t for t in made.transforms if isinstance(t, transforms.Flip)]
  assert flips == [transforms.Flip(0.5)]
  face = _face()
  pair = face | {"pair_" + k: v for k, v in face.items()}
  flipped = [0, 0]
  for seed in range(100):
    out = transforms.Flip(0.3)(pair, np.random.default_rng(seed))
    for k, prefix in enumerate(("", "pair_")):
      same = np.array_equal(out[prefix + "image"], face["image"])
      flipped[k] += not same
  assert all(18 < n < 42 for n in flipped) and flipped[0] != flipped[1]
  with pytest.raises(KeyError, match="no field .'pose'"):
    _made({"flip": 1}, 64, ["image", "pose"])(face, np.random.default_rng(0))
