"""Pictures from the two sides of attributes, with a side to move to.

Attribute a of a list makes two domains: 2 a, the pictures without it, and
2 a + 1, those with it. How they are drawn follows L2M-GAN's and StarGAN v2's
training (balanced with replacement), for any number of attributes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from data_pipelines.attributes import columns, table_of
from data_pipelines.samplers.attributes import narrowed
from data_pipelines.samplers.randomness import generator

_PICTURE_STREAM = 2  # keeps the choice of pictures apart from other draws


@dataclasses.dataclass(frozen=True)
class Domains:
  """Options of pictures drawn from both sides of attributes.

  Attributes:
    attributes: names.
    references: see `DomainSource`.
    same_domain_probability: see `DomainSource`.
  """

  attributes: tuple[str, ...]
  references: Literal[0, 1, 2] = 0
  same_domain_probability: float = 0.5

  def sample(self, source: Any, seed: int) -> "DomainSource":
    """Pictures of a source, and the domains that they should move to."""
    return DomainSource(
      source,
      self.attributes,
      seed,
      self.references,
      self.same_domain_probability,
    )


class DomainSource:
  """Pictures drawn alike often from every domain, with a domain to move to.

  Example i is a picture of attribute i mod A. Whether it has the attribute is
  tossed, and whether the target is the domain it is of; all is a pure function
  of (seed, i).

  Args:
    source: pictures with attributes.
    names: the attributes; the field `attributes` is narrowed to them.
    seed: of the choice.
    references: how many further pictures of the target domain to add, as
      `reference_image` and `second_reference_image`.
    same_domain_probability: share of examples whose target is the domain that
      they are of; targets are drawn apart from the pictures as published, which
      is a half.

  Raises:
    ValueError: the source lacks an attribute, or pictures on one side of it.
  """

  endless = True

  REFERENCES = ("reference_image", "second_reference_image")

  def __init__(
    self,
    source: Any,
    names: Sequence[str],
    seed: int = 0,
    references: int = 0,
    same_domain_probability: float = 0.5,
  ):
    if not names:
      raise ValueError(
        "sampler.attributes is empty; name at least one attribute"
      )
    if not 0 <= references <= len(self.REFERENCES):
      raise ValueError(f"references is {references}, wanted 0, 1 or 2")
    if not 0 <= same_domain_probability < 1:
      raise ValueError(
        f"same_domain_probability is {same_domain_probability}, wanted 0 up to "
        "below 1"
      )
    self._source, self._seed = source, seed
    self._same = same_domain_probability
    self._references = self.REFERENCES[:references]
    self._count, self._at = len(names), columns(source, names)
    table = table_of(source, names)
    self._groups = [
      np.flatnonzero(table[:, a] == value)
      for a in range(len(names))
      for value in (0, 1)
    ]
    for domain, group in enumerate(self._groups):
      if not len(group):
        side = "with" if domain % 2 else "without"
        raise ValueError(
          f"none of {len(table)} pictures is {side} {names[domain // 2]!r}; "
          "both sides are needed (sampler.attributes)"
        )

  def __len__(self) -> int:
    # In an epoch each attribute passes as many pictures as there are.
    return len(self._source) * self._count

  def __getitem__(self, index: int) -> dict[str, Any]:
    rng = generator(self._seed, _PICTURE_STREAM, index)
    first = 2 * (index % self._count)
    side = int(rng.integers(0, 2))
    moved = 1 - side if rng.random() >= self._same else side
    domain, target = first + side, first + moved
    out = narrowed(self._draw(rng, domain), self._at)
    for name in self._references:
      out[name] = self._draw(rng, target)["image"]
    return {**out, "domain": np.int32(domain), "target": np.int32(target)}

  def _draw(self, rng: np.random.Generator, domain: int) -> dict[str, Any]:
    group = self._groups[domain]
    return self._source[int(group[rng.integers(len(group))])]
