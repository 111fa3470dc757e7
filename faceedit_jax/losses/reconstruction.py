"""Pixel losses per example and the divergence of Gaussian latents."""

import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float
from faceedit_jax.losses.reduction import masked_mean


def l1(a: Array, b: Array, mask: Array | None = None) -> Float[Array, "b"]:
  """Mean absolute difference; see `masked_mean` for the mask."""
  return masked_mean(jnp.abs(a - b), mask)


def l2(a: Array, b: Array, mask: Array | None = None) -> Float[Array, "b"]:
  """Mean squared difference; see `masked_mean` for the mask."""
  return masked_mean(jnp.square(a - b), mask)


def charbonnier(
  a: Array, b: Array, mask: Array | None = None, eps: float = 1e-3
) -> Float[Array, "b"]:
  """Mean of sqrt(difference^2 + eps^2): L1 with a smooth bottom."""
  return masked_mean(jnp.sqrt(jnp.square(a - b) + eps**2), mask)


def kl_gaussian(mean: Array, logvar: Array) -> Float[Array, "b"]:
  """Divergence of N(mean, exp(logvar)) from N(0, 1), summed per example."""
  terms = jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar
  return 0.5 * jnp.sum(terms.reshape(terms.shape[0], -1), axis=1)


def total_variation(x: Float[Array, "b h w c"]) -> Float[Array, "b"]:
  """Mean absolute difference between neighbouring pixels."""
  down = jnp.abs(x[:, 1:] - x[:, :-1])
  across = jnp.abs(x[:, :, 1:] - x[:, :, :-1])
  return masked_mean(down) + masked_mean(across)
