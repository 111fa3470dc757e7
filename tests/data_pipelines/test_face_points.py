"""Points that make a face pass, from every side; all others are refused."""

import json

import numpy as np
import pytest

from data_pipelines import (
  align,
  face_points,
  images,
  landmarks,
  prepare,
  records,
  sources,
)
from data_pipelines.videos import reader
from faceedit_jax.morphable import procedural
from tests.data_pipelines import fake_world

SETS = ("london", "canada", "composite", "congress_gray", "selfie")
FACE = align.CANONICAL5.astype(np.float64) * 200 + (40, 30)
PICTURE = (260, 300)
# How people give points otherwise, and what the error calls it.
MISTAKES = {
  "sides": (lambda p: p[[1, 0, 2, 4, 3]], "the sides are swapped"),
  "eyes": (lambda p: p[[1, 0, 2, 3, 4]], "swapped eyes"),
  "mouth": (lambda p: p[[0, 1, 2, 4, 3]], "swapped corners of the mouth"),
  "yx": (lambda p: p[:, ::-1], "y before x"),
  "up": (lambda p: PICTURE[0] - p * (-1, 1), "look like"),
  "nose first": (lambda p: p[[2, 0, 1, 3, 4]], "order nose, left eye, right"),
  "nose last": (lambda p: p[[0, 1, 3, 4, 2]], "look like"),
  "columns": (lambda p: p.T.reshape(5, 2), "x1,...,x5 before y1,...,y5"),
  "shares": (lambda p: p / PICTURE[1], "shares of the picture's side"),
  "double": (lambda p: p * 2, "as if they were those of another size"),
  "one place": (lambda p: p * 0 + 70, "lie within 0.0 pixels"),
  "tiny": (lambda p: 100 + p / 400, "lie within 0."),
  "line": (lambda p: p * (1, 0) + (0, 50), "look like no face"),
}  # fmt: skip


def turned(points, degrees):
  """Points turned in the plane, in the positive quadrant."""
  angle = np.radians(degrees)
  matrix = np.array(
    [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
  )
  points = points @ matrix.T
  return points - points.min(0) + 50


@pytest.fixture(scope="module")
def portraits(shared):
  """{set: points (n, 5, 2) in pixels}."""
  found = {}
  for name in SETS:
    for folder in (shared / "data").glob(f"{name}_*"):
      table = landmarks.read_landmarks(folder / "landmarks5.npz")
      found[name] = np.stack(list(table.values()))
  assert len(found) == len(SETS) and sum(map(len, found.values())) > 1000
  return found


@pytest.mark.shared
@pytest.mark.parametrize("degrees", [0, 20, 90, -90, 110])
def test_real_portraits_pass(portraits, degrees):
  for name, points in portraits.items():
    wrong = [face_points.fault(turned(five, degrees)) for five in points]
    assert not any(wrong), name


@pytest.mark.shared
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_with_real_portraits_fail(portraits, mistake):
  for name, points in portraits.items():
    for five in points[::5]:
      high, wide = (np.ceil(five.max(0)[::-1]) * 1.3).astype(int)
      change, _ = MISTAKES[mistake]
      if mistake == "shares":
        five = change(five)
        assert face_points.fault(five, (high, wide))
      elif mistake == "double":
        assert face_points.fault(five * 2.5, (high, wide)), name
      else:
        assert face_points.fault(change(five), None), name


def heads(yaw, pitch, roll=0.0):
  """Points of the mean head from one side, in pixels."""
  model = procedural.procedural_model()
  five = model.landmarks5
  vertices = np.asarray(model.v_template)[np.asarray(five.vertices)]
  points = (vertices * np.asarray(five.weights)[..., None]).sum(1)
  x, y, z = np.radians([pitch, yaw, roll])
  cx, cy, cz, sx, sy, sz = *np.cos([x, y, z]), *np.sin([x, y, z])
  turn = (
    np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
  )
  seen = (points @ turn.T)[:, :2] * (1, -1)
  return (seen - seen.mean(0)) * 1000 + 150


@pytest.mark.parametrize("pitch", [-22, 0, 22])
@pytest.mark.parametrize("yaw", [-70, -60, -45, 0, 30, 60, 70])
def test_turned_heads_pass_and_their_mistakes_do_not(yaw, pitch):
  for roll in (-90, -15, 0, 15, 90):
    points = heads(yaw, pitch, roll)
    assert face_points.fault(points) is None
    for mistake in ("sides", "eyes", "mouth", "yx", "nose first"):
      assert face_points.fault(MISTAKES[mistake][0](points)), mistake


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_the_order_that_is_wanted(mistake):
  change, said = MISTAKES[mistake]
  with pytest.raises(align.AlignError) as error:
    face_points.check(change(FACE), PICTURE, "a.png")
  text = str(error.value)
  assert text.startswith("a.png: landmarks ") and "\n" not in text
  assert said in text
  assert "left eye, right eye, nose, left and right corner" in text


def test_faces_may_reach_over_the_rim_but_not_far():
  assert face_points.fault(FACE, PICTURE) is None
  for moved in ((-90, 0), (0, 75)):  # a fourth of the face outside
    assert face_points.fault(FACE + moved, PICTURE) is None
  for moved in ((-150, 0), (200, 0), (0, 150), (0, -170)):
    assert "lie outside" in face_points.fault(FACE + moved, PICTURE)
  far = face_points.fault(FACE, (90_000, 90_000))
  assert "lie within" in far


def points68(five):
  """68 points whose five are these."""
  points = np.zeros((68, 2)) + five.mean(0)
  points[36:42], points[42:48] = five[0], five[1]
  points[30], points[48], points[54] = five[2:]
  return points


def test_the_five_of_68_points():
  points = points68(FACE)
  assert np.allclose(face_points.of_68(points), FACE)
  assert reader.points_fault(points, PICTURE) == ""
  swapped = reader.points_fault(points68(FACE[[1, 0, 2, 4, 3]]), PICTURE)
  assert "sides are swapped" in swapped and "68 of iBUG" in swapped
  assert reader.points_fault(points * np.nan, PICTURE) == "no landmarks"


def written(path, points):
  if path.suffix == ".csv":
    numbers = ",".join(map(str, points.ravel()))
    path.write_text(f"name,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\na.png,{numbers}\n")
  elif path.suffix == ".json":
    path.write_text(json.dumps({"a.png": points.tolist()}))
  else:
    np.savez(path, **{"a.png": points})
  return path


@pytest.fixture
def folder(tmp_path):
  """One person with a picture a.png, whose points are FACE."""
  images.write_image(
    tmp_path / "photos/a.png", np.full((*PICTURE, 3), 90, np.uint8)
  )
  return tmp_path


def command(folder, points):
  return prepare.main(
    ["image_folder", f"--input={folder / 'photos'}", "--holdout=0",
     f"--output={folder / 'out'}", "--size=16", "--splits=train",
     f"--landmarks={points}"]
  )  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".json", ".npz"])
def test_no_set_is_made_from_them(folder, suffix, capsys):
  """C3-points of the field cases."""
  for mistake, (change, said) in MISTAKES.items():
    path = written(folder / f"points{suffix}", change(FACE))
    assert command(folder, path) == 1, mistake
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, mistake
    assert not list((folder / "out").glob("*"))
    source = sources.ImageFolder(16, holdout=0, landmarks=str(path))
    with pytest.raises(align.AlignError, match="wanted left eye, right eye"):
      source.open(folder / "photos")[0]
  assert command(folder, written(folder / f"points{suffix}", FACE)) == 0
  assert len(records.RecordSource(folder / "out/train")) == 1


def test_one_bad_set_leaves_the_others(folder, capsys):
  names = ("b.png", "c.png")
  for name in names:
    images.write_image(
      folder / "photos" / name, np.full((*PICTURE, 3), 50, np.uint8)
    )
  table = {name: FACE.tolist() for name in ("a.png", *names)}
  table["b.png"] = FACE[:, ::-1].tolist()
  (folder / "points.json").write_text(json.dumps(table))
  assert command(folder, folder / "points.json") == 1
  said = capsys.readouterr()
  assert "took 2 of 3 pictures" in said.out
  assert "look like y before x" in said.out and "left of 'b'" in said.err


@pytest.mark.parametrize("factor", [0.5, 0.2, 2.0, 5.0])
def test_points_of_versions_of_another_size(folder, factor, capsys):
  """One face in the corner of its picture may be; twelve are too many."""
  for i in range(11):
    data = (folder / "photos/a.png").read_bytes()
    (folder / "photos" / f"{i}.png").write_bytes(data)
  names = ("a.png", *(f"{i}.png" for i in range(11)))
  table = dict.fromkeys(names, (FACE * factor).tolist())
  (folder / "points.json").write_text(json.dumps(table))
  assert command(folder, folder / "points.json") == 1
  said = capsys.readouterr().err
  assert ("upper left" if factor < 1 else "those of another size") in said
  assert not list((folder / "out").glob("*"))
  del table["0.png"]
  table["a.png"] = FACE.tolist()
  (folder / "points.json").write_text(json.dumps(table))
  command(folder, folder / "points.json")
  written = len(records.RecordSource(folder / "out/train"))
  assert written == (11 if factor < 1 else 1)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["good", "swapped", "eyes_only", "yx"])
def test_the_field_cases(shared, tmp_path, name, capsys):
  case = shared / "field_cases/C3-points"
  (tmp_path / "photos").mkdir()
  (tmp_path / "photos/plain.jpg").symlink_to(case / "plain.jpg")
  done = command(tmp_path, case / f"{name}.csv")
  assert done == (0 if name == "good" else 1)
  if name != "good":
    assert "wanted left eye, right eye" in capsys.readouterr().err


def test_points_of_the_fake_world():
  assert face_points.fault(align.CELEBA_HQ5 * 100.0) is None
  identity = fake_world.sample_identity(0, 0)
  frame = fake_world.sample_frame(0, 0, 0)
  (example,) = fake_world.render_frames(identity, [frame], 32)
  assert face_points.fault(example["landmarks5"] * 32) is None
