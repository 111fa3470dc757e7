"""Detectors: which one, which way up, which face; no face is an error."""

import dataclasses
import sys
import types

import numpy as np
import pytest

from data_pipelines import align, detectors, images
from data_pipelines.detectors import finder as finder_lib
from data_pipelines.detectors import registry
from tests import beads

TURNS = (0, 90, 180, 270)


def lying(photo, turn):
  """A scan that stands upright after a counter-clockwise turn."""
  return np.ascontiguousarray(np.rot90(photo, -turn // 90))


@pytest.mark.parametrize("angle", [-170.0, -45.0, 0.0, 30.0, 120.0])
def test_a_face_knows_its_turn_and_size(angle):
  _, (points,) = beads.heads(10, 10, (50.0, 40.0, 80.0, angle))
  face = detectors.Face(points)
  assert abs(face.angle - angle) < 1e-4 and abs(face.side - 80) < 1e-4


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("score, twice", [(0.9, True), (0.9, False), (None, 0)])
def test_a_turned_photo_is_read_upright(turn, score, twice):
  upright, (true,) = beads.heads(120, 90, (50.0, 45.0, 70.0, 8.0))
  photo = lying(upright, turn)
  detect = beads.BeadDetector(score, twice=twice)
  found = detectors.Finder(detect, "beads").find(photo)
  # The turn that undoes it, and points in the photo's own pixels.
  assert found.turn == turn
  (expected,) = beads.read_beads(photo)
  np.testing.assert_allclose(found.points, expected, atol=1e-6)
  square = align.align(photo, found.points, 48).image
  straight = align.align(upright, true, 48).image
  assert np.abs(square.astype(int) - straight).mean() < 4
  said = f"1 face found by beads, upright after a turn of {turn} degrees"
  assert found.describe() == said if turn else "turn" not in found.describe()


def test_illusions_are_seen_once():
  upright, _ = beads.heads(100, 100, (50.0, 50.0, 70.0, 0.0))
  photo = lying(upright, 180)
  detect = beads.BeadDetector(0.8, illusion=0.99, twice=True)
  found = detectors.Finder(detect, "beads").find(photo)
  assert found.turn == 180
  np.testing.assert_allclose(
    found.points, beads.read_beads(photo)[0], atol=1e-6
  )
  # An upright photo is not even turned.
  detect = beads.BeadDetector(0.8, illusion=0.99, twice=True)
  assert detectors.Finder(detect, "beads").find(upright).turn == 0
  assert len(detect.seen) == 2
  # One that asks for no second look is believed.
  detect = beads.BeadDetector(0.8, illusion=0.99)
  assert detectors.Finder(detect, "beads").find(photo).turn == 0


@pytest.mark.parametrize("wins, place", [(90, 0), (270, 1)])
def test_the_best_of_the_turns_wins(wins, place):
  """Where nothing is upright as the photo lies, and two turns show faces."""
  heads = (50.0, 50.0, 70.0, 90.0), (140.0, 50.0, 70.0, -90.0)
  photo, points = beads.heads(100, 200, *heads)

  class Unequal(beads.BeadDetector):
    def __call__(self, image):
      found = super().__call__(image)
      # After a turn by 90 the upright one lies at 150, after 270 at 140.
      first = [abs(face.centre[1] - 150) < 5 for face in found]
      return [
        dataclasses.replace(face, score=0.9 if one == (wins == 90) else 0.7)
        for face, one in zip(found, first, strict=True)
      ]

  found = detectors.Finder(Unequal(twice=True), "beads").find(photo)
  assert found.turn == wins and found.faces[0].score == 0.9
  np.testing.assert_allclose(found.points, points[place], atol=1.0)
  assert len(found.faces) == 1


@pytest.mark.parametrize(
  "photo",
  [
    beads.noise(),
    beads.noise(40, 300, seed=1),
    np.full((50, 60, 3), 120, np.uint8),
    beads.heads(80, 80)[0],
    # Cut: the mouth lies outside.
    beads.heads(100, 100, (50.0, 95.0, 90.0, 0.0))[0],
  ],
)
def test_where_there_is_no_face_none_is_found(photo):
  finder = detectors.Finder(beads.BeadDetector(), "beads")
  with pytest.raises(align.AlignError, match="^no face found by beads$"):
    finder.find(photo)


def test_the_face_that_is_meant():
  photo, points = beads.heads(
    150, 300, (50.0, 60.0, 80.0, 0.0), (220.0, 80.0, 120.0, 10.0)
  )
  finder = detectors.Finder(beads.BeadDetector(), "beads")
  found = finder.find(photo)
  assert len(found.faces) == 2
  np.testing.assert_allclose(found.points, points[1], atol=1.0)
  text = found.describe()
  assert text.startswith("2 faces found by beads; took 1, the largest (")
  for value, place in (
    ("largest", 1),
    ("1", 1),
    (2, 0),
    ("2", 0),
    ("45, 70", 0),
    ((230, 90), 1),
    (np.array([45.0, 70.0]), 0),
  ):
    choice = detectors.choice_of(value)
    given = finder.find(photo, choice).points
    np.testing.assert_allclose(given, points[place], atol=1.0)
  text = finder.find(photo, detectors.choice_of(2)).describe()
  assert text.endswith("; took 2 (faces by size: 1 at 219,87; 2 at 50,65)")
  with pytest.raises(align.AlignError, match="no face 3: .* 1 at 219,87; 2 at"):
    finder.find(photo, detectors.choice_of(3))
  with pytest.raises(align.AlignError, match="no face at 5,140: faces by size"):
    finder.find(photo, detectors.choice_of("5,140"))


@pytest.mark.parametrize(
  "value",
  [
    "",
    "left",
    "0",
    "-1",
    "1.5",
    "1,2,3",
    "nan,2",
    "1,x",
    True,
    None,
    0,
    [],
    {},
  ],
)
def test_choices_that_are_none(value):
  with pytest.raises(ValueError, match="^--face is .*wanted largest, a number"):
    detectors.choice_of(value, "--face")


def test_answers_of_detectors():
  _, points = beads.heads(60, 60, (20.0, 20.0, 30.0, 0.0), (40, 40, 30, 5.0))
  assert detectors.faces_of(None) == [] == detectors.faces_of([])
  assert len(detectors.faces_of(points[0].tolist())) == 1
  assert len(detectors.faces_of(points)) == 2
  faces = [detectors.Face(points[0], 0.5)]
  assert detectors.faces_of(faces) == faces
  # Five points in one place are no face.
  assert detectors.faces_of(np.ones((5, 2))) == []
  with pytest.raises(align.AlignError, match="x: .*wanted .5, 2."):
    detectors.faces_of([[1, 2]], "x")
  with pytest.raises(align.AlignError, match="not finite"):
    detectors.faces_of(np.full((5, 2), np.nan))


def test_a_detector_that_reads_any_position_is_believed():
  photo, _ = beads.heads(90, 90, (45.0, 45.0, 60.0, 100.0))
  found = detectors.Finder(beads.read_beads, "mine").find(photo)
  np.testing.assert_allclose(
    found.points, beads.read_beads(photo)[0], atol=1e-6
  )

  def fixed(image):
    return beads.read_beads(photo)

  found = detectors.Finder(fixed, "mine").find(photo)
  np.testing.assert_allclose(
    found.points, beads.read_beads(photo)[0], atol=1e-6
  )


@pytest.mark.parametrize("height, width", [(60, 90), (700, 500), (2000, 90)])
@pytest.mark.parametrize("turn", [0, 90])
def test_detectors_are_shown_the_sizes_that_they_want(height, width, turn):
  side = 0.7 * min(height, width)
  upright, _ = beads.heads(height, width, (width / 2, height / 2, side, 0.0))
  photo = lying(upright, turn)
  detect = beads.BeadDetector()
  detect.sides = (200, 400)
  found = detectors.Finder(detect, "beads").find(photo)
  (true,) = beads.read_beads(photo)
  np.testing.assert_allclose(found.points, true, atol=0.02 * side)
  for shape in detect.seen:
    assert min(shape[:2]) <= 401 and max(shape[:2]) <= 2000
    if height < 1000:
      assert min(shape[:2]) >= 199


def test_turning_there_and_back():
  for turn in TURNS:
    matrix = finder_lib.turn_matrix(30, 50, turn)
    picture = np.zeros((30, 50, 3), np.uint8)
    picture[4, 20] = 255
    row, column = np.argwhere(finder_lib.turned(picture, turn)[..., 0])[0]
    there = align.transform_points(matrix, np.array([[20.5, 4.5]]))
    np.testing.assert_allclose(there, [[column + 0.5, row + 0.5]])


@dataclasses.dataclass
class Made:
  """A detector of a package, as far as the registry knows it."""

  twice = True
  sides = None

  def __call__(self, image):
    return beads.BeadDetector()(image)


def entry(module, made):
  def make():
    made.append(module)
    return Made()

  make.twice, make.sides = Made.twice, Made.sides
  return registry.Entry(module, make, f"pip install {module}")


def test_names_of_detectors(monkeypatch):
  made = []
  known = {
    "gone": entry("no_such_module_at_all", made),
    "here": entry("json", made),
    "also": entry("csv", made),
  }
  monkeypatch.setattr(registry, "DETECTORS", known)
  chosen = detectors.choose()
  assert chosen.finder.name == "here" and not chosen.reason and not made
  photo, _ = beads.heads(80, 80, (40.0, 40.0, 60.0, 0.0))
  for _ in range(2):
    assert chosen.finder.find(photo).by == "here"
  assert made == ["json"]  # built once, when it was needed
  assert detectors.choose("also").finder.name == "also"
  assert detectors.choose("none") == detectors.Chosen(None)
  with pytest.raises(detectors.DetectorError, match="not installed: pip ins"):
    detectors.choose("gone")
  with pytest.raises(detectors.DetectorError, match="no such .*gone, here, al"):
    detectors.choose("mtcn")
  del known["here"], known["also"]
  chosen = detectors.choose("auto")
  assert chosen.finder is None
  assert chosen.reason == (
    "gone is not installed: pip install no_such_module_at_all"
  )


def test_files_of_ones_own(tmp_path):
  file = tmp_path / "mine.py"
  with pytest.raises(detectors.DetectorError, match="mine.py: no such file"):
    detectors.choose(str(file))
  file.write_text("def detect(image): return 1 / 0")
  with pytest.raises(detectors.DetectorError, match="ZeroDivisionError: div"):
    detectors.choose(str(file)).finder.find(beads.noise())
  file.write_text("from tests.beads import read_beads as detect")
  photo, (points,) = beads.heads(80, 80, (40.0, 40.0, 60.0, 0.0))
  found = detectors.choose(str(file)).finder.find(photo)
  assert found.by == "the detector mine.py"
  np.testing.assert_allclose(found.points, points, atol=1.0)


def test_the_package_is_called_as_it_is_made(monkeypatch, tmp_path):
  """MTCNN with stand-ins for its package and TensorFlow."""
  photo, (points,) = beads.heads(300, 260, (130.0, 140.0, 200.0, 0.0))
  loaded = []

  class Stage:
    def __init__(self, weights):
      loaded.append(weights)

  class Package:
    def __init__(self, stages, device):
      assert len(stages) == 3 and device == "CPU:0"

    def detect_faces(self, image):
      names = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
      return [
        {
          "box": [0, 0, 9, 9],
          "confidence": np.float64(0.97),
          "keypoints": {
            name: [np.int64(round(x)), np.int64(round(y))]
            for name, (x, y) in zip(names, five, strict=True)
          },
        }
        for five in beads.read_beads(image)
      ]

  tensorflow = types.ModuleType("tensorflow")
  tensorflow.config = types.SimpleNamespace(
    set_visible_devices=lambda devices, kind: loaded.append((devices, kind))
  )
  package = types.ModuleType("mtcnn")
  package.MTCNN = Package
  stages = types.ModuleType("mtcnn.stages")
  stages.StagePNet = stages.StageRNet = stages.StageONet = Stage
  for name, module in (
    ("tensorflow", tensorflow),
    ("mtcnn", package),
    ("mtcnn.stages", stages),
  ):
    monkeypatch.setitem(sys.modules, name, module)
  monkeypatch.setattr(
    detectors.mtcnn.importlib.resources, "files", lambda name: tmp_path
  )
  detect = detectors.mtcnn.Mtcnn()
  # Whole paths: a file of this name in the current folder would be unpickled.
  folder = str(tmp_path)
  assert loaded[0] == ([], "GPU")
  assert all(weights.startswith(folder) for weights in loaded[1:])
  finder = detectors.Finder(detect, "mtcnn")
  np.testing.assert_allclose(finder.find(photo).points, points, atol=1.0)
  assert finder.find(photo).faces[0].score == 0.97
  with pytest.raises(align.AlignError, match="no face found by mtcnn"):
    finder.find(beads.heads(80, 80)[0])


@pytest.fixture(scope="module")
def real():
  """The package's own detector, where it is installed."""
  pytest.importorskip("mtcnn")
  return detectors.Finder(detectors.mtcnn.Mtcnn(), "mtcnn")


@pytest.mark.shared
def test_the_real_package_on_portraits(shared, real):
  top = shared / "data" / "london_ccby"
  table = np.load(top / "landmarks5.npz")
  for name in list(table)[:2]:
    photo = images.read_image(top / "img" / f"{name}.jpg")
    for turn in TURNS:
      found = real.find(lying(photo, turn))
      assert found.turn == turn
      if not turn:
        eyes = np.linalg.norm(table[name][0] - table[name][1])
        away = np.linalg.norm(found.points - table[name], axis=1).mean()
        assert away < 0.12 * eyes
  for seed in range(3):
    with pytest.raises(align.AlignError):
      real.find(beads.noise(200, 200, seed=seed))


@pytest.mark.shared
def test_the_real_package_on_scans_without_exif(shared, real):
  top = shared / "field_cases" / "P10-rotated-scan"
  for name, turns in (("sideways", (90, 270)), ("upside_down", (180,))):
    found = real.find(images.read_image(top / f"{name}.jpg"))
    assert found.turn in turns and len(found.faces) == 1
  with pytest.raises(align.AlignError, match="no face found by mtcnn"):
    real.find(images.read_image(top / "no_face.jpg"))
