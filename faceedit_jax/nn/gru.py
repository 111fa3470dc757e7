"""Gated recurrent unit with the parameter layout of the published weights."""

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, typechecked
from faceedit_jax.nn.layers import dense


class GRUCell(nn.Module):
  """One step of a gated recurrent unit, in float32.

  Parameters `ih` (of the input) and `hh` (of the state) hold the three gates
  side by side, in the order reset, update, new.
  """

  @nn.compact
  @typechecked
  def __call__(
    self, state: Float[Array, "*n d"], x: Float[Array, "*n e"]
  ) -> Float[Array, "*n d"]:
    """The next state.

    Args:
      state: (..., d).
      x: (..., e) input.

    Returns:
      (..., d).
    """
    size = state.shape[-1]
    x, state = x.astype(jnp.float32), state.astype(jnp.float32)
    reset, update, new = jnp.split(dense(3 * size, name="ih")(x), 3, -1)
    hidden = jnp.split(dense(3 * size, name="hh")(state), 3, -1)
    reset = nn.sigmoid(reset + hidden[0])
    update = nn.sigmoid(update + hidden[1])
    new = jnp.tanh(new + reset * hidden[2])
    return (1 - update) * new + update * state
