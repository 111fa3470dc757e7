"""The classifier that evaluates attribute edits, and what it looks at."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import records
from data_pipelines.synthetic_heads import labels
from faceedit_jax import evaluators, input_pipeline, recipes
from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import state as state_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.faces import attribute_reader, face_crops

SIDE, ATTRIBUTES = 20, ("Smiling", "Bangs")
NAMES = labels.ATTRIBUTE_NAMES
# Eyes, nose and corners of the mouth; the mouth is of no account.
POINTS = np.float32([[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.1, 0.9], [0, 1]])


def example(rng):
  """A picture whose mouth is bright or dark and whose top is red or blue."""
  image = rng.integers(100, 156, (SIDE, SIDE, 3), dtype=np.uint8)
  smile, bangs = rng.integers(0, 2, 2)
  image[11:14, 7:13] = (40, 210)[smile]
  image[4:7, 7:13, 2 * (1 - bangs)] = 250
  values = np.zeros(len(NAMES), np.int8)
  values[[NAMES.index("Smiling"), NAMES.index("Bangs")]] = smile, bangs
  values[NAMES.index("Bald")] = 1
  return {"image": image, "attributes": values, "landmarks5": POINTS}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  for split, seed, count in (("train", 0, 64), ("test", 1, 70)):
    rng = np.random.default_rng(seed)
    records.write_records(
      folder / "set" / split,
      [example(rng) for _ in range(count)],
      settings={"generator": "synthetic_heads"},
    )
  return folder


SOURCE = dict(kind="array_record", folder="set")


def data_of(split="train", attributes=ATTRIBUTES, kind="attributes"):
  sampler = dict(kind=kind)
  if kind == "attributes":
    sampler["attributes"] = attributes
  return input_pipeline.build_data(
    dict(
      source=dict(SOURCE, split=split),
      sampler=sampler,
      loader=dict(batch_size=32),
    ),
    "config.stage.attributes.data",
  )


def build(**look):
  net = dict(stages=(1, 1), width=4, input_size=16, reach=8.0) | look
  options = dict(
    attributes=ATTRIBUTES,
    optimizer=dict(lr=1e-2),
    ema_decay=0.9,
    jitter=0.02,
  )
  return recipes.build(
    "attributes",
    nets=config_lib.from_dict(dict(classifier=net)),
    options=options,
    image_size=SIDE,
    dtype="float32",
  )


def test_it_learns_and_is_tested_on_others(data_dir, tmp_path):
  recipe = build()
  source = input_pipeline.open_data(data_of(), data_dir, 0)
  transform = input_pipeline.transform_of(recipe, data_of())
  rng = np.random.default_rng(0)
  examples = [transform(source[i], rng) for i in range(len(source))]
  state = step_lib.init_state(recipe, jax.random.key(0))
  step = jax.jit(step_lib.make_step(recipe), static_argnames="due")
  due = step_lib.due_phases(recipe.phases(), 0)
  assert due == ("classify",)
  # The norms' running statistics take a while.
  for i in range(150):
    part = [examples[(32 * i + k) % 64] for k in range(32)]
    batch = {n: np.stack([e[n] for e in part]) for n in recipe.batch_spec()}
    batch = batch_lib.check_batch(recipe.batch_spec(), batch, "test")
    state, metrics, _ = step(state, {}, batch, due=due)
  for name in ATTRIBUTES:
    assert metrics[f"classify/accuracy_{name}"] > 0.9
  variables = state_lib.view(state, "ema")
  evaluator = evaluators.build(
    dict(kind="attribute_accuracy"),
    evaluators.Setup(recipe, {}, {"source": SOURCE}, SIDE, "float32", "here"),
  )
  said: list[str] = []
  scores = evaluator.run(
    evaluators.EvalContext(
      recipe, variables, {}, data_dir, tmp_path, said.append
    )
  )
  (text,) = said
  assert text.startswith("\n70 pictures of split 'test'\n")
  rng = np.random.default_rng(1)
  held = [example(rng) for _ in range(70)]
  image = jnp.asarray(np.stack([e["image"] for e in held]) / 127.5 - 1)
  points = jnp.broadcast_to(POINTS, (70, 5, 2))
  read = recipe.reader.logits(
    variables["classifier"], image.astype(jnp.float32), points
  )
  for at, name in enumerate(ATTRIBUTES):
    true = np.array([e["attributes"][NAMES.index(name)] for e in held])
    right = (np.asarray(read)[:, at] > 0) == (true > 0)
    assert scores[f"accuracy/{name}"] == pytest.approx(right.mean())
    assert scores[f"accuracy/{name}"] > 0.9
    assert scores[f"share/{name}"] == pytest.approx(true.mean())
  whole = json.loads((tmp_path / "table.json").read_text())
  assert whole["scores"] == scores
  table = (tmp_path / "table.txt").read_text()
  assert table.strip() == text.strip()
  row = (
    f"Smiling {scores['accuracy/Smiling']:.3f} {scores['share/Smiling']:.3f}"
  )
  assert row.split() in [line.split() for line in table.splitlines()]
  shown = jax.jit(recipe.preview)(variables, {}, batch, jax.random.key(0))
  (sheet,) = shown.values()
  assert sheet.shape == (32, 16 + 2 + 2, 16, 3)
  # The upper row says what is true: white on the left where there is a smile.
  smiles = np.asarray(batch["attributes"][:, 0])
  np.testing.assert_allclose(sheet[:, 16, 0, 0], 2.0 * smiles - 1)


def test_the_mouth_does_not_move_what_is_looked_at(rng):
  reader = build().reader
  image = jnp.asarray(rng.uniform(-1, 1, (2, SIDE, SIDE, 3)), jnp.float32)
  points = np.stack([POINTS, POINTS])
  seen = reader.look(image, jnp.asarray(points))
  assert seen.shape == (2, 16, 16, 3)
  points[:, 3:] = rng.uniform(size=(2, 2, 2))
  np.testing.assert_array_equal(reader.look(image, jnp.asarray(points)), seen)
  # Their mean is (1/2, 13/30); distances 2 x sqrt(1/90), and 1/15.
  spread = np.sqrt((2 * (0.1**2 + (1 / 30) ** 2) + (1 / 15) ** 2) / 3)
  corner = np.array([0.5, 13 / 30]) - 4 * spread
  box = jnp.asarray([[*corner, 8 * spread]] * 2, jnp.float32)
  wanted = face_crops.look(jnp.asarray(image), box, 16)
  np.testing.assert_allclose(seen, wanted, atol=1e-5)


def test_noise_moves_and_enlarges_the_square():
  """On a picture whose colours are the place."""
  reader = attribute_reader.AttributeReader(None, input_size=4)
  unit = (jnp.arange(64) + 0.5) / 64
  image = jnp.stack([*jnp.meshgrid(unit, unit), jnp.zeros((64, 64))], -1)[None]
  still = reader.look(image, noise=jnp.zeros((1, 3)))
  np.testing.assert_allclose(still[0, 0, 0, :2], [0.125, 0.125], atol=1e-5)
  plain = reader.look(image)[0, 1:3, 1:3]  # a resize averages, at the rim less
  np.testing.assert_allclose(plain, still[0, 1:3, 1:3], atol=1e-2)
  noise = jnp.asarray([[0.1, -0.05, np.log(0.5)]])
  seen = reader.look(image, noise=noise)[0, ..., :2]
  middle = seen.mean((0, 1))
  np.testing.assert_allclose(middle, [0.6, 0.45], atol=1e-5)
  np.testing.assert_allclose(seen[0, 3] - seen[0, 0], [0.375, 0], atol=1e-5)


def test_half_of_a_batch_is_mirrored(rng):
  recipe = build()
  image = jnp.broadcast_to(
    jnp.float32(rng.uniform(-1, 1, (1, SIDE, SIDE, 3))), (64, SIDE, SIDE, 3)
  )
  points = jnp.broadcast_to(POINTS, (64, 5, 2))
  ctx = recipe_lib.Ctx(
    batch={"image": image, "landmarks5": points},
    frozen={},
    stats={},
    ema={},
    step=jnp.asarray(0),
    rng=jax.random.key(0),
  )
  still = dataclasses.replace(
    recipe, options=dataclasses.replace(recipe.options, jitter=0.0)
  )
  plain = np.asarray(still.reader.look(image, points))
  seen = np.asarray(still.seen(ctx))
  same = np.isclose(seen, plain, atol=1e-5).all((1, 2, 3))
  mirrored = np.isclose(seen, plain[:, :, ::-1], atol=1e-5).all((1, 2, 3))
  assert (same ^ mirrored).all() and 16 < mirrored.sum() < 48
  moved = np.asarray(recipe.seen(ctx))
  assert np.ptp(moved, axis=0).max() > 0.1


def test_without_reach_no_points_are_asked_for():
  assert set(build(reach=None).batch_spec()) == {"image", "attributes"}
  assert set(build().batch_spec()) == {"image", "attributes", "landmarks5"}


def test_columns_are_those_that_were_asked_for(data_dir):
  plain = input_pipeline.open_data(data_of("test", kind="single"), data_dir, 0)
  asked = ("Bangs", "Bald", "Smiling")
  source = input_pipeline.open_data(data_of("test", asked), data_dir, 0)
  assert len(source) == len(plain) and source.attribute_names == asked
  at = [NAMES.index(name) for name in asked]
  for i in (0, 69):
    np.testing.assert_array_equal(
      source[i]["attributes"], plain[i]["attributes"][at]
    )


def test_attributes_that_are_none(data_dir):
  for names, message in (
    (("Smilin",), "no attribute 'Smilin'; did you mean 'Smiling'"),
    ((), "name at least one"),
  ):
    with pytest.raises(UserError, match=message):
      input_pipeline.open_data(data_of("test", names), data_dir, 0)
