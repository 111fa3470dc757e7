"""Trains the classifier of binary attributes that scores edits.

It is trained apart from what it scores, as L2M-GAN Sec. 4.1 asks of an
attribute classifier; the paper's own net is not described.
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

from data_pipelines import attributes as attributes_lib
from data_pipelines import samplers, sources, transforms
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.models import feature_resnet

_BLOCK = 64  # pictures that the held-out accuracy reads at a time


@dataclasses.dataclass(frozen=True)
class AttributesRecipe(recipe_lib.Recipe):
  """Net `classifier`, phase `classify`: one logit per attribute.

  Attributes:
    attributes: CelebA names, in the order of the logits.
    held_out: data section of the pictures by which the trained net is tested;
      None leaves that out.
    split: theirs.
  """

  net: feature_resnet.FeatureResNet
  attributes: tuple[str, ...]
  image_size: int
  tx: optax.GradientTransformation
  ema_decay: float = 0.99
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
      net=build_classifier(nets.classifier, len(options.attributes), dtype),
      attributes=tuple(options.attributes),
      image_size=image_size,
      tx=optim.make_tx(**options.optimizer),
      ema_decay=options.ema_decay,
      **more,
    )

  def batch_spec(self):
    size, count = self.image_size, len(self.attributes)
    return {
      "image": recipe_lib.Field((size, size, 3), "float32", (-1.0, 1.0)),
      "attributes": recipe_lib.Field((count,), "int32", (0, 1)),
    }

  def init(self, rng):
    size = self.image_size
    return {"classifier": self.net.init(rng, jnp.zeros((1, size, size, 3)))}

  def groups(self):
    return {"classifier": recipe_lib.Group(("classifier",), self.tx)}

  def phases(self):
    return (recipe_lib.Phase("classify", ("classifier",), self.classify_loss),)

  def ema(self):
    decay = optim.ema_warmup(self.ema_decay)
    return {"ema": recipe_lib.Ema(("classifier",), decay)}

  def classify_loss(self, params, ctx):
    logits, updated = self.net.apply(
      {"params": params["classifier"], **ctx.stats["classifier"]},
      ctx.batch["image"],
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
    """Pictures over two rows of squares: what is true, what is read.

    A square per attribute, white for 1 and black for 0.
    """
    del frozen, rng
    image = batch["image"]
    read = jax.nn.sigmoid(self.net.apply(variables["classifier"], image))
    rows = [_squares(row, image) for row in (batch["attributes"], read)]
    return {"true_and_read": jnp.concatenate([image, *rows], axis=1)}

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
    source = attributes_lib.AttributeColumns(
      sources.open_source(dict(self.data), data_dir, self.split),
      recipe.attributes,
    )
    spec = tuple(recipe.batch_spec())
    prepare = transforms.from_config({}, recipe.image_size, spec, spec)
    read = jax.jit(recipe.net.apply)
    made, true = [], []
    for first in range(0, len(source), _BLOCK):
      rows = range(first, min(first + _BLOCK, len(source)))
      examples = [prepare(source[i], samplers.generator(0, i)) for i in rows]
      image = np.stack([e["image"] for e in examples])
      missing = _BLOCK - len(image)
      filled = np.pad(image, ((0, missing), (0, 0), (0, 0), (0, 0)))
      logits = np.asarray(read(variables["classifier"], filled))
      made.append(logits[: len(image)] > 0)
      true.append(np.stack([e["attributes"] for e in examples]) > 0)
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


def build_classifier(spec, count: int, dtype) -> feature_resnet.FeatureResNet:
  """The classifier of `count` attributes, from `nets.classifier`."""
  fields = config_lib.module_fields(spec)
  return feature_resnet.FeatureResNet(classes=count, dtype=dtype, **fields)


def _squares(values, image):
  """A row of squares (b, h / 8, w, 3) for values (b, n) in [0, 1]."""
  _, height, width, _ = image.shape
  at = jnp.arange(width) * values.shape[1] // width
  row = 2.0 * values[:, at].astype(image.dtype) - 1
  shape = (len(image), max(1, height // 8), width, 3)
  return jnp.broadcast_to(row[:, None, :, None], shape)
