"""Slot attention, region encoder and broadcast decoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.models.slots.broadcast_decoder import BroadcastDecoder
from faceedit_jax.models.slots.region_encoder import (
  RegionEncoder,
  position_grid,
)
from faceedit_jax.models.slots.slot_attention import SlotAttention
from faceedit_jax.models.slots.slot_autoencoder import (
  SlotAutoencoder,
  SlotEncoder,
)
from tests.models.counts import array, randomised, shapes, size

TINY = {
  "channels": 8,
  "mult": (1, 2),
  "res_blocks": 1,
  "out_channels": 12,
  "patch": 4,
  "groups": 4,
  "slots": 3,
  "slot_size": 10,
  "token_size": 6,
  "mlp_size": 7,
  "iterations": 2,
}


def test_paper_size():
  params = shapes(RegionEncoder(), array(1, 256, 256, 3))["params"]
  assert size(params["unet"]) == 15_225_472


@pytest.mark.parametrize("stem", ["patchify", "conv"])
def test_region_encoder(stem, rng):
  net = RegionEncoder(stem=stem, **TINY)
  images = jnp.asarray(rng.uniform(-1, 1, (2, 16, 24, 3)), jnp.float32)
  variables = randomised(net, rng, images)
  run = jax.jit(net.apply)
  tokens, masks = run(variables, images)
  assert tokens.shape == (2, 3, 6)
  assert masks.shape == (2, 4, 6, 3)
  np.testing.assert_allclose(masks.sum(-1), 1, atol=1e-5)
  if stem == "patchify":
    alone, mask = run(variables, images[1:])
    np.testing.assert_allclose(alone, tokens[1:], atol=1e-5)
    np.testing.assert_allclose(mask, masks[1:], atol=1e-5)


def test_gaussian_start_uses_noise(rng):
  net = RegionEncoder(slot_init="gaussian", **TINY)
  images = jnp.asarray(rng.uniform(-1, 1, (1, 16, 16, 3)), jnp.float32)
  noise = jnp.asarray(rng.normal(size=(1, 3, 10)), jnp.float32)
  variables = randomised(net, rng, images)
  run = jax.jit(net.apply)
  tokens = run(variables, images)[0]
  # Without noise all slots start, and so stay, the same.
  np.testing.assert_allclose(tokens[:, 0], tokens[:, 1], atol=1e-6)
  different = run(variables, images, noise)[0]
  assert np.abs(different[:, 0] - different[:, 1]).max() > 1e-3


def test_frames_of_a_clip_hand_their_slots_on(rng):
  net = RegionEncoder(**TINY)
  clips = jnp.asarray(rng.uniform(-1, 1, (2, 3, 16, 16, 3)), jnp.float32)
  variables = randomised(net, rng, clips[:, 0])
  run = jax.jit(net.apply)
  tokens, masks = run(variables, clips)
  assert tokens.shape == (2, 3, 3, 6)
  assert masks.shape == (2, 3, 4, 4, 3)
  # The first frame is a picture; the second knows the one before.
  alone = [run(variables, clips[:, i]) for i in range(2)]
  np.testing.assert_allclose(tokens[:, 0], alone[0][0], atol=1e-5)
  np.testing.assert_allclose(masks[:, 0], alone[0][1], atol=1e-5)
  assert np.abs(tokens[:, 1] - alone[1][0]).max() > 1e-3


def test_side_error():
  with pytest.raises(ValueError, match="20 x 16, wanted multiples of 8"):
    shapes(RegionEncoder(**TINY), array(1, 20, 16, 3))


def test_slots_follow_their_order(rng):
  net = SlotAttention(8, 8, 2, heads=2)
  inputs = jnp.asarray(rng.normal(size=(1, 6, 5)), jnp.float32)
  slots = jnp.asarray(rng.normal(size=(1, 3, 8)), jnp.float32)
  variables = randomised(net, rng, inputs, slots)
  out, attention = net.apply(variables, inputs, slots)
  swapped, other = net.apply(variables, inputs, slots[:, ::-1])
  np.testing.assert_allclose(swapped, out[:, ::-1], atol=1e-5)
  np.testing.assert_allclose(other, attention[..., ::-1], atol=1e-5)
  np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-5)


def test_mixed_heads_give_one_heads_features():
  net = SlotAttention(8, 8, 1, heads=2, qkv_size=12, project_out=True)
  params = shapes(net, array(1, 6, 5), array(1, 3, 8))["params"]
  assert params["output"]["kernel"].shape == (12, 6)
  assert params["output"]["bias"].shape == (6,)
  assert params["gru"]["ih"]["kernel"].shape == (6, 24)


def test_slot_size_error():
  with pytest.raises(ValueError, match="slots of 5 features, wanted 8"):
    shapes(SlotAttention(8), array(1, 6, 5), array(1, 3, 5))


def test_position_grid():
  grid = np.asarray(position_grid(2, 4))
  np.testing.assert_allclose(grid[0, 1], [0.25, 0.375, 0.75, 0.625])


@pytest.mark.parametrize("early", [False, True])
def test_decoder(early, rng):
  net = BroadcastDecoder(
    "latent", None, (2, 3), (4, 4), (2, 1), 3, "corners", early_fusion=early
  )
  slots = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
  variables = randomised(net, rng, slots)
  out = jax.jit(net.apply)(variables, slots)
  assert out.image.shape == (2, 4, 6, 4)
  assert out.masks.shape == (2, 4, 6, 3)
  np.testing.assert_allclose(out.masks.sum(-1), 1, atol=1e-5)
  if not early:
    merged = np.einsum("bhwk,bkhwc->bhwc", out.masks, out.parts)
    np.testing.assert_allclose(out.image, merged, atol=1e-5)


def test_learned_places_make_a_token_a_picture(rng):
  """All places see the same token; only the learned vectors differ."""
  net = BroadcastDecoder("pixel", None, (2, 2), (4,), (1,), 1, "learned")
  slots = jnp.asarray(rng.normal(size=(1, 2, 5)), jnp.float32)
  variables = randomised(net, rng, slots)
  assert variables["params"]["position"].shape == (1, 2, 2, 5)
  parts = net.apply(variables, slots).parts
  assert np.ptp(np.asarray(parts), axis=(2, 3)).max() > 1e-2
  params = dict(variables["params"])
  params["position"] = jnp.zeros_like(params["position"])
  flat = net.apply({"params": params}, slots).parts
  assert np.ptp(np.asarray(flat), axis=(2, 3)).max() < 1e-6


def test_decoder_error():
  with pytest.raises(ValueError, match="2 features and 1 strides"):
    shapes(BroadcastDecoder(features=(4, 4), strides=(2,)), array(1, 2, 5))


def test_a_drawn_position_is_never_trained(rng):
  net = BroadcastDecoder(
    "pixel", None, (2, 3), (4,), (1,), 1, "gaussian", bases=5
  )
  slots = jnp.asarray(rng.normal(size=(1, 2, 6)), jnp.float32)
  variables = randomised(net, rng, slots)

  def loss(variables):
    return jnp.square(net.apply(variables, slots).image).sum()

  slopes = jax.jit(jax.grad(loss))(variables)["params"]
  assert slopes["table"].shape == (1, 2, 3, 10)
  assert not np.any(slopes["table"])
  assert np.any(slopes["position"]["kernel"])


def test_fourier_places_tell_themselves_apart(rng):
  """One octave repeats after the whole picture, so its ends look the same."""
  net = BroadcastDecoder("pixel", None, (5, 5), (), (), 1, "fourier", bases=1)
  slots = jnp.asarray(rng.normal(size=(1, 2, 6)), jnp.float32)
  variables = randomised(net, rng, slots)
  assert variables["params"]["position"]["kernel"].shape == (4, 6)
  parts = np.asarray(jax.jit(net.apply)(variables, slots).parts)
  np.testing.assert_allclose(parts[:, :, 0], parts[:, :, -1], atol=1e-5)
  assert np.abs(parts[:, :, 0] - parts[:, :, 2]).max() > 1e-2


@pytest.mark.parametrize("norm", ["none", "batch", "group", "instance"])
def test_slot_autoencoder(norm, rng):
  net = SlotAutoencoder(
    SlotEncoder(
      3, 8, 12, 2, widths=(16, 16), out_channels=6, kernel=3, norm=norm
    ),
    BroadcastDecoder(
      "pixel", None, (4, 4), (16, 32), (2, 1), 3, "corners", norm=norm
    ),
  )
  images = jnp.asarray(rng.uniform(-1, 1, (2, 8, 8, 3)), jnp.float32)
  variables = randomised(net, rng, images)
  run = jax.jit(net.apply)
  picture, slots = run(variables, images)
  assert picture.image.shape == images.shape and slots.shape == (2, 3, 8)
  alone, _ = run(variables, images[1:])
  np.testing.assert_allclose(alone.image, picture.image[1:], atol=1e-5)
  biased = "bias" in variables["params"]["decoder"]["conv_0"]
  assert biased == (norm in ("none", "group"))
  if norm == "batch":
    train = functools.partial(net.apply, train=True, mutable=["batch_stats"])
    (trained, _), updated = jax.jit(train)(variables, images)
    assert np.abs(trained.image - picture.image).max() > 1e-3
    assert set(updated["batch_stats"]) == {"encoder", "decoder"}


def test_slot_encoder_sees_places(rng):
  """A picture of one colour still falls apart by place."""
  net = SlotEncoder(2, 8, 8, 1, widths=(8,), out_channels=6, kernel=1, stride=2)
  images = jnp.zeros((1, 8, 8, 3))
  variables = randomised(net, rng, images)
  _, masks = jax.jit(net.apply)(variables, images)
  assert masks.shape == (1, 4, 4, 2)
  np.testing.assert_allclose(masks.sum(-1), 1, atol=1e-5)
  assert np.ptp(np.asarray(masks[..., 0])) > 1e-4
