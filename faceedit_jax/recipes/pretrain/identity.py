"""Trains the ArcFace-style identity net (additive angular margin).

Deng et al., ArcFace, eq. 3; the net is insightface's iresnet. It reads faces
aligned by five points, which leaves most hair and background outside.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import nets as nets_lib
from faceedit_jax.losses import angular_margin
from faceedit_jax.models.faces import iresnet
from faceedit_jax.nn import warp


@dataclasses.dataclass(frozen=True)
class IdentityOptions:
  """Section `recipe` of a stage that trains the identity net.

  Attributes:
    optimizer: see `optim.make_tx`.
    identities: people in the data.
    margin: added to the angle to the own class's centre, in radians.
    scale: of the cosines.
    jitter: standard deviation of the five points' error, in unit coordinates.
  """

  optimizer: optim.OptimizerOptions
  identities: int
  margin: float = 0.5
  scale: float = 64.0
  jitter: float = 0.02


@dataclasses.dataclass(frozen=True)
class IdentityRecipe(recipe_lib.Recipe):
  """Nets `identity` and `classes` (one unit vector per person), one phase."""

  net: iresnet.IResNet
  input_size: int
  options: IdentityOptions
  image_size: int
  tx: optax.GradientTransformation

  Options = IdentityOptions

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe; `nets.identity` holds the architecture."""
    net, input_size = nets_lib.build_identity(nets.identity, dtype)
    return cls(
      net=net,
      input_size=input_size,
      options=options,
      image_size=image_size,
      tx=options.optimizer.make(),
    )

  def batch_spec(self):
    size = self.image_size
    return {
      "image": batch_lib.Field((size, size, 3), "float32", (-1.0, 1.0)),
      "landmarks5": batch_lib.Field((5, 2), "float32"),
      "identity": batch_lib.Field(
        (), "int32", (0, self.options.identities - 1)
      ),
    }

  def init(self, rng):
    size = self.input_size
    key = jax.random.fold_in(rng, 1)
    shape = (self.options.identities, self.net.embedding)
    return {
      "identity": self.net.init(rng, jnp.zeros((1, size, size, 3))),
      "classes": {"params": {"centres": jax.random.normal(key, shape) * 0.01}},
    }

  def groups(self):
    return {"identity": recipe_lib.Group(("identity", "classes"), self.tx)}

  def phases(self):
    return (recipe_lib.Phase("recognise", ("identity",), self.margin_loss),)

  def ema(self):
    return {"ema": recipe_lib.Ema(("identity",), optim.ema_warmup(0.998))}

  def crop(self, ctx):
    """Aligned crops, with points jittered as much as a reader errs."""
    batch = ctx.batch
    points = batch["landmarks5"]
    noise = jax.random.normal(ctx.key("jitter"), points.shape)
    noise = noise * self.options.jitter
    crop = warp.face_crop(batch["image"], points + noise, self.input_size)
    # Colour cast and contrast are light, not identity.
    gain = jax.random.uniform(
      ctx.key("gain"), (crop.shape[0], 1, 1, 3), minval=0.8, maxval=1.2
    )
    level = jax.random.uniform(
      ctx.key("level"), (crop.shape[0], 1, 1, 1), minval=0.7, maxval=1.3
    )
    return jnp.clip((crop + 1) * gain * level - 1, -1, 1)

  def margin_loss(self, params, ctx):
    features, updated = self.net.apply(
      {"params": params["identity"], **ctx.stats["identity"]},
      self.crop(ctx),
      train=True,
      mutable=["batch_stats"],
    )
    label = ctx.batch["identity"]
    cosine = angular_margin.cosine_logits(
      features, params["classes"]["centres"]
    )
    logits = angular_margin.arcface(
      cosine, label, margin=self.options.margin, scale=self.options.scale
    )
    loss = angular_margin.margin_loss(logits, label).mean()
    accuracy = (cosine.argmax(-1) == label).mean()
    own = jnp.take_along_axis(cosine, label[:, None], axis=1).mean()
    return loss, recipe_lib.Aux(
      metrics={"accuracy": accuracy, "own_cosine": own},
      stats={"identity": updated},
    )

  def preview(self, variables, frozen, batch, rng):
    """The aligned crops that the net reads."""
    del variables, frozen, rng
    crop = warp.face_crop(batch["image"], batch["landmarks5"], self.input_size)
    return {"crops": crop}
