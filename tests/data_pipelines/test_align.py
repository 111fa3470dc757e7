"""The alignment: similarity, warp without aliasing, and the way back."""

import json

import numpy as np
import pytest

from data_pipelines import align, images, landmarks


def _smooth(height, width):
  y, x = np.mgrid[:height, :width]
  x, y = (x + 0.5) / width, (y + 0.5) / height
  waves = [np.sin(3 * x + 2 * y), np.cos(4 * x - y), np.sin(2 * x * y + 1)]
  return (127 + 100 * np.stack(waves, -1)).astype(np.uint8)


def _face(size, angle=0.3, scale=0.4, shift=(0.3, 0.25)):
  """Five points of a face turned by `angle` somewhere in a picture."""
  turn = np.array(
    [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
  )
  points = align.CANONICAL5.astype(np.float64) * scale @ turn.T
  return (points + shift) * size


def test_canonical_points_make_a_face():
  left, right, nose, low_left, low_right = align.CANONICAL5
  assert left[0] < nose[0] < right[0] and low_left[0] < low_right[0]
  assert left[1] == right[1] < nose[1] < low_left[1] == low_right[1]
  assert np.allclose(
    align.CANONICAL5[[1, 4], 0], 1 - align.CANONICAL5[[0, 3], 0]
  )


def test_canonical_points_are_those_of_the_synthetic_heads():
  import jax.numpy as jnp

  from data_pipelines.synthetic_heads import frames, identity
  from faceedit_jax.morphable import camera, model, procedural

  count = 200
  head = procedural.procedural_model()
  shapes = [identity.sample_identity(0, i).shape for i in range(count)]
  rest = np.repeat(frames.expression_vector()[None], count, 0)
  points, _ = model.vertices(
    head,
    jnp.asarray(np.stack(shapes)),
    jnp.asarray(rest),
    jnp.zeros((count, 6)),
    jnp.zeros((count, 2)),
  )
  five = model.landmarks(head.landmarks5, points)
  view = np.repeat(frames.make_camera(31.5)[None], count, 0)
  seen = (
    np.asarray(camera.project(five, jnp.asarray(view)))[..., :2] * 0.5 + 0.5
  )
  assert np.abs(seen.mean(0) - align.CANONICAL5).max() < 2e-3


def test_similarity_recovers_a_known_map(rng):
  points = rng.normal(size=(5, 2))
  a, b = 1.7 * np.cos(0.4), 1.7 * np.sin(0.4)
  known = np.array([[a, -b, 3.0], [b, a, -2.0]])
  target = align.transform_points(known, points)
  assert np.allclose(align.similarity(points, target), known)


def test_similarity_is_the_least_squares_one(rng):
  source, target = rng.normal(size=(2, 5, 2))
  best = align.similarity(source, target)

  def error(matrix):
    return ((align.transform_points(matrix, source) - target) ** 2).sum()

  basis = np.array(
    [
      [[1, 0, 0], [0, 1, 0]],
      [[0, -1, 0], [1, 0, 0]],
      [[0, 0, 1], [0, 0, 0]],
      [[0, 0, 0], [0, 0, 1]],
    ]
  )
  for direction in basis:
    for step in (1e-3, -1e-3):
      assert error(best + step * direction) > error(best)


def test_points_that_make_no_face():
  same = np.full((5, 2), 7.0)
  with pytest.raises(align.AlignError, match="one place"):
    align.similarity(same, align.CANONICAL5.astype(np.float64))
  broken = np.full((5, 2), np.nan)
  with pytest.raises(align.AlignError, match="not finite"):
    align.similarity(broken, align.CANONICAL5.astype(np.float64))


def test_identity_warp_changes_nothing():
  image = _smooth(40, 40)
  same = np.array([[1.0, 0, 0], [0, 1.0, 0]])
  assert np.array_equal(align.warp(image, same, 40), image)


@pytest.mark.parametrize("scale", [2.0, 0.7, 0.45, 0.13])
def test_nothing_is_shifted_by_part_of_a_pixel(scale):
  # On a ramp of two levels per pixel a shift shows at once.
  ramp = np.repeat(np.arange(120)[None] * 2, 120, 0).astype(np.uint8)
  matrix = np.array([[scale, 0, 1.3 - 20 * scale], [0, scale, 2.1]])
  out = align.warp(ramp, matrix, 14).astype(float)
  wanted = ((np.arange(14) + 0.5 - 1.3) / scale + 20 - 0.5) * 2
  inside = (wanted > 10) & (wanted < 225)
  assert inside.sum() > 3
  error = out[7, inside] - wanted[inside]
  assert np.abs(error).max() < 1.0 and abs(error.mean()) < 0.25


@pytest.mark.parametrize("side", [48, 300, 2000])
def test_align_gives_the_same_face_at_any_size(side):
  # The same scene photographed with more pixels must align to the same face.
  reference = align.align(_smooth(600, 600), _face(600), 32)
  out = align.align(_smooth(side, side), _face(side), 32)
  difference = np.abs(out.image.astype(int) - reference.image)
  assert difference.mean() < 2.0
  assert np.allclose(out.landmarks5, align.CANONICAL5, atol=1e-5)


def test_fine_detail_averages_instead_of_aliasing():
  # One-pixel stripes are mid-gray once they are far below the output's grid.
  stripes = np.zeros((900, 900, 3), np.uint8)
  stripes[:, ::2] = 255
  out = align.align(stripes, _face(900, 0.05, 0.6), 24).image
  assert np.abs(out[4:-4, 4:-4].astype(float) - 127.5).max() < 12


def test_outside_repeats_the_edge():
  image = np.full((30, 30, 3), 90, np.uint8)
  out = align.align(image, _face(30, shift=(-0.2, -0.2), scale=0.8), 40).image
  assert np.abs(out.astype(int) - 90).max() <= 1


def test_landmarks_of_another_picture_are_refused():
  with pytest.raises(align.AlignError, match="do not fit this picture"):
    align.align(np.zeros((20, 20, 3), np.uint8), _face(5000, scale=1.0), 32)


def test_labels_stay_labels():
  labels = (np.arange(64 * 64).reshape(64, 64) // 640 * 3).astype(np.uint8)
  matrix = np.array([[0.4, -0.1, 2.0], [0.1, 0.4, -3.0]])
  out = align.warp(labels, matrix, 24, "nearest")
  assert set(np.unique(out)) <= set(np.unique(labels))


@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_paste_back_of_an_unedited_face_changes_little(angle):
  canvas = _smooth(200, 260)
  cut = align.align(canvas, _face(200, angle, 0.6), 128)
  out = align.paste_back(canvas, cut.image, cut.matrix)
  assert np.abs(out.astype(int) - canvas).max() <= 4


def test_paste_back_changes_only_the_square():
  canvas = _smooth(200, 260)
  cut = align.align(canvas, _face(200, 0.4, 0.3), 64)
  white = np.full_like(cut.image, 255)
  out = align.paste_back(canvas, white, cut.matrix)
  y, x = np.mgrid[:200, :260] + 0.5
  places = align.transform_points(
    cut.matrix, np.stack([x, y], -1).reshape(-1, 2)
  )
  outside = ((places < 0) | (places > 64)).any(-1).reshape(200, 260)
  assert np.array_equal(out[outside], canvas[outside])
  deep = ((places > 16) & (places < 48)).all(-1).reshape(200, 260)
  assert (out[deep] == 255).all() and deep.any()
  none = np.zeros((64, 64), np.float32)
  assert np.array_equal(
    align.paste_back(canvas, white, cut.matrix, none), canvas
  )


def test_paste_back_over_the_rim_and_outside():
  canvas = _smooth(60, 60)
  cut = align.align(canvas, _face(60, 0.1, 0.8, (0.6, 0.6)), 32)
  out = align.paste_back(canvas, cut.image, cut.matrix)
  assert out.shape == canvas.shape
  away = np.array([[1.0, 0, 500], [0, 1.0, 500]])
  assert np.array_equal(align.paste_back(canvas, cut.image, away), canvas)


def test_landmark_files(tmp_path):
  points = _face(100)
  numbers = ",".join(str(v) for v in points.ravel())
  header = "name,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n"
  (tmp_path / "a.csv").write_text(f"{header}anna/1.png,{numbers}\n")
  (tmp_path / "b.json").write_text(json.dumps({"anna/1.png": points.tolist()}))
  np.savez(tmp_path / "c.npz", **{"anna/1.png": points})
  for name in ("a.csv", "b.json", "c.npz"):
    table = landmarks.read_landmarks(tmp_path / name)
    assert np.allclose(landmarks.find(table, "anna/1.png"), points)
    assert landmarks.find(table, "anna/2.png") is None
  assert landmarks.find({"1": points}, "anna/1.png") is points


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("a.csv", "x,1,2,3\n", "3 numbers apart by .*, wanted 10"),
    ("a.csv", "x,1\ny,one,2\n", "wanted 10"),
    ("a.json", "{", "cannot be read"),
    ("a.json", '{"x": [[1, 2]]}', r"shape \(1, 2\)"),
    ("a.json", "{}", "no landmarks"),
    ("a.npz", "nothing", "cannot be read"),
    ("a.txt", "", "unknown kind"),
  ],
)
def test_bad_landmark_files(tmp_path, name, text, message):
  (tmp_path / name).write_text(text)
  with pytest.raises(align.AlignError, match=message):
    landmarks.read_landmarks(tmp_path / name)


def test_missing_landmark_file(tmp_path):
  with pytest.raises(align.AlignError, match="no such landmarks file"):
    landmarks.read_landmarks(tmp_path / "none.csv")


@pytest.mark.shared
def test_real_portraits_align_to_the_template(shared):
  folder = shared / "data" / "london_ccby"
  table = landmarks.read_landmarks(folder / "landmarks5.npz")
  for file in images.list_images(folder / "img").files[:6]:
    image = images.read_image(folder / "img" / file)
    out = align.align(image, landmarks.find(table, file), 512)
    assert np.abs(out.landmarks5 - align.CANONICAL5).max() < 0.05
    back = align.paste_back(image, out.image, out.matrix)
    assert np.abs(back.astype(int) - image).mean() < 3


def test_faces_of_celeba_hq():
  """The published crop of the mean face puts its points on the template."""
  face = np.array(
    [
      [-0.17607, -0.172844],
      [0.1736, -0.17356],
      [-0.00182, 0.0357164],
      [-0.14617, 0.20185],
      [0.14496, 0.19943],
    ]
  )
  eyes, mouth = face[:2].mean(0), face[3:].mean(0)
  side = max(4.0 * np.ptp(face[:2, 0]), 3.6 * np.hypot(*(mouth - eyes)))
  corner = eyes + 0.1 * (mouth - eyes) - side / 2
  seen = (face - corner) / side
  assert np.abs(seen - align.CELEBA_HQ5).max() < 6e-3  # it is not symmetric
  assert align.template("celeba_hq") is align.CELEBA_HQ5
  with pytest.raises(align.AlignError, match="'ffhq'; wanted one of synthetic"):
    align.template("ffhq")


@pytest.mark.parametrize("size", [(700, 500), (333, 1001)])
@pytest.mark.parametrize("shrink", [2.0, 3.7, 11.0])
def test_bands_are_as_the_whole(rng, monkeypatch, size, shrink):
  """Large pictures are shrunk and pasted into piece by piece."""
  picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
  points = align.CANONICAL5 * 30.0 * shrink + np.array([40.0, 70.0])
  turn = np.array([[0.96, 0.28], [-0.28, 0.96]])
  points = (points @ turn).astype(np.float64)
  whole = align.align(picture, points, 30)
  patch = 255 - whole.image
  pasted = align.paste_back(picture, patch, whole.matrix)
  monkeypatch.setattr(align, "_BAND", 4000)
  banded = align.align(picture, points, 30)
  np.testing.assert_array_equal(banded.image, whole.image)
  canvas = picture.copy()
  found = align.paste_back(canvas, patch, whole.matrix, in_place=True)
  assert found is canvas and (canvas != picture).any()
  # A rounding may fall the other way where a band begins elsewhere.
  assert np.abs(found.astype(int) - pasted).max() <= 1
  assert (found != pasted).mean() < 1e-3
