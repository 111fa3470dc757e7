"""The first stages: published sizes, quantiser, gradients, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.models.diffusion.autoencoder import (
  KLModel,
  VectorQuantizer,
  VQModel,
)
from tests.models.counts import array, randomised, shapes, size

TINY = {
  "channels": 8,
  "mult": (1, 2),
  "res_blocks": 1,
  "attention_levels": (1,),
  "z_channels": 3,
  "embed_dim": 2,
  "groups": 4,
}


def test_paper_size():
  params = shapes(VQModel(), array(1, 256, 256, 3))["params"]
  assert size(params["encoder"]) == 27_397_764
  assert size(params["decoder"]) == 40_253_955
  assert size(params["quantizer"]) == 65_536


def test_published_kl_size():
  assert size(shapes(KLModel(), array(1, 256, 256, 3))) == 83_653_863


@pytest.mark.parametrize("legacy", [True, False])
def test_quantiser(legacy, rng):
  z = jnp.asarray(rng.normal(size=(2, 3, 3, 2)), jnp.float32)
  net = VectorQuantizer(5, 2, 0.25, legacy)
  book = jnp.asarray(rng.normal(size=(5, 2)), jnp.float32)
  variables = {"params": {"embedding": book}}
  out, loss, indices = net.apply(variables, z)
  distances = np.square(np.asarray(z)[..., None, :] - book).sum(-1)
  np.testing.assert_array_equal(indices, distances.argmin(-1))
  np.testing.assert_allclose(out, book[indices], atol=1e-6)
  error = np.square(book[indices] - z).mean()
  np.testing.assert_allclose(loss, 1.25 * error, rtol=1e-5)

  # Straight through: the gradient of the output reaches z unchanged.
  grad = jax.grad(lambda z: (3 * net.apply(variables, z)[0]).sum())(z)
  np.testing.assert_allclose(grad, np.full(z.shape, 3.0), atol=1e-6)
  # The commitment term, the only one that moves z, is weighted by beta only
  # in the form of the VQ-VAE paper.
  grad = jax.grad(lambda z: net.apply(variables, z)[1])(z)
  weight = 1 if legacy else 0.25
  expected = weight * 2 * (z - book[indices]) / z.size
  np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_vq_interface(rng):
  x = jnp.asarray(rng.uniform(-1, 1, size=(2, 8, 8, 3)), jnp.float32)
  net = VQModel(codes=7, **TINY)
  variables = randomised(net, rng, x)

  @jax.jit
  def run(x):
    out = net.apply(variables, x)
    again = net.apply(variables, out.latent, method="decode")
    book = net.apply(variables, out.indices, method="codes_to_latent")
    h = net.apply(variables, book, method="decode_features")
    last = net.apply(variables, h, method="decode_last")
    return out, again, last

  out, again, last = run(x)
  assert out.image.shape == x.shape
  assert out.latent.shape == (2, 4, 4, 2)
  np.testing.assert_allclose(again, out.image, atol=1e-5)
  np.testing.assert_allclose(last, out.image, atol=1e-5)
  assert "conv_out" in variables["params"]["decoder"]


def test_kl_interface(rng):
  x = jnp.asarray(rng.uniform(-1, 1, size=(2, 8, 8, 3)), jnp.float32)
  net = KLModel(**TINY)
  variables = randomised(net, rng, x)
  out = jax.jit(net.apply)(variables, x, jax.random.key(1))
  mode = jax.jit(net.apply)(variables, x)
  assert np.abs(out.image - mode.image).max() > 0
  assert out.posterior.kl().shape == (2,)
  assert (np.asarray(out.posterior.kl()) >= 0).all()


def test_side_error():
  with pytest.raises(ValueError, match="9 x 8, wanted multiples of 2"):
    shapes(VQModel(**TINY), array(1, 9, 8, 3))
