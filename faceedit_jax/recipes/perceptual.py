"""The perceptual distance that a recipe uses, and where its net comes from.

LPIPS (Zhang et al. 2018) where a weight file is given; without one, the
distance between features of our own parameter estimator, named as such.
"""

import jax.numpy as jnp
from flax import struct

from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.losses import perceptual as perceptual_loss
from faceedit_jax.models import lpips as lpips_lib
from faceedit_jax.recipes.pretrain import estimator as estimator_recipe

KINDS = ("none", "lpips", "estimator")


class Perceptual(struct.PyTreeNode):
  """A frozen net and the distance measured in its features.

  Attributes:
    kind: "lpips", "estimator" or "none".
    net: the Linen module of that kind (None for "none").
    source: where its weights come from.
  """

  kind: str = struct.field(pytree_node=False)
  net: object = struct.field(pytree_node=False, default=None)
  source: object = struct.field(pytree_node=False, default=None)
  code_shapes: object = struct.field(pytree_node=False, default=None)

  def frozen(self):
    return {} if self.kind == "none" else {self.kind: self.source}

  def init_frozen(self, rng, image_size):
    picture = jnp.zeros((1, image_size, image_size, 3))
    if self.kind == "lpips":
      return {"lpips": self.net.init(rng, picture, picture)}
    if self.kind == "estimator":
      return {
        "estimator": estimator_recipe.init_estimator(
          self.net, self.code_shapes, rng, picture
        )
      }
    return {}

  def distance(self, frozen, a, b):
    """Distance (b,) between pictures a and b (b, h, w, 3) in [-1, 1]."""
    if self.kind == "none":
      return jnp.zeros((a.shape[0],))
    if self.kind == "lpips":
      return self.net.apply(frozen["lpips"], a, b)
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


def from_config(nets, options, dtype) -> Perceptual:
  """Builds it from `options.perceptual` ("none", "lpips", "estimator").

  Raises:
    ValueError: an unknown kind, or LPIPS without `options.lpips_weights`.
  """
  kind = options.perceptual
  if kind not in KINDS:
    raise ValueError(
      f"recipe.perceptual is {kind!r}; it must be one of {', '.join(KINDS)}"
    )
  if kind == "none":
    return Perceptual(kind)
  if kind == "lpips":
    if not options.lpips_weights:
      raise ValueError(
        "recipe.perceptual is 'lpips' but recipe.lpips_weights is empty; give "
        "the weight file, or set recipe.perceptual='estimator'"
      )
    net = lpips_lib.LPIPS(net="vgg", dtype=dtype)
    return Perceptual(
      kind, net, recipe_lib.WeightSource(path=options.lpips_weights)
    )
  net, shapes = estimator_recipe.build_estimator(nets.estimator, dtype)
  return Perceptual(
    kind, net, recipe_lib.WeightSource(stage="estimator"), shapes
  )
