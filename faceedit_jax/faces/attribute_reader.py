"""Reads binary attributes (CelebA's names) off pictures: net and view."""

import jax.numpy as jnp
from flax import struct

from faceedit_jax.core import options as options_lib
from faceedit_jax.faces import face_crops
from faceedit_jax.models.perception import feature_resnet
from faceedit_jax.nn import layers

_STILL = 3  # eyes and nose tip: a smile moves the corners of the mouth


class AttributeReader(struct.PyTreeNode):
  """The classifier with what it looks at.

  Attributes:
    net: its logits are the attributes.
    input_size: side in pixels of what it sees, for the stem quarters it; None
      leaves pictures as they are.
    reach: side of the square that it looks at, in root mean square distances
      of eyes and nose tip from their mean; None is the whole picture.
  """

  net: feature_resnet.FeatureResNet = struct.field(pytree_node=False)
  input_size: int | None = struct.field(pytree_node=False, default=None)
  reach: float | None = struct.field(pytree_node=False, default=None)

  def look(self, image, points=None, noise=None):
    """What the net sees of pictures (b, h, w, 3).

    Args:
      image: in [-1, 1].
      points: five points (b, 5, 2) in unit coordinates, read with `reach`.
        Edits and their source are read at the source's.
      noise: (b, 3): how far the square is off, right and down in its sides, and
        the logarithm of how much larger it is.
    """
    size = self.input_size or image.shape[1]
    if self.reach is not None:
      box = face_crops.round_points(points[:, :_STILL], self.reach)
    elif noise is not None:
      box = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 1.0]), (len(image), 3))
    else:
      return layers.resize(image, size, size)
    if noise is not None:
      middle = box[:, :2] + (0.5 + noise[:, :2]) * box[:, 2:]
      side = box[:, 2:] * jnp.exp(noise[:, 2:])
      box = jnp.concatenate([middle - side / 2, side], axis=-1)
    return face_crops.look(image, box, size)

  def init(self, rng, image_size: int):
    """Variables of the net."""
    size = self.input_size or image_size
    return self.net.init(rng, jnp.zeros((1, size, size, 3)))

  def logits(self, variables, image, points=None):
    """(b, attributes) float32."""
    return self.net.apply(variables, self.look(image, points))


def build_reader(spec, count: int, dtype) -> AttributeReader:
  """The reader of `count` attributes, from `nets.classifier`."""
  fields, where = dict(spec), "config.nets.classifier"
  hints = {"input_size": int | None, "reach": float | None}
  look = {
    name: options_lib.convert(fields.pop(name, None), hint, f"{where}.{name}")
    for name, hint in hints.items()
  }
  net = options_lib.build_net(
    feature_resnet.FeatureResNet, fields, where, classes=count, dtype=dtype
  )
  return AttributeReader(net=net, **look)
