"""The published generator in the embedded world: variants `published*`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import l2m_gan_paper
from data_pipelines import sources
from faceedit_jax import stages
from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import partial_restore
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import state as state_lib
from faceedit_jax.core import step as step_lib

quick_jit = functools.partial(
  jax.jit, compiler_options=partial_restore.run_once() or {}
)
VARIANTS = ("published", "published_skips")


def gan(variant, tmp_path, *overrides):
  config = config_lib.load(f"configs/l2m_gan.py:{variant}")
  config = config_lib.override(config, overrides)
  return stages.make_stage(config, "gan", tmp_path)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_variants_are(variant, tmp_path):
  stage = gan(variant, tmp_path)
  recipe = stage.recipe
  drawn = recipe.nets.generator
  skips = variant == "published_skips"
  assert (drawn.channels, drawn.max_channels, drawn.w_hpf) == (24, 96, skips)
  nets = jax.eval_shape(recipe.init, jax.random.key(0))
  width = nets["generator"]["params"]["from_rgb"]["kernel"].shape
  assert width == (3, 3, 3, 24)
  # Without skips there are shortcuts, with skips a block more that halves.
  blocks = nets["generator"]["params"]
  assert ("shortcut" in blocks["decode_2"]) != skips
  assert ("encode_4" in blocks) == skips
  options = recipe.options
  adam = options.optimizer
  assert (adam.kind, adam.lr, adam.b1, adam.b2) == ("adam", 5e-4, 0.0, 0.99)
  assert (adam.schedule, adam.weight_decay) == ("constant", 0.0)
  assert options.ema_decay == 0.998
  assert [phase.name for phase in recipe.phases()] == ["d", "g"]
  assert all(phase.start == 0 for phase in recipe.phases())
  assert "attributes" not in recipe.batch_spec()  # no labels are learned
  assert stage.data.source.identities == 2000


def test_reconstruction_fades_into_the_published_losses(tmp_path):
  weights = gan("published", tmp_path).recipe.options.weights

  def values(step):
    return {
      term: float(recipe_lib.at(getattr(weights, term), step))
      for term in weights.__dataclass_fields__
    }

  first, half, last = (values(step) for step in (0, 1500, 3000))
  assert (first["pixel_l1"], first["adversarial"]) == (10, 0)
  assert (half["pixel_l1"], half["adversarial"]) == (5, 0.5)
  published = l2m_gan_paper.UNOFFICIAL | dict(r1=0.1)
  assert {k: v for k, v in last.items() if v} == pytest.approx(published)
  assert values(9000) == last
  changed = gan(
    "published",
    tmp_path,
    "stage.gan.recipe.weights.pixel_l1.steps=10",
    "stage.gan.recipe.weights.adversarial.end=2.0",
  ).recipe.options.weights
  assert changed.pixel_l1(5) == 5 and changed.adversarial(3000) == 2


def test_the_landmark_net_is_trained_where_it_is_needed(tmp_path):
  for variant in ("", "long", "published"):
    config = config_lib.load(f"configs/l2m_gan.py:{variant}")
    assert "fan" not in config.nets and "landmarks" not in config.stage
  config = config_lib.load("configs/l2m_gan.py:published_skips")
  assert tuple(config.stages) == ("landmarks", "identity", "gan")
  trains = stages.make_stage(config, "landmarks", tmp_path)
  assert isinstance(trains.data.source, sources.SyntheticHeads)
  assert trains.data.source.landmarks68
  assert trains.recipe.net.landmarks == 68
  reads = stages.make_stage(config, "gan", tmp_path).recipe
  assert reads.frozen()["fan"] == recipe_lib.WeightSource(stage="landmarks")
  key = jax.random.key(0)
  structure = [
    jax.tree.map(jnp.shape, jax.eval_shape(init, key)["fan"])
    for init in (trains.recipe.init, reads.init_frozen)
  ]
  assert structure[0] == structure[1]
  # A file in its place is taken where one is named.
  config.nets.fan.weights = "fan.safetensors"
  reads = stages.make_stage(config, "gan", tmp_path).recipe
  assert reads.frozen()["fan"].path == "fan.safetensors"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_smoke_form_trains(variant, tmp_path):
  small = ("image_size=32", "nets.identity.input_size=16")
  recipe = gan(f"smoke={variant}", tmp_path, *small).recipe
  state = quick_jit(lambda: step_lib.init_state(recipe, jax.random.key(0)))()
  frozen = quick_jit(lambda: recipe.init_frozen(jax.random.key(1)))()
  assert ("fan" in frozen) == (variant == "published_skips")
  step = quick_jit(step_lib.make_step(recipe), static_argnames="due")
  batch = batch_lib.example_batch(recipe.batch_spec(), 2, 0)
  batch["domain"] = np.array([0, 3], np.int32)
  batch["target"] = np.array([1, 3], np.int32)
  before, losses = jax.device_get(state.params), []
  for at in range(3):
    state, metrics, _ = step(state, frozen, batch, due=("d", "g"))
    assert np.isfinite([float(v) for v in metrics.values()]).all()
    terms = {k: float(v) for k, v in metrics.items() if k.startswith("g/")}
    share = min(at / 2, 1)  # both ramps are two steps long here
    wanted = (
      share * terms["g/adversarial"]
      + terms["g/cycle"]
      + 2 * terms["g/style"]
      + 2 * terms["g/perceptual"]
      + terms["g/orthogonality"]
      + 10 * (1 - share) * terms["g/pixel_l1"]
    )
    assert terms["g/loss"] == pytest.approx(wanted, rel=1e-4)
    losses.append(terms["g/pixel_l1"])
  for net, tree in jax.device_get(state.params).items():
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), tree, before[net])
    assert max(jax.tree.leaves(moved)) > 0, f"{net} was not trained"
  edited = quick_jit(
    functools.partial(recipe.edit, attribute="+Smiling", has=False)
  )(
    state_lib.view(state, "ema"),
    frozen,
    {"source": batch["image"]},
    jax.random.key(2),
  )["image"]
  assert edited.shape == batch["image"].shape and np.isfinite(edited).all()
