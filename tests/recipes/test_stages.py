"""Every stage of the face editor takes steps and shows something to look at."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax import recipes
from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import partial_restore
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import state as state_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.diffusion import grids, samplers, training
from faceedit_jax.faces import face_reader, slot_regions
from faceedit_jax.models.faces import iresnet
from faceedit_jax.morphable import model as morphable_model
from faceedit_jax.recipes.pretrain import estimator as estimator_recipe

SIZE = 32
# Smaller still than the smoke variant: structure stays, time to compile goes.
SMALL = [
  f"image_size={SIZE}",
  "nets.estimator.input_size=32",
  "nets.identity.input_size=16",
  "nets.autoencoder.mult=(1,2)",
  "nets.autoencoder.attention_levels=(1,)",
  "nets.unet.mult=(1,2)",
  "nets.unet.attention_levels=(0,1)",
  "nets.region_encoder.mult=(1,2)",
  "nets.region_encoder.patch=2",
  "nets.region_decoder.grid=(4,4)",
]
STAGES = (
  "estimator",
  "identity",
  "first_stage",
  "region_encoder",
  "denoiser",
)


def build(stage, **recipe_options):
  config = config_lib.load("configs/difffae.py:smoke")
  config = config_lib.override(config, SMALL)
  options = config.stage[stage].recipe.to_dict() | recipe_options
  return recipes.build(
    options.pop("name"),
    nets=config.nets,
    options=options,
    image_size=config.image_size,
    dtype="float32",
  )


quick_jit = functools.partial(
  jax.jit, compiler_options=partial_restore.run_once() or {}
)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_steps_and_previews(stage):
  recipe = build(stage)
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  frozen = quick_jit(lambda: recipe.init_frozen(jax.random.key(1)))()
  step = quick_jit(step_lib.make_step(recipe), static_argnames="due")
  batch = batch_lib.example_batch(recipe.batch_spec(), 4, 0)
  # The highest step at which another phase begins: all of them are due.
  first = max(phase.start for phase in recipe.phases())
  state = state.replace(step=jnp.asarray(first, jnp.int32))
  due = step_lib.due_phases(recipe.phases(), first)
  lasting = [phase.name for phase in recipe.phases() if phase.stop is None]
  assert list(due) == lasting
  before = jax.device_get(state.params)
  losses = []
  for _ in range(8):
    # One step number: the same noise and jitter each time.
    state = state.replace(step=jnp.asarray(first, jnp.int32))
    state, metrics, _ = step(state, frozen, batch, due=due)
    losses.append([float(metrics[f"{p}/loss"]) for p in due])
  assert np.isfinite(losses).all()
  assert losses[-1][0] < losses[0][0], "one batch, and the loss does not fall"
  for net, tree in jax.device_get(state.params).items():
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), tree, before[net])
    assert max(jax.tree.leaves(moved)) > 0, f"{net} was not trained"
  if stage == "denoiser":
    return  # its preview is an edit; see test_edit_keeps_pictures_apart
  variables = state_lib.view(state, "ema")
  shown = quick_jit(recipe.preview)(variables, frozen, batch, jax.random.key(2))
  assert shown
  for picture in shown.values():
    assert picture.shape[0] == 4 and picture.shape[-1] == 3
    assert np.isfinite(picture).all()


def test_cached_features_are_what_the_loss_would_compute():
  live, kept = (
    build("denoiser", cache_features=once) for once in (False, True)
  )
  state = quick_jit(lambda: step_lib.init_state(live, jax.random.key(0)))()
  frozen = quick_jit(lambda: live.init_frozen(jax.random.key(1)))()
  batch = batch_lib.example_batch(live.batch_spec(), 3, 0)
  compute = quick_jit(kept.compute_features)
  more = dict(batch)
  for whose in ("source", "query"):
    for name, rows in compute(frozen, batch[f"{whose}_image"]).items():
      more[f"{whose}_{name}"] = rows
  # What is left out of the spec is not in a batch, so the loss may not ask.
  more = batch_lib.check_batch(kept.batch_spec(), more, "test")
  assert len(more) == len(batch) + len(kept.feature_spec()) == 6

  def loss(recipe, batch):
    ctx = recipe_lib.Ctx(
      batch=batch,
      frozen=frozen,
      stats=state.stats,
      ema=state.ema,
      step=state.step,
      rng=state.rng,
    )
    return recipe.denoise_loss(state.params, ctx)

  live_loss, live_aux = quick_jit(functools.partial(loss, live))(batch)
  kept_loss, kept_aux = quick_jit(functools.partial(loss, kept))(more)
  np.testing.assert_allclose(kept_loss, live_loss, rtol=1e-5)
  for name, value in live_aux.metrics.items():
    np.testing.assert_allclose(
      kept_aux.metrics[name], value, rtol=1e-4, err_msg=name
    )


def test_timesteps_are_drawn_as_the_config_says(monkeypatch):
  recipe, seen = build("denoiser"), {}
  draw = training.draw_timesteps

  def watched(*args, **options):
    seen.update(options)
    return draw(*args, **options)

  monkeypatch.setattr(training, "draw_timesteps", watched)
  batch = batch_lib.example_batch(recipe.batch_spec(), 2, 0)

  def loss(batch):
    state = step_lib.init_state(recipe, jax.random.key(0))
    ctx = recipe_lib.Ctx(
      batch=batch,
      frozen=recipe.init_frozen(jax.random.key(1)),
      stats=state.stats,
      ema=state.ema,
      step=state.step,
      rng=state.rng,
    )
    return recipe.denoise_loss(state.params, ctx)

  jax.eval_shape(loss, batch)
  assert seen == {"antithetic": True, "power": 3.0}
  with pytest.raises(ValueError, match="timesteps: power is 0.0, wanted"):
    build("denoiser", timesteps=dict(antithetic=True, power=0))


def test_slots_named_by_hand_need_no_regions():
  names = ("hair", "face", "background", "clothes")
  recipe = build("region_encoder", slot_names=names, region_prior_weight=0.0)
  assert "regions" not in recipe.batch_spec()
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  batch = batch_lib.example_batch(recipe.batch_spec(), 2, 0)
  step = quick_jit(step_lib.make_step(recipe), static_argnames="due")
  state, metrics, _ = step(state, {}, batch, due=("compose",))
  assert "compose/miou" not in metrics
  kept = state.stats["region_encoder"]["regions"]["confusion"]
  assert [int(i) for i in slot_regions.assign(kept)] == [1, 0, 3, 2]
  with pytest.raises(UserError, match="slot_names"):
    build("denoiser", slot_names=("face",))


@pytest.mark.parametrize("stage", ["region_encoder", "denoiser"])
def test_the_region_prior_pulls_the_slots(stage):
  """With its weight the masks come nearer to what is suggested."""
  recipe = build(stage, region_prior_weight=10.0)
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  frozen = quick_jit(lambda: recipe.init_frozen(jax.random.key(1)))()
  batch = batch_lib.example_batch(recipe.batch_spec(), 2, 0)
  batch = jax.tree.map(jnp.asarray, batch)
  (phase,) = recipe.phases()

  def loss(params, weight):
    ctx = recipe_lib.Ctx(
      batch, frozen, state.stats, {}, jnp.asarray(0), jax.random.key(0)
    )
    options = dataclasses.replace(
      recipe.options, region_prior_weight=lambda step: weight
    )
    pulled = dataclasses.replace(recipe, options=options)
    value, aux = getattr(pulled, phase.loss.__name__)(params, ctx)
    return value, aux.metrics["region_prior"]

  grads = jax.value_and_grad(loss, has_aux=True)
  (free, entropy), (pulled, _), slope = quick_jit(
    lambda p: (
      loss(p, 0.0),
      loss(p, 10.0),
      jax.tree.map(
        lambda a, b: jnp.abs(a - b).max(),
        grads(p, 10.0)[1],
        grads(p, 0.0)[1],
      ),
    )
  )(state.params)
  np.testing.assert_allclose(pulled - free, 10 * entropy, rtol=1e-3)
  assert max(jax.tree.leaves(slope["region_encoder"])) > 1e-4
  others = [max(jax.tree.leaves(v)) for k, v in slope.items()]
  assert sum(v > 1e-4 for v in others) == 1, "only the masks are pulled"


@pytest.fixture(scope="module")
def editor():
  recipe = build("denoiser")
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  frozen = quick_jit(lambda: recipe.init_frozen(jax.random.key(1)))()
  variables = state_lib.view(state, None)
  # Slot 2 stands for hair.
  counts = jnp.zeros((4, 4)).at[jnp.array([1, 2, 0, 3]), jnp.arange(4)].set(9)
  variables["region_encoder"]["regions"] = {"confusion": counts}
  # A fresh U-Net answers 0 whatever it sees; this one has an opinion.
  noise = jax.tree.map(
    lambda a: a + 0.05 * jax.random.normal(jax.random.key(a.size), a.shape),
    variables["unet"]["params"],
  )
  variables["unet"] = {"params": noise}
  edit = quick_jit(functools.partial(recipe.edit, steps=2))
  return functools.partial(edit, variables, frozen), recipe


def pictures(count, seed):
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (count, SIZE, SIZE, 3)).astype(np.float32)


def test_edit_keeps_pictures_apart(editor):
  edit, recipe = editor
  source, query = pictures(2, 0), pictures(2, 1)
  inputs = {"source": source, "pose_from": query, "hair_from": query}
  inputs["row"] = np.arange(2)
  result = edit(inputs, jax.random.key(5))
  assert result["image"].shape == (2, SIZE, SIZE, 3)
  assert np.abs(result["image"]).max() <= 1
  assert recipe.references[:3] == ("pose_from", "expression_from", "light_from")
  np.testing.assert_allclose(
    result["slots"].sum(-1), np.ones(result["slots"].shape[:-1]), atol=1e-5
  )
  # Another neighbour in the batch changes nothing.
  swapped = {k: v[::-1].copy() for k, v in inputs.items()}
  again = edit(swapped, jax.random.key(5))
  np.testing.assert_allclose(again["image"][1], result["image"][0], atol=1e-4)


def test_sampling_begins_in_pure_noise(monkeypatch):
  recipe, seen = build("denoiser"), []

  def sample(name, predict, noise, schedule, steps, *, spacing, **_):
    assert name == "ddim"
    seen.append(grids.ddim_grid(schedule, steps, spacing))
    return noise, predict(noise, jnp.zeros(len(noise)))

  monkeypatch.setattr(samplers, "sample", sample)
  shapes = jax.eval_shape(
    lambda: (
      step_lib.init_state(recipe, jax.random.key(0)),
      recipe.init_frozen(jax.random.key(1)),
    )
  )
  picture = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
  jax.eval_shape(
    lambda state, frozen, source: recipe.edit(
      state_lib.view(state, None), frozen, {"source": source}, jax.random.key(0)
    ),
    *shapes,
    picture,
  )
  (grid,) = seen
  assert len(grid.t) == recipe.options.sampling_steps
  assert grid.alpha[0] < 0.02


def test_unknown_spacing_is_one_clear_line():
  with pytest.raises(
    ValueError, match=r"ddim_spacing is 'even', wanted 'ldm'.*'trailing'"
  ):
    build("denoiser", ddim_spacing="even")


def test_unknown_camera_is_one_clear_line(editor):
  _, recipe = editor
  frozen = jax.eval_shape(recipe.init_frozen, jax.random.key(1))
  state = jax.eval_shape(lambda: step_lib.init_state(recipe, jax.random.key(0)))
  with pytest.raises(ValueError, match="'source' or 'query'"):
    jax.eval_shape(
      lambda s, f, x: recipe.edit(
        state_lib.view(s), f, {"source": x}, jax.random.key(0), camera_from="up"
      ),
      state,
      frozen,
      jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), "float32"),
    )


@pytest.mark.parametrize(
  "options, message",
  [
    ({"steps": 0}, "steps is 0, wanted a whole number from 1 on"),
    ({"steps": 2.5}, "steps is 2.5"),
    ({"steps": True}, "steps is True"),
    ({"eta": "high"}, "eta is 'high', wanted a number"),
  ],
)
def test_options_of_an_edit_are_checked_first(options, message):
  with pytest.raises(ValueError, match=message):
    build("denoiser").edit({}, {}, {}, None, **options)


def test_sizes_of_another_face_are_refused():
  recipe = build("denoiser")
  face = recipe.face
  model = face.morphable()["params"]
  with pytest.raises(ValueError, match="nets.estimator.outputs"):
    face_reader.check_sizes(model, {**recipe.face.code_shapes, "shape": (100,)})


def test_statistics_of_codes_are_those_of_the_data():
  rng = np.random.default_rng(3)
  data = rng.normal(2.0, 3.0, (400, 5)).astype(np.float32)
  weight = np.ones(400, np.float32)
  weight[::4] = 0
  data[::4] = 1e6  # faceless pictures carry no codes
  old = {
    "count": jnp.zeros(()),
    "mean": {"a": jnp.zeros(5)},
    "square": {"a": jnp.ones(5)},
    "std": {"a": jnp.ones(5)},
  }
  for at in range(0, 400, 40):
    part = slice(at, at + 40)
    old = estimator_recipe.running_statistics(
      old, {"a": jnp.asarray(data[part])}, jnp.asarray(weight[part])
    )
  true = data[weight > 0]
  np.testing.assert_allclose(old["mean"]["a"], true.mean(0), rtol=1e-4)
  np.testing.assert_allclose(old["std"]["a"], true.std(0), rtol=1e-3)
  raw = {"a": jnp.asarray((true - true.mean(0)) / true.std(0))}
  back = face_reader.destandardise(raw, old)["a"]
  np.testing.assert_allclose(back, true, atol=0.05)


def test_a_coefficient_weighs_by_what_it_changes():
  recipe = build("estimator")
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  batch = batch_lib.example_batch(recipe.batch_spec(), 4, 0)
  batch["face"] = jnp.ones(4)
  frozen = recipe.init_frozen(jax.random.key(1))

  def shares(params, batch):
    """Share of each albedo coefficient in the gradient of its outputs."""
    bias = params["estimator"]["output_layer"]["bias"]

    def loss(bias):
      layer = {**params["estimator"]["output_layer"], "bias": bias}
      net = {**params["estimator"], "output_layer": layer}
      ctx = recipe_lib.Ctx(
        batch, frozen, state.stats, {}, jnp.asarray(0), jax.random.key(0)
      )
      return recipe.read_loss({**params, "estimator": net}, ctx)[0]

    sizes = recipe.net.sizes
    names = list(sizes)
    first = sum(sizes[n] for n in names[: names.index("albedo")])
    return jnp.abs(jax.grad(loss)(bias))[first : first + sizes["albedo"]]

  # Everywhere about the same error, so that little but the weights differs.
  batch["albedo"] = jnp.full((4, 50), 3.0) * jnp.asarray([[1], [-1], [1], [1]])
  got = np.asarray(quick_jit(shares)(state.params, batch))
  face = frozen["morphable"]["params"]
  effect = np.asarray(morphable_model.visible_effect(face)["albedo"])
  together = np.corrcoef(np.log(got), np.log(effect**2))[0, 1]
  assert together > 0.95
  assert got[0] > 20 * got[10], "skin tone drowns among the details"


def test_identity_vectors_have_length_one():
  unit = iresnet.normalize(jnp.asarray([[3.0, 4.0], [0.0, 2.0]]))
  np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 1]], atol=1e-6)
