"""The configs build; the paper's nets have the published sizes."""

from pathlib import Path

import jax
import pytest

from configs import difffae as config_module
from configs import difffae_embedded
from faceedit_jax import recipes, stages
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import UserError
from tests import published_files


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def build(config, stage):
  options = dict(config.stage[stage].recipe.to_dict())
  return recipes.build(
    options.pop("name"),
    nets=config.nets,
    options=options,
    image_size=config.image_size,
    dtype=config.compute_dtype,
  )


@pytest.mark.parametrize("variant", config_module.VARIANTS)
def test_every_stage_builds(variant):
  config = config_lib.load(f"configs/difffae.py:{variant}")
  for name in (*config.stages, *config.eval_stages):
    assert build(config, name).phases()


def test_a_missing_option_is_named():
  config = config_lib.load("configs/difffae.py")
  with config.unlocked():
    del config.stage.denoiser.recipe["timesteps"]
  with pytest.raises(UserError, match="recipe lacks the key 'timesteps'$"):
    build(config, "denoiser")


@pytest.mark.parametrize("variant", [*difffae_embedded.STEPS, "smoke"])
def test_as_many_classes_as_people_are_read(variant):
  config = config_lib.load(f"configs/difffae.py:{variant}")
  for name in ("identity", "eval_identity"):
    stage = config.stage[name]
    source = stage.data.source
    drawn = source.identities * source.frames
    read = stage.data.loader.limit or drawn
    assert read <= drawn
    assert read == stage.recipe.identities * source.frames


@pytest.mark.parametrize("size", [256, 512])
def test_paper_sizes(size, tmp_path):
  config = config_lib.load(f"configs/difffae.py:voxceleb{size}")
  # The 3D face's files are licence-gated; these have its sizes.
  made = published_files.make_flame_files(tmp_path)
  published_files.make_detail_files(tmp_path, config.nets.detail)
  names = ("mask_path", "fixed_path")
  made = {f"nets.morphable.{k}": path for k, path in made.items()} | {
    f"nets.detail.{k}": tmp_path / Path(config.nets.detail[k]).name
    for k in names
  }
  config = config_lib.override(config, [f"{k}={v}" for k, v in made.items()])
  recipe = build(config, "denoiser")
  nets = jax.eval_shape(recipe.init, jax.random.key(0))
  # With AdaIN; the instance norm keeps the scale and bias of the group norm.
  assert count(nets["unet"]["params"]) == 865_839_684
  encoder = nets["region_encoder"]["params"]
  # The spec's number leaves out slot attention's own head.
  assert count(encoder) == 15_747_328
  frozen = jax.eval_shape(recipe.init_frozen, jax.random.key(0))
  assert count(frozen["autoencoder"]["params"]["encoder"]) == 27_397_764
  assert count(frozen["autoencoder"]["params"]["decoder"]) == 40_253_955
  assert count(frozen["estimator"]["params"]) == 25_848_108
  assert count(frozen["detail_encoder"]["params"]) == 25_737_408
  assert count(frozen["detail_decoder"]["params"]) == 1_773_345
  assert count(frozen["identity"]["params"]) == 43_590_848
  side = size // 8
  shape = recipe.nets.unet
  latents = jax.eval_shape(
    lambda v, x: recipe.conditions.autoencoder.apply(
      {"params": v["params"]}, x, method="encode"
    ),
    frozen["autoencoder"],
    jax.ShapeDtypeStruct((1, size, size, 3), "float32"),
  )
  assert latents.shape == (1, side, side, 4)
  assert (shape.channels, shape.mult, shape.context_dim) == (
    320,
    (1, 2, 4, 4),
    192,
  )


@pytest.mark.parametrize("variant", ["256", "512", "256_synthetic"])
def test_paper_settings(variant):
  """Appendix tables 4 and 5, section 5.1, and what our specification infers."""
  config = config_lib.load(f"configs/difffae.py:voxceleb{variant}")
  nets, denoiser = config.nets, config.stage.denoiser
  size = int(variant[:3])
  assert config.image_size == size
  encoder, unet = nets.region_encoder, nets.unet
  assert (encoder.channels, encoder.mult) == (64, (1, 1, 2, 4))
  assert (encoder.res_blocks, encoder.out_channels) == (2, 192)
  assert (encoder.slots, encoder.slot_size, encoder.iterations) == (4, 192, 3)
  assert (unet.res_blocks, unet.heads, unet.in_channels) == (2, 8, 8)
  # Of 32, 16, 8 and 4 pixels a side at 256.
  assert unet.attention_levels == (0, 1, 2)
  assert (denoiser.steps, denoiser.data.loader.batch_size) == (100_000, 16)
  assert denoiser.data.sampler.kind == "pairs"
  recipe = denoiser.recipe
  assert (recipe.optimizer.kind, recipe.optimizer.lr) == ("adam", 1e-4)
  assert recipe.optimizer.schedule == "constant"
  assert dict(recipe.timesteps) == dict(antithetic=False, power=1.0)
  assert recipe.prediction == "eps" and recipe.consistency_weight == 0.1
  assert (recipe.region_prior_weight, recipe.camera_from) == (0.0, "query")
  assert (recipe.sampler, recipe.sampling_steps) == ("ddim", 50)
  assert (unet.adain, recipe.identity_variance) == ("replace", "feature")
  assert recipe.weighting == "simple"  # eq. 1
  # Nobody guesses which slot is which.
  slots = config.stage.region_encoder.recipe
  assert (slots.labelled, slots.slot_names, recipe.slot_names) == (
    False,
    (),
    (),
  )
  # Latent diffusion's schedule and scale for VQ first stages.
  assert recipe.latent_scale == 1.0 and recipe.ddim_spacing == "ldm"
  assert dict(recipe.schedule) == dict(
    kind="linear", steps=1000, start=0.0015, end=0.0195
  )
  evaluator = denoiser.evaluators.reenactment
  assert (evaluator.kind, evaluator.split) == ("reenactment", "test")
  assert evaluator.people == "same"
  assert (evaluator.quick_steps, evaluator.steps) == (20, (1, 2, 8, 20, 50))
  assert denoiser.evaluators.single_factor.truths == "none"


def test_the_default_keeps_what_it_was_measured_with():
  for variant in ("", "long"):
    config = config_lib.load(f"configs/difffae.py:{variant}")
    recipe = config.stage.denoiser.recipe
    assert config.nets.unet.adain == "residual"
    assert (recipe.identity_variance, recipe.weighting) == ("vector", "simple")
    for stage in (recipe, config.stage.first_stage.recipe):
      assert stage.rendering_ground == "black"
    assert config.stage.first_stage.recipe.rendering_share == 0
    assert recipe.sampling_steps == (20 if variant else 2)
    table = config.stage.denoiser.evaluators.counterfactual.steps
    assert table == ((1, 2, 8, 20, 50) if variant else ())


def test_the_token_ablation_changes_the_number_of_tokens_alone():
  said = {}
  for count in (2, 4, 8):
    config = config_lib.load(f"configs/difffae.py:tokens{count}")
    assert config.nets.region_encoder.slots == count
    for stage in ("region_encoder", "denoiser"):
      assert config.stage[stage].recipe.region_prior_weight == 0
      assert build(config, stage).phases()
    config.nets.region_encoder.slots = 0
    said[count] = config.to_json()
  assert len(set(said.values())) == 1


@pytest.mark.parametrize(
  "override,lacks",
  [
    ("nets.region_encoder.slots=2", None),
    ("nets.region_encoder.slots=8", None),
    ("stage.denoiser.recipe.identity_token=False", "condition"),
    ("stage.denoiser.recipe.consistency_weight=0.0", None),
    ("stage.denoiser.recipe.source_condition=latent", "region_encoder"),
  ],
)
def test_ablations_are_one_override(override, lacks):
  config = config_lib.load("configs/difffae.py:smoke")
  config = config_lib.override(config, [override])
  recipe = build(config, "denoiser")
  state = jax.eval_shape(lambda: step_lib.init_state(recipe, jax.random.key(0)))
  if lacks == "region_encoder":
    assert "region_encoder" not in state.params
  if "slots=" in override:
    wanted = int(override[-1])
    counts = state.stats["region_encoder"]["regions"]["confusion"]
    assert counts.shape == (wanted, 4)
  if lacks == "condition":
    assert recipe.nets.unet.adain == "none"
  if "consistency" in override:
    assert recipe.options.consistency_weight == 0.0


def test_how_a_net_is_computed_is_no_part_of_a_run(tmp_path):
  config = config_lib.load("configs/difffae.py:smoke")
  plain = stages.make_stage(config, "denoiser", tmp_path)
  config = config_lib.override(
    config, ["nets.unet.remat=dots", "nets.unet.attention_kernel=xla"]
  )
  other = stages.make_stage(config, "denoiser", tmp_path)
  net = other.recipe.nets.unet
  assert (net.remat, net.attention_kernel) == ("dots", "xla")
  assert other.identity == plain.identity
  assert plain.identity["nets"]["unet"]["heads"] == 2


@pytest.mark.parametrize(
  "override, message",
  [
    (
      "nets.unet.attention_kernel=cudnn",
      "recipe: .*needs a GPU; this is a cpu .*el.$",
    ),
    (
      "nets.unet.attention_kernel=flash",
      "config.nets.unet.attention_kernel is 'flash', wanted 'auto' or 'xla' or",
    ),
    (
      "nets.unet.remat=all",
      "config.nets.unet.remat is 'all', wanted 'none' or 'blocks' or 'dots'",
    ),
    (
      "nets.unet.mult=()",
      r"recipe: .*mult is \(\), wanted the channel multiple",
    ),
    (
      "nets.unet.attention_levels=(4,)",
      "recipe: .*attention_levels has 4, wanted levels from 0 to 3",
    ),
  ],
)
def test_impossible_choices_end_with_one_line(override, message):
  config = config_lib.load("configs/difffae.py:smoke")
  with pytest.raises(UserError, match=f"^{message}"):
    build(config_lib.override(config, [override]), "denoiser")


def test_misspelt_key_names_the_near_one():
  config = config_lib.load("configs/difffae.py:smoke")
  with pytest.raises(UserError, match="consistency_weight"):
    config_lib.override(config, ["stage.denoiser.recipe.consistancy_weight=0"])


def test_unknown_variant_names_the_others():
  with pytest.raises(UserError, match="voxceleb256"):
    config_lib.load("configs/difffae.py:voxceleb265")
