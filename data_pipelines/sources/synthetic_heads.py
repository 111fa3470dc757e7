"""The embedded set of synthetic heads, drawn to disk before it is read."""

import dataclasses
import os
import pathlib

from data_pipelines import records


@dataclasses.dataclass(frozen=True)
class SyntheticHeads:
  """Options of the set: where it lies, and what it is drawn with.

  None stands for the default of `prepare.SyntheticSet` where the set is drawn,
  and for whatever it has where it is there already.

  Attributes:
    folder: below `data_dir`; each split is a folder in it.
    split: "train", "validation", "test", "pairs", "swaps" or "attributes".
    read_fields: decode only these; None decodes all.
    size: see `prepare.SyntheticSet`, as all others.
  """

  folder: str = ""
  split: str = "train"
  read_fields: tuple[str, ...] | None = None
  size: int | None = None
  identities: int | None = None
  frames: int | None = None
  seed: int | None = None
  balance: tuple[str, ...] | None = None
  validation_identities: int | None = None
  test_identities: int | None = None
  eval_pairs: int | None = None
  eval_swaps: int | None = None
  edited_attributes: tuple[str, ...] | None = None
  eval_edits: int | None = None
  world: str | None = None
  landmarks68: bool | None = None

  def open(
    self, data_dir: str | os.PathLike, split: str | None = None
  ) -> records.RecordSource:
    """Opens the examples of `split`, or of the options' own."""
    folder = pathlib.Path(data_dir) / self.folder
    return records.RecordSource(
      folder / (split or self.split), self.read_fields
    )
