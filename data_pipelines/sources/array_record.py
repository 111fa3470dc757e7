"""Prepared sets of records, read as they were split or split when opened."""

import dataclasses
import os
import pathlib
from typing import Any

from data_pipelines import records, samplers
from data_pipelines.celeba import splits


@dataclasses.dataclass(frozen=True)
class ArrayRecord:
  """Options of a prepared set.

  Attributes:
    folder: below `data_dir`; each split is a folder in it.
    split: its name.
    split_by: how a set that was prepared as a whole is split, see
      `celeba.splits`; None for sets that are split on disk.
    test_per_class: see `celeba.splits.positions`.
    read_fields: decode only these; None decodes all.
  """

  folder: str = ""
  split: str = "train"
  split_by: str | None = None
  test_per_class: int = splits.TEST_PER_CLASS
  read_fields: tuple[str, ...] | None = None

  def open(self, data_dir: str | os.PathLike, split: str | None = None) -> Any:
    """Opens the examples of `split`, or of the options' own."""
    folder, split = pathlib.Path(data_dir) / self.folder, split or self.split
    if self.split_by is None:
      return records.RecordSource(folder / split, self.read_fields)
    source = records.RecordSource(folder / splits.WHOLE, self.read_fields)
    positions = splits.positions(
      self.split_by,
      split,
      source.attribute_names,
      source.attribute_table(),
      samplers.column_of(source, "partition"),
      self.test_per_class,
    )
    return samplers.SubsetSource(source, positions)
