"""Recognition network and estimator: published sizes, modes, outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.models.faces.estimator import (
  DECA_OUTPUTS,
  DetailDecoder,
  Estimator,
  decompose,
)
from faceedit_jax.models.faces.iresnet import (
  IResNet,
  iresnet50,
  iresnet100,
  normalize,
)
from faceedit_jax.models.faces.irse import (
  IRSE,
  STAGES,
  IRSEBlock,
  SqueezeExcite,
  portrait_crop,
)
from tests.models.counts import array, parameters, randomised, shapes


@pytest.mark.parametrize(
  ("net", "side", "count"),
  [
    (iresnet50(), 112, 43_590_848),
    (iresnet100(), 112, 65_156_160),
    (IRSE(), 112, 43_797_696),
    (IRSE(STAGES[100], reduction=None), 112, 65_129_792),
    (IRSE(STAGES[152]), 112, 71_148_736),
    (Estimator(), 224, 25_848_108),
    (Estimator(outputs={"detail": 128}), 224, 25_737_408),
  ],
)
def test_published_sizes(net, side, count):
  assert parameters(net, array(1, side, side, 3)) == count


def test_detail_decoder_size():
  net = DetailDecoder()
  assert parameters(net, array(1, 181)) == 1_773_345
  variables = shapes(net, array(1, 181))
  out = jax.eval_shape(net.apply, variables, array(2, 181))
  assert out.shape == (2, 256, 256, 1)


def test_recognition_modes(rng):
  net = IResNet((1, 1), (4, 8), 4, 6)
  x = jnp.asarray(rng.uniform(-1, 1, (3, 8, 8, 3)), jnp.float32)
  variables = randomised(net, rng, x)
  run = jax.jit(net.apply)
  out = run(variables, x)
  # In evaluation a picture does not see the others of its batch.
  np.testing.assert_allclose(run(variables, x[:1]), out[:1], atol=1e-5)

  def train(variables, x):
    return net.apply(variables, x, True, mutable=["batch_stats"])

  trained, stats = jax.jit(train)(variables, x)
  assert np.abs(trained - out).max() > 1e-3
  old = variables["batch_stats"]["bn1"]["mean"]
  new = stats["batch_stats"]["bn1"]["mean"]
  assert np.abs(new - old).max() > 1e-6


def test_irse_block_takes_every_second_pixel_where_channels_stay(rng):
  x = jnp.asarray(rng.normal(size=(2, 6, 6, 4)), jnp.float32)
  for features, names in ((4, set()), (8, {"shortcut", "bn_shortcut"})):
    net = IRSEBlock(features, 2, reduction=2)
    variables = randomised(net, rng, x)
    assert {"shortcut", "bn_shortcut"} & set(variables["params"]) == names
    # Without the residual branch the shortcut is left.
    still = jax.tree.map(jnp.zeros_like, variables["params"]["bn2"])
    params = variables["params"] | {"bn2": still}
    out = jax.jit(net.apply)(variables | {"params": params}, x)
    if not names:
      np.testing.assert_allclose(out, x[:, ::2, ::2], atol=1e-6)
    assert out.shape == (2, 3, 3, features)


def test_squeeze_scales_channels(rng):
  x = jnp.asarray(rng.normal(size=(2, 3, 3, 8)), jnp.float32)
  net = SqueezeExcite(4)
  variables = randomised(net, rng, x)
  w1, w2 = (variables["params"][n]["kernel"] for n in ("fc1", "fc2"))
  hidden = np.maximum(np.asarray(x).mean((1, 2)) @ w1, 0)
  scale = 1 / (1 + np.exp(-hidden @ w2))
  got = net.apply(variables, x)
  np.testing.assert_allclose(got, x * scale[:, None, None], rtol=1e-4)


def test_portrait_crop_averages_the_face():
  row = jnp.arange(256.0)[None, :, None, None] + jnp.zeros((1, 256, 256, 1))
  got = portrait_crop(row, 47)  # 188 = 4 x 47
  np.testing.assert_allclose(got[0, :, 3, 0], 36.5 + 4 * np.arange(47))
  column = row.transpose(0, 2, 1, 3)
  got = portrait_crop(column)[0, 5, :, 0]
  # Cells of 188 / 112 pixels: the first takes two, the second three.
  np.testing.assert_allclose(got[:2], [32.5, 34.0], rtol=1e-6)
  assert got.shape == (112,)
  assert got[-1] == pytest.approx(32 + 186.5)


def test_normalize():
  x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
  np.testing.assert_allclose(normalize(x), [[0.6, 0.8], [0, 0]], atol=1e-6)
  grad = jax.grad(lambda x: normalize(x).sum())(x)
  assert np.isfinite(grad).all()


def test_decompose():
  vector = jnp.arange(2 * 236.0).reshape(2, 236)
  codes = decompose(vector, DECA_OUTPUTS)
  assert list(codes) == list(DECA_OUTPUTS)
  assert codes["light"].shape == (2, 9, 3)
  # The published split: light is the last, three numbers per band.
  assert codes["camera"][0, 0] == 206
  np.testing.assert_array_equal(codes["light"][0, 1], [212, 213, 214])
  with pytest.raises(ValueError, match="got 236 numbers, wanted 3"):
    decompose(vector, {"gaze": 3})


def test_estimator_outputs(rng):
  net = Estimator(
    outputs={"shape": 5, "light": 27},
    heads={"gaze": 2, "landmarks": 10, "face": 1},
    stages=(1, 1),
    width=4,
    hidden=6,
    input_size=16,
  )
  x = jnp.asarray(rng.uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
  variables = randomised(net, rng, x)
  out = jax.jit(net.apply)(variables, x)
  assert {k: v.shape for k, v in out.items()} == {
    "shape": (2, 5),
    "light": (2, 9, 3),
    "gaze": (2, 2),
    "landmarks": (2, 5, 2),
    "face": (2, 1),
  }
  vector = net.apply(variables, x, method="vector")
  np.testing.assert_allclose(vector[:, :5], out["shape"], atol=1e-6)
