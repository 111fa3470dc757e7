"""The fields that stay."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.transforms.crops import NEAREST, Example


@dataclasses.dataclass(frozen=True)
class Select:
  """Keeps and renames fields.

  Attributes:
    fields: ((name in the batch, name in the example), ...).
  """

  fields: tuple

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    del rng
    missing = [old for _, old in self.fields if old not in example]
    if missing:
      raise KeyError(
        f"examples have no field {missing}; they have {sorted(example)}; "
        "change `transforms.fields` of the stage's data"
      )
    return {new: example[old] for new, old in self.fields}


@dataclasses.dataclass(frozen=True)
class Drop:
  """Drops maps on the picture's grid that no batch holds, so that none is cut.

  Attributes:
    kept: fields that stay.
  """

  kept: tuple[str, ...]

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    del rng
    return {
      name: value
      for name, value in example.items()
      if name in self.kept or not name.endswith(NEAREST)
    }


def select(fields: Mapping[str, str] | Sequence[str]) -> Select:
  """`Select` from {new: old} or a list of names to keep."""
  if isinstance(fields, Mapping):
    return Select(tuple(fields.items()))
  return Select(tuple((name, name) for name in fields))
