"""How far landmarks are off, in distances of the eyes.

The normalised mean error of the 300-W challenge (Sagonas et al. 2013): the
distance of the outer corners of the eyes is 1.
"""

import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, typechecked

# Of iBUG's 68 points.
OUTER_CORNERS = (36, 45)
PARTS = {
  "jaw": slice(0, 17),
  "brows": slice(17, 27),
  "nose": slice(27, 36),
  "eyes": slice(36, 48),
  "mouth": slice(48, 68),
}
# A picture whose error is larger counts as failed (Wang et al. 2019).
FAILED = 0.1


@typechecked
def point_errors(
  found: Float[Array, "b 68 2"], true: Float[Array, "b 68 2"]
) -> Float[Array, "b 68"]:
  """Distance of each point from the true one, in distances of the eyes.

  Args:
    found: points in any unit.
    true: points in the same unit.
  """
  left, right = OUTER_CORNERS
  apart = jnp.linalg.norm(true[:, left] - true[:, right], axis=-1)
  off = jnp.linalg.norm(found - true, axis=-1)
  return off / jnp.maximum(apart[:, None], 1e-9)
