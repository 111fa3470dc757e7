"""The perceptual distance that a recipe uses, and where its net comes from.

LPIPS (Zhang et al. 2018) or features of ImageNet's ResNet-18 (L2M-GAN) where
a weight file is given; without one, features of our own parameter estimator or
identity net, named as such.
"""

from typing import Literal

import jax.numpy as jnp
from flax import struct

from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import nets as nets_lib
from faceedit_jax.losses import perceptual as perceptual_loss
from faceedit_jax.losses import reconstruction
from faceedit_jax.models.perception import feature_resnet
from faceedit_jax.models.perception import lpips as lpips_lib
from faceedit_jax.nn import warp

Kind = Literal["none", "lpips", "estimator", "identity", "features"]


class Perceptual(struct.PyTreeNode):
  """A frozen net and the distance measured in its features.

  Attributes:
    kind: "lpips", "estimator", "identity", "features" (ResNet-18) or "none".
    net: the Linen module of that kind (None for "none").
    source: where its weights come from.
    code_shapes: of the estimator's codes.
    crop_size: side of the crops that the identity net reads.
  """

  kind: str = struct.field(pytree_node=False)
  net: object = struct.field(pytree_node=False, default=None)
  source: object = struct.field(pytree_node=False, default=None)
  code_shapes: object = struct.field(pytree_node=False, default=None)
  crop_size: int = struct.field(pytree_node=False, default=0)

  @property
  def reads_points(self) -> bool:
    """Whether `distance` wants to know where the faces are."""
    return self.kind == "identity"

  def frozen(self):
    return {} if self.kind == "none" else {self.kind: self.source}

  def init_frozen(self, rng, image_size):
    picture = jnp.zeros((1, image_size, image_size, 3))
    if self.kind == "lpips":
      return {"lpips": self.net.init(rng, picture, picture)}
    if self.kind == "estimator":
      return {
        "estimator": nets_lib.init_estimator(
          self.net, self.code_shapes, rng, picture
        )
      }
    if self.kind == "identity":
      size = self.crop_size
      return {"identity": self.net.init(rng, jnp.zeros((1, size, size, 3)))}
    if self.kind == "features":
      return {"features": self.net.init(rng, picture)}
    return {}

  def distance(self, frozen, a, b, points=None):
    """Distance (b,) between pictures a and b (b, h, w, 3) in [-1, 1].

    Args:
      frozen: {net: variables}.
      a, b: pictures.
      points: five face points (b, 5, 2) of both, in unit coordinates, for
        kind "identity".
    """
    if self.kind == "none":
      return jnp.zeros((a.shape[0],))
    if self.kind == "lpips":
      return self.net.apply(frozen["lpips"], a, b)
    if self.kind in ("identity", "features"):
      net = frozen[self.kind]
      if self.kind == "identity":
        a, b = (warp.face_crop(x, points, self.crop_size) for x in (a, b))
      return reconstruction.l1(self.net.apply(net, a), self.net.apply(net, b))
    net = frozen["estimator"]
    net = {k: v for k, v in net.items() if k != "codes"}
    # At the pictures' own size: the estimator may read them enlarged, and the
    # time grows with the square of that.
    trunk = self.net.clone(input_size=a.shape[1])

    def features(picture):
      _, seen = trunk.apply(net, picture, mutable=["features"])
      return list(seen["features"]["encoder"]["maps"])

    return perceptual_loss.feature_distance(
      features(a), features(b), kind="l2", normalize=True
    )


def from_config(nets, kind: Kind, lpips_weights: str, dtype) -> Perceptual:
  """Builds it from `recipe.perceptual` and `recipe.lpips_weights`.

  Raises:
    ValueError: LPIPS, or features, without a file.
  """
  if kind == "none":
    return Perceptual(kind)
  if kind == "lpips":
    if not lpips_weights:
      raise ValueError(
        "recipe.perceptual is 'lpips' but recipe.lpips_weights is empty; give "
        "the weight file, or set recipe.perceptual='estimator'"
      )
    net = lpips_lib.LPIPS(net="vgg", dtype=dtype)
    return Perceptual(kind, net, recipe_lib.WeightSource(path=lpips_weights))
  if kind == "identity":
    net, size = nets_lib.build_identity(nets.identity, dtype)
    source = recipe_lib.WeightSource(stage="identity")
    return Perceptual(kind, net, source, crop_size=size)
  if kind == "features":
    weights = nets.features.get("weights", "")
    if not weights:
      raise ValueError(
        "recipe.perceptual is 'features' but nets.features.weights is empty; "
        "give the file that `convert resnet18` writes, or set "
        "recipe.perceptual='identity'"
      )
    net = options_lib.build_net(
      feature_resnet.FeatureResNet,
      nets.features,
      "config.nets.features",
      dtype=dtype,
    )
    return Perceptual(kind, net, recipe_lib.WeightSource(path=weights))
  net, shapes = nets_lib.build_estimator(nets.estimator, dtype)
  return Perceptual(
    kind, net, recipe_lib.WeightSource(stage="estimator"), shapes
  )
