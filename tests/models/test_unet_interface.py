"""What a U-Net gives besides its prediction, and what is added to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.models.diffusion.unet import UNet
from faceedit_jax.models.diffusion.unet_interface import (
  PARTS,
  Capture,
  Residuals,
)
from faceedit_jax.nn.blocks import ResBlock
from faceedit_jax.nn.layers import timestep_embedding
from tests.models.counts import randomised

OPTIONS = {
  "in_channels": 3,
  "out_channels": 2,
  "channels": 8,
  "mult": (1, 2),
  "res_blocks": 1,
  "attention_levels": (0,),
  "heads": 2,
  "depth": 2,
  "context_dim": 5,
  "groups": 4,
}
NET = UNet(**OPTIONS)
EVERYTHING = Capture(PARTS, PARTS, PARTS, map_heads="all")
FEATURES = Capture(features=PARTS)
SKIPS = ("encoder/in", "encoder/0/0", "encoder/0/down", "encoder/1/0")
ATTENDED = ("encoder/0/0", "middle", "decoder/0/0", "decoder/0/1")


@pytest.fixture(scope="module")
def inputs():
  rng = np.random.default_rng(0)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  return normal(2, 8, 8, 3), jnp.array([3.0, 700.0]), normal(2, 3, 5)


@pytest.fixture(scope="module")
def variables(inputs):
  return randomised(NET, np.random.default_rng(1), *inputs)


@pytest.fixture(scope="module")
def apply():
  return jax.jit(NET.apply, static_argnames="capture")


@pytest.fixture(scope="module")
def everything(apply, variables, inputs):
  """All that the net can give."""
  return apply(variables, *inputs, capture=EVERYTHING)


@pytest.fixture(scope="module")
def residuals(inputs):
  rng = np.random.default_rng(2)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype),
    NET.residual_shapes(inputs[0].shape),
  )


def test_places_and_shapes(everything):
  assert {k: v.shape[1:] for k, v in everything.features.items()} == {
    "encoder/in": (8, 8, 8),
    "encoder/0/0": (8, 8, 8),
    "encoder/0/down": (4, 4, 8),
    "encoder/1/0": (4, 4, 16),
    "middle": (4, 4, 16),
    "decoder/1/0": (4, 4, 16),
    "decoder/1/1": (4, 4, 16),
    "decoder/1/up": (8, 8, 16),
    "decoder/0/0": (8, 8, 8),
    "decoder/0/1": (8, 8, 8),
  }
  places = {f"{place}/{block}" for place in ATTENDED for block in range(2)}
  assert set(everything.cross_outputs) == places
  assert set(everything.cross_maps) == places
  assert everything.cross_outputs["middle/1"].shape == (2, 4, 4, 16)
  assert everything.cross_outputs["decoder/0/1/0"].shape == (2, 8, 8, 8)
  assert everything.cross_maps["decoder/0/1/0"].shape == (2, 2, 64, 3)


def test_places_come_in_the_order_of_the_network(variables, inputs):
  found = {}

  def run(variables, *args):
    output = NET.apply(variables, *args, capture=EVERYTHING)
    found["features"] = list(output.features)
    found["maps"] = [k for k in output.cross_maps if k.endswith("/0")]
    return output.prediction

  jax.eval_shape(run, variables, *inputs)
  assert tuple(found["features"][:4]) == SKIPS
  assert found["features"][4:6] == ["middle", "decoder/1/0"]
  assert found["maps"] == [f"{place}/0" for place in ATTENDED]


def test_captured_is_what_the_layers_gave(variables, inputs, everything):
  """By Linen's own record of what modules return."""

  @jax.jit
  def run(variables, *args):
    _, extra = NET.apply(variables, *args, capture_intermediates=True)
    return extra["intermediates"]

  layers = run(variables, *inputs)

  def given(module):
    return module["__call__"][0]

  names = {
    "encoder/in": "conv_in",
    "encoder/0/down": "input_2_down",
    "encoder/1/0": "input_3_res",
    "middle": "middle_2_res",
    "decoder/1/1": "output_1_res",
    "decoder/1/up": "output_1_up",
  }
  for place, name in names.items():
    got, wanted = everything.features[place], given(layers[name])
    np.testing.assert_allclose(got, wanted, atol=1e-4, err_msg=place)
  wanted = given(layers["output_3_attn"])[0]
  got = everything.features["decoder/0/1"]
  np.testing.assert_allclose(got, wanted, atol=1e-4)
  wanted = given(layers["output_2_attn"]["block_1"]["attn2"])[0]
  got = everything.cross_outputs["decoder/0/0/1"].reshape(wanted.shape)
  np.testing.assert_allclose(got, wanted, atol=1e-4)
  assert np.abs(wanted).max() > 0.05


def test_maps_by_head_and_their_mean(apply, variables, inputs, everything):
  capture = Capture(cross_maps=("decoder",))
  mean = apply(variables, *inputs, capture=capture).cross_maps
  assert {place.split("/")[0] for place in mean} == {"decoder"}
  for place, value in mean.items():
    by_head = everything.cross_maps[place]
    np.testing.assert_allclose(by_head.sum(-1), 1, atol=1e-5)
    wanted = by_head.mean(1).reshape(2, 8, 8, 3)
    np.testing.assert_allclose(value, wanted, atol=1e-5)


def program(variables, inputs, **options):
  """Operations of a program, and its text."""
  run = jax.jit(lambda v, *a: NET.apply(v, *a, **options))
  lowered = run.lower(variables, *inputs)
  return lowered.cost_analysis()["flops"], lowered.as_text()


def test_what_is_not_asked_for_is_not_computed(variables, inputs):
  plain, text = program(variables, inputs)
  assert program(variables, inputs, capture=Capture()) == (plain, text)
  for capture in (FEATURES, Capture(cross_outputs=PARTS)):
    assert program(variables, inputs, capture=capture)[0] == plain
  decoder = Capture(cross_maps=("decoder",))
  _, some = program(variables, inputs, capture=decoder)
  _, every = program(variables, inputs, capture=Capture(cross_maps=PARTS))
  # Probabilities by picture, head, pixel and token, at both sizes.
  large, small = "tensor<2x2x64x3xf32>", "tensor<2x2x16x3xf32>"
  assert large not in text and small not in text
  assert large in some and small not in some
  assert some.count(large) < every.count(large) and small in every


def test_residual_shapes_are_those_of_the_skips(everything, inputs):
  shapes = NET.residual_shapes(inputs[0].shape)
  assert [x.shape for x in shapes.skips] == [
    everything.features[place].shape for place in SKIPS
  ]
  assert shapes.middle.shape == everything.features["middle"].shape


def test_published_residual_shapes():
  net = UNet(in_channels=4, context_dim=768)
  shapes = net.residual_shapes((1, 64, 64, 4))
  # Twelve of Stable Diffusion 1, and that of the middle.
  assert [(x.shape[1], x.shape[3]) for x in shapes.skips] == [
    *[(64, 320)] * 3,
    (32, 320),
    *[(32, 640)] * 2,
    (16, 640),
    *[(16, 1280)] * 2,
    *[(8, 1280)] * 3,
  ]
  assert shapes.middle.shape == (1, 8, 8, 1280)


def test_zero_residuals_change_nothing(
  apply, variables, inputs, everything, residuals
):
  zeros = jax.tree.map(jnp.zeros_like, residuals)
  got = apply(variables, *inputs, capture=EVERYTHING, residuals=zeros)
  for a, b in zip(
    jax.tree.leaves(got), jax.tree.leaves(everything), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=2e-5)


def only(residuals, place):
  """Residuals at one place, zeros elsewhere."""
  zeros = jax.tree.map(jnp.zeros_like, residuals)
  if place == "middle":
    return zeros.replace(middle=residuals.middle)
  index = SKIPS.index(place)
  skips = list(zeros.skips)
  skips[index] = residuals.skips[index]
  return zeros.replace(skips=tuple(skips))


@pytest.mark.parametrize("place", [*SKIPS, "middle"])
def test_a_residual_reaches_the_decoder_alone(
  place, apply, variables, inputs, everything, residuals
):
  """One at the place that the decoder reads at `first`, and nothing before."""
  given = only(residuals, place)
  got = apply(variables, *inputs, capture=EVERYTHING, residuals=given)
  order = [
    *SKIPS,
    "middle",
    "decoder/1/0",
    "decoder/1/1",
    "decoder/1/up",
    "decoder/0/0",
    "decoder/0/1",
  ]
  readers = {
    "middle": "decoder/1/0",
    "encoder/1/0": "decoder/1/0",
    "encoder/0/down": "decoder/1/1",
    "encoder/0/0": "decoder/0/0",
    "encoder/in": "decoder/0/1",
  }
  first = order.index(readers[place])
  for i, name in enumerate(order):
    gap = np.abs(got.features[name] - everything.features[name]).max()
    assert (gap > 1e-2) == (i >= first), (name, gap)


def test_residuals_against_the_decoder_written_by_hand(
  apply, variables, inputs, everything, residuals
):
  """The first layer of the decoder reads middle and last skip with both."""
  got = apply(variables, *inputs, capture=FEATURES, residuals=residuals)
  block = ResBlock(16, OPTIONS["groups"])
  time = time_embedding(variables, inputs[1])

  def layer(name, *maps):
    params = {"params": variables["params"][name]}
    return block.apply(params, jnp.concatenate(maps, -1), time)

  plain, added = everything.features, residuals
  h = layer(
    "output_0_res",
    plain["middle"] + added.middle,
    plain["encoder/1/0"] + added.skips[3],
  )
  np.testing.assert_allclose(got.features["decoder/1/0"], h, atol=1e-4)
  h = layer("output_1_res", h, plain["encoder/0/down"] + added.skips[2])
  np.testing.assert_allclose(got.features["decoder/1/1"], h, atol=1e-4)


def time_embedding(variables, t):
  h = timestep_embedding(t, OPTIONS["channels"])
  for name in ("time_in", "time_out"):
    params = variables["params"][name]
    h = h if name == "time_in" else h * jax.nn.sigmoid(h)
    h = h @ params["kernel"] + params["bias"]
  return h


def test_slopes_reach_the_residuals(variables, inputs, residuals):
  def loss(added):
    out = NET.apply(variables, *inputs, residuals=added).prediction
    return jnp.square(out).sum()

  for slope in jax.tree.leaves(jax.jit(jax.grad(loss))(residuals)):
    assert np.abs(slope).max() > 1e-4


def test_residuals_are_taken_in_the_dtype_of_the_net(inputs, residuals):
  net = UNet(dtype=jnp.bfloat16, **OPTIONS)
  variables = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  got = jax.eval_shape(
    lambda v: net.apply(v, *inputs, capture=FEATURES, residuals=residuals),
    variables,
  )
  assert {x.dtype.name for x in got.features.values()} == {"bfloat16"}
  assert got.prediction.dtype == jnp.float32


def test_wrong_residuals(variables, inputs, residuals):
  def run(given):
    jax.eval_shape(
      lambda: NET.apply(variables, *inputs, residuals=given).prediction
    )

  with pytest.raises(ValueError, match="got 3 residuals for 4 skip") as error:
    run(Residuals(residuals.skips[:3], residuals.middle))
  assert "\n" not in str(error.value)
  wrong = (*residuals.skips[:2], residuals.skips[3], residuals.skips[3])
  with pytest.raises(
    ValueError, match=r"\(2, 4, 4, 16\) for skip 2, wanted \(2, 4, 4, 8\)"
  ):
    run(Residuals(wrong, residuals.middle))
  with pytest.raises(ValueError, match=r"for the middle, wanted \(2, 4, 4, 16"):
    run(Residuals(residuals.skips, residuals.middle[:1]))


@pytest.mark.parametrize(
  "options, message",
  [
    ({"features": ("centre",)}, r"features is \('centre',\), wanted a tuple"),
    ({"cross_maps": "middle"}, "cross_maps is 'middle', wanted a tuple of 'e"),
    ({"map_heads": "each"}, "map_heads is 'each', wanted 'mean' or 'all'"),
  ],
)
def test_wrong_captures(options, message):
  with pytest.raises(ValueError, match=message):
    Capture(**options)


def test_no_cross_attention_to_capture(variables, inputs):
  net = UNet(attention="self", **OPTIONS)
  with pytest.raises(ValueError, match="attention='self' does not have"):
    jax.eval_shape(
      lambda: net.init(
        jax.random.key(0), *inputs, capture=Capture(cross_maps=("middle",))
      )
    )
