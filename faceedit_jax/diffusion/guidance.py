"""Classifier-free guidance as a wrapper around a denoiser function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, PyTree


def combine(conditional: Array, unconditional: Array, scale) -> Array:
  """`unconditional + scale * (conditional - unconditional)`."""
  return unconditional + scale * (conditional - unconditional)


def classifier_free(
  denoise: Callable[[Array, Array, PyTree], Array],
  conditional: PyTree,
  unconditional: PyTree,
  scale: float | Array,
) -> Callable[[Array, Array], Array]:
  """Turns a conditional denoiser into a guided `denoise(x, t)`.

  Args:
    denoise: (x, t, condition) -> prediction; called once per step on a batch
      of twice the size, the unconditional half first.
    conditional: tree of arrays with leading batch axis.
    unconditional: tree of the same structure and shapes.
    scale: guidance strength; a Python 1.0 skips the unconditional half.

  Returns:
    A function (x, t) -> prediction for the samplers.
  """
  if isinstance(scale, int | float) and scale == 1:
    return lambda x, t: denoise(x, t, conditional)
  both = jax.tree.map(
    lambda u, c: jnp.concatenate([u, c]), unconditional, conditional
  )

  def guided(x: Array, t: Array) -> Array:
    prediction = denoise(jnp.concatenate([x, x]), jnp.concatenate([t, t]), both)
    without, with_condition = jnp.split(prediction, 2)
    return combine(with_condition, without, scale)

  return guided
