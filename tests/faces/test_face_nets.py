"""Who reads faces, from which files, and what a prepared set holds of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax import recipes
from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import options as options_lib
from faceedit_jax.core import partial_restore
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import CheckpointError, UserError
from faceedit_jax.faces import face_crops, face_nets
from tests import published_files

quick_jit = functools.partial(
  jax.jit, compiler_options=partial_restore.run_once() or {}
)


FACE5 = ((0.4, 0.45), (0.6, 0.45), (0.5, 0.55), (0.43, 0.65), (0.57, 0.65))


def build(config, stage="denoiser", **more):
  options = config.stage[stage].recipe.to_dict() | more
  return recipes.build(
    options.pop("name"),
    nets=config.nets,
    options=options,
    image_size=config.image_size,
    dtype="float32",
  )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("weights")
  published_files.make_flame_files(folder)
  published_files.make_weights(folder, published_files.overridden(folder))
  return folder


@pytest.fixture(scope="module")
def paper(files):
  """Recipe, its frozen nets and pictures."""
  recipe = build(published_files.overridden(files))
  frozen = quick_jit(lambda: recipe.init_frozen(jax.random.key(1)))()
  place = partial_restore.place_on(
    jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  )
  fresh = place(jax.eval_shape(recipe.init_frozen, jax.random.key(0)))
  sources = {n: s for n, s in recipe.frozen().items() if s.path}
  assert sorted(sources) == [
    "detail_decoder",
    "detail_encoder",
    "estimator",
    "identity",
  ]
  frozen |= partial_restore.load_nets(sources, fresh, files)
  # An untrained locator would send everybody out of the picture.
  head = frozen["locator"]["params"]["head_landmarks"]
  head["kernel"] = 0.01 * head["kernel"]
  head["bias"] = jnp.asarray(FACE5, jnp.float32).reshape(-1)
  rng = np.random.default_rng(0)
  image = jnp.asarray(rng.uniform(-1, 1, (4, 64, 64, 3)), jnp.float32)
  return recipe, frozen, image


def test_files_are_the_nets_that_read(paper):
  recipe, frozen, image = paper
  codes = quick_jit(recipe.reader.codes)(frozen, image)
  assert codes["shape"].shape == (4, 8) and codes["expression"].shape == (4, 4)
  points, face = quick_jit(recipe.reader.points)(frozen, image)
  # The locator's points; DECA has none.
  np.testing.assert_allclose(codes["landmarks5"], points, atol=1e-5)
  np.testing.assert_allclose(codes["face"], face, atol=1e-4)
  # The file's camera, turned back from DECA's square to the picture.
  box = face_crops.deca_from_five(points)
  inside = face_crops.camera_in(codes["camera"], box)
  np.testing.assert_allclose(inside[:, 0], 6.0, atol=0.3)
  np.testing.assert_array_equal(codes["gaze"], 0)


def test_deca_renderings_have_its_own_linear_tone(paper):
  recipe, frozen, _ = paper
  assert not recipe.reader.tone_map
  assert build(config_lib.load("configs/difffae.py:smoke")).reader.tone_map


def test_prepared_features_are_those_of_the_step(paper, files):
  live, frozen, _ = paper
  live = build(published_files.overridden(files), prepared_features=())
  kept = build(
    published_files.overridden(files),
    prepared_features=("codes", "person_vector"),
  )
  full = build(
    published_files.overridden(files),
    prepared_features=("codes", "person_vector", "latent"),
  )
  assert live.prepared_nets() == ()
  assert set(kept.prepared_nets()) == {
    "estimator",
    "locator",
    "detail_encoder",
    "identity",
  }
  assert set(full.prepared_nets()) == {*kept.prepared_nets(), "autoencoder"}
  batch = batch_lib.example_batch(live.batch_spec(), 2, 0)
  whole = dict(batch)
  for whose in ("source", "query"):
    found = quick_jit(full.prepare_features)(frozen, batch[f"{whose}_image"])
    assert {"face", "landmarks5", "detail", "person_vector", "latent"} < set(
      found
    )
    whole |= {f"{whose}_{name}": rows for name, rows in found.items()}

  def read(recipe, batch):
    return quick_jit(recipe.conditions.pair_features)(frozen, batch)

  wanted = read(live, batch)
  assert set(wanted) == {"person_vector", "latent", "condition_latent"}
  for recipe in (kept, full):
    only = {name: whole[name] for name in recipe.batch_spec()}
    batch_lib.check_batch(recipe.batch_spec(), only, "test")
    got = read(recipe, only)
    for name, value in wanted.items():
      np.testing.assert_allclose(got[name], value, atol=1e-4, err_msg=name)
  # Were they not used, other ones would give the same.
  other = {name: rows + 0.1 for name, rows in only.items()}
  for name, value in read(full, other).items():
    assert np.abs(value - wanted[name]).max() > 1e-2, name


def test_trained_nets_start_from_files(files, tmp_path):
  """The U-Net whole; of the autoencoder what a published file holds."""
  config = published_files.overridden(
    files,
    **{
      "nets.unet.weights": tmp_path / "unet.safetensors",
      "nets.autoencoder.weights": tmp_path / "vq.safetensors",
    },
  )
  sources = build(config).init_from()
  assert sources["unet"].path == str(tmp_path / "unet.safetensors")
  recipe = build(config, "first_stage")
  (source,) = recipe.init_from().values()
  assert source.collections == ("params",)
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  given = jax.tree.map(lambda x: x + 1, state.params["autoencoder"])
  flat = partial_restore.flax.traverse_util.flatten_dict(
    {"params": given}, sep="/"
  )
  published_files.safetensors.numpy.save_file(
    {k: np.asarray(v) for k, v in flat.items()}, source.path
  )
  place = partial_restore.place_on(
    jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  )
  abstract = place(jax.eval_shape(recipe.init, jax.random.key(0)))
  nets = partial_restore.load_nets(recipe.init_from(), abstract, tmp_path)
  shardings = jax.tree.map(lambda x: x.sharding, state)
  spread = jax.device_get(state.stats["autoencoder"]["latent"])
  state = partial_restore.start_from(state, nets, shardings)
  for tree in (
    state.params["autoencoder"],
    state.ema["ema"]["autoencoder"],
  ):
    jax.tree.map(np.testing.assert_array_equal, tree, given)
  jax.tree.map(
    np.testing.assert_array_equal, state.stats["autoencoder"]["latent"], spread
  )


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"nets.estimator.kind": "emoca"}, "'emoca'; it must be one of"),
    ({"nets.estimator.weights": ""}, "weights is empty; give"),
    (
      {"stage.denoiser.recipe.prepared_features": "('pose',)"},
      r"prepared_features\[0\] is 'pose', wanted 'codes' or 'person_vector'",
    ),
  ],
)
def test_wrong_choices_are_one_line(files, change, message):
  with pytest.raises(UserError, match=message):
    build(published_files.overridden(files, **change)).batch_spec()


def test_a_missing_weight_file_names_the_command(files):
  recipe = build(
    published_files.overridden(
      files, **{"nets.identity.weights": "no.safetensors"}
    )
  )
  place = partial_restore.place_on(
    jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  )
  fresh = place(jax.eval_shape(recipe.init_frozen, jax.random.key(0)))
  with pytest.raises(CheckpointError, match="faceedit_jax.convert makes it"):
    partial_restore.load_net(
      "identity", recipe.frozen()["identity"], fresh["identity"], files
    )


def test_sections_say_where_nets_come_from():
  section = {"weights": "a.safetensors", "width": 3}
  assert options_lib.net_fields(section) == {"width": 3}
  assert face_nets.source(section, "s").path == "a.safetensors"
  assert face_nets.source({"width": 3}, "s").stage == "s"


# DECA's square.


def test_deca_square_is_the_one_of_its_loader(rng):
  """Corners of the square go to pixels (0, 0) and (223, 223) of the crop."""
  points = rng.uniform(0.3, 0.6, (2, 68, 2)).astype(np.float32)
  size = 200
  box = np.asarray(face_crops.deca_from_68(jnp.asarray(points), size))
  for p, (left, top, side) in zip(points * size, box * size, strict=True):
    (l, t), (r, b) = p.min(0), p.max(0)
    cut = int(((r - l + b - t) / 2 * 1.1) * 1.25)
    first = np.array([(l + r) / 2 - cut / 2, (t + b) / 2 - cut / 2])
    for pixel in (0, 223):
      at = np.array([left, top]) + (pixel + 0.5) / 224 * side
      # Pixel centres lie at whole numbers there, at halves here.
      np.testing.assert_allclose(at - 0.5, first + pixel / 223 * cut, atol=2e-3)


def test_deca_square_from_five_points_is_near_the_exact_one(morphable_points):
  five, all68 = morphable_points
  near = np.asarray(face_crops.deca_from_five(five))
  exact = np.asarray(face_crops.deca_from_68(all68, 10_000))
  side = exact[:, 2]
  assert np.abs(near[:, 2] / side - 1).max() < 0.15
  middle = lambda box: box[:, :2] + box[:, 2:] / 2  # noqa: E731
  off = np.abs(middle(near) - middle(exact)) / side[:, None]
  assert off.max() < 0.08


@pytest.fixture(scope="module")
def morphable_points():
  from faceedit_jax.morphable import model, procedural  # noqa: PLC0415

  head = procedural.procedural_model("light", 16)
  rng = np.random.default_rng(3)
  count = 16
  draw = lambda n, s: jnp.asarray(rng.normal(0, s, (count, n)), jnp.float32)  # noqa: E731
  pose = jnp.asarray(
    rng.uniform(-1, 1, (count, 6)) * [0.3, 0.8, 0.2, 0.2, 0, 0], jnp.float32
  )
  points, _ = model.vertices(
    head,
    draw(head.n_shape, 0.7),
    draw(head.n_expression, 0.2),
    pose,
    jnp.zeros((count, 2)),
  )

  def place(landmarks):
    found = model.landmarks(landmarks, points)[..., :2]
    return found * jnp.asarray([3.0, -3.0]) + 0.5

  return place(head.landmarks5), place(head.landmarks68)


def test_a_square_renders_what_the_picture_shows_there(paper):
  """Codes of a square, turned back, draw the same face in the picture."""
  recipe, frozen, _ = paper
  reader = recipe.reader
  codes = {
    "shape": jnp.zeros((1, 8)),
    "albedo": jnp.zeros((1, 3)),
    "expression": jnp.zeros((1, 4)),
    "pose": jnp.asarray([[0.1, 0.4, 0.0, 0.1, 0.0, 0.0]]),
    "gaze": jnp.zeros((1, 2)),
    "light": jnp.zeros((1, 9, 3)).at[:, 0].set(3.0),
    "detail": jnp.zeros((1, 8)),
    "camera": jnp.asarray([[6.5, 0.0, -0.02]]),
  }
  box = jnp.asarray([[12 / 64, 8 / 64, 0.5]])  # off the middle both ways
  inside = reader.replace(condition_size=32).render(frozen, codes)["mask"]
  whole = dict(
    codes, camera=face_crops.camera_in(codes["camera"], face_crops.outer(box))
  )
  outside = reader.render(frozen, whole)["mask"]  # 64 px: same pixel size
  shown = np.asarray(outside)[0, 8:40, 12:44]
  overlap = (shown == np.asarray(inside)[0]).mean()
  assert np.asarray(inside).mean() > 0.2
  assert overlap > 0.97
  assert np.asarray(outside)[0, :, 50:].max() == 0


def test_wrinkles_follow_source_and_expression(paper, files):
  """They change the light on the face and nothing else."""
  recipe, frozen, _ = paper
  reader = recipe.reader
  light = jnp.zeros((2, 9, 3)).at[:, 0].set(2.0).at[:, 1].set(1.0)
  codes = {
    "shape": jnp.zeros((2, 8)),
    "albedo": jnp.zeros((2, 3)),
    "expression": jnp.asarray([[0.0] * 4, [0.5] * 4]),
    "pose": jnp.zeros((2, 6)),
    "gaze": jnp.zeros((2, 2)),
    "light": light,
    "detail": jnp.asarray([[0.0] * 8, [1.0] * 8]),
    "camera": jnp.tile(jnp.asarray([[6.0, 0.0, -0.02]]), (2, 1)),
  }
  edited = quick_jit(reader.render_edit)(
    frozen, codes, codes, jax.tree.map(lambda a: a[::-1], codes), codes
  )
  mixed = dict(codes, expression=codes["expression"][::-1])
  wanted = quick_jit(reader.render)(frozen, mixed, codes)
  np.testing.assert_allclose(edited["image"], wanted["image"], atol=1e-4)
  smooth = reader.replace(detail_encoder=None, detail_decoder=None)
  bare = quick_jit(smooth.render)(frozen, mixed, codes)
  np.testing.assert_array_equal(bare["mask"], wanted["mask"])
  lit = np.abs(bare["image"] - wanted["image"]).max(-1)
  assert lit.max() > 0.05
  assert lit[np.asarray(wanted["mask"]) == 0].max() == 0


def test_68_points_of_the_data_cut_the_square(paper, files, rng):
  recipe, frozen, image = paper
  points = jnp.asarray(rng.uniform(0.3, 0.6, (4, 68, 2)), jnp.float32)
  kept = build(published_files.overridden(files), prepared_features=("codes",))
  codes = quick_jit(kept.prepare_features)(frozen, image, points)
  box = face_crops.deca_from_68(points, 64)
  inside = face_crops.camera_in(codes["camera"], box)
  side = recipe.reader.estimator.input_size
  seen = face_crops.look(image, box, side, face_crops.DECA_OUTSIDE)
  wanted = quick_jit(recipe.reader.estimator.apply)(frozen["estimator"], seen)
  np.testing.assert_allclose(inside, wanted["camera"], atol=1e-3)
  wanted = quick_jit(recipe.reader.detail_encoder.apply)(
    frozen["detail_encoder"], seen
  )
  np.testing.assert_allclose(codes["detail"], wanted["detail"], atol=1e-3)


def test_deca_sees_black_beyond_the_picture(paper, monkeypatch):
  """As its loader pads the crop, for the codes and for the wrinkles."""
  recipe, frozen, image = paper
  box = jnp.asarray([[-0.5, -0.5, 1.0]] * 4)
  monkeypatch.setattr(face_crops, "deca_from_five", lambda points: box)
  bright = jnp.full_like(image, 0.5)
  framed = jnp.full_like(image, -1.0).at[:, 32:, 32:].set(0.5)
  codes = recipe.reader.codes(frozen, bright)
  side = recipe.reader.estimator.input_size
  seen = face_crops.look(framed, jnp.asarray([[0.0, 0.0, 1.0]] * 4), side)
  for net, names in (
    ("estimator", ("shape", "pose", "light")),
    ("detail_encoder", ("detail",)),
  ):
    found = getattr(recipe.reader, net).apply(frozen[net], seen)
    for name in names:
      np.testing.assert_allclose(
        codes[name], found[name], atol=1e-4, err_msg=name
      )


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"nets.detail.widths": "(8, 8)"}, "has 32 texels a side, the decoder"),
    ({"nets.detail.mask_path": "no.png"}, "nets.detail: .*cannot read no.png"),
    ({"nets.morphable.template_path": ""}, "load the model with its texture"),
    ({"nets.estimator.outputs.shape": 9}, "takes shape codes of shape"),
  ],
)
def test_files_that_do_not_go_together_are_one_line(files, change, message):
  recipe = build(published_files.overridden(files, **change))
  with pytest.raises(UserError, match=message):
    recipe.init_frozen(jax.random.key(0))
