"""Adversarial losses against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.losses import adversarial


def test_values():
  real, fake = jnp.array([2.0, -1.0]), jnp.array([-3.0, 0.5])
  np.testing.assert_allclose(
    adversarial.hinge_discriminator(real, fake), 0.5 * (1.0 + 0.75)
  )
  np.testing.assert_allclose(adversarial.hinge_generator(fake), 1.25)
  softplus = lambda x: np.log1p(np.exp(np.asarray(x)))  # noqa: E731
  np.testing.assert_allclose(
    adversarial.nonsaturating_discriminator(real, fake),
    softplus(-real).mean() + softplus(fake).mean(),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    adversarial.nonsaturating_generator(fake),
    softplus(-fake).mean(),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    adversarial.bce(real, 1.0) + adversarial.bce(fake, 0.0),
    adversarial.nonsaturating_discriminator(real, fake),
    rtol=1e-6,
  )


def test_r1_of_a_quadratic():
  x = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))

  def discriminate(x):
    return 0.5 * jnp.sum(x**2, axis=(1, 2, 3))[:, None]

  wanted = 0.5 * jnp.sum(x**2, axis=(1, 2, 3))
  actual = adversarial.r1_penalty(discriminate, x)
  np.testing.assert_allclose(actual, wanted, rtol=1e-5)
  # The penalty itself can be differentiated.
  slope = jax.grad(
    lambda w: adversarial.r1_penalty(lambda v: w * discriminate(v), x).sum()
  )(2.0)
  np.testing.assert_allclose(slope, 4 * wanted.sum(), rtol=1e-5)


def test_path_lengths_of_a_linear_generator():
  def generate(w):
    return 3.0 * w.reshape(w.shape[0], 4, 4, 1)

  latents = jnp.zeros((2000, 16))
  lengths = adversarial.path_lengths(generate, latents, jax.random.key(1))
  # |J^T y| = 3 |y| with y of 16 normals over sqrt(16).
  np.testing.assert_allclose(jnp.mean(lengths**2), 9.0, rtol=0.05)


def test_adaptive_weight():
  key = jax.random.key(2)
  features = jax.random.normal(key, (2, 5, 5, 3))
  params = {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}

  def decode(p):
    return features @ p["kernel"] + p["bias"]

  def reconstruction(x):
    return jnp.mean(jnp.abs(x - 1.0))

  def generator(x):
    return -jnp.mean(x**2)

  actual = adversarial.adaptive_weight(
    decode, params, reconstruction, generator, eps=0.0
  )
  wanted = adversarial.gradient_ratio(
    jax.grad(lambda p: reconstruction(decode(p)))(params),
    jax.grad(lambda p: generator(decode(p)))(params),
    eps=0.0,
  )
  np.testing.assert_allclose(actual, wanted, rtol=1e-6)
  scaled = adversarial.adaptive_weight(
    decode, params, reconstruction, lambda x: 10 * generator(x), eps=0.0
  )
  np.testing.assert_allclose(10 * scaled, actual, rtol=1e-5)
  silent = adversarial.adaptive_weight(
    decode, params, reconstruction, lambda x: 0.0 * jnp.sum(x), maximum=50.0
  )
  np.testing.assert_allclose(silent, 50.0)
