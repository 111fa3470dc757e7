"""Patch discriminator and perceptual distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.models.gan.patch_discriminator import PatchDiscriminator
from faceedit_jax.models.perception.lpips import LPIPS
from tests.models.counts import array, parameters, randomised


def test_published_sizes():
  image = array(1, 64, 64, 3)
  # BatchNorm form with 3 layers, as in the published VQ-GAN.
  assert parameters(PatchDiscriminator(), image) == 2_765_633
  # VGG16's convolutions and 64 + 128 + 256 + 512 + 512 linear weights.
  assert parameters(LPIPS(), image, image) == 14_714_688 + 1_472
  assert parameters(LPIPS("alex"), image, image) == 2_469_696 + 1_152


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_discriminator(norm, rng):
  net = PatchDiscriminator(4, 2, norm)
  x = jnp.asarray(rng.uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
  variables = randomised(net, rng, x)
  assert ("batch_stats" in variables) == (norm == "batch")

  def run(x):
    return net.apply(variables, x, True, mutable=["batch_stats"])[0]

  logits = run(x)
  assert logits.shape == (2, 6, 6, 1)
  apart = np.abs(run(x[:1]) - logits[:1]).max()
  assert (apart > 1e-3) == (norm == "batch")


@pytest.mark.parametrize("kind", ["vgg", "alex"])
def test_distance(kind, rng):
  net = LPIPS(kind, 2)
  a, b = jnp.asarray(rng.uniform(-1, 1, (2, 1, 64, 64, 3)), jnp.float32)
  variables = randomised(net, rng, a, b)
  lin = {k: jnp.abs(v) for k, v in variables["params"].items() if "lin" in k}
  variables = {"params": {**variables["params"], **lin}}
  run = jax.jit(lambda a, b: net.apply(variables, a, b))
  assert run(a, a)[0] < 1e-12
  assert run(a, b)[0] > 0
  np.testing.assert_allclose(run(a, b), run(b, a), rtol=1e-5)
  # A black picture has all-zero features: the gradient stays finite.
  grad = jax.grad(lambda a: run(a, b).sum())(jnp.full_like(a, -1.0))
  assert np.isfinite(grad).all()
