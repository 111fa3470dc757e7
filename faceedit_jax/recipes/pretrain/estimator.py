"""Trains the parameter estimator of DECA's architecture (DECA section 4.1).

Supervised by the synthetic heads' own codes. It also learns five face points
and a face / no-face logit from loosely cropped and faceless pictures, so that
a stranger's photo can be aligned without a downloaded detector.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import optim
from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import face_crops, face_reader
from faceedit_jax.faces import nets as nets_lib
from faceedit_jax.models.faces import estimator as estimator_lib
from faceedit_jax.morphable import model as model_lib
from faceedit_jax.nn import layers

# Losses are measured in standard deviations of each code over the data, and
# within a group by how much a coefficient changes the face (`visible_effect`),
# so one weight per group is enough. Pose, expression and light drive the edit
# and weigh more than shape and albedo.
WEIGHTS = {
  "shape": 0.5,
  "albedo": 0.5,
  "expression": 2.0,
  "pose": 2.0,
  "gaze": 0.5,
  "light": 2.0,
  "camera": 1.0,
}
# Errors of the square round the face, in shares of its side, and in the
# logarithm of its side.
SHIFT, SCALE = 0.08, 0.12
# Pictures after which the codes' mean and spread hardly move any more.
SETTLED = 20_000.0


def running_statistics(old, codes, weight):
  """Mean and standard deviation of the codes over the pictures seen so far.

  Args:
    old: {"count", "mean", "square"} trees; `count` stops at SETTLED, from
      where the average is exponential.
    codes: {name: (b, ...)} targets.
    weight: (b,) which pictures count.

  Returns:
    The updated trees, with "std" beside them.
  """
  total = weight.sum()
  count = jnp.minimum(old["count"] + total, SETTLED)
  rate = total / jnp.maximum(count, 1.0)

  def average(value):
    shaped = weight.reshape(weight.shape + (1,) * (value.ndim - 1))
    return (value * shaped).sum(0) / jnp.maximum(total, 1.0)

  def blend(before, now):
    return before + rate * (now - before)

  mean = {k: blend(old["mean"][k], average(v)) for k, v in codes.items()}
  square = {k: blend(old["square"][k], average(v**2)) for k, v in codes.items()}
  # The floor keeps codes that never change from dividing by zero.
  std = {k: jnp.sqrt(jnp.maximum(square[k] - mean[k] ** 2, 1e-6)) for k in mean}
  return {"count": count, "mean": mean, "square": square, "std": std}


@dataclasses.dataclass(frozen=True)
class EstimatorOptions:
  """Section `recipe` of a stage that trains an estimator.

  Attributes:
    optimizer: see `optim.make_tx`.
    points_weight: of the five points' error.
    face_weight: of the face logit's error.
    close_share: share of the faces that are shown from close by.
    net: section of `nets` with the architecture, and the trained net's name.
    morphable: section of `nets` that describes the 3D face.
  """

  optimizer: optim.OptimizerOptions
  points_weight: optim.Weight = 20.0
  face_weight: optim.Weight = 0.5
  close_share: float = 0.75
  net: str = "estimator"
  morphable: str = "morphable"


@dataclasses.dataclass(frozen=True)
class EstimatorRecipe(recipe_lib.Recipe):
  """One net, named after its section of the config; one phase: `read`.

  A coefficient of shape, expression or albedo counts by the square of the
  change that it causes in the data, so that the loss follows the error of the
  face rather than of numbers: the first of 50 albedo coefficients is the skin
  tone, the last of them cannot be seen.

  A net that looks twice (`Estimator.close`) learns points and the face logit
  from every picture, and codes from those shown from close by.

  Attributes:
    net: the estimator.
    shapes: shapes of the codes without batch.
    image_size: side of the pictures in pixels.
    tx: optimiser.
    morphable: makes the 3D face that the codes belong to.
    options: see there.
  """

  net: estimator_lib.Estimator
  shapes: dict
  image_size: int
  tx: optax.GradientTransformation
  morphable: Callable[[], Any]
  options: EstimatorOptions

  Options = EstimatorOptions

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe from the sections of `nets` that it names."""
    net, shapes = nets_lib.build_estimator(nets[options.net], dtype)
    return cls(
      net=net,
      shapes=shapes,
      image_size=image_size,
      tx=options.optimizer.make(),
      morphable=options_lib.call(
        face_reader.morphable_maker,
        nets[options.morphable],
        f"config.nets.{options.morphable}",
      ),
      options=options,
    )

  def batch_spec(self):
    size = self.image_size
    spec = {
      "image": batch_lib.Field((size, size, 3), "float32", (-1.0, 1.0)),
      "landmarks5": batch_lib.Field((5, 2), "float32"),
      # 1 where a face is in the picture; its points and codes count then.
      "face": batch_lib.Field((), "float32", (0.0, 1.0)),
    }
    for name, shape in self.shapes.items():
      spec[name] = batch_lib.Field(shape, "float32")
    return spec

  def init(self, rng):
    size = self.image_size
    picture = jnp.zeros((1, size, size, 3))
    return {
      self.options.net: nets_lib.init_estimator(
        self.net, self.shapes, rng, picture
      )
    }

  def init_frozen(self, rng):
    """The 3D face, which says how much each coefficient changes."""
    del rng
    morphable = self.morphable()
    face_reader.check_sizes(morphable["params"], self.shapes)
    return {self.options.morphable: morphable}

  def groups(self):
    return {"estimator": recipe_lib.Group((self.options.net,), self.tx)}

  def phases(self):
    return (recipe_lib.Phase("read", ("estimator",), self.read_loss),)

  def ema(self):
    return {"ema": recipe_lib.Ema((self.options.net,), optim.ema_warmup(0.998))}

  def views(self, batch, key):
    """What the net is shown.

    Args:
      batch: see `batch_spec`.
      key: of the choice of views and of their errors.

    Returns:
      (pictures at the net's size, the batch as seen in them, (b,) 1 where the
      codes are to be read).
    """
    size, face = self.net.input_size, batch["face"]
    image = layers.resize(batch["image"], size, size)
    if not self.net.close:
      return image, batch, face
    draw, shift, scale = jax.random.split(key, 3)
    count = face.shape[0]
    close = face * jax.random.bernoulli(
      draw, self.options.close_share, (count,)
    )
    box = face_box_with_error(batch["landmarks5"], self.net.close, shift, scale)
    whole = jnp.asarray([0.0, 0.0, 1.0])
    box = jnp.where(close[:, None] > 0, box, whole)
    image = jnp.where(
      close[:, None, None, None] > 0,
      face_crops.look(batch["image"], box, size),
      image,
    )
    seen = dict(
      batch,
      landmarks5=face_crops.points_in(batch["landmarks5"], box),
      camera=face_crops.camera_in(batch["camera"], box),
    )
    return image, seen, close

  def read_loss(self, params, ctx):
    batch, stats = ctx.batch, ctx.stats[self.options.net]
    image, batch, known = self.views(batch, ctx.key("view"))
    truth = {k: batch[k] for k in self.shapes}
    codes = running_statistics(stats["codes"], truth, known)
    codes = jax.lax.stop_gradient(codes)
    raw, updated = self.net.apply(
      {
        "params": params[self.options.net],
        "batch_stats": stats["batch_stats"],
      },
      image,
      train=True,
      mutable=["batch_stats"],
    )
    faces = jnp.maximum(batch["face"].sum(), 1.0)
    readable = jnp.maximum(known.sum(), 1.0)
    effect = model_lib.visible_effect(
      ctx.frozen[self.options.morphable]["params"]
    )
    loss, metrics = 0.0, {}
    for name, shape in self.shapes.items():
      target = (truth[name] - codes["mean"][name]) / codes["std"][name]
      error = optax.losses.huber_loss(raw[name], target)
      if name in effect:
        share = jnp.square(effect[name] * codes["std"][name])
        error = error * share / jnp.maximum(share.mean(), 1e-30)
      axes = tuple(range(1, 1 + len(shape)))
      error = (error.mean(axes) * known).sum() / readable
      metrics[name] = error
      loss = loss + WEIGHTS.get(name, 1.0) * error
    off = jnp.abs(raw["landmarks"] - batch["landmarks5"]).mean((1, 2))
    metrics["points"] = (off * batch["face"]).sum() / faces
    logit = raw["face"][..., 0]
    metrics["face"] = optax.losses.sigmoid_binary_cross_entropy(
      logit, batch["face"]
    ).mean()
    metrics["face_accuracy"] = ((logit > 0) == (batch["face"] > 0.5)).mean()
    for name, weight in (
      ("points", self.options.points_weight),
      ("face", self.options.face_weight),
    ):
      loss = loss + recipe_lib.at(weight, ctx.step) * metrics[name]
    return loss, recipe_lib.Aux(
      metrics=metrics,
      stats={
        self.options.net: {
          "batch_stats": updated["batch_stats"],
          "codes": codes,
        }
      },
    )

  def preview(self, variables, frozen, batch, rng):
    """Pictures with the five points read (red) and true (green)."""
    del frozen, rng
    codes = face_reader.read_codes(
      self.net, variables[self.options.net], batch["image"]
    )
    image = draw_points(batch["image"], batch["landmarks5"], (-1.0, 1.0, -1.0))
    found = draw_points(image, codes["landmarks5"], (1.0, -1.0, -1.0))
    return {"points": found}


def face_box_with_error(points, reach, shift_key, scale_key):
  """`face_box.round_points` as it lies round points that were read badly."""
  box = face_crops.round_points(points, reach)
  corner, side = box[:, :2], box[:, 2:]
  middle = corner + side / 2
  middle = middle + side * jax.random.uniform(
    shift_key, middle.shape, minval=-SHIFT, maxval=SHIFT
  )
  side = side * jnp.exp(
    jax.random.uniform(scale_key, side.shape, minval=-SCALE, maxval=SCALE)
  )
  return jnp.concatenate([middle - side / 2, side], axis=-1)


def draw_points(image, points, colour, radius: float = 1.2):
  """Pictures (b, h, w, 3) with dots at unit coordinates (b, n, 2)."""
  height, width = image.shape[1:3]
  y, x = jnp.meshgrid(
    jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij"
  )
  dx = x[None, None] - points[..., 0, None, None] * width
  dy = y[None, None] - points[..., 1, None, None] * height
  near = (dx**2 + dy**2 < radius**2 * max(height / 64, 1)).any(axis=1)
  return jnp.where(near[..., None], jnp.asarray(colour), image)
