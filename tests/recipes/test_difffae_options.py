"""What sets the paper's variants of the face editor apart, by numbers."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax import recipes, stages
from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import checkpoint, editing, inference_record
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.diffusion import training
from faceedit_jax.faces import face_nets, face_reader, slot_regions
from faceedit_jax.models.diffusion.unet import UNet
from faceedit_jax.morphable import render
from tests.models.counts import randomised
from tests.models.test_unet import TINY
from tests.recipes.test_stages import build, quick_jit


def of_variant(variant, overrides=(), stage="denoiser"):
  config = config_lib.load(f"configs/difffae.py:{variant}")
  config = config_lib.override(config, overrides)
  options = config.stage[stage].recipe.to_dict()
  return recipes.build(
    options.pop("name"),
    nets=config.nets,
    options=options,
    image_size=config.image_size,
    dtype="float32",
  )


def context(recipe, batch, frozen, stats=None):
  return recipe_lib.Ctx(
    batch, frozen, stats or {}, {}, jnp.asarray(0), jax.random.key(0)
  )


# The identity, eq. 4 and 5.


def test_an_instance_norm_of_tiny_maps_is_refused():
  with pytest.raises(UserError, match="2 x 2 pixels; wanted 4 x 4 or more"):
    of_variant("smoke", ["nets.unet.adain=replace"])
  recipe = of_variant("replace")
  assert recipe.nets.unet.adain == "replace"
  assert recipe.conditions.latent_side // 2 ** (3 - 1) == 4


def test_another_identity_changes_more_at_unit_variance(rng):
  """A unit vector of 512 features is next to nothing for the SiLU."""
  net = UNet(adain="replace", **TINY | {"condition_dim": 512})
  x = jnp.asarray(rng.normal(size=(4, 8, 8, 3)), jnp.float32)
  tokens = jnp.asarray(rng.normal(size=(4, 4, 5)), jnp.float32)
  t = jnp.full((4,), 300.0)
  people = jnp.asarray(rng.normal(size=(2, 4, 512)), jnp.float32)
  people = people / jnp.linalg.norm(people, axis=-1, keepdims=True)
  variables = randomised(net, rng, x, t, tokens, people[0])
  # As a trained layer is, whose outputs are of the order of 1.
  for name, block in variables["params"].items():
    if name.endswith("_res"):
      block["adain"]["kernel"] = 0.1 * block["adain"]["kernel"]
  run = quick_jit(lambda p: net.apply(variables, x, t, tokens, p).prediction)

  def change(recipe):
    one, other = (run(recipe.nets.identity(p)) for p in people)
    return float(jnp.abs(one - other).mean() / jnp.abs(one).mean())

  plain = build("denoiser")
  paper = build("denoiser", identity_variance="feature")
  assert plain.nets.identity_scale == 1
  features = paper.reader.identity.embedding
  assert paper.nets.identity_scale == pytest.approx(features**0.5)
  scaled = types.SimpleNamespace(
    nets=dataclasses.replace(paper.nets, identity_scale=512**0.5)
  )
  assert change(scaled) > 5 * change(plain) > 0


@pytest.mark.parametrize("variance", ["vector", "feature"])
def test_loss_and_edit_hand_the_same_identity_to_the_unet(
  variance, monkeypatch
):
  recipe, seen = build("denoiser", identity_variance=variance), []
  scaled = type(recipe.nets).identity

  def watched(self, person):
    seen.append(person.shape)
    return scaled(self, person)

  monkeypatch.setattr(type(recipe.nets), "identity", watched)
  shapes = jax.eval_shape(
    lambda: (
      step_lib.init_state(recipe, jax.random.key(0)),
      recipe.init_frozen(jax.random.key(1)),
    )
  )
  batch = batch_lib.example_batch(recipe.batch_spec(), 2, 0)
  jax.eval_shape(
    lambda state, frozen, batch: recipe.denoise_loss(
      state.params, context(recipe, batch, frozen)
    ),
    *shapes,
    batch,
  )
  assert seen == [(2, recipe.reader.identity.embedding)]
  jax.eval_shape(
    lambda state, frozen, source: recipe.edit(
      {
        net: {"params": tree, **state.stats[net]}
        for net, tree in state.params.items()
      },
      frozen,
      {"source": source},
      jax.random.key(0),
    ),
    *shapes,
    batch["source_image"],
  )
  assert len(seen) == 2


# The start and the loss.


def test_a_start_that_is_not_the_papers_is_one_line():
  (line,) = of_variant("voxceleb256_synthetic").notes()
  assert "fine-tunes" in line and "nets.unet.weights" in line
  assert "\n" not in line
  named = of_variant("voxceleb256_synthetic", ["nets.unet.weights=a"])
  assert named.notes() == ()
  assert named.init_from()["unet"].path == "a"
  # Nets that no published file fits start as they must.
  assert of_variant("smoke").notes() == ()


def test_the_weighting_reaches_the_loss(monkeypatch):
  recipe, seen = build("denoiser", weighting="min_snr"), {}
  loss = training.diffusion_loss

  def watched(*args, **options):
    seen.update(options)
    return loss(*args, **options)

  monkeypatch.setattr(training, "diffusion_loss", watched)
  batch = batch_lib.example_batch(recipe.batch_spec(), 2, 0)

  def loss_of(batch):
    params = step_lib.init_state(recipe, jax.random.key(0)).params
    frozen = recipe.init_frozen(jax.random.key(1))
    return recipe.denoise_loss(params, context(recipe, batch, frozen))

  jax.eval_shape(loss_of, batch)
  assert seen == {"kind": "v", "weighting": "min_snr"}
  with pytest.raises(UserError, match="weighting is 'snr', wanted 'simple'"):
    build("denoiser", weighting="snr")


# Renderings.


def test_renderings_lie_on_their_ground(monkeypatch):
  mask = jnp.zeros((1, 4, 4)).at[:, 1].set(1.0)
  drawn = jnp.where(mask[..., None] > 0, 0.5, -1.0) * jnp.ones(3)
  monkeypatch.setattr(
    render, "render_condition", lambda *_, **__: {"image": drawn, "mask": mask}
  )
  codes = dict.fromkeys(face_reader.DRAWN)
  frozen = {"morphable": {"params": None}}
  for name, ground in face_reader.GROUNDS.items():
    reader = build("denoiser", rendering_ground=name).reader
    made = reader.render(frozen, codes)["image"]
    np.testing.assert_allclose(made[mask > 0], 0.5)
    np.testing.assert_allclose(made[mask == 0], ground)


def test_a_share_of_the_pictures_are_renderings():
  recipe = build("first_stage", rendering_share=0.25)
  assert set(recipe.frozen()) == {"estimator"}
  assert isinstance(recipe.face, face_nets.FaceNets)
  plain = build("first_stage")
  assert plain.face is None and "morphable" not in plain.frozen()
  fake = types.SimpleNamespace(
    reader=types.SimpleNamespace(
      codes=lambda frozen, image: image,
      render=lambda frozen, codes: {"image": codes + 10},
    )
  )
  recipe = dataclasses.replace(recipe, face=fake)
  ctx = context(recipe, {"image": jnp.zeros((4000, 1, 1, 3))}, {})
  seen = recipe.pictures(ctx)
  assert set(np.unique(seen)) == {0.0, 10.0}
  assert np.mean(seen > 5) == pytest.approx(0.25, abs=0.03)
  # Autoencoder and discriminator look at the same pictures of a step.
  np.testing.assert_array_equal(seen, recipe.pictures(ctx))
  later = dataclasses.replace(ctx, step=jnp.asarray(1))
  assert (seen != recipe.pictures(later)).any()
  with pytest.raises(UserError, match="rendering_share is 2.0, wanted 0 to 1"):
    build("first_stage", rendering_share=2.0)


def test_a_first_stage_trains_on_renderings():
  """Reader and renderer fit into every phase, and into the preview."""
  recipe = build("first_stage", rendering_share=0.5, rendering_ground="grey")
  shapes = jax.eval_shape(
    lambda: (
      step_lib.init_state(recipe, jax.random.key(0)),
      recipe.init_frozen(jax.random.key(1)),
    )
  )
  assert {"estimator", "morphable"} <= set(shapes[1])
  batch = batch_lib.example_batch(recipe.batch_spec(), 2, 0)
  due = step_lib.due_phases(recipe.phases(), 1)
  step = step_lib.make_step(recipe)
  jax.eval_shape(lambda s, f, b: step(s, f, b, due=due), *shapes, batch)
  shown = jax.eval_shape(
    lambda s, f, b: recipe.preview(
      {n: {"params": p} for n, p in s.params.items()}, f, b, None
    ),
    *shapes,
    batch,
  )
  names = {"picture", "reconstruction", "rendering", "rendering_made"}
  assert set(shown) == names


# Names of slots.


def variables_with(counts):
  return {"region_encoder": {"regions": {"confusion": jnp.asarray(counts)}}}


def test_swaps_are_refused_until_the_slots_have_names():
  recipe, nobody = build("denoiser"), np.zeros((4, 4))
  recipe.check_edit(variables_with(nobody), ["source", "pose_from"])
  for swap in ("hair_from", "clothes_from", "background_from"):
    with pytest.raises(ValueError, match="--mode=name_slots") as caught:
      recipe.check_edit(variables_with(nobody), ["source", swap])
    assert swap in str(caught.value) and "\n" not in str(caught.value)
  counted = np.eye(4)[[1, 0, 3, 2]]
  recipe.check_edit(variables_with(counted), ["hair_from"])
  assert isinstance(recipe, editing.ChecksEdits)
  named = build("denoiser", slot_names=slot_regions.REGIONS)
  named.check_edit(variables_with(nobody), ["hair_from"])
  vanilla = build("denoiser", source_condition="latent")
  vanilla.check_edit({}, ["hair_from"])


def test_slots_without_names_swap_nothing():
  recipe = build("denoiser")
  tokens = jnp.ones((1, 4, 16))
  nets = dataclasses.replace(recipe.nets)
  object.__setattr__(nets, "context", lambda *_: (jnp.zeros((1, 4, 16)), None))
  for counts, changed in ((np.zeros((4, 4)), 0), (np.eye(4), 1)):
    swapped = nets.swap_tokens(
      variables_with(counts), {}, {"hair_from": tokens}, tokens
    )
    assert int((swapped == 0).all(-1).sum()) == changed


def test_unlabelled_pictures_name_no_slots():
  recipe = build("region_encoder", labelled=False, region_prior_weight=0.0)
  assert "regions" not in recipe.batch_spec()
  shapes = jax.eval_shape(recipe.init, jax.random.key(0))
  counts = shapes["region_encoder"]["regions"]["confusion"]
  assert counts.shape == (4, 4)
  batch = batch_lib.example_batch(recipe.batch_spec(), 2, 0)

  def loss(batch):
    state = step_lib.init_state(recipe, jax.random.key(0))
    ctx = context(recipe, batch, {}, state.stats)
    _, aux = recipe.compose_loss(state.params, ctx)
    return aux.metrics, aux.stats["region_encoder"]["regions"]["confusion"]

  metrics, _ = jax.eval_shape(loss, batch)
  assert "miou" not in metrics
  # The region prior says which slot is which.
  pulled = build("region_encoder", labelled=False, region_prior_weight=0.1)
  assert "regions" not in pulled.batch_spec()


def test_make_stage_reads_what_was_recorded(tmp_path):
  config = config_lib.load("configs/difffae.py:smoke")
  directory = tmp_path / "denoiser"
  # A checkpoint, as far as a look at the folder shows.
  (directory / "checkpoints" / "3" / checkpoint._ITEM).mkdir(parents=True)
  names = ["hair", "face", "background", "clothes"]
  inference_record.write(directory, {"slot_names": names}, "test")
  stage = stages.make_stage(config, "denoiser", tmp_path)
  assert stage.recipe.options.slot_names == tuple(names)
  assert stage.recipe.nets.slot_names == tuple(names)
  # What the run itself says stays what it was.
  assert stage.identity["stage"]["recipe"]["slot_names"] == []
  said = config_lib.override(
    config,
    ["stage.denoiser.recipe.slot_names=('face','hair','clothes','background')"],
  )
  stage = stages.make_stage(said, "denoiser", tmp_path)
  assert stage.recipe.options.slot_names == slot_regions.REGIONS
