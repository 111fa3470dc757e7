"""Adversarial training of attribute edits, on nets of a few channels."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import l2m_gan as config_module
from configs import l2m_gan_embedded
from data_pipelines import records
from faceedit_jax import recipes, stages, train
from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import partial_restore, sharding
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import state as state_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import UserError
from tests.recipes import test_devices
from tests.toy_runs import assert_equal, state_of

SIZE = 16
SMALL = [
  f"image_size={SIZE}",
  "nets.identity.input_size=16",
  "stage.gan.recipe.optimizer.kind=adam",  # compiles sooner
]
quick_jit = functools.partial(
  jax.jit, compiler_options=partial_restore.run_once() or {}
)


def small_config(*overrides):
  config = config_lib.load("configs/l2m_gan.py:smoke")
  return config_lib.override(config, [*SMALL, *overrides])


def build(
  config=None, styles="factored", masks=False, published=True, **options
):
  config = small_config() if config is None else config
  nets = config.nets.to_dict()
  recipe = config.stage.gan.recipe.to_dict()
  recipe |= dict(generator_start=0, styles=styles) | options
  if published:  # the U-Net would begin with no change at all
    nets["generator"] = dict(channels=4, max_channels=8, w_hpf=0.0)
  if styles == "mapped":
    nets["mapping_network"] = dict(latent_dim=4, width=8, layers=2)
    recipe["weights"]["diversity"] = dict(start=1.0, end=0.0, steps=4)
  if masks:
    nets["generator"]["w_hpf"] = 1.0
    fan = dict(weights="fan.safetensors", width=2, input_size=64)
    nets["fan"] = fan | dict(landmarks=98)
  return recipes.build(
    recipe.pop("name"),
    nets=config_lib.from_dict(nets),
    options=recipe,
    image_size=32 if masks else SIZE,
    dtype="float32",
  )


@pytest.fixture(scope="module")
def recipe():
  return build()


@pytest.fixture(scope="module")
def trained(recipe):
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  return state_lib.view(state, None)


def batch_of(recipe, n, seed=0):
  """Domains and targets belong to one attribute, as the data have it."""
  batch = batch_lib.example_batch(recipe.batch_spec(), n, seed)
  pair = 2 * (np.arange(n) % len(recipe.attributes))
  batch["domain"] = (pair + np.arange(n) % 2).astype(np.int32)
  batch["target"] = (pair + np.arange(n) // 2 % 2).astype(np.int32)
  return batch


@pytest.mark.parametrize(
  ("styles", "masks"),
  [("factored", False), ("factored", True), ("mapped", False)],
)
def test_every_net_learns_and_shows_something(styles, masks):
  recipe = build(styles=styles, masks=masks)
  phases = {
    "factored": ["d", "g"],
    "mapped": ["d_latent", "d_reference", "g_latent", "g_reference"],
  }
  assert [phase.name for phase in recipe.phases()] == phases[styles]
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  frozen = quick_jit(lambda: recipe.init_frozen(jax.random.key(1)))()
  step = quick_jit(step_lib.make_step(recipe), static_argnames="due")
  batch = batch_of(recipe, 4)
  before = jax.device_get(state.params)
  due = step_lib.due_phases(recipe.phases(), 0)
  for _ in range(2):  # the first leaves out what begins at 0
    state, metrics, _ = step(state, frozen, batch, due=due)
  assert np.isfinite([float(v) for v in metrics.values()]).all()
  assert {"cycle", "style", "adversarial"} <= {k.split("/")[1] for k in metrics}
  for net, tree in jax.device_get(state.params).items():
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), tree, before[net])
    assert max(jax.tree.leaves(moved)) > 0, f"{net} was not trained"
  variables = state_lib.view(state, "ema")
  shown = quick_jit(recipe.preview)(variables, frozen, batch, jax.random.key(2))
  assert len(shown) == 2 + 2 * len(recipe.attributes)
  for picture in shown.values():
    assert picture.shape == batch["image"].shape
    assert np.isfinite(picture).all()


def test_labels_come_first_and_alone():
  recipe = build(generator_start=2)
  names = [step_lib.due_phases(recipe.phases(), i) for i in (0, 1, 2, 3)]
  assert names == [("labels",), ("labels",), ("d", "g"), ("d", "g")]
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  step = quick_jit(step_lib.make_step(recipe), static_argnames="due")
  batch = batch_of(recipe, 8)
  losses = []
  for _ in range(20):
    state, metrics, _ = step(state, {}, batch, due=("labels",))
    losses.append(float(metrics["labels/loss"]))
  assert losses[-1] < 0.8 * losses[0], "one batch, and its labels stay unknown"


def test_a_phase_trains_its_own_side_alone(recipe):
  owned = {
    phase.name: {
      net for group in phase.groups for net in recipe.groups()[group].nets
    }
    for phase in recipe.phases()
  }
  assert owned == {
    "d": {"discriminator"},
    "g": {"generator", "style_encoder"},
  }


def losses_of(recipe, steps, phase=-1):
  """Loss and terms of a phase, the last by default, at some steps."""
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  frozen = quick_jit(lambda: recipe.init_frozen(jax.random.key(1)))()
  batch = batch_of(recipe, 4)

  @quick_jit
  def run(step, batch):
    ctx = recipe_lib.Ctx(
      batch=batch,
      frozen=frozen,
      stats=state.stats,
      ema=state.ema,
      step=step,
      rng=jax.random.key(3),
    )
    loss, aux = recipe.phases()[phase].loss(state.params, ctx)
    return loss, dict(aux.metrics)

  return [jax.device_get(run(jnp.asarray(step), batch)) for step in steps]


def test_the_loss_is_the_weighted_sum_and_weights_follow_the_step():
  ramp = dict(start=1.0, end=3.0, steps=10)
  weights = dict(
    adversarial=1.0, cycle=ramp, style=2.0, perceptual=0.5, orthogonality=4.0
  )
  recipe = build(weights=weights)
  found = losses_of(recipe, (0, 5, 50))
  for (loss, terms), cycle in zip(found, (1.0, 2.0, 3.0), strict=True):
    wanted = (
      terms["adversarial"]
      + cycle * terms["cycle"]
      + 2 * terms["style"]
      + 0.5 * terms["perceptual"]
      + 4 * terms["orthogonality"]
    )
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert "pixel_l1" not in terms and terms["orthogonality"] > 0


def test_diversity_is_made_large_until_its_ramp_ends():
  recipe = build(styles="mapped")
  weights = {"adversarial": 1.0, "cycle": 5.0, "style": 1.0}
  weights |= {"perceptual": 0.2, "pixel_l1": 5.0}
  found = losses_of(recipe, (0, 2, 4))
  for (loss, terms), share in zip(found, (1.0, 0.5, 0.0), strict=True):
    assert terms["diversity"] < 0
    wanted = sum(w * terms[name] for name, w in weights.items())
    assert loss == pytest.approx(wanted + share * terms["diversity"], rel=1e-5)


@pytest.fixture(scope="module")
def edit(recipe, trained):
  """`recipe.edit` of two pictures."""
  source = jnp.asarray(batch_of(recipe, 2)["image"])

  def run(
    source=source, reference=None, by=recipe, variables=trained, **options
  ):
    inputs = {"source": source}
    if reference is not None:
      inputs["attribute_from"] = reference
    made = quick_jit(functools.partial(by.edit, **options))(
      variables, {}, inputs, jax.random.key(0)
    )
    return jax.device_get(made)

  run.source = source
  return run


def test_strength_0_is_the_pictures_own_style(edit, recipe, trained):
  still = edit(attribute="+Bangs", strength=0.0, has=False)["image"]
  domain = jnp.full((2,), 2 * recipe.attributes.index("Bangs"), jnp.int32)
  own = recipe.nets.own_style(trained, edit.source, domain)
  drawn = recipe.nets.generate(trained, {}, edit.source, own)
  np.testing.assert_allclose(still, jnp.clip(drawn, -1, 1), atol=1e-5)
  changed = edit(attribute="+Bangs", has=False)["image"]
  assert np.abs(changed - still).max() > 1e-3


def test_directions_attributes_and_what_the_source_has_matter(edit):
  made = [
    edit(attribute="+Smiling", has=False)["image"],
    edit(attribute="-Smiling", has=True)["image"],
    edit(attribute="+Smiling", has=True)["image"],
    edit(attribute="+Eyeglasses", has=False)["image"],
  ]
  for i, a in enumerate(made):
    for b in made[:i]:
      assert np.abs(a - b).max() > 1e-4


def test_what_the_source_has_is_read_or_taken_as_the_opposite(
  edit, recipe, trained
):
  index = recipe.attributes.index("Smiling")
  sides = {}
  for has in (False, True):
    nets = jax.tree.map(np.array, trained)
    bias = nets["discriminator"]["params"]["logits"]["bias"]
    bias[2 * index + int(has)] = 1e3
    sides[has] = nets
    read = edit(variables=nets, attribute="+Smiling")["image"]
    told = edit(attribute="+Smiling", has=has)["image"]
    np.testing.assert_allclose(read, told, atol=1e-6)
  # Without labels the discriminator says nothing of a picture's own side.
  weights = dataclasses.replace(recipe.options.weights, labels=0.0)
  options = dataclasses.replace(recipe.options, weights=weights)
  blind = dataclasses.replace(recipe, options=options)
  made = edit(by=blind, variables=sides[True], attribute="+Smiling")["image"]
  told = edit(attribute="+Smiling", has=False)["image"]
  np.testing.assert_allclose(made, told, atol=1e-6)


def test_a_sequence_is_edits_of_edits(edit):
  both = edit(attribute="+Smiling,-Bangs")["image"]
  first = edit(attribute="+Smiling")["image"]
  second = edit(source=first, attribute="-Bangs")["image"]
  np.testing.assert_allclose(both, second, atol=1e-5)


def test_a_strip_holds_the_edits_of_its_strengths(edit):
  strip = edit(attribute="+Smiling", strengths=(0.0, 1.5))["strip"]
  assert strip.shape == (2, SIZE, 2 * SIZE, 3)
  for i, strength in enumerate((0.0, 1.5)):
    alone = edit(attribute="+Smiling", strength=strength)["image"]
    part = strip[:, :, i * SIZE : (i + 1) * SIZE]
    np.testing.assert_allclose(part, alone, atol=1e-5)


def test_a_reference_gives_its_form_of_the_attribute(edit, recipe, trained):
  other = jnp.asarray(batch_of(recipe, 2, seed=1)["image"])
  given = dict(attribute="+Smiling", has=False)
  made = edit(reference=other, **given)["image"]
  assert np.abs(made - edit(**given)["image"]).max() > 1e-4
  has, lacks = (jnp.full((2,), side, jnp.int32) for side in (1, 0))
  own = recipe.nets.encode(trained, edit.source, lacks, has)
  taken = recipe.nets.encode(trained, other, has).related
  wanted = recipe.nets.generate(trained, {}, edit.source, own.unrelated + taken)
  np.testing.assert_allclose(made, jnp.clip(wanted, -1, 1), atol=1e-5)
  with pytest.raises(ValueError, match="goes with one attribute, got 2"):
    edit(attribute="Smiling,Bangs", reference=other)


def test_mapped_styles_come_from_noise_or_references():
  recipe = build(styles="mapped")
  nets = quick_jit(lambda: recipe.init(jax.random.key(0)))()
  source = batch_of(recipe, 2)["image"]
  run = quick_jit(functools.partial(recipe.edit, attribute="+Smiling"))
  same = {"source": source, "row": jnp.zeros(2, jnp.int32)}
  a, b = (run(nets, {}, same, jax.random.key(i))["image"] for i in (0, 1))
  assert np.abs(a - b).max() > 1e-5
  again = run(nets, {}, same, jax.random.key(0))["image"]
  np.testing.assert_array_equal(a, again)
  told = same | {"attribute_from": source[::-1]}
  c, d = (run(nets, {}, told, jax.random.key(i))["image"] for i in (0, 1))
  np.testing.assert_array_equal(c, d)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(styles="mixed"), "recipe.styles is 'mixed', wanted 'factored'"),
    (dict(attributes=()), "wanted one name or several"),
    (
      dict(weights=dict(cycles=1.0)),
      "weights has no key 'cycles'; did you mean 'cycle'",
    ),
    (dict(weights=dict(cycle=dict(start=1.0))), "cycle lacks the key 'end'"),
    (dict(generator_start=3, weights={}), "nothing would be learned"),
    (dict(optimizers=dict(critic=dict(lr=1.0))), r"optimizers has \['critic'"),
  ],
)
def test_wrong_options_are_named(change, message):
  with pytest.raises(UserError, match=message):
    build(**change)


def test_skips_without_masks_are_refused():
  config = small_config()
  config.nets.generator = dict(channels=4, max_channels=8, w_hpf=1.0)
  with pytest.raises(UserError, match="there is no nets.fan for the masks"):
    build(config, published=False)


def test_unknown_generators_are_refused():
  with pytest.raises(UserError, match="kind is 'vae'; it must be one of"):
    build(small_config("nets.generator.kind=vae"), published=False)


def test_the_penalty_is_that_of_the_real_pictures_and_weighed():
  recipe = build(weights=dict(adversarial=1.0, labels=1.0, r1=0.0))
  heavy = build(weights=dict(adversarial=1.0, labels=1.0, r1=3.0))
  (loss, terms), (more, same) = (
    losses_of(r, (0,), phase=0)[0] for r in (recipe, heavy)
  )
  assert terms["r1"] == pytest.approx(same["r1"]) and terms["r1"] > 0
  assert more == pytest.approx(loss + 3 * terms["r1"], rel=1e-5)


# The configs.


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("variant", config_module.VARIANTS)
def test_every_stage_builds(variant, tmp_path):
  config = config_lib.load(f"configs/l2m_gan.py:{variant}")
  for name in (*config.stages, *config.eval_stages):
    assert stages.make_stage(config, name, tmp_path).recipe.phases()


@pytest.mark.parametrize(
  ("variant", "sizes"),
  [
    (
      "celeba_hq_smiling_official",
      dict(
        generator=43_295_363,
        style_encoder=20_954_368,
        discriminator=20_852_290,
      ),
    ),
    (
      "celeba_hq_smiling",
      dict(
        generator=43_295_363,
        # A layer more in the decomposer and in each of two transformers.
        style_encoder=20_954_368 + 3 * (64 * 64 + 64),
        discriminator=20_852_290,
      ),
    ),
    (
      "stargan_v2",
      dict(
        generator=43_295_363,
        style_encoder=20_916_928,
        discriminator=20_852_290,
        mapping_network=2_438_272,
      ),
    ),
  ],
)
def test_paper_sizes(variant, sizes, tmp_path):
  config = config_lib.load(f"configs/l2m_gan.py:{variant}")
  recipe = stages.make_stage(config, "gan", tmp_path).recipe
  nets = jax.eval_shape(recipe.init, jax.random.key(0))
  assert {net: count(v["params"]) for net, v in nets.items()} == sizes
  frozen = jax.eval_shape(recipe.init_frozen, jax.random.key(0))
  assert count(frozen["fan"]["params"]) == 6_333_603
  # The step itself at full size: shapes and phases fit one another.
  state = jax.eval_shape(
    functools.partial(step_lib.init_state, recipe), jax.random.key(0)
  )
  batch = batch_lib.abstract_batch(recipe.batch_spec(), 8)
  due = step_lib.due_phases(recipe.phases(), 0)
  step = functools.partial(step_lib.make_step(recipe), due=due)
  after, metrics, _ = jax.eval_shape(step, state, frozen, batch)
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert f"{due[-1]}/cycle" in metrics


# Training.


@pytest.fixture
def data(tmp_path):
  rng = np.random.default_rng(0)
  records.write_records(
    tmp_path / "data" / "tiny" / "train",
    [
      {
        "image": rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8),
        "landmarks5": rng.random((5, 2), np.float32),
        "attributes": rng.integers(0, 2, 3).astype(np.int8),
      }
      for _ in range(24)
    ],
    settings={"attribute_names": list(l2m_gan_embedded.ATTRIBUTES)},
  )
  return tmp_path / "data"


def test_resumed_in_the_midst_it_ends_the_same(tmp_path, data):
  config = small_config(
    "stages=('gan',)",
    "tensorboard=False",
    "stage.gan.data.source.folder=tiny",
    "stage.gan.evaluate=False",
    "stage.gan.recipe.perceptual=none",
    # One program to compile.
    "stage.gan.recipe.generator_start=0",
    "stage.gan.preview_every=0",
  )
  with config.unlocked(), config.ignore_type():
    config.stage.gan.recipe.weights.pixel_l1 = dict(start=0.0, end=9.0, steps=6)
  for workdir, stops in (("whole", (5,)), ("parts", (3, 5))):
    for steps in stops:
      config.stage.gan.steps = steps
      train.run(config, tmp_path / workdir, data_dir=data)
  states = [state_of(config, tmp_path / w, "gan") for w in ("whole", "parts")]
  assert int(states[0]["step"]) == 5
  assert_equal(*states)


@pytest.mark.slow
@pytest.mark.parametrize("styles", ["factored", "mapped"])
def test_eight_devices_equal_one(styles):
  # At a full rate tiny nets amplify rounding.
  recipe = build(
    small_config("stage.gan.recipe.optimizer.lr=1e-4"), styles=styles
  )
  one = sharding.make_mesh({"data": 1, "fsdp": 1}, jax.devices()[:1])
  eight = sharding.make_mesh({"data": 4, "fsdp": 2}, jax.devices())
  a, b = (test_devices.losses(recipe, mesh) for mesh in (one, eight))
  np.testing.assert_allclose(b, a, rtol=1e-4)
