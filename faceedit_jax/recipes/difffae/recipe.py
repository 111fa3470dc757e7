"""DiffFAE: one-stage diffusion editing of pose, expression and light.

Trains the denoising U-Net and the region-responsive encoder jointly (section
4.3, eq. 7-8) on pairs of frames of one person, and holds the edit itself
(section 4.1, "during testing", and appendix G).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import editing, optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.diffusion import samplers, schedules
from faceedit_jax.faces import face_nets, face_reader
from faceedit_jax.faces import slot_regions as regions_lib
from faceedit_jax.losses import attention_consistency
from faceedit_jax.models.diffusion import unet_interface
from faceedit_jax.recipes.difffae import conditions as conditions_lib
from faceedit_jax.recipes.difffae import losses
from faceedit_jax.recipes.difffae import nets as nets_lib
from faceedit_jax.recipes.difffae import options as options_lib

# Photos that `edit` takes beside the source; each defaults to the source.
REFERENCES = (
  "pose_from",
  "expression_from",
  "light_from",
  "hair_from",
  "clothes_from",
  "background_from",
)


@dataclasses.dataclass(frozen=True)
class DiffFAERecipe(recipe_lib.Recipe):
  """Nets `unet` and `region_encoder`; phase `denoise`.

  Attributes:
    nets: what is trained, and the frozen nets.
    options: see there.
    schedule: noise schedule.
    image_size: side of the pictures in pixels.
    tx: optimiser.
  """

  nets: nets_lib.DiffFAENets
  options: options_lib.DiffFAEOptions
  schedule: schedules.Schedule
  image_size: int
  tx: optax.GradientTransformation

  Options = options_lib.DiffFAEOptions
  inference_options = (
    "sampler",
    "sampling_steps",
    "ddim_spacing",
    "camera_from",
    "slot_names",
  )
  traced_options = ()
  alignment = "synthetic_heads"
  keeps_frame = True

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe from all of `nets` and the stage's options."""
    built = nets_lib.DiffFAENets.from_config(nets, options, image_size, dtype)
    return cls(
      nets=built,
      options=options,
      schedule=schedules.make_schedule(**dataclasses.asdict(options.schedule)),
      image_size=image_size,
      tx=options.optimizer.make(),
    )

  # What the trainer asks for.

  def batch_spec(self):
    size = self.image_size
    picture = batch_lib.Field((size, size, 3), "float32", (-1.0, 1.0))
    spec = {"source_image": picture, "query_image": picture}
    return spec | self.conditions.batch_spec()

  def feature_spec(self):
    return self.conditions.feature_spec()

  def init(self, rng):
    return self.nets.init(rng)

  def init_from(self):
    return self.nets.starts()

  def notes(self):
    return self.nets.notes()

  def frozen(self):
    return self.nets.frozen()

  def init_frozen(self, rng):
    return self.nets.init_frozen(rng)

  def init_unsourced(self, rng):
    del rng
    return self.nets.conditions.face.init_unsourced()

  def groups(self):
    return {"denoiser": recipe_lib.Group(self.nets.trained, self.tx)}

  def phases(self):
    return (recipe_lib.Phase("denoise", ("denoiser",), self.denoise_loss),)

  def ema(self):
    decay = optim.ema_warmup(self.options.ema_decay)
    return {"ema": recipe_lib.Ema(self.nets.trained, decay)}

  @property
  def references(self):
    """Names of the photos that `edit` takes beside the source."""
    return REFERENCES if self.nets.has_slots else REFERENCES[:3]

  @property
  def edit_inputs(self):
    return (
      editing.EditInput("source", "photo", required=True),
      *(
        editing.EditInput(name, "photo", default="source")
        for name in self.references
      ),
    )

  def find_points(self, variables, frozen, image):
    """Five points (b, 5, 2) in unit coordinates and the face logit (b,)."""
    del variables
    return self.reader.points(frozen, image)

  # The pieces.

  @property
  def conditions(self) -> conditions_lib.Conditions:
    return self.nets.conditions

  @property
  def face(self) -> face_nets.FaceNets:
    return self.conditions.face

  @property
  def reader(self) -> face_reader.FaceReader:
    return self.face.reader

  def encode(self, frozen, image):
    """Scaled latents (b, h, w, c) of pictures in [-1, 1]."""
    return self.conditions.encode(frozen, image)

  def decode(self, frozen, latent):
    """Pictures in [-1, 1] of scaled latents, through the codebook."""
    return self.conditions.decode(frozen, latent)

  # Training, eq. 1, 7 and 8.

  def compute_features(self, frozen, image):
    return self.conditions.compute_features(frozen, image)

  def prepared_nets(self):
    return self.conditions.prepared_nets()

  def prepare_features(self, frozen, image, points68=None):
    return self.conditions.prepare_features(frozen, image, points68)

  def denoise_loss(self, params, ctx):
    return losses.denoise_loss(
      self.nets, self.schedule, self.options, params, ctx
    )

  # Editing, section 4.1 and appendix G.

  def edit(
    self,
    variables,
    frozen,
    inputs,
    rng,
    *,
    steps: int | None = None,
    sampler: str | None = None,
    eta: float = 0.0,
    camera_from: str | None = None,
  ):
    """Edits a batch of source pictures.

    Args:
      variables: {"unet", "region_encoder"} as `core.state.view` gives them.
      frozen: {"autoencoder", "estimator", "identity", "morphable"}.
      inputs: "source" (b, h, w, 3) in [-1, 1] and any of REFERENCES, likewise;
        "row" (b,) int32 names each picture's noise (default 0..b-1).
      rng: key of the sampling noise.
      steps: denoising steps (config: recipe.sampling_steps).
      sampler: "ddim", "ddpm" or "dpm_solver_pp" (config: recipe.sampler).
      eta: DDIM's noise; 0 is deterministic.
      camera_from: "source" or "query" (config: recipe.camera_from).

    Returns:
      "image" (b, h, w, 3), "rendering" (b, h, w, 3) the condition, "head"
      (b, h, w) its mask, "slots" and "attention" (b, h', w', k) masks of the
      source and of the edit.
    """
    if steps is not None and (type(steps) is not int or steps < 1):
      raise ValueError(f"steps is {steps!r}, wanted a whole number from 1 on")
    if type(eta) not in (int, float):
      raise ValueError(f"eta is {eta!r}, wanted a number")
    source = inputs["source"]
    names = [name for name in self.references if name in inputs]
    pictures = jnp.concatenate([source] + [inputs[name] for name in names])
    count = source.shape[0]
    every = self.reader.codes(frozen, pictures)

    def of(name):
      at = 1 + names.index(name) if name in names else 0
      return jax.tree.map(lambda a: a[at * count : (at + 1) * count], every)

    codes = of("source")
    rendered = self.reader.render_edit(
      frozen,
      codes,
      of("pose_from"),
      of("expression_from"),
      of("light_from"),
      camera=camera_from or self.options.camera_from,
    )
    rendering = rendered["image"]
    condition = self.encode(frozen, rendering)
    person = self.reader.embed(frozen, source, codes["landmarks5"])
    identity = self.nets.identity(person)
    tokens, masks = self.nets.context(variables, frozen, source)
    if self.nets.has_slots:
      tokens = self.nets.swap_tokens(variables, frozen, inputs, tokens)

    capture = (
      unet_interface.MEAN_MAPS
      if self.nets.has_slots
      else unet_interface.NOTHING
    )

    def look(x, time):
      out = self.nets.unet.apply(
        {"params": variables["unet"]["params"]},
        jnp.concatenate([x, condition], axis=-1),
        time,
        tokens,
        identity,
        capture=capture,
      )
      if not self.nets.has_slots:
        return out.prediction
      maps = list(out.cross_maps.values())
      size = masks.shape[1:3]
      return out.prediction, attention_consistency.merge_maps(maps, size=size)

    row = inputs.get("row", jnp.arange(count))
    noise = jax.vmap(
      lambda i: jax.random.normal(
        jax.random.fold_in(rng, i), condition.shape[1:]
      )
    )(row)
    name = sampler or self.options.sampler
    options: dict[str, Any] = {"kind": self.options.prediction}
    if name == "ddim":
      options |= {"eta": eta, "spacing": self.options.ddim_spacing}
    if name == "ddpm" or (name == "ddim" and eta):
      fresh = jax.random.fold_in(rng, 2**30)
      options["rng"] = jax.vmap(lambda i: jax.random.fold_in(fresh, i))(row)
    sampled = samplers.sample(
      name,
      samplers.Watched(look) if self.nets.has_slots else look,
      noise,
      self.schedule,
      steps or self.options.sampling_steps,
      **options,
    )
    shown = {}
    if self.nets.has_slots:
      sampled, attention = sampled
      shown = {"slots": masks, "attention": attention}
    return {
      "image": self.decode(frozen, sampled),
      "rendering": rendering,
      "head": rendered["mask"],
      **shown,
    }

  def check_edit(self, variables, inputs):
    """Refuses swaps of a run whose slots have no names yet."""
    self.nets.check_named(variables, inputs)

  def slot_masks(self, variables, image):
    """Masks (b, h, w, k) of pictures (b, s, s, 3) in [-1, 1].

    Raises:
      ValueError: the source is told in latents, without slots.
    """
    if not self.nets.has_slots:
      raise ValueError(
        "recipe.source_condition is 'latent': there are no slots to name"
      )
    net = {"params": variables["region_encoder"]["params"]}
    return self.nets.region_encoder.apply(net, image)[1]

  def paint(self, variables, outputs):
    """Slot and attention maps of an edit as pictures (b, h, w, 3)."""
    if not self.nets.has_slots:
      return {}
    region = self.nets.region_of_slots(variables)
    return {
      name: regions_lib.paint(outputs[name], region, self.image_size)
      for name in ("slots", "attention")
    }

  def preview(self, variables, frozen, batch, rng):
    """Source, query, rendering, edit, the query's
    reconstruction, and the maps."""
    source, query = batch["source_image"], batch["query_image"]
    inputs = {
      "source": source,
      "pose_from": query,
      "expression_from": query,
      "light_from": query,
    }
    steps = min(20, self.options.sampling_steps)
    result = self.edit(
      variables, frozen, inputs, rng, steps=steps, camera_from="query"
    )
    shown = {
      "source": source,
      "query": query,
      "rendering": result["rendering"],
      "edit": result["image"],
      "reconstruction": self.decode(frozen, self.encode(frozen, query)),
    }
    if self.nets.has_slots:
      shown |= regions_lib.named(
        source, result["slots"], self.nets.region_of_slots(variables)
      )
    return {**shown, **self.paint(variables, result)}
