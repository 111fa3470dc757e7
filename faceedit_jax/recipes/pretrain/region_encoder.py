"""Pre-trains the region-responsive encoder by reconstruction.

DiffFAE section 4.3 and appendix B: a U-Net with slot attention whose slots a
spatial broadcast decoder turns into one picture and one mask each.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import face_nets, face_reader, region_prior
from faceedit_jax.faces import slot_regions as regions_lib
from faceedit_jax.models.diffusion import autoencoder as autoencoder_lib
from faceedit_jax.models.slots import broadcast_decoder, region_encoder
from faceedit_jax.recipes.pretrain import first_stage


@dataclasses.dataclass(frozen=True)
class RegionEncoderRecipe(recipe_lib.Recipe):
  """Nets `region_encoder` and `region_decoder`; phase `compose`.

  Attributes:
    region_prior_weight: weight of the loss that pulls each slot's mask to the
      region which the
      picture's 3D reading and colours suggest, see `faces.region_prior`; a number
      or a function of the step. 0 is the published training, which is also
      what any other number of slots than four gets.
    face: reads and renders the face where `region_prior_weight` is not 0.
    slot_names: region of each slot, for pictures without labelled regions:
      look at `slot_0` and so on in the preview, then say it here or in the
      stage that edits. Empty: the pictures' regions name the slots.
  """

  net: region_encoder.RegionEncoder
  decoder: broadcast_decoder.BroadcastDecoder
  autoencoder: autoencoder_lib.VQModel | None
  image_size: int
  tx: optax.GradientTransformation
  ema_decay: float = 0.999
  region_prior_weight: Any = 0.0
  face: face_nets.FaceNets | None = None
  slot_names: tuple[str, ...] = ()

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe; `nets.region_decoder.target` is pixel or latent."""
    if options.slot_names:
      regions_lib.from_names(options.slot_names, nets.region_encoder.slots)
    reading = {}
    if region_prior.applies(
      options.region_prior_weight, nets.region_encoder.slots
    ):
      names = tuple(options.slot_names)
      if names not in ((), regions_lib.REGIONS):
        raise ValueError(
          f"recipe.slot_names is {names}, but recipe.region_prior_weight leads "
          f"the slots to {regions_lib.REGIONS} in this order; say so, or set "
          "recipe.region_prior_weight=0"
        )
      reading = dict(
        face=face_nets.from_config(nets, dtype, image_size, identity=False),
      )
    decoder = broadcast_decoder.BroadcastDecoder(
      dtype=dtype, **dict(nets.region_decoder)
    )
    autoencoder = None
    if decoder.target == "latent":
      autoencoder = first_stage.build_autoencoder(nets.autoencoder, dtype)
    return cls(
      net=region_encoder.RegionEncoder(
        dtype=dtype, **dict(nets.region_encoder)
      ),
      decoder=decoder,
      autoencoder=autoencoder,
      image_size=image_size,
      tx=optim.make_tx(**options.optimizer),
      ema_decay=options.ema_decay,
      region_prior_weight=options.region_prior_weight,
      slot_names=tuple(options.slot_names),
      **reading,
    )

  def batch_spec(self):
    size = self.image_size
    spec = {"image": recipe_lib.Field((size, size, 3), "float32", (-1.0, 1.0))}
    if not self.slot_names:
      # Read for the reported mIoU and the slots' names; in no loss.
      spec["regions"] = recipe_lib.Field((size, size), "int32", (0, 3))
    return spec

  def init(self, rng):
    size = self.image_size
    encoder = self.net.init(rng, jnp.zeros((1, size, size, 3)))
    slots = jnp.zeros((1, self.net.slots, self.net.token_size))
    decoder = self.decoder.init(jax.random.fold_in(rng, 1), slots)
    regions = init_regions(self.net.slots, self.slot_names)
    return {
      "region_encoder": {**encoder, "regions": regions},
      "region_decoder": decoder,
    }

  def frozen(self):
    sources = {}
    if self.autoencoder is not None:
      sources["autoencoder"] = recipe_lib.WeightSource(stage="first_stage")
    if self.face is not None:
      sources |= self.face.sources
    return sources

  def init_frozen(self, rng):
    picture = jnp.zeros((1, self.image_size, self.image_size, 3))
    nets = {}
    if self.autoencoder is not None:
      nets["autoencoder"] = first_stage.init_autoencoder(
        self.autoencoder, rng, picture
      )
    if self.face is not None:
      nets |= self.face.init(rng, self.image_size)
    return nets

  def groups(self):
    nets = ("region_encoder", "region_decoder")
    return {"regions": recipe_lib.Group(nets, self.tx)}

  def phases(self):
    return (recipe_lib.Phase("compose", ("regions",), self.compose_loss),)

  def ema(self):
    nets = ("region_encoder", "region_decoder")
    return {"ema": recipe_lib.Ema(nets, optim.ema_warmup(self.ema_decay))}

  def target(self, frozen, image, size: int):
    """What the decoder must compose: pixels at its size, or latents."""
    if self.autoencoder is None:
      return jax.image.resize(
        image, (image.shape[0], size, size, 3), "linear", antialias=True
      )
    variables = {"params": frozen["autoencoder"]["params"]}
    latent = self.autoencoder.apply(variables, image, method="encode")
    return latent * first_stage.latent_scale(frozen["autoencoder"])

  def suggested(self, frozen, image, grid: int):
    """Masks (b, grid, grid, 4) that `faces.region_prior` suggests."""
    reader = self.face.reader
    codes = reader.codes(frozen, image)
    ids = reader.render(frozen, codes)["ids"]
    model = frozen["morphable"]["params"]
    points = codes[face_reader.POINTS5]
    return region_prior.masks(model, ids, points, image, grid)

  def compose_loss(self, params, ctx):
    # Faces look to both sides equally often. Mirrored pictures keep the slots
    # from settling on places instead of contents.
    mirror = jax.random.bernoulli(
      ctx.key("mirror"), 0.5, (ctx.batch["image"].shape[0], 1, 1)
    )
    seen = ctx.batch["image"]
    image = jnp.where(mirror[..., None], seen[:, :, ::-1], seen)
    slots, masks = self.net.apply({"params": params["region_encoder"]}, image)
    parts = self.decoder.apply({"params": params["region_decoder"]}, slots)
    target = self.target(ctx.frozen, image, parts.image.shape[1])
    loss = jnp.square(parts.image - target).mean()
    counts = ctx.stats["region_encoder"]["regions"]["confusion"]
    metrics = {
      "mse": loss,
      "mask_variance": masks.var(axis=0).mean(),
      "mask_entropy": -(masks * jnp.log(masks + 1e-8)).sum(-1).mean(),
    }
    if self.face is not None:
      wanted = self.suggested(ctx.frozen, seen, masks.shape[1])
      wanted = jnp.where(mirror[..., None], wanted[:, :, ::-1], wanted)
      metrics["region_prior"] = region_prior.cross_entropy(masks, wanted)
      loss = (
        loss
        + recipe_lib.at(self.region_prior_weight, ctx.step)
        * metrics["region_prior"]
      )
    if not self.slot_names:
      regions = ctx.batch["regions"]
      regions = jnp.where(mirror, regions[:, :, ::-1], regions)
      counts = update_regions(counts, masks, regions)
      of_slots = regions_lib.assign(counts)
      metrics["miou"] = regions_lib.mean_iou(counts, of_slots)
    stats = {"region_encoder": {"regions": {"confusion": counts}}}
    return loss, recipe_lib.Aux(metrics=metrics, stats=stats)

  def preview(self, variables, frozen, batch, rng):
    """Pictures, slot maps, where each slot looks and what it paints."""
    del rng
    image = batch["image"]
    size = self.image_size
    net = variables["region_encoder"]
    slots, masks = self.net.apply({"params": net["params"]}, image)
    parts = self.decoder.apply(
      {"params": variables["region_decoder"]["params"]}, slots
    )
    region = regions_lib.assign(net["regions"]["confusion"])
    shown = {
      "picture": image,
      "slots": regions_lib.paint(masks, region, size),
      **regions_lib.named(image, masks, region),
    }
    if self.face is not None:
      wanted = self.suggested(frozen, image, masks.shape[1])
      shown["suggested"] = regions_lib.paint(wanted, jnp.arange(4), size)
    if self.autoencoder is None:
      shown["composed"] = jax.image.resize(parts.image, image.shape, "nearest")
      for slot in range(self.net.slots):
        part = parts.parts[:, slot] * parts.masks[..., slot : slot + 1]
        part = part - (1 - parts.masks[..., slot : slot + 1])
        part = jax.image.resize(part, image.shape, "nearest")
        shown[f"slot_{slot}_painted"] = part
    else:
      decode = frozen["autoencoder"]
      shown["composed"] = self.autoencoder.apply(
        {"params": decode["params"]},
        parts.image / first_stage.latent_scale(decode),
        method="decode",
      )
    return shown


def init_regions(slots: int, names=()):
  """The running slot-to-region counts that a checkpoint carries along."""
  if names:
    return {"confusion": jnp.asarray(regions_lib.from_names(names, slots))}
  return {"confusion": jnp.zeros((slots, len(regions_lib.REGIONS)))}


def update_regions(counts, masks, regions, decay: float = 0.98):
  """Running average of the confusion; reporting only, no gradient."""
  masks = jax.lax.stop_gradient(masks)
  return decay * counts + (1 - decay) * regions_lib.confusion(masks, regions)
