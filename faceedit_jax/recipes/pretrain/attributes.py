"""Trains the classifier of binary attributes that scores edits.

It is trained apart from what it scores. The classifier of L2M-GAN's authors is
not in their release; this one is our own.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from data_pipelines import samplers, sources, transforms
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import optim
from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import face_crops
from faceedit_jax.models.perception import feature_resnet
from faceedit_jax.nn import layers

_BLOCK = 64  # pictures that the held-out accuracy reads at a time
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


@dataclasses.dataclass(frozen=True)
class AttributesRecipe(recipe_lib.Recipe):
  """Net `classifier`, phase `classify`: one logit per attribute.

  Attributes:
    attributes: CelebA names, in the order of the logits.
    jitter: in training, standard deviation of the place of what the net looks
      at, in its sides, and of the logarithm of its size.
    held_out: data section of the pictures by which the trained net is tested;
      None leaves that out.
    split: theirs.
  """

  reader: AttributeReader
  attributes: tuple[str, ...]
  image_size: int
  tx: optax.GradientTransformation
  ema_decay: float = 0.99
  jitter: float = 0.0
  held_out: Mapping[str, Any] | None = None
  split: str = "test"

  edit_options = ("evaluation",)

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe; `nets.classifier` holds the architecture."""
    held_out = options.get("evaluation")
    more = {}
    if held_out:
      more["held_out"] = held_out.data.to_dict()
      more["split"] = held_out.get("split", "test")
    return cls(
      reader=build_reader(nets.classifier, len(options.attributes), dtype),
      attributes=tuple(options.attributes),
      image_size=image_size,
      tx=optim.make_tx(**options.optimizer),
      ema_decay=options.ema_decay,
      jitter=options.jitter,
      **more,
    )

  def batch_spec(self):
    size, count = self.image_size, len(self.attributes)
    spec = {
      "image": recipe_lib.Field((size, size, 3), "float32", (-1.0, 1.0)),
      "attributes": recipe_lib.Field((count,), "int32", (0, 1)),
    }
    if self.reader.reach is not None:
      spec["landmarks5"] = recipe_lib.Field((5, 2), "float32")
    return spec

  def init(self, rng):
    return {"classifier": self.reader.init(rng, self.image_size)}

  def groups(self):
    return {"classifier": recipe_lib.Group(("classifier",), self.tx)}

  def phases(self):
    return (recipe_lib.Phase("classify", ("classifier",), self.classify_loss),)

  def ema(self):
    decay = optim.ema_warmup(self.ema_decay)
    return {"ema": recipe_lib.Ema(("classifier",), decay)}

  def seen(self, ctx):
    """What the net looks at, off by `jitter`; half of it mirrored.

    No attribute has a left and a right.
    """
    image = ctx.batch["image"]
    noise = jax.random.normal(ctx.key("jitter"), (len(image), 3)) * self.jitter
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

  def evaluators(self):
    if self.held_out is None:
      return {}
    return {"held_out": HeldOutAccuracy(self.held_out, self.split)}


@dataclasses.dataclass(frozen=True)
class HeldOutAccuracy:
  """Share of pictures of people never seen that the net reads rightly."""

  data: Mapping[str, Any]
  split: str

  def run(
    self,
    recipe,
    variables,
    frozen,
    data_dir,
    out_dir,
    log,
    scoring=None,
    quick: bool = False,
  ) -> dict[str, float]:
    """Reads all pictures of the split; writes accuracy.json.

    Returns:
      {"accuracy/NAME"} per attribute, and beside it {"share/NAME"}, how many
      of the pictures have it: a constant answer gets the larger of that and
      the rest.
    """
    del frozen, scoring, quick
    source = samplers.AttributeColumns(
      options_lib.build_kind(
        sources.KINDS,
        self.data["source"],
        "evaluation.data.source",
        size=recipe.image_size,
      ).open(data_dir, self.split),
      recipe.attributes,
    )
    spec = tuple(recipe.batch_spec())
    prepare = transforms.make(
      transforms.Options(), recipe.image_size, spec, spec
    )
    read = jax.jit(recipe.reader.logits)
    made, true = [], []
    for first in range(0, len(source), _BLOCK):
      rows = range(first, min(first + _BLOCK, len(source)))
      # The last block is filled up, so that one program reads them all.
      examples = [prepare(source[i], samplers.generator(0, i)) for i in rows]
      filled = examples + examples[-1:] * (_BLOCK - len(examples))
      batch = {name: np.stack([e[name] for e in filled]) for name in spec}
      logits = read(
        variables["classifier"], batch["image"], batch.get("landmarks5")
      )
      made.append(np.asarray(logits)[: len(rows)] > 0)
      true.append(batch["attributes"][: len(rows)] > 0)
    made, true = np.concatenate(made), np.concatenate(true)
    scores = {}
    for at, name in enumerate(recipe.attributes):
      scores[f"accuracy/{name}"] = float((made == true)[:, at].mean())
      scores[f"share/{name}"] = float(true[:, at].mean())
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    whole = {"pictures": len(true), "split": self.split, "scores": scores}
    (out_dir / "accuracy.json").write_text(json.dumps(whole, indent=1))
    log(f"{len(true)} pictures of split {self.split!r}")
    return scores


def build_reader(spec, count: int, dtype) -> AttributeReader:
  """The reader of `count` attributes, from `nets.classifier`."""
  fields = config_lib.module_fields(spec)
  look = {name: fields.pop(name, None) for name in ("input_size", "reach")}
  net = feature_resnet.FeatureResNet(classes=count, dtype=dtype, **fields)
  return AttributeReader(net=net, **look)


def _squares(values, image):
  """A row of squares (b, h / 8, w, 3) for values (b, n) in [0, 1]."""
  _, height, width, _ = image.shape
  at = jnp.arange(width) * values.shape[1] // width
  row = 2.0 * values[:, at].astype(image.dtype) - 1
  shape = (len(image), max(1, height // 8), width, 3)
  return jnp.broadcast_to(row[:, None, :, None], shape)
