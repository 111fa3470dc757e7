"""Losses of style codes and of pictures drawn from two of them.

Of L2M-GAN; formulas of songquanpeng/L2M-GAN, solver/loss.py, and
clovaai/stargan-v2, core/solver.py.
"""

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, typechecked
from faceedit_jax.losses.reconstruction import l1
from faceedit_jax.losses.reduction import masked_mean


@typechecked
def orthogonality(
  a: Float[Array, "b d"], b: Float[Array, "b d"]
) -> Float[Array, "b"]:
  """Mean absolute product of two codes' numbers: zero where they share none.

  The published form of the constraint; a scalar product of zero follows from
  it, not the other way round.
  """
  return masked_mean(jnp.abs(a * b))


@typechecked
def factor_orthogonality(
  unrelated: Float[Array, "b d"],
  related: Float[Array, "b d"],
  transformed: Float[Array, "b d"],
) -> Float[Array, "b"]:
  """The unrelated code against the related one, before and after the edit."""
  return orthogonality(unrelated, related) + orthogonality(
    unrelated, transformed
  )


def diversity(a: Array, b: Array) -> Float[Array, "b"]:
  """How far apart pictures of two styles are; to be made large.

  Args:
    a: (b, ...).
    b: as `a`; no gradient goes there.
  """
  return l1(a, jax.lax.stop_gradient(b))
