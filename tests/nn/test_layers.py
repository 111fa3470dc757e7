"""Layers against NumPy."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.nn.gru import GRUCell
from faceedit_jax.nn.layers import (
  GroupNorm,
  average_pool2,
  conv,
  instance_norm,
  max_pool,
  resize,
  timestep_embedding,
  upsample2,
)


def test_group_norm(rng):
  x = rng.normal(3, 2, size=(2, 4, 5, 6)).astype(np.float32)
  net = GroupNorm(3)
  out, _ = net.init_with_output(jax.random.key(0), jnp.asarray(x))
  parts = x.reshape(2, 20, 3, 2)
  mean = parts.mean((1, 3), keepdims=True)
  deviation = np.sqrt(parts.var((1, 3), keepdims=True) + 1e-5)
  expected = ((parts - mean) / deviation).reshape(x.shape)
  np.testing.assert_allclose(out, expected, atol=1e-5)
  # Statistics stay in float32 whatever the input.
  half = net.apply(
    {"params": {"scale": jnp.ones(6), "bias": jnp.zeros(6)}},
    jnp.asarray(x + 100, jnp.bfloat16),
  )
  assert half.dtype == jnp.bfloat16
  assert np.isfinite(half.astype(jnp.float32)).all()


def test_group_norm_error():
  with pytest.raises(ValueError, match="got 6 channels, wanted a multiple"):
    GroupNorm(4).init(jax.random.key(0), jnp.zeros((1, 2, 2, 6)))


def test_instance_norm(rng):
  x = jnp.asarray(rng.normal(3, 2, size=(2, 4, 5, 6)), jnp.float32)
  out = instance_norm(x)
  np.testing.assert_allclose(out.mean((1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(out.std((1, 2)), 1, atol=1e-3)


def test_strided_conv_pads_on_both_sides():
  net = conv(1, 3, 2, bias=False)
  kernel = jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1)
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  out = net.apply({"params": {"kernel": kernel}}, x)
  np.testing.assert_array_equal(out[0, ..., 0], [[0, 0], [0, 5]])


def _assert_same(ours, theirs, *arguments):
  """Two functions have the same values and slopes."""

  def value_and_slopes(function):
    def loss(*arguments):
      y = function(*arguments)
      return jnp.sin(y).sum(), y

    places = tuple(range(len(arguments)))
    return jax.grad(loss, places, has_aux=True)(*arguments)

  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5),
    value_and_slopes(ours),
    value_and_slopes(theirs),
  )


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 4), (3, 3)])
def test_convolutions_of_small_maps_are_convolutions(rng, size):
  x = rng.normal(size=(2, *size, 3)).astype(np.float32)
  ours = conv(5)
  variables = ours.init(jax.random.key(0), x)
  theirs = nn.Conv(5, (3, 3), padding=((1, 1), (1, 1)))
  _assert_same(ours.apply, theirs.apply, variables, x)


@pytest.mark.parametrize("features", [39, 40])
def test_few_pixels_are_multiplied(rng, features):
  x = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
  ours = conv(features)
  variables = ours.init(jax.random.key(0), x)
  theirs = nn.Conv(features, (3, 3), padding=((1, 1), (1, 1)))
  _assert_same(ours.apply, theirs.apply, variables, x)
  program = str(jax.make_jaxpr(ours.apply)(variables, x))
  assert ("conv_general_dilated" in program) == (features < 2 * 4 * 5)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (4, 5), (5, 3)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_convolutions_of_one_pixel_are_convolutions(rng, size, stride, padding):
  x = rng.normal(size=(2, *size, 3)).astype(np.float32)
  ours = conv(5, 1, stride, padding=padding)
  variables = ours.init(jax.random.key(0), x)
  pads = ((padding, padding),) * 2
  theirs = nn.Conv(5, (1, 1), (stride, stride), padding=pads)
  _assert_same(ours.apply, theirs.apply, variables, x)


@pytest.mark.parametrize(
  ("size", "window", "stride", "padding"),
  [((8, 8), 3, 2, 1), ((7, 6), 3, 2, 1), ((6, 9), 2, 2, 0), ((5, 5), 3, 1, 0)],
)
def test_max_pool_is_linens(rng, size, window, stride, padding):
  x = rng.normal(size=(2, *size, 3)).astype(np.float32)
  pads = ((padding, padding),) * 2
  _assert_same(
    lambda x: max_pool(x, window, stride, padding),
    lambda x: nn.max_pool(x, (window,) * 2, (stride,) * 2, pads),
    x,
  )


def test_resampling():
  x = jnp.arange(4.0).reshape(1, 2, 2, 1)
  up = upsample2(x)
  assert up.shape == (1, 4, 4, 1)
  np.testing.assert_array_equal(up[0, :, 0, 0], [0, 0, 2, 2])
  np.testing.assert_array_equal(average_pool2(up), x)
  wide = resize(x, 2, 4)
  np.testing.assert_allclose(wide[0, 0, :, 0], [0, 0.25, 0.75, 1], atol=1e-6)


def test_timestep_embedding():
  out = np.asarray(timestep_embedding(jnp.array([0.0, 2.0]), 6))
  np.testing.assert_allclose(out[0], [1, 1, 1, 0, 0, 0])
  rates = 1e4 ** (-np.arange(3) / 3)
  expected = [*np.cos(2 * rates), *np.sin(2 * rates)]
  np.testing.assert_allclose(out[1], expected, atol=1e-6)


def test_gru(rng):
  state = rng.normal(size=(2, 3)).astype(np.float32)
  x = rng.normal(size=(2, 4)).astype(np.float32)
  net = GRUCell()
  variables = net.init(jax.random.key(0), jnp.asarray(state), jnp.asarray(x))
  bias = jnp.asarray(rng.normal(size=9), jnp.float32)
  params = variables["params"]
  params["hh"]["bias"] = bias
  out = net.apply(variables, jnp.asarray(state), jnp.asarray(x))
  a = np.split(x @ np.asarray(params["ih"]["kernel"]), 3, -1)
  b = np.split(state @ np.asarray(params["hh"]["kernel"]) + bias, 3, -1)
  sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
  reset, update = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
  new = np.tanh(a[2] + reset * b[2])
  np.testing.assert_allclose(
    out, (1 - update) * new + update * state, atol=1e-5
  )
