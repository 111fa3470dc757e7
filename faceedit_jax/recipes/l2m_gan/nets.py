"""The nets that translate pictures between domains, and what each is asked.

Those of L2M-GAN, or with mapped styles those of StarGAN v2.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.models.faces import fan as fan_lib
from faceedit_jax.models.faces import landmark_masks
from faceedit_jax.models.gan import domain_discriminator as discriminator_lib
from faceedit_jax.models.gan import domain_mapping_network as mapping_lib
from faceedit_jax.models.gan import style_encoder as encoder_lib
from faceedit_jax.models.gan import translation_generator as generator_lib
from faceedit_jax.models.gan import translation_unet as unet_lib

Styles = Literal["factored", "mapped"]
GENERATORS = {
  "stargan_v2": generator_lib.TranslationGenerator,
  "unet": unet_lib.TranslationUNet,
}


@dataclasses.dataclass(frozen=True)
class TranslationNets:
  """Generator, style encoder, discriminator and their helpers.

  Everywhere `variables` are {net: {"params": tree}}, pictures (b, s, s, 3) in
  [-1, 1], domains (b,) int32 and styles (b, d).

  Attributes:
    generator: picture and style to a picture.
    style_encoder: picture to style codes.
    discriminator: a logit for each domain.
    mapping_network: noise to styles; None for factored styles.
    latent_dim: numbers of that noise.
    fan: finds the points whose masks open the generator's skips; None: no
      masks.
    fan_weights: file of its weights; empty: the stage `landmarks` trains it.
    image_size: side of the pictures in pixels.
    starts: {net: file that it starts from}.
  """

  generator: generator_lib.TranslationGenerator | unet_lib.TranslationUNet
  style_encoder: encoder_lib.StyleEncoder
  discriminator: discriminator_lib.DomainDiscriminator
  mapping_network: mapping_lib.MappingNetwork | None
  latent_dim: int
  fan: fan_lib.FAN | None
  fan_weights: str
  image_size: int
  starts: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @classmethod
  def from_config(cls, nets, styles: Styles, domains, image_size, dtype):
    """Builds them from `nets`, for `domains` domains.

    Args:
      nets: sections `generator`, `style_encoder`, `discriminator`; `fan`
        where the generator has skips (without a file of weights it comes from
        the stage `landmarks`), `mapping_network` for mapped styles.
      styles: see `L2MGANOptions`.
      domains: number of domains.
      image_size: side of the pictures in pixels.
      dtype: compute dtype.

    Raises:
      ValueError: an unknown generator, or skips without a net that finds masks.
    """
    shared = {"image_size": image_size, "dtype": dtype}

    def build(module, net, changes=(), **given):
      section = {**nets[net], **dict(changes)}
      return options_lib.build_net(
        module, section, f"config.nets.{net}", **given
      )

    encoder = build(
      encoder_lib.StyleEncoder,
      "style_encoder",
      {"factor_layers": 0} if styles == "mapped" else {},
      **shared,
      domains=domains,
    )
    mapping, latent_dim = None, 0
    if styles == "mapped":
      section = dict(nets.mapping_network)
      where = "config.nets.mapping_network"
      latent_dim = options_lib.convert(
        section.pop("latent_dim"), int, f"{where}.latent_dim"
      )
      mapping = options_lib.build_net(
        mapping_lib.MappingNetwork,
        section,
        where,
        domains=domains,
        style_dim=encoder.style_dim,
      )
    kind = nets.generator.get("kind", "stargan_v2")
    if kind not in GENERATORS:
      raise ValueError(
        f"nets.generator.kind is {kind!r}; it must be one of "
        + ", ".join(map(repr, GENERATORS))
      )
    generator = build(GENERATORS[kind], "generator", **shared)
    fan, fan_weights = None, ""
    if kind == "stargan_v2" and generator.w_hpf:
      if "fan" not in nets:
        raise ValueError(
          f"nets.generator.w_hpf is {generator.w_hpf}, but there is no "
          "nets.fan for the masks of the skips; add it, with the file that "
          "`convert l2m_fan` writes (nets.fan.weights) or a stage `landmarks` "
          "that trains it, or set w_hpf to 0"
        )
      fan_weights = nets.fan.get("weights", "")
      fan = build(fan_lib.FAN, "fan", dtype=dtype)
      landmark_masks.layout_of(fan.landmarks)  # there is one
    built = cls(
      generator=generator,
      style_encoder=encoder,
      discriminator=build(
        discriminator_lib.DomainDiscriminator,
        "discriminator",
        **shared,
        domains=domains,
      ),
      mapping_network=mapping,
      latent_dim=latent_dim,
      fan=fan,
      fan_weights=fan_weights,
      image_size=image_size,
    )
    files = {net: nets[net].get("weights", "") for net in built.trained}
    starts = {net: path for net, path in files.items() if path}
    return dataclasses.replace(built, starts=starts)

  @property
  def mapped(self) -> bool:
    """Whether styles come from noise or references (StarGAN v2)."""
    return self.mapping_network is not None

  @property
  def trained(self) -> tuple[str, ...]:
    """Names of the trained nets."""
    names = ("generator", "style_encoder", "discriminator")
    return names + ("mapping_network",) * self.mapped

  def init(self, rng):
    """{net: variables} of the trained nets."""
    picture = jnp.zeros((1,) + (self.image_size,) * 2 + (3,))
    domain = jnp.zeros((1,), jnp.int32)
    style = jnp.zeros((1, self.style_encoder.style_dim))
    inputs = {
      "generator": (self.generator, picture, style),
      "style_encoder": (self.style_encoder, picture, domain),
      "discriminator": (self.discriminator, picture, domain),
    }
    if self.mapped:
      noise = jnp.zeros((1, self.latent_dim))
      inputs["mapping_network"] = (self.mapping_network, noise, domain)
    keys = jax.random.split(rng, len(inputs))
    return {
      name: net.init(key, *arguments)
      for key, (name, (net, *arguments)) in zip(
        keys, inputs.items(), strict=True
      )
    }

  def frozen(self):
    """{net: where it comes from} of what is never trained here."""
    if self.fan is None:
      return {}
    source = recipe_lib.WeightSource(stage="landmarks")
    if self.fan_weights:
      source = recipe_lib.WeightSource(path=self.fan_weights)
    return {"fan": source}

  def init_frozen(self, rng):
    """{net: variables} with their structure."""
    if self.fan is None:
      return {}
    picture = jnp.zeros((1,) + (self.image_size,) * 2 + (3,))
    return {"fan": self.fan.init(rng, picture)}

  def encode(self, variables, image, domain, target=None):
    """The codes of pictures; see `StyleEncoder`."""
    net = {"params": variables["style_encoder"]["params"]}
    return self.style_encoder.apply(net, image, domain, target)

  def own_style(self, variables, image, domain):
    """The pictures' own styles."""
    found = self.encode(variables, image, domain)
    return found if self.mapped else found.style

  def generate(self, variables, frozen, image, style):
    """The pictures in other styles."""
    masks = ()
    if self.fan is not None:
      heatmaps = self.fan.apply(frozen["fan"], image)
      masks = (landmark_masks.face_masks(heatmaps, self.fan.landmarks),)
    net = {"params": variables["generator"]["params"]}
    return self.generator.apply(net, image, style, *masks)

  def discriminate(self, variables, image, domain=None):
    """Logits of being a real picture of a domain, or (b, k) of each."""
    net = {"params": variables["discriminator"]["params"]}
    return self.discriminator.apply(net, image, domain)

  def map(self, variables, noise, domain):
    """Styles of noise (b, latent_dim)."""
    net = {"params": variables["mapping_network"]["params"]}
    return self.mapping_network.apply(net, noise, domain)
