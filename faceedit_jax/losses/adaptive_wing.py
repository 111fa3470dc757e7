"""Adaptive wing loss of heat-maps and the weights of their pixels.

Wang et al. 2019 (adaptive wing loss, weighted loss map), with the paper's
constants.
"""

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, typechecked

ALPHA, OMEGA, EPSILON, THETA = 2.1, 14.0, 1.0, 0.5
# Pixels of a point and its neighbours weigh so much more than others.
FOREGROUND, FOREGROUND_FROM = 10.0, 0.2


@typechecked
def adaptive_wing(
  found: Float[Array, "*s"], true: Float[Array, "*s"]
) -> Float[Array, "*s"]:
  """The loss of every pixel.

  About linear near 0 where the true value is 1, so that small errors of a
  peak count; smooth where it is 0; linear from errors of THETA on.

  Args:
    found: heat-maps of a net.
    true: values in [0, 1].
  """
  error = jnp.abs(found - true)
  power = ALPHA - true
  bend = (THETA / EPSILON) ** power
  slope = OMEGA / (1 + bend) * power * (THETA / EPSILON) ** (power - 1)
  slope = slope / EPSILON
  offset = THETA * slope - OMEGA * jnp.log1p(bend)
  near = OMEGA * jnp.log1p((error / EPSILON) ** power)
  return jnp.where(error < THETA, near, slope * error - offset)


@typechecked
def foreground_weights(
  true: Float[Array, "b h w k"],
) -> Float[Array, "b h w k"]:
  """1 for the background, 1 + FOREGROUND round the points.

  Args:
    true: values in [0, 1]; each pixel counts by the largest of itself and its
      eight neighbours.
  """
  wide = jax.lax.reduce_window(
    true, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME"
  )
  return 1 + FOREGROUND * (wide >= FOREGROUND_FROM)
