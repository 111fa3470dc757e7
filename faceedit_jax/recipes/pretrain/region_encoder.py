"""Pre-trains the region-responsive encoder by reconstruction.

DiffFAE section 4.3 and appendix B: a U-Net with slot attention whose slots a
spatial broadcast decoder turns into one picture and one mask each.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import optim
from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import (
  face_nets,
  face_reader,
  region_prior,
  slot_regions,
)
from faceedit_jax.models.diffusion import autoencoder as autoencoder_lib
from faceedit_jax.models.slots import broadcast_decoder, region_encoder
from faceedit_jax.recipes.pretrain import first_stage


@dataclasses.dataclass(frozen=True)
class RegionEncoderOptions:
  """Section `recipe` of a stage that pre-trains the region encoder.

  Attributes:
    optimizer: see `optim.make_tx`.
    ema_decay: of both nets' average.
    region_prior_weight: weight of the loss that pulls each slot's mask towards
      the region which the picture's 3D reading and colours suggest, see
      `faces.region_prior`. 0 is the published training, which is also what any
      other number of slots than four gets.
    slot_names: region of each slot where it is known beforehand, as with the
      region prior. Empty: labelled regions name the slots.
    labelled: whether the pictures have such regions. Without them, and without
      `slot_names`, the slots have no names until `--mode=name_slots`.
  """

  optimizer: optim.OptimizerOptions
  ema_decay: float = 0.999
  region_prior_weight: optim.Weight = 0.0
  slot_names: tuple[slot_regions.Region, ...] = ()
  labelled: bool = True

  @property
  def reads_regions(self) -> bool:
    """Whether batches hold labelled regions, to name and score the slots."""
    return self.labelled and not self.slot_names


@dataclasses.dataclass(frozen=True)
class RegionEncoderRecipe(recipe_lib.Recipe):
  """Nets `region_encoder` and `region_decoder`; phase `compose`.

  Attributes:
    net: the encoder.
    decoder: paints one picture and one mask for each slot.
    autoencoder: whose latents are composed; None: pixels are.
    image_size: side of the pictures in pixels.
    tx: optimiser.
    options: see there.
    face: reads and renders the face for the region prior; None without it.
  """

  net: region_encoder.RegionEncoder
  decoder: broadcast_decoder.BroadcastDecoder
  autoencoder: autoencoder_lib.VQModel | None
  image_size: int
  tx: optax.GradientTransformation
  options: RegionEncoderOptions
  face: face_nets.FaceNets | None = None

  Options = RegionEncoderOptions

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe; `nets.region_decoder.target` is pixel or latent."""
    names, slots = options.slot_names, nets.region_encoder.slots
    if names:
      slot_regions.from_names(names, slots)
    face = None
    if region_prior.applies(options.region_prior_weight, slots):
      if names not in ((), slot_regions.REGIONS):
        raise ValueError(
          f"recipe.slot_names is {names}, but recipe.region_prior_weight pulls "
          f"the slots to {slot_regions.REGIONS} in this order; say so, or set "
          "recipe.region_prior_weight=0"
        )
      face = face_nets.from_config(nets, dtype, image_size, identity=False)
    decoder = options_lib.build_net(
      broadcast_decoder.BroadcastDecoder,
      nets.region_decoder,
      "config.nets.region_decoder",
      dtype=dtype,
    )
    autoencoder = None
    if decoder.target == "latent":
      autoencoder = first_stage.build_autoencoder(nets.autoencoder, dtype)
    return cls(
      net=options_lib.build_net(
        region_encoder.RegionEncoder,
        nets.region_encoder,
        "config.nets.region_encoder",
        dtype=dtype,
      ),
      decoder=decoder,
      autoencoder=autoencoder,
      image_size=image_size,
      tx=options.optimizer.make(),
      options=options,
      face=face,
    )

  def batch_spec(self):
    size = self.image_size
    spec = {"image": batch_lib.Field((size, size, 3), "float32", (-1.0, 1.0))}
    if self.options.reads_regions:
      # Read for the reported mIoU and the slots' names; in no loss.
      spec["regions"] = batch_lib.Field((size, size), "int32", (0, 3))
    return spec

  def init(self, rng):
    size = self.image_size
    encoder = self.net.init(rng, jnp.zeros((1, size, size, 3)))
    slots = jnp.zeros((1, self.net.slots, self.net.token_size))
    decoder = self.decoder.init(jax.random.fold_in(rng, 1), slots)
    names = self.options.slot_names
    if self.face is not None and not self.options.reads_regions:
      names = slot_regions.REGIONS  # the region prior's order
    regions = init_regions(self.net.slots, names)
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
    return {
      "ema": recipe_lib.Ema(nets, optim.ema_warmup(self.options.ema_decay))
    }

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
      weight = recipe_lib.at(self.options.region_prior_weight, ctx.step)
      loss = loss + weight * metrics["region_prior"]
    if self.options.reads_regions:
      regions = ctx.batch["regions"]
      regions = jnp.where(mirror, regions[:, :, ::-1], regions)
      counts = update_regions(counts, masks, regions)
      of_slots = slot_regions.assign(counts)
      metrics["miou"] = slot_regions.mean_iou(counts, of_slots)
    stats = {"region_encoder": {"regions": {"confusion": counts}}}
    return loss, recipe_lib.Aux(metrics=metrics, stats=stats)

  def slot_masks(self, variables, image):
    """Masks (b, h, w, k) of pictures (b, s, s, 3) in [-1, 1]."""
    net = {"params": variables["region_encoder"]["params"]}
    return self.net.apply(net, image)[1]

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
    region = slot_regions.named_regions(net["regions"]["confusion"])
    shown = {
      "picture": image,
      "slots": slot_regions.paint(masks, region, size),
      **slot_regions.named(image, masks, region),
    }
    if self.face is not None:
      wanted = self.suggested(frozen, image, masks.shape[1])
      shown["suggested"] = slot_regions.paint(wanted, jnp.arange(4), size)
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
    return {"confusion": jnp.asarray(slot_regions.from_names(names, slots))}
  return {"confusion": jnp.zeros((slots, len(slot_regions.REGIONS)))}


def update_regions(counts, masks, regions, decay: float = 0.98):
  """Running average of the confusion; reporting only, no gradient."""
  masks = jax.lax.stop_gradient(masks)
  return decay * counts + (1 - decay) * slot_regions.confusion(masks, regions)
