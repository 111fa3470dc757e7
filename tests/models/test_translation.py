"""Nets that translate pictures: published sizes, what each option changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.models.gan.domain_discriminator import DomainDiscriminator
from faceedit_jax.models.gan.domain_mapping_network import MappingNetwork
from faceedit_jax.models.gan.style_encoder import StyleCodes, StyleEncoder
from faceedit_jax.models.gan.translation_generator import (
  TranslationGenerator,
  high_pass,
)
from faceedit_jax.models.gan.translation_unet import TranslationUNet
from faceedit_jax.models.perception.feature_resnet import (
  FeatureResNet,
  imagenet_units,
)
from faceedit_jax.nn.style import pick
from tests.models.counts import array, parameters, randomised, shapes

SMALL = {"image_size": 32, "channels": 4, "max_channels": 8}
X, Y = array(1, 256, 256, 3), array(1, dtype="int32")


@pytest.mark.parametrize(
  ("net", "inputs", "count"),
  [
    (TranslationGenerator(), (X, array(1, 64)), 43_295_363),
    (TranslationGenerator(w_hpf=0), (X, array(1, 64)), 33_892_995),
    (StyleEncoder(), (X, Y), 20_954_368),
    (StyleEncoder(factor_layers=0), (X, Y), 20_916_928),
    # One more domain is a head and a transformer.
    (StyleEncoder(domains=3), (X, Y), 20_954_368 + 513 * 64 + 12_480),
    (DomainDiscriminator(), (X,), 20_852_290),
    (MappingNetwork(), (array(1, 16), Y), 2_438_272),
    (FeatureResNet(), (X,), 11_176_512),
    (FeatureResNet(classes=1000), (X,), 11_689_512),
  ],
)
def test_published_sizes(net, inputs, count):
  assert parameters(net, *inputs) == count


def dead_parameters(net, variables, *args):
  """Paths of parameters that no output depends on."""

  def total(params):
    leaves = jax.tree.leaves(net.apply({"params": params}, *args))
    return sum(
      (x * jnp.sin(jnp.arange(x.size)).reshape(x.shape)).sum() for x in leaves
    )

  slopes = jax.jit(jax.grad(total))(variables["params"])
  return [
    jax.tree_util.keystr(path)
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes)
    if not np.abs(slope).max() > 0
  ]


def pictures(rng, count=2, side=32):
  return jnp.asarray(rng.uniform(-1, 1, (count, side, side, 3)), jnp.float32)


def test_generator_has_no_dead_weights(rng):
  net = TranslationGenerator(16, 4, 8, w_hpf=1.0)
  x = pictures(rng, 2, 16)
  style = jnp.asarray(rng.normal(size=(2, 5)), jnp.float32)
  variables = randomised(net, rng, x, style)
  blind = dead_parameters(net, variables, x, style)
  # A bias in front of an instance norm changes nothing, as published.
  assert not [name for name in blind if not name.endswith("conv1']['bias']")]


def test_masks_open_the_skips(rng):
  # Skips at 32, 64 and 128 pixels, as the published code has them.
  net = TranslationGenerator(**SMALL, w_hpf=2.0, skip_sides=(1.0,))
  x, style = pictures(rng), jnp.asarray(rng.normal(size=(2, 5)), jnp.float32)
  variables = randomised(net, rng, x, style)
  run = jax.jit(net.apply)
  plain = run(variables, x, style)
  assert plain.shape == x.shape and plain.dtype == jnp.float32
  closed = jnp.zeros((2, 16, 16, 2))
  np.testing.assert_allclose(run(variables, x, style, closed), plain, atol=1e-5)
  # At 32 pixels the first mask counts, the second is for larger maps.
  second = run(variables, x, style, closed.at[..., 1].set(1))
  np.testing.assert_allclose(second, plain, atol=1e-5)
  first = closed.at[:, :4, :4, 0].set(1)
  gap = np.abs(run(variables, x, style, first) - plain)
  assert gap.max() > 1e-3


@pytest.mark.parametrize(
  ("size", "fields", "skips"),
  [
    (256, {}, {32: 0, 64: 1, 128: 1}),  # as published
    (64, {}, {8: 0, 16: 1, 32: 1}),
    (128, {"skip_sides": (0.25, 0.5, 1.0)}, {32: 0, 64: 1, 128: 1}),
    (64, {"skip_sides": ()}, {}),
  ],
)
def test_sides_of_the_skips(size, fields, skips):
  assert TranslationGenerator(size, 4, 8, 1.0, **fields).skips == skips


def test_every_side_of_64_pixels_has_its_skip(rng):
  """None lies behind the last norm."""
  net = TranslationGenerator(64, 2, 2, w_hpf=1.0)
  x = pictures(rng, 1, 64)
  style = jnp.asarray(rng.normal(size=(1, 3)), jnp.float32)
  variables = randomised(net, rng, x, style)
  closed = jnp.zeros((1, 8, 8, 2))
  plain = jax.jit(net.apply)(variables, x, style, closed)
  for share, mask in zip(net.skip_sides, (0, 1, 1), strict=True):
    alone = net.clone(skip_sides=(share,) if mask == 0 else (1 / 64, share))
    run = jax.jit(alone.apply)
    opened = run(variables, x, style, closed.at[..., mask].set(1))
    assert np.abs(opened - plain).max() > 1e-4
    other = run(variables, x, style, closed.at[..., 1 - mask].set(1))
    np.testing.assert_allclose(other, plain, atol=1e-5)


@pytest.mark.parametrize("sides", [(0.5, 0.25), (0.0, 0.5), (2.0,), (0.5, 0.5)])
def test_impossible_sides_of_skips(sides):
  net = TranslationGenerator(**SMALL, skip_sides=sides)
  with pytest.raises(ValueError, match="wanted shares of the picture's side"):
    shapes(net, array(1, 32, 32, 3), array(1, 5))


def test_high_pass_against_its_kernel(rng):
  x = jnp.asarray(rng.normal(size=(2, 5, 6, 3)), jnp.float32)
  kernel = np.full((3, 3, 1, 1), -1.0, np.float32)
  kernel[1, 1] = 8
  for c in range(3):
    wanted = jax.lax.conv_general_dilated(
      x[..., c : c + 1],
      kernel / 4,
      (1, 1),
      ((1, 1), (1, 1)),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    got = high_pass(x, 4.0)[..., c : c + 1]
    np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize(
  ("size", "w_hpf", "halvings"),
  [(64, 0, 2), (64, 1, 3), (128, 1, 4), (256, 0, 4), (256, 1, 5), (512, 1, 6)],
)
def test_any_image_size(size, w_hpf, halvings):
  net = TranslationGenerator(size, 4, 8, float(w_hpf))
  x, style = array(2, size, size, 3), array(2, 7)
  variables = shapes(net, x, style)
  names = set(variables["params"])
  assert {f"encode_{i}" for i in range(halvings + 2)} <= names
  assert f"encode_{halvings + 2}" not in names
  assert jax.eval_shape(net.apply, variables, x, style).shape == x.shape
  critic = DomainDiscriminator(size, 4, 8, domains=6)
  assert jax.eval_shape(critic.apply, shapes(critic, x), x).shape == (2, 6)


def test_generator_errors(rng):
  x, style = pictures(rng), jnp.zeros((2, 5))

  def init(*args, **fields):
    net = TranslationGenerator(**{**SMALL, **fields})
    return jax.eval_shape(net.init, jax.random.key(0), *args)

  with pytest.raises(ValueError, match="32 x 32 pixels, wanted 64 x 64"):
    init(x, style, image_size=64)
  with pytest.raises(ValueError, match="w_hpf=0, which has no skips"):
    init(x, style, jnp.zeros((2, 8, 8, 2)), w_hpf=0.0)
  with pytest.raises(ValueError, match="image_size is 100; it is halved 3"):
    init(jnp.zeros((1, 100, 100, 3)), style[:1], image_size=100)
  net = DomainDiscriminator(48, 4, 8)
  with pytest.raises(ValueError, match="image_size is 48; wanted a power"):
    shapes(net, array(1, 48, 48, 3))


def encoder(rng, **fields):
  net = StyleEncoder(16, 4, 8, style_dim=6, domains=3, **fields)
  x, y = pictures(rng, 3, 16), jnp.array([0, 2, 1])
  return net, randomised(net, rng, x, y), x, y


def test_codes(rng):
  net, variables, x, y = encoder(rng)
  target = jnp.array([1, 1, 0])
  run = jax.jit(net.apply)
  codes = run(variables, x, y, target)
  np.testing.assert_allclose(
    codes.unrelated + codes.related, codes.style, atol=1e-5
  )
  np.testing.assert_allclose(codes.edited(0.0), codes.style, atol=1e-5)
  np.testing.assert_allclose(
    codes.edited(), codes.unrelated + codes.transformed, atol=1e-5
  )
  # Beyond the target, each picture by its own strength.
  strength = jnp.array([[0.0], [1.0], [2.0]])
  step = codes.transformed - codes.related
  np.testing.assert_allclose(
    codes.edited(strength)[2], codes.style[2] + 2 * step[2], atol=1e-5
  )
  # The target changes what is transformed alone, by its own transformer.
  own = run(variables, x, y)
  for name in ("style", "unrelated", "related"):
    np.testing.assert_allclose(
      getattr(own, name), getattr(codes, name), atol=1e-5
    )
  params = dict(variables["params"])
  params["transformer_0"] = jax.tree.map(
    jnp.zeros_like, params["transformer_0"]
  )
  moved = run({"params": params}, x, y, target).transformed
  np.testing.assert_allclose(moved[:2], codes.transformed[:2], atol=1e-5)
  assert np.abs(moved[2]).max() == 0
  # A picture's domain picks its head.
  other = run(variables, x, jnp.array([1, 2, 1]), target).style
  assert np.abs(other[0] - codes.style[0]).max() > 1e-3
  np.testing.assert_allclose(other[1:], codes.style[1:], atol=1e-5)


def test_rectified_and_unfactored_encoders(rng):
  net, variables, x, y = encoder(rng, rectified=True, factor_layers=4)
  assert "layer_3" in variables["params"]["decomposer"]
  codes = jax.jit(net.apply)(variables, x, y)
  assert codes.unrelated.min() == 0
  plain, variables, x, y = encoder(rng, factor_layers=0)
  assert "decomposer" not in variables["params"]
  style = jax.eval_shape(plain.apply, variables, x, y)
  assert not isinstance(style, StyleCodes) and style.shape == (3, 6)


def test_encoder_has_no_dead_weights(rng):
  net, variables, x, y = encoder(rng)
  assert not dead_parameters(net, variables, x, y, jnp.array([2, 1, 0]))


def test_discriminator_and_mapping_by_domain(rng):
  net = DomainDiscriminator(16, 4, 8, domains=4)
  x, y = pictures(rng, 3, 16), jnp.array([3, 0, 1])
  variables = randomised(net, rng, x)
  every = jax.jit(net.apply)(variables, x)
  np.testing.assert_allclose(
    jax.jit(net.apply)(variables, x, y), every[jnp.arange(3), y], rtol=1e-5
  )
  mapping = MappingNetwork(5, 4, 8)
  z = jnp.asarray(rng.normal(size=(3, 16)), jnp.float32)
  variables = randomised(mapping, rng, z, y)
  style = mapping.apply(variables, z, y)
  assert style.shape == (3, 5)
  assert np.abs(style - mapping.apply(variables, z, (y + 1) % 4)).min() > 0


def test_pick_marks_unknown_domains():
  options = jnp.arange(6.0).reshape(3, 2)
  got = pick(options, jnp.array([1, 2, -1]))
  assert got[0] == 1 and np.isnan(got[1:]).all()
  slope = jax.grad(lambda o: pick(o, jnp.array([1, 0, 0])).sum())(options)
  np.testing.assert_array_equal(slope, [[0, 1], [1, 0], [1, 0]])


def test_resnet_normalises_and_pools(rng):
  net = FeatureResNet((1, 1), 4)
  x = pictures(rng)
  variables = randomised(net, rng, x)
  out = jax.jit(net.apply)(variables, x)
  assert out.shape == (2, 8) and out.min() >= 0
  # Only a change of stride or width has a projection.
  names = [set(variables["params"][f"layer{i}_0"]) for i in (1, 2)]
  assert "shortcut" not in names[0] and "shortcut" in names[1]
  # ImageNet's mean is zero.
  mean = 2 * jnp.array([0.485, 0.456, 0.406]) - 1
  grey = imagenet_units(jnp.broadcast_to(mean, x.shape))
  np.testing.assert_allclose(grey, 0, atol=1e-6)
  brighter = imagenet_units(jnp.broadcast_to(mean + 0.2, x.shape))
  np.testing.assert_allclose(brighter[0, 0, 0, 1], 0.1 / 0.224, rtol=1e-4)


def test_the_u_net_begins_with_the_picture_and_has_skips(rng):
  net = TranslationUNet(16, 4, 8, halvings=2)
  x, style = pictures(rng, 2, 16), jnp.asarray(rng.normal(size=(2, 5)), "f4")
  run = jax.jit(net.apply)
  start = net.init(jax.random.key(1), x, style)
  np.testing.assert_array_equal(run(start, x, style), x)
  variables = randomised(net, rng, x, style)
  blind = dead_parameters(net, variables, x, style)
  assert not [name for name in blind if "_conv" not in name]
  assert all(name.endswith("['bias']") for name in blind)  # before a norm
  edit = run(variables, x, style) - x
  assert np.abs(run(variables, x, style + 1) - x - edit).max() > 1e-3
  # What was seen at each size is read again there.
  for level, width in ((0, 4), (1, 8)):
    deaf = jax.tree.map(jnp.array, variables)
    layer = deaf["params"][f"decode_{level}_conv1"]
    assert layer["kernel"].shape[2] == 8 + width
    layer["kernel"] = layer["kernel"].at[:, :, 8:].set(0)
    assert np.abs(run(deaf, x, style) - x - edit).max() > 1e-3


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(image_size=64), "32 x 32 pixels, wanted 64 x 64"),
    (dict(halvings=6), "image_size is 32; it is halved 6 times"),
  ],
)
def test_u_net_errors(fields, message):
  net = TranslationUNet(**{**SMALL, **fields})
  with pytest.raises(ValueError, match=message):
    shapes(net, array(1, 32, 32, 3), array(1, 5))
