"""Losses of generator and discriminator, and what keeps them balanced."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core.typing import Array, Float, PyTree


def hinge_discriminator(
  real: Array, fake: Array, weight: float = 0.5
) -> Float[Array, ""]:
  """`weight * (mean relu(1 - real) + mean relu(1 + fake))` (VQGAN: 1/2)."""
  lost = jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))
  return weight * lost


def hinge_generator(fake: Array) -> Float[Array, ""]:
  """`-mean fake`."""
  return -jnp.mean(fake)


def bce(logits: Array, target: float) -> Float[Array, ""]:
  """Mean cross entropy of logits with one constant target in [0, 1]."""
  wanted = jnp.full(logits.shape, target, logits.dtype)
  return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, wanted))


def nonsaturating_discriminator(real: Array, fake: Array) -> Float[Array, ""]:
  """Logistic loss: mean softplus(-real) + mean softplus(fake)."""
  return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def nonsaturating_generator(fake: Array) -> Float[Array, ""]:
  """Mean softplus(-fake) (GAN paper, section 3)."""
  return jnp.mean(jax.nn.softplus(-fake))


def r1_penalty(
  discriminate: Callable[[Array], Array], real: Array
) -> Float[Array, "b"]:
  """Half the squared gradient norm at real examples (Mescheder 2018, Eq. 9).

  Args:
    discriminate: images -> logits (b, ...), one example's logits depending on
      that example alone.
    real: (b, ...) images.

  Returns:
    (b,); multiply the mean by gamma.
  """
  gradient = jax.grad(lambda x: jnp.sum(discriminate(x)))(real)
  squares = jnp.square(gradient.astype(jnp.float32))
  return 0.5 * jnp.sum(squares.reshape(squares.shape[0], -1), axis=1)


def path_lengths(
  generate: Callable[[Array], Array], latents: Array, key: Array
) -> Float[Array, "b"]:
  """Norms of the generator's Jacobian along random images (StyleGAN2 Eq. 4).

  Args:
    generate: latents (b, n, d) or (b, d) -> images (b, h, w, c).
    latents: where to measure.
    key: random key of the image directions.

  Returns:
    (b,) lengths. The penalty is the squared distance to a running mean.
  """
  images, pull = jax.vjp(generate, latents)
  noise = jax.random.normal(key, images.shape, images.dtype)
  noise = noise / jnp.sqrt(images.shape[1] * images.shape[2])
  squares = jnp.square(pull(noise)[0].astype(jnp.float32))
  per_layer = squares.reshape(squares.shape[0], -1, squares.shape[-1]).sum(-1)
  return jnp.sqrt(jnp.mean(per_layer, axis=-1))


def global_norm(tree: PyTree) -> Float[Array, ""]:
  """Euclidean norm of all leaves together."""
  leaves = jax.tree.leaves(tree)
  return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in leaves))


def gradient_ratio(
  reconstruction: PyTree,
  generator: PyTree,
  maximum: float = 1e4,
  eps: float = 1e-4,
) -> Float[Array, ""]:
  """Ratio of two gradients' norms, clipped to [0, maximum], no gradient."""
  ratio = global_norm(reconstruction) / (global_norm(generator) + eps)
  return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, maximum))


def adaptive_weight(
  decode_last: Callable[[PyTree], Array],
  last_params: PyTree,
  reconstruction_loss: Callable[[Array], Array],
  generator_loss: Callable[[Array], Array],
  maximum: float = 1e4,
  eps: float = 1e-4,
) -> Float[Array, ""]:
  """Weight that makes the adversarial pull as strong as reconstruction's.

  Args:
    decode_last: parameters of the decoder's last layer -> images.
    last_params: those parameters.
    reconstruction_loss: images -> scalar.
    generator_loss: images -> scalar.
    maximum: upper clip.
    eps: added to the denominator.

  Returns:
    Scalar without gradient, to be multiplied by the discriminator's weight.

  Source: VQGAN Eq. (7). The last layer is run once and pulled back twice.
  """
  images, pull = jax.vjp(decode_last, last_params)
  gradients = [
    pull(jax.grad(loss)(images))[0]
    for loss in (reconstruction_loss, generator_loss)
  ]
  return gradient_ratio(*gradients, maximum=maximum, eps=eps)
