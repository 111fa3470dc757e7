"""DiffFAE: one-stage diffusion editing of pose, expression and light.

Trains the denoising U-Net and the region-responsive encoder jointly (section
4.3, eq. 7-8) on pairs of frames of one person, and holds the edit itself
(section 4.4, appendix G).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import config as config_lib
from faceedit_jax.core import optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.diffusion import grids, samplers, schedules, training
from faceedit_jax.faces import face_nets, face_reader
from faceedit_jax.faces import region_prior as layout_lib
from faceedit_jax.faces import slot_regions as regions_lib
from faceedit_jax.losses import attention_consistency
from faceedit_jax.models.diffusion import autoencoder as autoencoder_lib
from faceedit_jax.models.diffusion import latent_tokens
from faceedit_jax.models.diffusion import unet as unet_lib
from faceedit_jax.models.slots import region_encoder as region_encoder_lib
from faceedit_jax.recipes.difffae import conditions as conditions_lib
from faceedit_jax.recipes.pretrain import first_stage
from faceedit_jax.recipes.pretrain import region_encoder as region_recipe

# Pictures that `edit` takes beside the source; each defaults to the source.
QUERIES = (
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
    unet: 8-channel denoiser with slot context and AdaIN on the identity.
    region_encoder: source picture to four tokens and four masks.
    autoencoder: frozen first stage.
    face: frozen estimator, identity net and renderer.
    schedule: noise schedule.
    timesteps: how training draws them: `antithetic` and `power` of
      `diffusion.draw_timesteps`; uniformly by default.
    prediction: "eps" (the paper), "v" or "x0".
    consistency_weight: delta of eq. 7; 0 switches the loss off.
    layout: weight of the loss that keeps the slots where the pictures' 3D
      reading and colours suggest, as in `RegionEncoderRecipe`.
    source_condition: "slots", or "latent" for the vanilla ablation.
    identity_token: False feeds the U-Net no identity (ablation).
    slot_names: region of each slot, instead of what `region_encoder` counted.
    latent_scale: number, or 0 to scale latents by 1 / their spread.
    read_once: what the frozen nets say of a picture is computed once, before
      the first step, and kept; for data that fit the disk.
    recorded: what the prepared data hold of each picture already, see
      `recipes.conditions`.
    ddim_spacing: which steps DDIM visits, see `diffusion.grids.timesteps`.
  """

  unet: unet_lib.UNet
  region_encoder: region_encoder_lib.RegionEncoder
  autoencoder: autoencoder_lib.VQModel
  face: face_nets.FaceNets
  schedule: schedules.Schedule
  image_size: int
  tx: optax.GradientTransformation
  timesteps: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  prediction: str = "eps"
  consistency_weight: Any = 0.1
  layout: Any = 0.0
  source_condition: str = "slots"
  identity_token: bool = True
  slot_names: tuple[str, ...] = ()
  latent_scale: float = 0.0
  read_once: bool = False
  recorded: tuple[str, ...] = ()
  ema_decay: float = 0.9999
  sampler: str = "ddim"
  sampling_steps: int = 50
  ddim_spacing: str = "ldm"
  camera_from: str = "source"
  unet_weights: str = ""  # file that the U-Net starts from

  edit_options = (
    "sampler",
    "sampling_steps",
    "ddim_spacing",
    "camera_from",
    "slot_names",
  )

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe from all of `nets` and the stage's options."""
    condition = options.source_condition
    if condition not in ("slots", "latent"):
      raise ValueError(
        f"recipe.source_condition is {condition!r}; it must be 'slots' or "
        "'latent'"
      )
    if options.ddim_spacing not in grids.DDIM_SPACINGS:
      raise ValueError(
        f"recipe.ddim_spacing is {options.ddim_spacing!r}; it must be one of "
        + ", ".join(map(repr, grids.DDIM_SPACINGS))
      )
    if options.timesteps.power <= 0:
      raise ValueError(
        f"recipe.timesteps.power is {options.timesteps.power}; it must be "
        "above 0 (1 draws uniformly)"
      )
    if options.slot_names:
      regions_lib.from_names(options.slot_names, nets.region_encoder.slots)
    fields = config_lib.module_fields(nets.unet)
    if not options.identity_token:
      fields["adain"] = "none"
    unet = unet_lib.UNet(dtype=dtype, **fields)
    unet.check()
    recorded = tuple(options.get("recorded", ()))
    conditions_lib.check_recorded(recorded)
    face = face_nets.from_config(nets, dtype, image_size)
    return cls(
      unet=unet,
      region_encoder=region_encoder_lib.RegionEncoder(
        dtype=dtype, **dict(nets.region_encoder)
      ),
      autoencoder=first_stage.build_autoencoder(nets.autoencoder, dtype),
      face=face,
      schedule=schedules.make_schedule(**dict(options.schedule)),
      image_size=image_size,
      tx=optim.make_tx(**options.optimizer),
      timesteps=dict(options.timesteps),
      prediction=options.prediction,
      consistency_weight=options.consistency_weight,
      layout=options.layout,
      source_condition=condition,
      identity_token=options.identity_token,
      slot_names=tuple(options.slot_names),
      latent_scale=options.latent_scale,
      read_once=options.read_once,
      recorded=recorded,
      ema_decay=options.ema_decay,
      sampler=options.sampler,
      sampling_steps=options.sampling_steps,
      ddim_spacing=options.ddim_spacing,
      camera_from=options.camera_from,
      unet_weights=nets.unet.get("weights", ""),
    )

  # What the trainer asks for.

  def batch_spec(self):
    size = self.image_size
    picture = recipe_lib.Field((size, size, 3), "float32", (-1.0, 1.0))
    spec = {"source_image": picture, "query_image": picture}
    return spec | self.conditions.batch_spec()

  def reading_spec(self):
    return self.conditions.reading_spec()

  @property
  def _slots(self) -> bool:
    return self.source_condition == "slots"

  @property
  def _led(self) -> bool:
    """Whether a loss leads the slots."""
    slots = self.region_encoder.slots
    return self._slots and layout_lib.leads(self.layout, slots)

  def _mask_side(self) -> int:
    return self.image_size // self.region_encoder.patch

  def init(self, rng):
    size, side = self.image_size, self.conditions.latent_side
    channels = self.autoencoder.embed_dim
    context = jnp.zeros((1, 4, self.unet.context_dim))
    nets = {
      "unet": self.unet.init(
        rng,
        jnp.zeros((1, side, side, 2 * channels)),
        jnp.zeros((1,)),
        context,
        jnp.zeros((1, self.unet.condition_dim)),
      )
    }
    key = jax.random.fold_in(rng, 1)
    if self._slots:
      encoder = self.region_encoder.init(key, jnp.zeros((1, size, size, 3)))
      regions = region_recipe.init_regions(self.region_encoder.slots)
      nets["region_encoder"] = {**encoder, "regions": regions}
    else:
      tokens = latent_tokens.LatentTokens(self.unet.context_dim)
      nets["latent_tokens"] = tokens.init(
        key, jnp.zeros((1, side, side, channels))
      )
    return nets

  def init_from(self):
    sources = {}
    if self.unet_weights:
      sources["unet"] = recipe_lib.WeightSource(path=self.unet_weights)
    if self._slots:
      sources["region_encoder"] = recipe_lib.WeightSource(
        stage="region_encoder"
      )
    return sources

  def frozen(self):
    first = recipe_lib.WeightSource(stage="first_stage")
    return {"autoencoder": first, **self.face.sources}

  def init_frozen(self, rng):
    size = self.image_size
    return {
      "autoencoder": first_stage.init_autoencoder(
        self.autoencoder, rng, jnp.zeros((1, size, size, 3))
      ),
      **self.face.init(rng, size),
    }

  @property
  def reader(self) -> face_reader.FaceReader:
    return self.face.reader

  def groups(self):
    other = "region_encoder" if self._slots else "latent_tokens"
    return {"denoiser": recipe_lib.Group(("unet", other), self.tx)}

  def phases(self):
    return (recipe_lib.Phase("denoise", ("denoiser",), self.denoise_loss),)

  def ema(self):
    nets = self.groups()["denoiser"].nets
    return {"ema": recipe_lib.Ema(nets, optim.ema_warmup(self.ema_decay))}

  @property
  def queries(self):
    """Names of the pictures that `edit` takes beside the source."""
    return QUERIES if self._slots else QUERIES[:3]

  def find_points(self, variables, frozen, image):
    """Five points (b, 5, 2) in unit coordinates and the face logit (b,)."""
    del variables
    return self.reader.points(frozen, image)

  # The pieces.

  @property
  def conditions(self) -> conditions_lib.Conditions:
    return conditions_lib.Conditions(
      face=self.face,
      autoencoder=self.autoencoder,
      image_size=self.image_size,
      latent_scale=self.latent_scale,
      layout_side=self._mask_side() if self._led else 0,
      read_once=self.read_once,
      recorded=self.recorded,
    )

  def encode(self, frozen, image):
    """Scaled latents (b, h, w, c) of pictures in [-1, 1]."""
    return self.conditions.encode(frozen, image)

  def decode(self, frozen, latent):
    """Pictures in [-1, 1] of scaled latents, through the codebook."""
    return self.conditions.decode(frozen, latent)

  def _context(self, variables, frozen, image):
    """Context tokens of the source, and its slot masks or None."""
    if self._slots:
      net = {"params": variables["region_encoder"]["params"]}
      return self.region_encoder.apply(net, image)
    net = {"params": variables["latent_tokens"]["params"]}
    tokens = latent_tokens.LatentTokens(self.unet.context_dim)
    return tokens.apply(net, self.encode(frozen, image)), None

  # Training, eq. 1, 7 and 8.

  def read(self, frozen, image):
    return self.conditions.read(frozen, image)

  def record_nets(self):
    return self.conditions.record_nets()

  def record(self, frozen, image, points68=None):
    return self.conditions.record(frozen, image, points68)

  def denoise_loss(self, params, ctx):
    source, query = ctx.batch["source_image"], ctx.batch["query_image"]
    frozen, count = ctx.frozen, source.shape[0]
    readings = self.conditions.read_pair(frozen, ctx.batch)
    clean, condition = (
      readings[conditions_lib.CLEAN],
      readings[conditions_lib.CONDITION],
    )

    variables = {net: {"params": tree} for net, tree in params.items()}
    tokens, _ = self._context(variables, frozen, source)
    time = training.draw_timesteps(
      ctx.key("time"), count, self.schedule.steps, **self.timesteps
    )
    noise = jax.random.normal(ctx.key("noise"), clean.shape)
    noisy = self.schedule.q_sample(clean, noise, time)
    predicted, maps = self.unet.apply(
      variables["unet"],
      jnp.concatenate([noisy, condition], axis=-1),
      time.astype(jnp.float32),
      tokens,
      readings[conditions_lib.PERSON],
      maps="mean",
    )
    diffusion = training.diffusion_loss(
      predicted, clean, noise, time, self.schedule, kind=self.prediction
    ).mean()
    metrics = {"diffusion": diffusion, "latent_std": clean.std()}
    if not self._slots:
      return diffusion, recipe_lib.Aux(metrics=metrics)
    free = self._context(variables, frozen, query)[1]
    # The masks are targets: without stop-gradient the encoder could lower
    # this loss by flattening its own masks (inferred; paper silent).
    masks = jax.lax.stop_gradient(free)
    consistency = attention_consistency.attention_consistency(
      maps, masks
    ).mean()
    weight = recipe_lib.at(self.consistency_weight, ctx.step)
    metrics["consistency"] = consistency
    metrics["mask_variance"] = masks.var(axis=0).mean()
    loss = diffusion + weight * consistency
    if self._led:
      wanted = readings[conditions_lib.LAYOUT]
      metrics["layout"] = layout_lib.cross_entropy(free, wanted)
      loss = loss + recipe_lib.at(self.layout, ctx.step) * metrics["layout"]
    return loss, recipe_lib.Aux(metrics=metrics)

  # Editing, section 4.4 and appendix G.

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
      inputs: "source" (b, h, w, 3) in [-1, 1] and any of QUERIES, same shape;
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
    names = [q for q in self.queries if q in inputs]
    pictures = jnp.concatenate([source] + [inputs[q] for q in names])
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
      camera=camera_from or self.camera_from,
    )
    rendering = rendered["image"]
    condition = self.encode(frozen, rendering)
    identity = self.reader.embed(frozen, source, codes["landmarks5"])
    tokens, masks = self._context(variables, frozen, source)
    if self._slots:
      tokens = self._swap_tokens(variables, frozen, inputs, tokens)

    def predict(x, time, maps="none"):
      return self.unet.apply(
        {"params": variables["unet"]["params"]},
        jnp.concatenate([x, condition], axis=-1),
        time,
        tokens,
        identity,
        maps=maps,
      )

    row = inputs.get("row", jnp.arange(count))
    noise = jax.vmap(
      lambda i: jax.random.normal(
        jax.random.fold_in(rng, i), condition.shape[1:]
      )
    )(row)
    name = sampler or self.sampler
    options: dict[str, Any] = {"kind": self.prediction}
    if name == "ddim":
      options |= {"eta": eta, "spacing": self.ddim_spacing}
    if name == "ddpm" or (name == "ddim" and eta):
      fresh = jax.random.fold_in(rng, 2**30)
      options["rng"] = jax.vmap(lambda i: jax.random.fold_in(fresh, i))(row)
    latent = samplers.sample(
      name,
      predict,
      noise,
      self.schedule,
      steps or self.sampling_steps,
      **options,
    )
    result = {
      "image": self.decode(frozen, latent),
      "rendering": rendering,
      "head": rendered["mask"],
    }
    if self._slots:
      _, maps = predict(latent, jnp.zeros((count,)), maps="mean")
      result["slots"] = masks
      result["attention"] = attention_consistency.merge_maps(
        maps, size=masks.shape[1:3]
      )
    return result

  def _swap_tokens(self, variables, frozen, inputs, tokens):
    """Replaces the tokens of regions that come from another picture."""
    region = self._region_of_slots(variables)
    for at, name in enumerate(regions_lib.REGIONS):
      other = inputs.get(f"{name}_from")
      if other is None:
        continue
      theirs, _ = self._context(variables, frozen, other)
      tokens = jnp.where((region == at)[None, :, None], theirs, tokens)
    return tokens

  def _region_of_slots(self, variables):
    """Region (k,) of each slot."""
    slots = self.region_encoder.slots
    if self.slot_names:
      return regions_lib.assign(
        jnp.asarray(regions_lib.from_names(self.slot_names, slots))
      )
    return regions_lib.assign(
      variables["region_encoder"]["regions"]["confusion"]
    )

  def edit_spec(self):
    """The pictures that an exported edit takes."""
    size = self.image_size
    picture = recipe_lib.Field((size, size, 3), "float32", (-1.0, 1.0))
    return {name: picture for name in ("source", *self.queries)}

  def paint(self, variables, outputs):
    """Slot and attention maps of an edit as pictures (b, h, w, 3)."""
    if not self._slots:
      return {}
    region = self._region_of_slots(variables)
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
    steps = min(20, self.sampling_steps)
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
    if self._slots:
      shown |= regions_lib.named(
        source, result["slots"], self._region_of_slots(variables)
      )
    return {**shown, **self.paint(variables, result)}
