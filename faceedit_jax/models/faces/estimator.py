"""Estimator of 3D face codes from a picture, and the detail decoder.

DiffFAE Sec. 4.1 (frozen DECA); structure of decalib/models/encoders.py and
decoders.py of DECA. Gaze, landmarks and the face logit are additions.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Image, typechecked
from faceedit_jax.models.perception.resnet import ResNet
from faceedit_jax.nn.layers import Features, batch_norm, conv, dense, resize

# Order and sizes of the published encoder: 236 numbers.
DECA_OUTPUTS: Mapping[str, int] = {
  "shape": 100,
  "albedo": 50,
  "expression": 50,
  "pose": 6,
  "camera": 3,
  "light": 27,
}
_SHAPES = {"light": (9, 3), "landmarks": (5, 2)}


@typechecked
def decompose(
  vector: Float[Array, "b d"], outputs: Mapping[str, int]
) -> dict[str, Array]:
  """Splits the estimator's vector into codes.

  Args:
    vector: (b, sum of the sizes).
    outputs: size by name, in the order of the vector.

  Returns:
    Arrays (b, size) by name; "light" as (b, 9, 3), "landmarks" as (b, 5, 2).

  Raises:
    ValueError: the sizes do not add up.
  """
  total = sum(outputs.values())
  if vector.shape[1] != total:
    raise ValueError(
      f"decompose: got {vector.shape[1]} numbers, wanted {total} for "
      f"{dict(outputs)}; change `outputs`"
    )
  out, start = {}, 0
  for name, size in outputs.items():
    out[name] = _shaped(name, vector[:, start : start + size])
    start += size
  return out


def _shaped(name: str, x: Array) -> Array:
  shape = _SHAPES.get(name)
  if shape is None or math.prod(shape) != x.shape[1]:
    return x
  return x.reshape(-1, *shape)


class Estimator(nn.Module):
  """Picture to 3D face codes.

  Attributes:
    outputs: size of each code by name, in the order of the vector.
    heads: size of each further output by name, each with a layer of its own.
    stages: blocks of each stage of the trunk.
    width: channels inside the first stage of the trunk.
    hidden: features between trunk and outputs.
    input_size: side in pixels that the trunk sees.
    close: side of the square round the face from which codes are read, see
      `recipes.face_reader.read_codes`; 0 reads them from the whole picture.
    dtype: compute dtype.
  """

  outputs: Mapping[str, int] | None = None
  heads: Mapping[str, int] | None = None
  stages: tuple[int, ...] = (3, 4, 6, 3)
  width: int = 64
  hidden: int = 1024
  input_size: int = 224
  close: float = 0.0
  dtype: Any = jnp.float32

  @property
  def sizes(self) -> Mapping[str, int]:
    """Sizes of the codes; those of DECA unless given."""
    return DECA_OUTPUTS if self.outputs is None else self.outputs

  def setup(self):
    self.encoder = ResNet(tuple(self.stages), self.width, self.dtype)
    self.hidden_layer = dense(self.hidden, dtype=self.dtype)
    self.output_layer = dense(sum(self.sizes.values()), dtype=self.dtype)
    self.head_layers = {
      name: dense(size, dtype=self.dtype, name=f"head_{name}")
      for name, size in (self.heads or {}).items()
    }

  @typechecked
  def __call__(self, image: Image, train: bool = False) -> dict[str, Array]:
    """Estimates codes.

    Args:
      image: (b, h, w, 3) in [-1, 1]; resized when not of `input_size`.
      train: whether batch statistics are used and stored.

    Returns:
      float32 arrays (b, size) by name, codes and heads; "light" as (b, 9, 3),
      "landmarks" as (b, 5, 2).
    """
    h = self._trunk(image, train)
    out = decompose(self.output_layer(h).astype(jnp.float32), self.sizes)
    for name, layer in self.head_layers.items():
      out[name] = _shaped(name, layer(h).astype(jnp.float32))
    return out

  @typechecked
  def vector(self, image: Image, train: bool = False) -> Float[Array, "b d"]:
    """All codes side by side, (b, sum of the sizes) float32."""
    h = self._trunk(image, train)
    return self.output_layer(h).astype(jnp.float32)

  @typechecked
  def features(self, image: Image) -> Float[Array, "b d"]:
    """What the codes are read from, (b, hidden) float32."""
    return self._trunk(image, False).astype(jnp.float32)

  def _trunk(self, image: Array, train: bool) -> Array:
    image = resize(image, self.input_size, self.input_size)
    # The published encoder sees pictures in [0, 1].
    h = self.encoder((image + 1) / 2, train)
    return nn.relu(self.hidden_layer(h.astype(self.dtype)))


class DetailDecoder(nn.Module):
  """Code to a displacement map in texture space.

  Attributes:
    widths: channels of the first map and of each step that doubles its side.
    init_size: side of the first map in pixels.
    out_channels: channels of the result.
    out_scale: largest absolute value of the result, in metres.
    dtype: compute dtype.
  """

  widths: tuple[int, ...] = (128, 128, 64, 64, 32, 16)
  init_size: int = 8
  out_channels: int = 1
  out_scale: float = 0.01
  dtype: Any = jnp.float32

  @property
  def side(self) -> int:
    """Side of the result in pixels."""
    return self.init_size * 2 ** (len(self.widths) - 1)

  @nn.compact
  @typechecked
  def __call__(
    self, code: Float[Array, "b d"], train: bool = False
  ) -> Features:
    """Decodes (b, d) = jaw pose, expression and detail side by side.

    Args:
      code: (b, d).
      train: whether batch statistics are used and stored.

    Returns:
      (b, side, side, out_channels) float32.
    """
    side, first = self.init_size, self.widths[0]
    h = dense(side * side * first, dtype=self.dtype, name="start")(code)
    # Channels first, as the published weights of this layer are stored.
    h = jnp.moveaxis(h.reshape(-1, first, side, side), 1, -1)
    h = batch_norm(h, train, "bn_0")
    for i, width in enumerate(self.widths[1:], 1):
      h = resize(h, 2 * h.shape[1], 2 * h.shape[2])
      h = conv(width, dtype=self.dtype, name=f"conv_{i}")(h)
      # 0.8 is an argument out of place in the published code, kept because
      # the published weights were trained with it.
      h = nn.leaky_relu(batch_norm(h, train, f"bn_{i}", eps=0.8), 0.2)
    last = len(self.widths)
    h = conv(self.out_channels, dtype=self.dtype, name=f"conv_{last}")(h)
    return jnp.tanh(h.astype(jnp.float32)) * self.out_scale
