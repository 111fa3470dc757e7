"""The sorts of published weight files, and the net that each one fills."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from faceedit_jax.models.diffusion import autoencoder, unet
from faceedit_jax.models.faces import deep3d, estimator, fan, iresnet, irse
from faceedit_jax.models.gan import (
  domain_discriminator,
  domain_mapping_network,
  style_encoder,
  translation_generator,
)
from faceedit_jax.models.perception import feature_resnet, inception, lpips
from faceedit_jax.weights import diffusers_models, faces, l2m, ldm, perception
from faceedit_jax.weights.keymap import KeyMap


@dataclasses.dataclass(frozen=True)
class Kind:
  """One sort of published file.

  Attributes:
    what: a line for the help.
    net: section of the config -> the net and the inputs that `init` takes.
    keymap: of the net.
    sections: where the net lies in the file, see `reader.section`; the first
      one that is there.
    fresh: see `account.fit`.
    widened: see `account.fit`.
    renewed: see `account.fit`.
    rival: the class of diffusers whose files are read as well, and written.
    hint: of a file that does not fit: what its keys say it is, or "".
    sized: whether `keymap` gives the key map of a net, since the file's keys
      mean something else at other sizes.
    config: whose nets are meant where none is given.
    shared: (section, fields) of `nets` that a config says once for all nets:
      "image_size", "domains".
  """

  what: str
  net: Callable[[Mapping[str, Any]], tuple[Any, tuple]]
  keymap: KeyMap | Callable[[Any], KeyMap]
  sections: tuple[str, ...] = ("",)
  fresh: tuple[str, ...] = ()
  widened: tuple[str, ...] = ()
  renewed: tuple[str, ...] = ()
  rival: diffusers_models.Rival | None = None
  hint: Callable[[Mapping[str, Any]], str] = lambda state: ""
  sized: bool = False
  config: str = "configs/difffae.py:voxceleb256"
  shared: tuple[str, tuple[str, ...]] = ("", ())

  def keymap_of(self, net: Any) -> KeyMap:
    """The key map of a net that `net` gave."""
    return self.keymap(net) if self.sized else self.keymap


def _fields(section: Mapping[str, Any], *others: str) -> dict[str, Any]:
  """A section of `nets` as fields of the net.

  Args:
    section: of a config.
    *others: further entries that are not the net's.
  """
  left_out = ("kind", "weights", *others)  # where the net comes from
  return {k: v for k, v in section.items() if k not in left_out}


def _picture(side: int):
  return jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)


def _vq(nets):
  net = autoencoder.VQModel(**_fields(nets["autoencoder"]))
  return net, (_picture(8 * 2 ** len(net.mult)),)


def _kl(nets):
  # Without what is the codebook's.
  options = _fields(nets["autoencoder"], "codes", "beta", "legacy", "spread")
  net = autoencoder.KLModel(**options)
  return net, (_picture(8 * 2 ** len(net.mult)),)


def _unet(nets):
  # Without how it is computed: files are converted on any machine.
  net = unet.UNet(**_fields(nets["unet"], "remat", "attention_kernel"))
  side = 2 ** len(net.mult)
  shapes = (
    (1, side, side, net.in_channels),
    (1,),
    (1, 1, net.context_dim),
    (1, net.condition_dim),
  )
  inputs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
  if net.classes is not None:
    inputs.append(jax.ShapeDtypeStruct((1,), jnp.int32))
  return net, tuple(inputs)


def _estimator(nets, outputs=None):
  options = _fields(nets["estimator"])
  # Gaze, points and the face logit are ours: DECA has no such heads.
  options.update(heads=None, outputs=outputs or dict(options["outputs"]))
  net = estimator.Estimator(**options)
  return net, (_picture(net.input_size),)


def _detail_decoder(nets):
  outputs = nets["estimator"]["outputs"]
  size = 3 + outputs["expression"] + _DETAIL  # jaw, expression, detail
  net = estimator.DetailDecoder()
  return net, (jax.ShapeDtypeStruct((1, size), jnp.float32),)


def _identity(nets):
  options = _fields(nets["identity"])
  side = options.pop("input_size")
  return iresnet.IResNet(**options), (_picture(side),)


def _irse(nets):
  del nets  # there is one size
  return irse.IRSE(), (_picture(112),)


def _generator(nets):
  section = nets.get("generator", {})
  kind = section.get("kind", "stargan_v2")
  if kind != "stargan_v2":
    raise ValueError(
      f"nets.generator.kind is {kind!r}; published files hold 'stargan_v2', "
      "choose a config with that (configs/l2m_gan.py:celeba_hq_smiling)"
    )
  net = translation_generator.TranslationGenerator(**_fields(section))
  # The generator takes styles of any length; the encoder's section has it.
  style = nets.get("style_encoder", {}).get("style_dim", 64)
  style = jax.ShapeDtypeStruct((1, style), jnp.float32)
  return net, (_picture(net.image_size), style)


_DOMAIN = jax.ShapeDtypeStruct((1,), jnp.int32)


def _style_encoder(nets):
  net = style_encoder.StyleEncoder(**_fields(nets.get("style_encoder", {})))
  return net, (_picture(net.image_size), _DOMAIN)


def _discriminator(nets):
  options = _fields(nets.get("discriminator", {}))
  net = domain_discriminator.DomainDiscriminator(**options)
  return net, (_picture(net.image_size),)


def _mapping_network(nets):
  options = _fields(nets.get("mapping_network", {}))
  latent = jax.ShapeDtypeStruct((1, options.pop("latent_dim", 16)), jnp.float32)
  return domain_mapping_network.MappingNetwork(**options), (latent, _DOMAIN)


def _fan(nets):
  net = fan.FAN(**_fields(nets.get("fan", {})))
  return net, (_picture(net.input_size),)


def _resnet18(nets):
  net = feature_resnet.FeatureResNet(**_fields(nets.get("features", {})))
  return net, (_picture(64),)


def _lpips(net):
  return lambda nets: (lpips.LPIPS(net), (_picture(64), _picture(64)))


_TRANSLATION = "configs/l2m_gan.py:celeba_hq_smiling"
_DETAIL = 128  # numbers of DECA's detail code
# A first stage brings along the LPIPS that it was trained with.
_LPIPS_PARTS = (
  "first_stage_model.loss.perceptual_loss.",
  "loss.perceptual_loss.",
  "",
)
KINDS: Mapping[str, Kind] = {
  "vq": Kind(
    "VQ first stage of latent diffusion, or diffusers' VQModel "
    "(nets.autoencoder)",
    _vq,
    ldm.autoencoder,
    ("first_stage_model.", ""),
    rival=diffusers_models.vq,
  ),
  "kl": Kind(
    "KL first stage of latent or stable diffusion, or diffusers' "
    "AutoencoderKL (nets.autoencoder)",
    _kl,
    ldm.autoencoder,
    ("first_stage_model.", ""),
    rival=diffusers_models.kl,
  ),
  "unet": Kind(
    "U-Net of latent diffusion or Stable Diffusion 1, or diffusers' "
    "UNet2DConditionModel (nets.unet): further input channels start at zero, "
    "AdaIN untrained, and so do projections of a context of another size",
    _unet,
    ldm.unet(),
    ("model.diffusion_model.", ""),
    fresh=(r"params/.*/adain/.*",),
    widened=(r"params/conv_in/kernel",),
    renewed=(r"params/.*/attn2/to_[kv]/kernel",),
    rival=diffusers_models.unet,
  ),
  "deca": Kind(
    "coarse encoder in deca_model.tar (nets.estimator)",
    _estimator,
    faces.deca_encoder,
    ("E_flame", ""),
  ),
  "deca_detail_encoder": Kind(
    "detail encoder in deca_model.tar",
    functools.partial(_estimator, outputs={"detail": _DETAIL}),
    faces.deca_encoder,
    ("E_detail", ""),
  ),
  "deca_detail_decoder": Kind(
    "detail decoder in deca_model.tar",
    _detail_decoder,
    faces.deca_detail_decoder,
    ("D_detail", ""),
  ),
  "arcface": Kind(
    "iresnet backbone of arcface_torch (nets.identity; iresnet100: "
    "--config.nets.identity.stages=3,13,30,3)",
    _identity,
    faces.iresnet,
    ("state_dict_backbone", "backbone.", "model.", ""),
    hint=faces.iresnet_hint,
  ),
  "arcface_irse50": Kind(
    "IR-SE-50 backbone of TreB1eN and pSp (models/irse.py); trained on BGR",
    _irse,
    faces.irse,
  ),
  "lpips_vgg": Kind(
    "LPIPS with VGG16: all of the module, or torchvision's vgg16 and the "
    "linear weights, two FILEs",
    _lpips("vgg"),
    perception.lpips,
    _LPIPS_PARTS,
    hint=perception.lpips_hint,
  ),
  "lpips_alex": Kind(
    "LPIPS with AlexNet: all of the module, or torchvision's alexnet and the "
    "linear weights, two FILEs",
    _lpips("alex"),
    perception.lpips,
    _LPIPS_PARTS,
    hint=perception.lpips_hint,
  ),
  "inception": Kind(
    "Inception of pytorch-fid (pt_inception-2015-12-05-6726825d.pth)",
    lambda nets: (inception.Inception(), (_picture(299),)),
    perception.inception,
  ),
  "inception_torchvision": Kind(
    "Inception of torchvision (inception_v3_google-0cc3c7bd.pth), which the "
    "FID of StarGAN v2 reads",
    lambda nets: (
      inception.Inception(classes=1000, tensorflow=False),
      (_picture(299),),
    ),
    perception.inception_torchvision,
  ),
  "deep3d": Kind(
    "coefficient net of Deep3DFaceRecon_pytorch (epoch_20.pth)",
    lambda nets: (deep3d.Deep3D(), (_picture(deep3d.SIZE),)),
    perception.deep3d,
    ("net_recon", ""),
  ),
  "l2m_generator": Kind(
    "generator in *_nets_ema.ckpt of L2M-GAN or StarGAN v2 (nets.generator, "
    "and nets.style_encoder.style_dim)",
    _generator,
    l2m.generator,
    ("generator", ""),
    hint=l2m.generator_hint,
    sized=True,
    config=_TRANSLATION,
    shared=("generator", ("image_size",)),
  ),
  "l2m_style_encoder": Kind(
    "style encoder in *_nets_ema.ckpt of L2M-GAN, or of StarGAN v2 with "
    "--config=configs/l2m_gan.py:stargan_v2 (nets.style_encoder)",
    _style_encoder,
    l2m.style_encoder,
    ("style_encoder", ""),
    hint=l2m.style_encoder_hint,
    sized=True,
    config=_TRANSLATION,
    shared=("style_encoder", ("image_size", "domains")),
  ),
  "l2m_discriminator": Kind(
    "discriminator in *_nets.ckpt of the same (nets.discriminator)",
    _discriminator,
    l2m.discriminator,
    ("discriminator", ""),
    hint=l2m.discriminator_hint,
    sized=True,
    config=_TRANSLATION,
    shared=("discriminator", ("image_size", "domains")),
  ),
  "l2m_fan": Kind(
    "face alignment network in *_nets_ema.ckpt of the same, or wing.ckpt "
    "(nets.fan, if there is one)",
    _fan,
    l2m.fan,
    ("fan", ""),
    config=_TRANSLATION,
  ),
  "stargan2_mapping_network": Kind(
    "mapping network in *_nets_ema.ckpt of StarGAN v2 (nets.mapping_network)",
    _mapping_network,
    l2m.mapping_network,
    ("mapping_network", ""),
    sized=True,
    config="configs/l2m_gan.py:stargan_v2",
    shared=("mapping_network", ("domains",)),
  ),
  "resnet18": Kind(
    "ResNet-18 of torchvision, or `vgg` in L2M-GAN's file (nets.features, if "
    "there is one; its last layer is left out unless classes=1000)",
    _resnet18,
    l2m.resnet18,
    ("vgg", "resnet18", ""),
    sized=True,
    config=_TRANSLATION,
  ),
}
