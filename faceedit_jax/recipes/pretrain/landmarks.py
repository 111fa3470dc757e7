"""Trains a face alignment network on 68 points: the landmark net `fan`.

Heat-maps of points and of the face's lines by the adaptive wing loss (Wang et
al. 2019), or by squared differences (Bulat and Tzimiropoulos 2017). The points
are those of the synthetic heads; what moves pictures in `data.transforms`
moves them too. Its masks open the skips of L2M-GAN's generator
(`models.faces.landmark_masks`).
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import optax

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import optim
from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import landmark_heatmaps
from faceedit_jax.losses import adaptive_wing
from faceedit_jax.models.faces import fan as fan_lib
from faceedit_jax.models.faces import landmark_masks
from faceedit_jax.nn import layers
from faceedit_jax.recipes.pretrain import estimator

POINTS = f"landmarks{landmark_heatmaps.LANDMARKS}"


@dataclasses.dataclass(frozen=True)
class LandmarksOptions:
  """Section `recipe` of a stage that trains a landmark net.

  Attributes:
    optimizer: see `optim.make_tx`.
    loss: "adaptive_wing", with more weight round the points, or "l2".
    sigma: standard deviation of the true heat-maps in their pixels, four to
      one of the net's input.
    ema_decay: of the net's average.
    net: section of `nets` with the architecture, and the trained net's name.
  """

  optimizer: optim.OptimizerOptions
  loss: Literal["adaptive_wing", "l2"] = "adaptive_wing"
  sigma: float = 1.0
  ema_decay: float = 0.998
  net: str = "fan"

  def __post_init__(self):
    if self.sigma <= 0:
      raise ValueError(f"sigma is {self.sigma}; wanted a positive number")


@dataclasses.dataclass(frozen=True)
class LandmarksRecipe(recipe_lib.Recipe):
  """One net, named after its section of the config; one phase: `find`.

  Attributes:
    net: the landmark net.
    options: see there.
    image_size: side of the pictures in pixels.
    tx: optimiser.
  """

  net: fan_lib.FAN
  options: LandmarksOptions
  image_size: int
  tx: optax.GradientTransformation

  Options = LandmarksOptions

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe; `nets[options.net]` holds the architecture."""
    if options.net not in nets:
      raise ValueError(
        f"net is {options.net!r}, which config.nets has not; it has "
        + ", ".join(sorted(nets))
      )
    net = options_lib.build_net(
      fan_lib.FAN, nets[options.net], f"config.nets.{options.net}", dtype=dtype
    )
    if net.landmarks != landmark_heatmaps.LANDMARKS:
      raise ValueError(
        f"config.nets.{options.net}.landmarks is {net.landmarks}; wanted "
        f"{landmark_heatmaps.LANDMARKS}, the points that the data have"
      )
    return cls(
      net=net,
      options=options,
      image_size=image_size,
      tx=options.optimizer.make(),
    )

  def batch_spec(self):
    size = self.image_size
    return {
      "image": batch_lib.Field((size, size, 3), "float32", (-1.0, 1.0)),
      POINTS: batch_lib.Field((landmark_heatmaps.LANDMARKS, 2), "float32"),
    }

  def init(self, rng):
    size = self.image_size
    picture = jnp.zeros((1, size, size, 3))
    return {self.options.net: self.net.init(rng, picture)}

  def groups(self):
    return {"landmarks": recipe_lib.Group((self.options.net,), self.tx)}

  def phases(self):
    return (recipe_lib.Phase("find", ("landmarks",), self.find_loss),)

  def ema(self):
    decay = optim.ema_warmup(self.options.ema_decay)
    return {"ema": recipe_lib.Ema((self.options.net,), decay)}

  def find_loss(self, params, ctx):
    net, true = self.options.net, ctx.batch[POINTS]
    found, updated = self.net.apply(
      {"params": params[net], **ctx.stats[net]},
      ctx.batch["image"],
      train=True,
      mutable=["batch_stats"],
    )
    wanted = landmark_heatmaps.true_maps(
      true, found.shape[1], self.options.sigma
    )
    if self.options.loss == "l2":
      loss = jnp.square(found - wanted).mean()
    else:
      loss = adaptive_wing.adaptive_wing(found, wanted)
      loss = (loss * adaptive_wing.foreground_weights(wanted)).mean()
    off = jnp.linalg.norm(_points(found) - true, axis=-1)
    # In sides of the picture; the evaluator measures in distances of the eyes.
    metrics = {"points": off.mean()}
    return loss, recipe_lib.Aux(metrics=metrics, stats={net: updated})

  def find_landmarks(self, variables, image):
    """The 68 points of faces.

    Args:
      variables: {net: variables}.
      image: (b, h, w, 3) in [-1, 1].

    Returns:
      (b, 68, 2) in unit coordinates, x right and y down.
    """
    return _points(self.net.apply(variables[self.options.net], image))

  def preview(self, variables, frozen, batch, rng):
    """Points found (red) over true ones (green), and the lines' map."""
    del frozen, rng
    heatmaps = self.net.apply(variables[self.options.net], batch["image"])
    size = self.image_size
    image = estimator.draw_points(
      batch["image"], batch[POINTS], (-1.0, 1.0, -1.0), radius=0.8
    )
    image = estimator.draw_points(
      image, _points(heatmaps), (1.0, -1.0, -1.0), radius=0.8
    )
    lines = layers.resize(heatmaps[..., -1:], size, size).clip(0, 1)
    return {"points": image, "lines": 2 * lines.repeat(3, -1) - 1}


def _points(heatmaps):
  """Unit coordinates (b, 68, 2) of the peaks of (b, s, s, 69)."""
  return landmark_masks.peaks(heatmaps[..., :-1]) / heatmaps.shape[1]
