"""Discriminator of overlapping patches of a picture.

DiffFAE Sec. 5.4 (training of the first stage); structure of
CompVis/taming-transformers, taming/modules/discriminator/model.py.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Image, typechecked
from faceedit_jax.nn.layers import Features, GroupNorm, batch_norm, conv


class PatchDiscriminator(nn.Module):
  """Picture to a map of logits.

  Attributes:
    channels: channels of the first convolution.
    layers: further convolutions; all but the last halve the side.
    norm: "batch" as published; "group" and "none" make the logits of a
      picture independent of the others in its batch.
    groups: largest number of groups with `norm="group"`.
    dtype: compute dtype.
  """

  channels: int = 64
  layers: int = 3
  norm: Literal["batch", "group", "none"] = "batch"
  groups: int = 32
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image, train: bool = False) -> Features:
    """Judges patches.

    Args:
      x: (b, h, w, c) in [-1, 1].
      train: whether batch statistics are used and stored.

    Returns:
      (b, h', w', 1) float32 logits, high for real patches.
    """
    normal = nn.initializers.normal(0.02)
    shared = {"padding": 1, "init": normal, "dtype": self.dtype}
    h = conv(self.channels, 4, 2, name="conv_0", **shared)(x)
    h = nn.leaky_relu(h, 0.2)
    for i in range(1, self.layers + 1):
      width = self.channels * min(2**i, 8)
      h = conv(
        width,
        4,
        2 if i < self.layers else 1,
        bias=self.norm != "batch",
        name=f"conv_{i}",
        **shared,
      )(h)
      h = nn.leaky_relu(self._normalise(h, train, f"norm_{i}"), 0.2)
    last = conv(1, 4, 1, name=f"conv_{self.layers + 1}", **shared)
    return last(h).astype(jnp.float32)

  def _normalise(self, h: Array, train: bool, name: str) -> Array:
    if self.norm == "batch":
      return batch_norm(h, train, name)
    if self.norm == "group":
      return GroupNorm(min(self.groups, h.shape[-1] // 2), name=name)(h)
    return h
