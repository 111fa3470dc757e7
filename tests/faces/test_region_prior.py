"""What 3D reading and colours suggest about the regions of a portrait."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import transforms
from data_pipelines.synthetic_heads import render
from data_pipelines.synthetic_heads.frames import sample_frame
from data_pipelines.synthetic_heads.identity import sample_identity
from faceedit_jax.faces import (
  face_crops,
  face_reader,
  region_prior,
  slot_regions,
)
from faceedit_jax.morphable.render import render_condition
from tests.recipes.test_stages import build

SIZE, GRID = 64, 16
PEOPLE = range(12)


@pytest.fixture(scope="module")
def portraits():
  """Pictures, true regions, codes and five points of some heads."""
  drawn = [
    render.render(sample_identity(5, i), sample_frame(5, i, 0), SIZE)
    for i in PEOPLE
  ]
  return {k: np.stack([d[k] for d in drawn]) for k in drawn[0]}


@pytest.fixture(scope="module")
def model():
  return face_reader.morphable_maker(texture=16)()["params"]


@pytest.fixture(scope="module")
def suggested(portraits, model):
  """Suggested regions (b, s, s) and cells (b, g, g, 4)."""

  @jax.jit
  def run(codes, points, image):
    ids = render_condition(model, codes, SIZE)["ids"]
    fine = region_prior.masks(model, ids, points, image, SIZE)
    return fine.argmax(-1), region_prior.masks(model, ids, points, image, GRID)

  codes = {k: jnp.asarray(portraits[k]) for k in face_reader.DRAWN}
  image = jnp.asarray(transforms.to_float(portraits["image"]))
  return jax.device_get(run(codes, jnp.asarray(portraits["landmarks5"]), image))


def _miou(a, b):
  counts = slot_regions.confusion(jax.nn.one_hot(a, 4), jnp.asarray(b))
  return float(slot_regions.mean_iou(counts, jnp.arange(4)))


def test_suggestion_is_nearer_the_truth_than_one_fixed_mask(
  portraits, suggested
):
  truth = portraits["regions"]
  share = np.stack([(truth == r).mean(0) for r in range(4)])
  fixed = np.broadcast_to(share.argmax(0), truth.shape)
  got = _miou(suggested[0], truth)
  assert got > _miou(fixed, truth) + 0.1, got
  assert got > 0.75, got


def test_cells_are_probabilities(suggested):
  cells = suggested[1]
  assert cells.shape == (len(PEOPLE), GRID, GRID, 4)
  np.testing.assert_allclose(cells.sum(-1), 1, atol=1e-5)
  assert cells.min() >= 0


def test_zones_lie_where_they_should(model):
  zones = np.asarray(region_prior.zones(model))
  np.testing.assert_array_equal(zones.sum(1), 1)
  points = np.asarray(model.v_template)[np.asarray(model.faces)].mean(1)
  face, scalp, neck = (points[zones[:, k] > 0] for k in range(3))
  assert scalp[:, 1].mean() > face[:, 1].mean() > neck[:, 1].mean()
  assert scalp[:, 2].mean() < face[:, 2].mean()
  nose = np.argmax(points[:, 2])
  assert zones[nose, 0] == 1
  assert neck[:, 1].min() < -0.2  # its lower rim


def test_density_is_the_normal_one(rng):
  roots = rng.normal(size=(6, 3, 3))
  # One of them flat, as where a region has a single colour.
  roots[0, :, 1:] *= 1e-3
  spread = roots @ roots.swapaxes(1, 2) + 1e-3 * np.eye(3)
  off = rng.normal(size=(6, 3))
  found = region_prior.log_normal(
    spread.astype(np.float32), off.astype(np.float32)
  )
  for got, matrix, x in zip(found, spread, off, strict=True):
    wanted = -0.5 * x @ np.linalg.solve(matrix, x)
    wanted -= 0.5 * np.linalg.slogdet(matrix)[1]
    assert got == pytest.approx(wanted, rel=1e-3)


def test_colours_need_no_lapack():
  """Its batched routines hang where programs fill a CPU's threads."""
  text = jax.jit(region_prior.by_colour).lower(
    jnp.zeros((2, 8, 8, 3)), jnp.full((2, 8, 8, 4), 0.25)
  )
  assert "lapack" not in text.as_text().lower()


def test_colours_settle_an_outline():
  """Half of the pixels are misjudged at first; their colours tell."""
  truth = np.zeros((1, 16, 16), int)
  truth[:, :, 6:] = 1
  colours = np.array([[0.8, -0.5, 0.0], [-0.6, 0.7, 0.2]], np.float32)
  noise = np.random.default_rng(0).normal(size=(1, 16, 16, 3)) * 0.05
  image = jnp.asarray(colours[truth] + noise, jnp.float32)
  first = np.full((1, 16, 16, 2), 0.5, np.float32)
  first[:, :, :3] = (0.8, 0.2)
  first[:, :, 10:] = (0.2, 0.8)
  got = jax.jit(region_prior.by_colour)(image, jnp.asarray(first))
  np.testing.assert_array_equal(got.argmax(-1), truth)
  np.testing.assert_allclose(got.sum(-1), 1, atol=1e-5)


def test_thinned_out_pictures_suggest_the_same(portraits, model, suggested):
  """At twice the size, twice the pixels of the same picture."""
  codes = {k: jnp.asarray(portraits[k][:2]) for k in face_reader.DRAWN}
  image = jnp.asarray(transforms.to_float(portraits["image"][:2]))
  large = image.repeat(2, axis=1).repeat(2, axis=2)

  @jax.jit
  def run(codes, points, image):
    ids = render_condition(model, codes, SIZE)["ids"]
    ids = ids.repeat(2, axis=1).repeat(2, axis=2)
    return region_prior.masks(model, ids, points, image, GRID)

  got = run(codes, jnp.asarray(portraits["landmarks5"][:2]), large)
  np.testing.assert_allclose(got, suggested[1][:2], atol=1e-4)


def test_sizes_that_do_not_fit_are_named(model):
  with pytest.raises(ValueError, match="72 px .* wanted multiples of 64"):
    region_prior.masks(
      model,
      jnp.zeros((1, 72, 72), jnp.int32),
      jnp.zeros((1, 5, 2)),
      jnp.zeros((1, 72, 72, 3)),
      18,
    )


def test_cross_entropy_is_least_at_the_wanted_masks(suggested):
  cells = jnp.asarray(suggested[1])
  best = region_prior.cross_entropy(cells, cells)
  assert best < region_prior.cross_entropy(jnp.full_like(cells, 0.25), cells)
  assert best < region_prior.cross_entropy(cells[..., ::-1], cells)


def test_names_that_the_layout_does_not_lead_to_are_refused():
  assert region_prior.applies(0.1, 4)
  assert not region_prior.applies(0.0, 4) and not region_prior.applies(0.1, 8)
  names = ("hair", "face", "clothes", "background")
  with pytest.raises(Exception, match="in this order"):
    build("region_encoder", slot_names=names)


# Reading a face from close by.


def _box_example(rng):
  return {
    "image": rng.integers(0, 255, (64, 64, 3)).astype(np.uint8),
    "landmarks5": rng.random((5, 2)).astype(np.float32),
    "camera": np.array([6.0, 0.1, -0.05], np.float32),
  }


def test_boxes_agree_with_the_windows_of_the_data(rng):
  example = _box_example(rng)
  box = jnp.asarray([[0.2, 0.3, 0.5]])
  window = transforms.crop(example, (0.2, 0.3, 0.5))
  points = jnp.asarray(example["landmarks5"])[None]
  camera = jnp.asarray(example["camera"])[None]
  moved = face_crops.points_in(points, box)
  turned = face_crops.camera_in(camera, box)
  np.testing.assert_allclose(moved[0], window["landmarks5"], atol=1e-6)
  np.testing.assert_allclose(turned[0], window["camera"], atol=1e-6)
  back = face_crops.outer(box)
  np.testing.assert_allclose(
    face_crops.points_in(moved, back), points, atol=1e-6
  )
  np.testing.assert_allclose(
    face_crops.camera_in(turned, back), camera, atol=1e-5
  )


def test_the_second_look_is_at_the_face(rng):
  """A net that returns what it saw: codes come from the second picture."""
  points = np.array(
    [[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.45, 0.6], [0.55, 0.6]], np.float32
  )
  views = []

  def apply(layers, image):
    assert set(layers) == {"params"}
    views.append(image)
    inside = [[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.4, 0.7], [0.6, 0.7]]
    return {
      "landmarks": jnp.asarray(points if len(views) == 1 else inside)[None],
      "face": jnp.full((1, 1), 7.0 if len(views) == 1 else -7.0),
      "pose": image[:, :2, 0, :].reshape(1, 6),
      "camera": jnp.asarray([[2.0, 0.0, 0.0]]),
    }

  net = types.SimpleNamespace(close=4.0, input_size=24, apply=apply)
  zero = {"pose": jnp.zeros(6)}
  codes = {"count": 0.0, "mean": zero, "std": {"pose": jnp.ones(6)}}
  image = jnp.asarray(rng.uniform(-1, 1, (1, 64, 64, 3)), jnp.float32)
  got = face_reader.read_codes(net, {"params": {}, "codes": codes}, image)
  assert [v.shape[1] for v in views] == [64, 24]
  box = face_crops.round_points(jnp.asarray(points)[None], 4.0)
  np.testing.assert_allclose(views[1], face_crops.look(image, box, 24))
  np.testing.assert_allclose(got["pose"][0], views[1][0, :2, 0].ravel())
  assert float(got["face"][0]) == 7.0  # of the first look
  (left, top, side), middle = np.asarray(box)[0], got["landmarks5"][0, 2]
  np.testing.assert_allclose(middle, (left + side / 2, top + side / 2), 1e-5)
  assert float(got["camera"][0, 0]) == pytest.approx(2.0 * side)


def test_views_show_what_their_targets_say():
  """A dot at the nose stays under the nose's target in every view."""
  recipe = build("estimator")
  size, count = recipe.image_size, 8
  x = (np.arange(size) + 0.5) / size
  rng = np.random.default_rng(0)
  points = np.array(
    [[0.4, 0.4], [0.6, 0.4], [0.5, 0.55], [0.43, 0.7], [0.57, 0.7]]
  )
  points = points + rng.uniform(-0.08, 0.08, (count, 1, 2))
  off = (x[None, :, None] - points[:, 2, 1, None, None]) ** 2
  off = off + (x[None, None, :] - points[:, 2, 0, None, None]) ** 2
  dots = 2 * np.exp(-off / (2 * 0.04**2)) - 1
  batch = {
    "image": jnp.asarray(dots[..., None].repeat(3, -1), jnp.float32),
    "landmarks5": jnp.asarray(points, jnp.float32),
    "camera": jnp.tile(jnp.asarray([6.0, 0.0, 0.0]), (count, 1)),
    "face": jnp.ones(count).at[0].set(0.0),
  }
  image, seen, close = jax.jit(recipe.views)(batch, jax.random.key(3))
  assert float(close[0]) == 0.0
  assert 1 <= int(close.sum()) < count
  width = image.shape[1]
  at = (np.arange(width) + 0.5) / width
  light = np.asarray(image[..., 0]) + 1
  light = light / light.sum((1, 2), keepdims=True)
  found = np.stack([(light.sum(1) * at).sum(1), (light.sum(2) * at).sum(1)], 1)
  np.testing.assert_allclose(found, seen["landmarks5"][:, 2], atol=0.02)
  scale = np.asarray(seen["camera"][:, 0]) / 6
  assert (scale[np.asarray(close) == 0] == 1).all()
  assert (scale[np.asarray(close) == 1] > 1.3).all()
