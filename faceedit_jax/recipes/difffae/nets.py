"""The nets of DiffFAE, and what each is asked: sections 4.1 to 4.3."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from faceedit_jax.core import options as core_options
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import face_nets, region_prior, slot_regions
from faceedit_jax.models.diffusion import latent_tokens
from faceedit_jax.models.diffusion import unet as unet_lib
from faceedit_jax.models.slots import region_encoder as region_encoder_lib
from faceedit_jax.recipes.difffae import conditions as conditions_lib
from faceedit_jax.recipes.difffae import options as options_lib
from faceedit_jax.recipes.pretrain import first_stage
from faceedit_jax.recipes.pretrain import region_encoder as region_recipe

# Pixels a side that an instance norm may be asked to normalise.
LEAST_MAP = 4


@dataclasses.dataclass(frozen=True)
class DiffFAENets:
  """Denoiser, source encoder, and the frozen nets that read conditions.

  Everywhere `variables` and `frozen` are {net: variables} of the trained and
  of the frozen nets, and pictures (b, s, s, 3) in [-1, 1].

  Attributes:
    unet: 8-channel denoiser with slot context and AdaIN on the identity.
    region_encoder: source picture to a token and a mask for each slot; None:
      the source's latents are the context (vanilla ablation).
    conditions: autoencoder, face reader, and what they say of pictures.
    slot_names: region of each slot, instead of what `region_encoder` counted.
    unet_weights: file that the U-Net starts from; "" for none.
    identity_scale: what unit identity vectors are multiplied by before the
      U-Net reads them, see `DiffFAEOptions.identity_variance`.
  """

  unet: unet_lib.UNet
  region_encoder: region_encoder_lib.RegionEncoder | None
  conditions: conditions_lib.Conditions
  slot_names: tuple[slot_regions.Region, ...] = ()
  unet_weights: str = ""
  identity_scale: float = 1.0

  @classmethod
  def from_config(
    cls, nets, options: options_lib.DiffFAEOptions, image_size, dtype
  ):
    """Builds them from sections of `nets`.

    Raises:
      ValueError: `slot_names` that do not fit the slots, an impossible U-Net,
        or one whose smallest maps an instance norm would empty.
    """
    fields = dict(nets.unet)
    if not options.identity_token:
      fields["adain"] = "none"
    unet = core_options.build_net(
      unet_lib.UNet, fields, "config.nets.unet", dtype=dtype
    )
    unet.check()
    encoder, prior_side = None, 0
    if options.slot_names:
      slot_regions.from_names(options.slot_names, nets.region_encoder.slots)
    if options.source_condition == "slots":
      encoder = core_options.build_net(
        region_encoder_lib.RegionEncoder,
        nets.region_encoder,
        "config.nets.region_encoder",
        dtype=dtype,
      )
      if region_prior.applies(options.region_prior_weight, encoder.slots):
        prior_side = image_size // encoder.patch
    conditions = conditions_lib.Conditions(
      face=face_nets.from_config(nets, dtype, image_size).on_ground(
        options.rendering_ground
      ),
      autoencoder=first_stage.build_autoencoder(nets.autoencoder, dtype),
      image_size=image_size,
      latent_scale=options.latent_scale,
      region_prior_side=prior_side,
      cache_features=options.cache_features,
      prepared_features=options.prepared_features,
    )
    _check_maps(unet, conditions.latent_side)
    features = conditions.face.reader.identity.embedding
    wide = options.identity_variance == "feature"
    return cls(
      unet=unet,
      region_encoder=encoder,
      conditions=conditions,
      slot_names=options.slot_names,
      unet_weights=nets.unet.get("weights", ""),
      identity_scale=math.sqrt(features) if wide else 1.0,
    )

  @property
  def has_slots(self) -> bool:
    """Whether the source is told in slots."""
    return self.region_encoder is not None

  @property
  def has_region_prior(self) -> bool:
    """Whether a loss pulls the slot masks towards the region prior."""
    return self.conditions.region_prior_side > 0

  @property
  def trained(self) -> tuple[str, ...]:
    """Names of the trained nets."""
    return ("unet", "region_encoder" if self.has_slots else "latent_tokens")

  def init(self, rng):
    """{net: variables} of the trained nets."""
    size, side = self.conditions.image_size, self.conditions.latent_side
    channels = self.conditions.autoencoder.embed_dim
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
    if self.has_slots:
      encoder = self.region_encoder.init(key, jnp.zeros((1, size, size, 3)))
      regions = region_recipe.init_regions(self.region_encoder.slots)
      nets["region_encoder"] = {**encoder, "regions": regions}
    else:
      tokens = latent_tokens.LatentTokens(self.unet.context_dim)
      nets["latent_tokens"] = tokens.init(
        key, jnp.zeros((1, side, side, channels))
      )
    return nets

  def starts(self):
    """{net: where it starts from} of the trained nets."""
    sources = {}
    if self.unet_weights:
      sources["unet"] = recipe_lib.WeightSource(path=self.unet_weights)
    if self.has_slots:
      sources["region_encoder"] = recipe_lib.WeightSource(
        stage="region_encoder"
      )
    return sources

  def notes(self) -> tuple[str, ...]:
    """What sets the start of a training apart from the paper's."""
    published = unet_lib.UNet()
    fits = (self.unet.channels, self.unet.mult) == (
      published.channels,
      published.mult,
    )
    if self.unet_weights or not fits:
      return ()
    return (
      "the U-Net starts untrained, where the paper fine-tunes latent "
      "diffusion's (section 4.3); name a converted file: "
      "--config.nets.unet.weights=FILE (convert difffae_unet)",
    )

  def frozen(self):
    """{net: where it comes from} of what is never trained here."""
    first = recipe_lib.WeightSource(stage="first_stage")
    return {"autoencoder": first, **self.conditions.face.sources}

  def init_frozen(self, rng):
    """{net: variables} with their structure."""
    size = self.conditions.image_size
    return {
      "autoencoder": first_stage.init_autoencoder(
        self.conditions.autoencoder, rng, jnp.zeros((1, size, size, 3))
      ),
      **self.conditions.face.init(rng, size),
    }

  def identity(self, person):
    """The identity vectors (b, d) as the U-Net reads them, of unit ones."""
    return person * self.identity_scale

  def context(self, variables, frozen, image):
    """Context tokens of the source, and its slot masks or None."""
    if self.has_slots:
      net = {"params": variables["region_encoder"]["params"]}
      return self.region_encoder.apply(net, image)
    net = {"params": variables["latent_tokens"]["params"]}
    tokens = latent_tokens.LatentTokens(self.unet.context_dim)
    return tokens.apply(net, self.conditions.encode(frozen, image)), None

  def swap_tokens(self, variables, frozen, inputs, tokens):
    """Replaces the tokens of regions that come from another picture.

    Args:
      variables, frozen: see above.
      inputs: {"REGION_from": pictures} for some of the regions.
      tokens: (b, k, d) of the sources.
    """
    region = self.region_of_slots(variables)
    for at, name in enumerate(slot_regions.REGIONS):
      other = inputs.get(f"{name}_from")
      if other is None:
        continue
      theirs, _ = self.context(variables, frozen, other)
      tokens = jnp.where((region == at)[None, :, None], theirs, tokens)
    return tokens

  def check_named(self, variables, inputs) -> None:
    """Refuses swaps while nobody has said which slot is which.

    Args:
      variables: see above; values, no tracers.
      inputs: names of what an edit takes.

    Raises:
      ValueError: one line.
    """
    swaps = [f"{r}_from" for r in slot_regions.REGIONS if f"{r}_from" in inputs]
    if not swaps or not self.has_slots or self.slot_names:
      return
    counts = variables["region_encoder"]["regions"]["confusion"]
    if not slot_regions.are_named(counts):
      raise ValueError(
        f"{swaps[0]} needs to know which slot is which, and the slots of this "
        "run have no names yet; `python -m faceedit_jax.main ... "
        "--mode=name_slots` shows and names them"
      )

  def region_of_slots(self, variables):
    """Region (k,) of each slot; `slot_regions.UNNAMED` for those without."""
    if self.slot_names:
      slots = self.region_encoder.slots
      return slot_regions.assign(
        jnp.asarray(slot_regions.from_names(self.slot_names, slots))
      )
    return slot_regions.named_regions(
      variables["region_encoder"]["regions"]["confusion"]
    )


def _check_maps(unet: unet_lib.UNet, latent_side: int) -> None:
  """Refuses an instance norm of maps that are hardly more than their mean."""
  least = latent_side // 2 ** (len(unet.mult) - 1)
  if unet.adain == "replace" and least < LEAST_MAP:
    raise ValueError(
      f"nets.unet.adain is 'replace', whose instance norm keeps next to "
      f"nothing of the smallest maps, {least} x {least} pixels; wanted "
      f"{LEAST_MAP} x {LEAST_MAP} or more: fewer levels (nets.unet.mult), or "
      "adain='residual'"
    )
