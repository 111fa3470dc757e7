"""Options of L2M-GAN's stage, and of StarGAN v2's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from faceedit_jax.core import optim
from faceedit_jax.faces import perceptual_distance
from faceedit_jax.recipes.l2m_gan import nets as nets_lib


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of the losses' terms; 0 leaves a term out.

  Attributes:
    adversarial: the discriminator's logit of a translation.
    cycle: back to the picture in its own style.
    style: the style that is read from a translation.
    perceptual: distance of a translation to its picture in features.
    orthogonality: the unrelated code against the related one.
    diversity: difference between two styles of one picture (StarGAN v2).
    pixel_l1: mean change of all pixels; not published.
    r1: gradient penalty of the discriminator.
    labels: the discriminator's answers about the attributes of real pictures;
      not published.
  """

  adversarial: optim.Weight = 0.0
  cycle: optim.Weight = 0.0
  style: optim.Weight = 0.0
  perceptual: optim.Weight = 0.0
  orthogonality: optim.Weight = 0.0
  diversity: optim.Weight = 0.0
  pixel_l1: optim.Weight = 0.0
  r1: optim.Weight = 0.0
  labels: optim.Weight = 0.0

  def uses(self, term: str) -> bool:
    """Whether a term's weight is ever anything but 0."""
    weight = getattr(self, term)
    return isinstance(weight, optim.Ramp) or weight != 0


@dataclasses.dataclass(frozen=True)
class L2MGANOptions:
  """Section `recipe` of a stage that trains edits of attributes.

  Attributes:
    styles: "factored", parted and transformed (L2M-GAN), or "mapped" from noise
      or references (StarGAN v2).
    attributes: attribute a makes the domains 2 a (without) and 2 a + 1 (with).
    optimizer: of all nets, see `optim.make_tx`.
    perceptual: what the perceptual term is measured in, see
      `faces.perceptual_distance`.
    weights: of the losses.
    optimizers: {net: what its optimiser has otherwise}.
    lpips_weights: file of the net of "lpips".
    generator_start: step from which on there are translations; before, the
      discriminator learns the labels alone.
    ema_decay: of the average of all nets but the discriminator.
    ema_warms_up: whether the average starts short; see `optim.ema_warmup`.
    alignment: how faces lie in its pictures, see `core.editing.Editable`.
  """

  styles: nets_lib.Styles
  attributes: tuple[str, ...]
  optimizer: optim.OptimizerOptions
  perceptual: perceptual_distance.Kind
  weights: LossWeights
  optimizers: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )
  lpips_weights: str = ""
  generator_start: int = 0
  ema_decay: float = 0.999
  ema_warms_up: bool = False
  alignment: str = "synthetic_heads"

  def __post_init__(self):
    names = self.attributes
    if not names or len(set(names)) != len(names):
      raise ValueError(
        f"attributes is {names}; wanted one name or several, each once"
      )
    if self.generator_start and not self.weights.uses("labels"):
      raise ValueError(
        f"generator_start is {self.generator_start}, but weights.labels is 0: "
        "nothing would be learned before"
      )
