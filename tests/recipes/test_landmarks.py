"""The landmark net of 68 points: its loss, its data, and how it is scored."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import records
from faceedit_jax import evaluators, input_pipeline, recipes
from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import partial_restore
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import state as state_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.faces import landmark_heatmaps
from faceedit_jax.losses import adaptive_wing

SIDE = 32
SOURCE = dict(kind="array_record", folder="faces")
quick_jit = functools.partial(
  jax.jit, compiler_options=partial_restore.run_once() or {}
)


def example(rng):
  """A picture that is bright on a square, with 68 points on its rim."""
  left, top = rng.integers(4, 14, 2)
  image = np.full((SIDE, SIDE, 3), 40, np.uint8)
  image[top : top + 14, left : left + 14] = (200, 120, 220)
  angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
  ring = np.stack([np.cos(angle), np.sin(angle)], -1) * 6
  points = (ring + [left + 7, top + 7]) / SIDE
  visible = np.zeros(68, np.int8)
  visible[:40] = 1
  return {
    "image": image,
    "landmarks68": points.astype(np.float32),
    "visible68": visible,
  }


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  for split, seed, count in (("train", 0, 16), ("test", 1, 19)):
    rng = np.random.default_rng(seed)
    records.write_records(
      folder / "faces" / split, [example(rng) for _ in range(count)]
    )
  return folder


def build(landmarks=68, **options):
  options = dict(optimizer=dict(lr=3e-3)) | options
  net = dict(landmarks=landmarks, width=2, input_size=64)
  return recipes.build(
    "landmarks",
    nets=config_lib.from_dict(dict(fan=net)),
    options=options,
    image_size=SIDE,
    dtype="float32",
  )


def batch_from(recipe, data_dir, **transforms):
  section = dict(source=SOURCE, transforms=transforms, loader={"batch_size": 8})
  data = input_pipeline.build_data(section, "config.stage.landmarks.data")
  source = input_pipeline.open_data(data, data_dir, 0)
  transform = input_pipeline.transform_of(recipe, data)
  rng = np.random.default_rng(0)
  rows = [transform(source[i], rng) for i in range(8)]
  batch = {n: np.stack([row[n] for row in rows]) for n in recipe.batch_spec()}
  return batch_lib.check_batch(recipe.batch_spec(), batch, "test")


def evaluator_of(recipe):
  setup = evaluators.Setup(
    recipe, {}, {"source": SOURCE}, SIDE, "float32", "here"
  )
  return evaluators.build(dict(kind="landmark_error"), setup)


def scored(recipe, variables, data_dir, out):
  said: list[str] = []
  ctx = evaluators.EvalContext(
    recipe, variables, {}, data_dir, out, said.append
  )
  return evaluator_of(recipe).run(ctx), said


@pytest.fixture(scope="module")
def trained(data_dir):
  """(recipe, losses, state) of some steps on one batch."""
  recipe = build()
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  step = quick_jit(step_lib.make_step(recipe), static_argnames="due")
  batch, losses = batch_from(recipe, data_dir), []
  for _ in range(40):
    state, metrics, _ = step(state, {}, batch, due=("find",))
    losses.append(float(metrics["find/loss"]))
  return recipe, losses, state, metrics


def test_it_learns(trained):
  recipe, losses, state, metrics = trained
  assert [phase.name for phase in recipe.phases()] == ["find"]
  assert losses[-1] < 0.5 * losses[0]
  assert 0 < metrics["find/points"] < 1
  # Norms begin with means of 0 and variances of 1.
  stats = jax.tree.leaves(jax.device_get(state.stats["fan"]))
  assert all(np.isfinite(x).all() for x in stats)
  assert any(((x != 0) & (x != 1)).any() for x in stats)


def test_it_is_scored_on_held_out_pictures(trained, data_dir, tmp_path):
  recipe, _, state, _ = trained
  variables = state_lib.view(state, "ema")
  scores, said = scored(recipe, variables, data_dir, tmp_path)
  rng = np.random.default_rng(1)
  held = [example(rng) for _ in range(19)]
  image = np.stack([e["image"] for e in held]).astype(np.float32) / 127.5 - 1
  true = np.stack([e["landmarks68"] for e in held])
  found = np.asarray(quick_jit(recipe.find_landmarks)(variables, image))
  assert found.shape == (19, 68, 2)
  eyes = np.linalg.norm(true[:, 36] - true[:, 45], axis=-1)
  off = 100 * np.linalg.norm(found - true, axis=-1) / eyes[:, None]
  assert scores["nme"] == pytest.approx(off.mean(), rel=1e-3)
  assert scores["nme/visible"] == pytest.approx(off[:, :40].mean(), rel=1e-3)
  assert scores["nme/hidden"] == pytest.approx(off[:, 40:].mean(), rel=1e-3)
  assert scores["nme/mouth"] == pytest.approx(off[:, 48:].mean(), rel=1e-3)
  assert scores["failed"] == pytest.approx((off.mean(1) > 10).mean())
  (text,) = said
  assert text.startswith("\n19 pictures of split 'test'\n")
  whole = json.loads((tmp_path / "table.json").read_text())
  assert whole["scores"] == scores


def test_the_preview_shows_points_and_lines(trained, data_dir):
  recipe, _, state, _ = trained
  batch = batch_from(recipe, data_dir)
  shown = quick_jit(recipe.preview)(
    state_lib.view(state), {}, batch, jax.random.key(0)
  )
  assert {name: v.shape for name, v in shown.items()} == {
    "points": (8, SIDE, SIDE, 3),
    "lines": (8, SIDE, SIDE, 3),
  }
  changed = np.asarray(shown["points"] != batch["image"]).any(-1)
  assert changed.any((1, 2)).all() and not changed.all()


@pytest.mark.parametrize("loss", ["adaptive_wing", "l2"])
def test_the_loss_is_that_of_the_true_maps(loss, rng):
  """On a net that gives nothing but zeros."""
  recipe = build(loss=loss, sigma=1.5)
  structure = jax.eval_shape(recipe.init, jax.random.key(0))["fan"]
  variables = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), structure)
  points = jnp.asarray(rng.uniform(0.2, 0.8, (2, 68, 2)), jnp.float32)
  image = jnp.asarray(rng.uniform(-1, 1, (2, SIDE, SIDE, 3)), jnp.float32)
  ctx = recipe_lib.Ctx(
    batch={"image": image, "landmarks68": points},
    frozen={},
    stats={"fan": {"batch_stats": variables["batch_stats"]}},
    ema={},
    step=jnp.asarray(0),
    rng=jax.random.key(0),
  )
  got, _ = quick_jit(recipe.find_loss)({"fan": variables["params"]}, ctx)
  true = landmark_heatmaps.true_maps(points, 16, 1.5)
  wanted = jnp.square(true).mean()
  if loss == "adaptive_wing":
    zeros = jnp.zeros_like(true)
    wanted = adaptive_wing.adaptive_wing(zeros, true)
    wanted = (wanted * adaptive_wing.foreground_weights(true)).mean()
  assert got == pytest.approx(float(wanted), rel=1e-4)


def test_points_move_with_the_pictures(data_dir):
  """By crops and mirrors the ring stays round the bright square."""
  recipe = build()
  batch = batch_from(
    recipe,
    data_dir,
    jitter=dict(low=0.85, high=1.2, shift=0.05),
    flip=0.5,
    photometric=dict(probability=0.5, noise=0.0),
  )
  still = batch_from(recipe, data_dir)
  assert np.abs(batch["landmarks68"] - still["landmarks68"]).max() > 0.02
  for image, points in zip(batch["image"], batch["landmarks68"], strict=True):
    y, x = np.nonzero(image.mean(-1) > -0.2)
    middle = np.array([x.mean() + 0.5, y.mean() + 0.5]) / SIDE
    np.testing.assert_allclose(points.mean(0), middle, atol=0.03)


@pytest.mark.parametrize(
  ("landmarks", "change", "message"),
  [
    (98, {}, "nets.fan.landmarks is 98; wanted 68"),
    (68, dict(sigma=0.0), "sigma is 0.0; wanted a positive"),
    (68, dict(loss="wing"), "loss is 'wing', wanted 'adaptive_wing' or 'l2'"),
    (68, dict(net="finder"), "net is 'finder', which config.nets has not"),
  ],
)
def test_wrong_options_are_named(landmarks, change, message):
  with pytest.raises(UserError, match=message):
    build(landmarks, **change)


def test_only_a_net_that_finds_points_is_scored():
  with pytest.raises(UserError, match="which has no batch_spec, .*find_landm"):
    evaluator_of(object())
