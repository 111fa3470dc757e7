"""Binary attributes of pictures, and the pairs of domains they make.

Attribute a of a list makes two domains: 2 a, the pictures without it, and
2 a + 1, those with it. How `DomainSource` draws follows L2M-GAN's and StarGAN
v2's training (balanced with replacement), for any number of attributes.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import records, samplers

_PICTURE_STREAM = 2  # keeps the choice of pictures apart from other draws


def names_of(source: Any) -> tuple[str, ...]:
  """Names of the attributes of a source's examples, in their order.

  Raises:
    ValueError: its examples have none.
  """
  names = getattr(source, "attribute_names", None)
  if not names:
    raise ValueError(
      f"{type(source).__name__} has no attributes; wanted synthetic heads, "
      "folders of domains, or a set prepared with attributes (data.source)"
    )
  return tuple(names)


def columns(source: Any, names: Sequence[str]) -> list[int]:
  """Where attributes stand in a source's field `attributes`.

  Raises:
    ValueError: the source does not know one of them, with the nearest name.
  """
  known = names_of(source)
  for name in names:
    if name not in known:
      near = difflib.get_close_matches(name, known, n=1)
      hint = f"did you mean {near[0]!r}?" if near else f"it has {list(known)}"
      raise ValueError(f"the data have no attribute {name!r}; {hint}")
  return [known.index(name) for name in names]


def table_of(source: Any, names: Sequence[str]) -> np.ndarray:
  """Values (n, len(names)) int8, 0 or 1, of every example of a source."""
  at = columns(source, names)
  return np.asarray(source.attribute_table(), np.int8)[:, at]


def _narrowed(example: Mapping[str, Any], at: Sequence[int]) -> dict[str, Any]:
  """An example with some of its attributes, in the order of `at`."""
  values = np.asarray(example[records.ATTRIBUTES])[at]
  return {**example, records.ATTRIBUTES: values}


class AttributeColumns:
  """Examples whose field `attributes` holds those of `names`, in this order.

  Args:
    source: its examples have `attributes` (all names,), 0 or 1.
    names: which to keep.

  Raises:
    ValueError: the source lacks one of them.
  """

  def __init__(self, source: Any, names: Sequence[str]):
    if not names:
      raise ValueError("data.attributes is empty; name at least one attribute")
    self._source, self._at = source, columns(source, names)
    self.attribute_names = tuple(names)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return _narrowed(self._source[index], self._at)

  def column(self, name: str) -> np.ndarray:
    """The values of one integer field."""
    return self._source.column(name)


class DomainSource:
  """Pictures drawn alike often from every domain, with a domain to move to.

  Example i is a picture of attribute i mod A. Whether it has the attribute is
  tossed, and whether it is to keep what it has; all is a pure function of
  (seed, i).

  Args:
    source: pictures with attributes.
    names: the attributes; the field `attributes` is narrowed to them.
    seed: of the choice.
    references: how many further pictures of the target domain to add, as
      `reference_image` and `second_reference_image`.
    keep: share of examples whose target is the domain that they are of;
      targets are drawn apart from the pictures as published, which is a half.

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
    keep: float = 0.5,
  ):
    if not names:
      raise ValueError("data.attributes is empty; name at least one attribute")
    if not 0 <= references <= len(self.REFERENCES):
      raise ValueError(f"references is {references}, wanted 0, 1 or 2")
    if not 0 <= keep < 1:
      raise ValueError(f"data.keep is {keep}, wanted 0 up to below 1")
    self._source, self._seed, self._keep = source, seed, keep
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
          "both sides are needed (data.attributes)"
        )

  def __len__(self) -> int:
    # In an epoch each attribute passes as many pictures as there are.
    return len(self._source) * self._count

  def __getitem__(self, index: int) -> dict[str, Any]:
    rng = samplers.generator(self._seed, _PICTURE_STREAM, index)
    first = 2 * (index % self._count)
    side = int(rng.integers(0, 2))
    moved = 1 - side if rng.random() >= self._keep else side
    domain, target = first + side, first + moved
    out = _narrowed(self._draw(rng, domain), self._at)
    for name in self._references:
      out[name] = self._draw(rng, target)["image"]
    return {**out, "domain": np.int32(domain), "target": np.int32(target)}

  def _draw(self, rng: np.random.Generator, domain: int) -> dict[str, Any]:
    group = self._groups[domain]
    return self._source[int(group[rng.integers(len(group))])]
