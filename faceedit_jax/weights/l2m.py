"""Key maps of the files of L2M-GAN and StarGAN v2.

`<step>_nets_ema.ckpt` of rucmlcv/L2M-GAN holds `generator`, `style_encoder`,
`fan` and `vgg` (a ResNet-18); that of clovaai/stargan-v2 has a
`mapping_network` too. Torch's numbers of layers depend on the size of the
picture, so each of these maps belongs to one net.
"""

import re
from collections.abc import Mapping
from typing import Any

from faceedit_jax.models.domain_discriminator import DomainDiscriminator
from faceedit_jax.models.fan import FAN
from faceedit_jax.models.mapping_network import MappingNetwork
from faceedit_jax.models.style_encoder import StyleEncoder
from faceedit_jax.models.translation_generator import TranslationGenerator
from faceedit_jax.nn.style import Trunk
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
    layer = 2 * i  # activations count
    rules += [
      (rf"(?:transform1|decomposer)\.{layer}", f"decomposer/layer_{i}"),
      (
        rf"(?:transform2|domain_transformer)\.(\d+)\.{layer}",
        rf"transformer_\1/layer_{i}",
      ),
    ]
  rules = [rule if len(rule) == 3 else (*rule, "linear") for rule in rules]
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
