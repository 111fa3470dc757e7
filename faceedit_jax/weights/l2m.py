"""Key maps of the files of L2M-GAN and StarGAN v2.

`<step>_nets_ema.ckpt` of rucmlcv/L2M-GAN holds `generator`, `style_encoder`,
`fan` and `vgg` (a ResNet-18); that of clovaai/stargan-v2 has a
`mapping_network` in place of the last. Torch's numbers of layers depend on the
size of the picture, so most of these maps belong to one net.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from faceedit_jax.models.faces.fan import FAN
from faceedit_jax.models.gan.domain_discriminator import DomainDiscriminator
from faceedit_jax.models.gan.domain_mapping_network import MappingNetwork
from faceedit_jax.models.gan.style_encoder import StyleEncoder
from faceedit_jax.models.gan.translation_generator import TranslationGenerator
from faceedit_jax.models.perception.feature_resnet import FeatureResNet
from faceedit_jax.nn.style import Trunk
from faceedit_jax.weights.format import (
  CheckpointFormat,
  Net,
  Sizes,
  array,
  fields_of,
  fixed,
  picture,
  sizes,
)
from faceedit_jax.weights.keymap import KeyMap, Target, from_rules

Rules = list[tuple[str, str, str]]


def generator(net: TranslationGenerator) -> KeyMap:
  """Key map of the generator.

  Without a place are an attention that nothing uses, the high-pass filter's
  constant kernel and, where there are skips in place of shortcuts, the
  decoder's 1 x 1 convolutions.
  """
  dead = [r"attention\.layers\.[02]\.\w+", r"hpf\.filter"]
  if net.w_hpf > 0:
    dead.append(r"decode\.\d+\.conv1x1\.weight")
  rules = [
    (r"from_rgb", r"from_rgb", "conv"),
    (r"encode\.(\d+)\.(conv[12])", r"encode_\1/\2", "conv"),
    (r"encode\.(\d+)\.(norm[12])", r"encode_\1/\2", "norm"),
    (r"encode\.(\d+)\.conv1x1", r"encode_\1/shortcut", "conv"),
    (r"decode\.(\d+)\.(conv[12])", r"decode_\1/\2", "conv"),
    (r"decode\.(\d+)\.(norm[12])\.fc", r"decode_\1/\2/fc", "linear"),
    (r"decode\.(\d+)\.conv1x1", r"decode_\1/shortcut", "conv"),
    (r"to_rgb\.0", r"norm_out", "norm"),
    (r"to_rgb\.2", r"to_rgb", "conv"),
  ]
  return _without(dead, from_rules(rules))


def style_encoder(net: StyleEncoder) -> KeyMap:
  """Key map of the style encoder, decomposer and transformers included.

  The unofficial training code calls the last two `decomposer` and
  `domain_transformer`. An attention that nothing uses has no place.
  """
  rules = [
    *_trunk("shared", net),
    (r"unshared\.(\d+)", r"head_\1", "linear"),
  ]
  for i in range(net.factor_layers):
    layer, ours = 2 * i, f"layer_{i}"  # activations count
    one = rf"(?:transform1|decomposer)\.{layer}"
    many = rf"(?:transform2|domain_transformer)\.(\d+)\.{layer}"
    rules += [
      (one, f"decomposer/{ours}", "linear"),
      (many, rf"transformer_\1/{ours}", "linear"),
    ]
  return _without([r"attention\.layers\.[02]\.\w+"], from_rules(rules))


def discriminator(net: DomainDiscriminator) -> KeyMap:
  """Key map of the discriminator."""
  last = rf"main\.{_blocks(net) + 4}"
  return from_rules([*_trunk("main", net), (last, "logits", "pointwise")])


def mapping_network(net: MappingNetwork) -> KeyMap:
  """Key map of StarGAN v2's mapping network."""
  rules = []
  for i in range(net.layers):
    rules += [
      (rf"shared\.{2 * i}", f"shared/layer_{i}", "linear"),
      (rf"unshared\.(\d+)\.{2 * i}", rf"domain_\1/layer_{i}", "linear"),
    ]
  return from_rules(rules)


def _blocks(net: StyleEncoder | DomainDiscriminator) -> int:
  return Trunk(net.image_size).blocks


def _trunk(head: str, net: StyleEncoder | DomainDiscriminator) -> Rules:
  blocks = _blocks(net)
  rules = [
    (rf"{head}\.0", "trunk/conv_in", "conv"),
    (rf"{head}\.{blocks + 2}", "trunk/conv_out", "conv"),
  ]
  for i in range(blocks):
    layer = rf"{head}\.{i + 1}"
    rules += [
      (rf"{layer}\.(conv[12])", rf"trunk/block_{i}/\1", "conv"),
      (rf"{layer}\.conv1x1", f"trunk/block_{i}/shortcut", "conv"),
    ]
  return rules


def _without(patterns: list[str], keymap: KeyMap) -> KeyMap:
  """A key map that knows that some keys have no place."""

  def mapped(key: str) -> Target | None:
    if any(re.fullmatch(pattern, key) for pattern in patterns):
      return None
    return keymap(key)

  return mapped


def _block(theirs: str, ours: str) -> Rules:
  """Of one of FAN's blocks; the patterns may have a group."""
  n = 1 + ("(" in theirs)
  return [
    (rf"{theirs}\.(bn[123])", rf"{ours}/\{n}", "norm"),
    (rf"{theirs}\.(conv[123])", rf"{ours}/\{n}", "conv"),
    (rf"{theirs}\.downsample\.0", rf"{ours}/bn_shortcut", "norm"),
    (rf"{theirs}\.downsample\.2", rf"{ours}/shortcut", "conv"),
  ]


_FAN = from_rules(
  [
    (r"conv1\.conv", r"conv1", "conv"),
    (r"bn1", r"bn1", "norm"),
    *_block(r"(conv[234])", r"\1"),
    (r"m0\.coordconv\.conv", r"hourglass/coordconv", "conv"),
    *_block(r"m0\.(b[123]_(?:plus_)?\d)", r"hourglass/\1"),
    *_block(r"top_m_0", "top"),
    (r"conv_last0", r"conv_last", "conv"),
    (r"bn_end0", r"bn_end", "norm"),
    (r"l0", r"heatmaps", "conv"),
  ]
)


def fan(key: str) -> Target | None:
  """Key map of `FAN` (also `wing.ckpt`)."""
  return _FAN(key)


def resnet18(net: FeatureResNet) -> KeyMap:
  """Key map of `FeatureResNet`: torchvision's names, or plain numbers."""
  rules = [(r"(?:0|conv1)", "conv1", "conv"), (r"(?:1|bn1)", "bn1", "norm")]
  for stage in range(1, len(net.stages) + 1):
    theirs = rf"(?:{stage + 3}|layer{stage})\.(\d+)"
    ours = rf"layer{stage}_\1"
    rules += [
      (rf"{theirs}\.(conv[12])", rf"{ours}/\2", "conv"),
      (rf"{theirs}\.(bn[12])", rf"{ours}/\2", "norm"),
      (rf"{theirs}\.downsample\.0", rf"{ours}/shortcut", "conv"),
      (rf"{theirs}\.downsample\.1", rf"{ours}/bn_shortcut", "norm"),
    ]
  rules.append((r"fc", "fc", "linear"))
  inside = [(rf"(?:model\.)?{key}", *rest) for key, *rest in rules]
  dead = [] if net.classes else [r"(?:model\.)?fc\.\w+"]
  return _without(dead, from_rules(inside))


def generator_hint(state: Mapping[str, Any]) -> str:
  """What the keys of a generator say about its size."""
  first = state.get("from_rgb.weight")
  halvings = _count(r"encode\.(\d+)\.conv1\.weight", state) - 2
  if first is None or halvings < 0:
    return ""
  channels = first.shape[0]
  said = {"channels": channels, "max_channels": _widest(state)}
  # With high-pass skips a picture of half the side is halved as often.
  for bits, w_hpf in ((halvings + 3, 1), (halvings + 4, 0)):
    if channels << bits == 1 << 14:
      return _said(
        "generator", {"image_size": 1 << bits, "w_hpf": w_hpf} | said
      )
  return (
    _said("generator", said)
    + f" with --config.nets.generator.image_size={8 << halvings}, or twice "
    "that and --config.nets.generator.w_hpf=0"
  )


def style_encoder_hint(state: Mapping[str, Any]) -> str:
  """What the keys of a style encoder say about its size."""
  style = state.get("unshared.0.bias")
  if style is None or "shared.0.weight" not in state:
    return ""
  sizes = {
    "style_dim": style.shape[0],
    "domains": _count(r"unshared\.(\d+)\.bias", state),
    "factor_layers": _count(r"transform1\.(\d+)\.bias", state),
  }
  return _said("style_encoder", _trunk_sizes("shared", state) | sizes)


def discriminator_hint(state: Mapping[str, Any]) -> str:
  """What the keys of a discriminator say about its size."""
  sizes = _trunk_sizes("main", state) if "main.0.weight" in state else {}
  last = state.get(f"main.{_trunk_blocks('main', state) + 4}.bias")
  if last is None:
    return ""
  return _said("discriminator", sizes | {"domains": last.shape[0]})


def _trunk_blocks(head: str, state: Mapping[str, Any]) -> int:
  return _count(rf"{head}\.(\d+)\.conv1\.weight", state)


def _trunk_sizes(head: str, state: Mapping[str, Any]) -> dict[str, int]:
  return {
    "image_size": 4 << _trunk_blocks(head, state),
    "channels": state[f"{head}.0.weight"].shape[0],
    "max_channels": _widest(state),
  }


def _count(pattern: str, state: Mapping[str, Any]) -> int:
  """How many numbers stand at the pattern's group."""
  found = (re.fullmatch(pattern, key) for key in state)
  return len({match[1] for match in found if match})


def _widest(state: Mapping[str, Any]) -> int:
  return max(v.shape[0] for v in state.values() if getattr(v, "ndim", 0) == 4)


def _said(section: str, said: Mapping[str, int]) -> str:
  flags = [f"--config.nets.{section}.{k}={v}" for k, v in said.items()]
  return "the file's net is " + " ".join(flags)


_DOMAIN = array(1, dtype=jnp.int32)


def _generator(nets: Sizes) -> Net:
  section = nets["generator"]
  kind = section.get("kind", "stargan_v2")
  if kind != "stargan_v2":
    raise ValueError(
      f"nets.generator.kind is {kind!r}; published files hold 'stargan_v2', "
      "leave --config out or choose one with that kind"
    )
  net = TranslationGenerator(**fields_of(section))
  # The generator takes styles of any length; the encoder's section has it.
  style = nets["style_encoder"].get("style_dim", StyleEncoder.style_dim)
  return net, (picture(net.image_size), array(1, style))


def _style_encoder(nets: Sizes) -> Net:
  net = StyleEncoder(**fields_of(nets["style_encoder"]))
  return net, (picture(net.image_size), _DOMAIN)


def _discriminator(nets: Sizes) -> Net:
  net = DomainDiscriminator(**fields_of(nets["discriminator"]))
  return net, (picture(net.image_size),)


_LATENT = 16  # numbers of noise that StarGAN v2 maps to a style


def _mapping_network(nets: Sizes) -> Net:
  options = fields_of(nets["mapping_network"])
  latent = array(1, options.pop("latent_dim", _LATENT))
  return MappingNetwork(**options), (latent, _DOMAIN)


def _fan(nets: Sizes) -> Net:
  net = FAN(**fields_of(nets["fan"]))
  return net, (picture(net.input_size),)


def _resnet18(nets: Sizes) -> Net:
  net = FeatureResNet(**fields_of(nets["features"]))
  return net, (picture(64),)


FORMATS: Mapping[str, CheckpointFormat] = {
  "l2m_generator": CheckpointFormat(
    "generator in *_nets_ema.ckpt of L2M-GAN or StarGAN v2 (nets.generator, "
    "and nets.style_encoder.style_dim)",
    {
      "generator": sizes(TranslationGenerator),
      "style_encoder": {"style_dim": StyleEncoder.style_dim},
    },
    _generator,
    generator,
    ("generator", ""),
    hint=generator_hint,
  ),
  "l2m_style_encoder": CheckpointFormat(
    "style encoder in *_nets_ema.ckpt of L2M-GAN, or of StarGAN v2 with "
    "--config.nets.style_encoder.factor_layers=0 (nets.style_encoder)",
    {"style_encoder": sizes(StyleEncoder)},
    _style_encoder,
    style_encoder,
    ("style_encoder", ""),
    hint=style_encoder_hint,
  ),
  "l2m_discriminator": CheckpointFormat(
    "discriminator in *_nets.ckpt of the same (nets.discriminator)",
    {"discriminator": sizes(DomainDiscriminator)},
    _discriminator,
    discriminator,
    ("discriminator", ""),
    hint=discriminator_hint,
  ),
  "l2m_fan": CheckpointFormat(
    "face alignment network in *_nets_ema.ckpt of the same, or wing.ckpt "
    "(nets.fan)",
    {"fan": sizes(FAN)},
    _fan,
    fixed(fan),
    ("fan", ""),
  ),
  "stargan2_mapping_network": CheckpointFormat(
    "mapping network in *_nets_ema.ckpt of StarGAN v2 (nets.mapping_network)",
    {"mapping_network": {**sizes(MappingNetwork), "latent_dim": _LATENT}},
    _mapping_network,
    mapping_network,
    ("mapping_network", ""),
  ),
  "resnet18": CheckpointFormat(
    "ResNet-18 of torchvision, or `vgg` in L2M-GAN's file (nets.features; its "
    "last layer is left out unless --config.nets.features.classes=1000)",
    {"features": sizes(FeatureResNet)},
    _resnet18,
    resnet18,
    ("vgg", "resnet18", ""),
  ),
}
