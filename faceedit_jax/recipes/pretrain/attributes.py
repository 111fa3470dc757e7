"""Trains the classifier of binary attributes that evaluates edits.

It is trained apart from what it evaluates. The classifier of L2M-GAN's authors
is not in their release; this one is our own.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import attribute_reader


@dataclasses.dataclass(frozen=True)
class AttributesOptions:
  """Section `recipe` of a stage that trains the classifier.

  Attributes:
    attributes: CelebA names, in the order of the logits.
    optimizer: see `optim.make_tx`.
    ema_decay: of its average.
    jitter: in training, standard deviation of the place of what the net looks
      at, in its sides, and of the logarithm of its size.
  """

  attributes: tuple[str, ...]
  optimizer: optim.OptimizerOptions
  ema_decay: float = 0.99
  jitter: float = 0.0


@dataclasses.dataclass(frozen=True)
class AttributesRecipe(recipe_lib.Recipe):
  """Net `classifier`, phase `classify`: one logit per attribute.

  Attributes:
    reader: the net with what it looks at.
    options: see there.
    image_size: side of the pictures in pixels.
    tx: optimiser.
  """

  reader: attribute_reader.AttributeReader
  options: AttributesOptions
  image_size: int
  tx: optax.GradientTransformation

  Options = AttributesOptions

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe; `nets.classifier` holds the architecture."""
    return cls(
      reader=attribute_reader.build_reader(
        nets.classifier, len(options.attributes), dtype
      ),
      options=options,
      image_size=image_size,
      tx=options.optimizer.make(),
    )

  @property
  def attributes(self) -> tuple[str, ...]:
    return self.options.attributes

  def batch_spec(self):
    size, count = self.image_size, len(self.attributes)
    spec = {
      "image": batch_lib.Field((size, size, 3), "float32", (-1.0, 1.0)),
      "attributes": batch_lib.Field((count,), "int32", (0, 1)),
    }
    if self.reader.reach is not None:
      spec["landmarks5"] = batch_lib.Field((5, 2), "float32")
    return spec

  def init(self, rng):
    return {"classifier": self.reader.init(rng, self.image_size)}

  def groups(self):
    return {"classifier": recipe_lib.Group(("classifier",), self.tx)}

  def phases(self):
    return (recipe_lib.Phase("classify", ("classifier",), self.classify_loss),)

  def ema(self):
    decay = optim.ema_warmup(self.options.ema_decay)
    return {"ema": recipe_lib.Ema(("classifier",), decay)}

  def seen(self, ctx):
    """What the net looks at, off by `jitter`; half of it mirrored.

    No attribute has a left and a right.
    """
    image = ctx.batch["image"]
    noise = jax.random.normal(ctx.key("jitter"), (len(image), 3))
    noise = noise * self.options.jitter
    seen = self.reader.look(image, ctx.batch.get("landmarks5"), noise)
    mirrored = jax.random.bernoulli(ctx.key("mirror"), 0.5, (len(image),))
    return jnp.where(mirrored[:, None, None, None], seen[:, :, ::-1], seen)

  def classify_loss(self, params, ctx):
    logits, updated = self.reader.net.apply(
      {"params": params["classifier"], **ctx.stats["classifier"]},
      self.seen(ctx),
      train=True,
      mutable=["batch_stats"],
    )
    true = ctx.batch["attributes"]
    loss = optax.sigmoid_binary_cross_entropy(logits, true).mean()
    right = ((logits > 0) == (true > 0)).mean(0)
    metrics = {
      f"accuracy_{name}": right[at] for at, name in enumerate(self.attributes)
    }
    return loss, recipe_lib.Aux(metrics, {"classifier": updated})

  def preview(self, variables, frozen, batch, rng):
    """What the net sees over two rows of squares: what is true, what it reads.

    A square per attribute, white for 1 and black for 0.
    """
    del frozen, rng
    image, points = batch["image"], batch.get("landmarks5")
    logits = self.reader.logits(variables["classifier"], image, points)
    seen = self.reader.look(image, points)
    rows = [batch["attributes"], jax.nn.sigmoid(logits)]
    rows = [_squares(row, seen) for row in rows]
    return {"true_and_read": jnp.concatenate([seen, *rows], axis=1)}


def _squares(values, image):
  """A row of squares (b, h / 8, w, 3) for values (b, n) in [0, 1]."""
  _, height, width, _ = image.shape
  at = jnp.arange(width) * values.shape[1] // width
  row = 2.0 * values[:, at].astype(image.dtype) - 1
  shape = (len(image), max(1, height // 8), width, 3)
  return jnp.broadcast_to(row[:, None, :, None], shape)
