"""Writes CelebA-HQ as records: one set, split when it is opened."""

import argparse
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from data_pipelines import images, listing
from data_pipelines.celeba import files, splits
from data_pipelines.synthetic_heads import generate

KIND = "celeba_hq"
_PER_SHARD = 256


@dataclasses.dataclass(frozen=True)
class CelebaSet:
  """What the set depends on.

  Attributes:
    input: the folder CelebAMask-HQ.
    size: side of the pictures in pixels.
    labels: whether to add the 19 classes of the masks.
    partition: CelebA's list of parts, see `files.read_index`.
    pictures: how many there should be.
  """

  input: str
  size: int = 256
  labels: bool = False
  partition: str | None = None
  pictures: int = files.PICTURES

  def __post_init__(self):
    if self.size < 8 or self.pictures < 1:
      raise ValueError(
        f"size {self.size}, pictures {self.pictures}; wanted at least 8 pixels "
        "and one picture"
      )

  @property
  def shards(self) -> int:
    """Number of shards; depends on the set alone."""
    return -(-self.pictures // _PER_SHARD)

  @functools.cached_property
  def index(self) -> files.Index:
    """The folder's text files; read once in every process."""
    return files.read_index(
      self.input, self.pictures, self.labels, self.partition
    )

  def metadata(self) -> dict[str, Any]:
    """What tells this set from others, as JSON values."""
    return {
      "generator": KIND,
      "size": self.size,
      "pictures": self.pictures,
      "labels": self.labels,
      "partition": self.index.partition is not None,
      "content": self.index.content,
      "attribute_names": list(self.index.attribute_names),
    }


def shard_examples(settings: CelebaSet, shard: int) -> Iterator[dict[str, Any]]:
  """Reads the examples of one shard."""
  last = min(settings.pictures, (shard + 1) * _PER_SHARD)
  for number in range(shard * _PER_SHARD, last):
    yield files.read_example(
      settings.index, number, settings.size, settings.labels
    )


def prepare(
  output: str | os.PathLike,
  settings: CelebaSet,
  processes: int | None = None,
  progress: bool = True,
) -> dict[str, Any]:
  """Writes the set into `output/all`; a stopped run continues.

  Args:
    output: folder of the set.
    settings: what to write.
    processes: 0 works in this process, None takes all cores.
    progress: show a progress bar.

  Returns:
    The set's metadata.

  Raises:
    CelebaError, ImageError: the input is not what it should be.
    RecordError: a different set lies there, or it cannot be written.
  """
  return generate.run_shards(
    pathlib.Path(output) / splits.WHOLE,
    settings.shards,
    settings.pictures,
    settings,
    settings.metadata(),
    shard_examples,
    processes,
    progress,
    KIND,
  )


def add_kind(kinds: argparse._SubParsersAction) -> None:
  """Adds the command `celeba_hq` to those of a parser."""
  parser = kinds.add_parser(
    KIND,
    help="take CelebA-HQ with the attributes of CelebAMask-HQ",
    description=files.INSTRUCTIONS,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--input", required=True, help="the folder CelebAMask-HQ")
  add("--output", required=True, help="folder of the set")
  add("--size", type=int, default=256, help="side in pixels (256)")
  add("--labels", action="store_true", help="also write the 19 mask classes")
  add(
    "--partition",
    default=None,
    help=f"CelebA's {files.PARTITION}, if it does not lie in --input",
  )
  add(
    "--processes",
    type=int,
    default=None,
    help="reading processes; 0 reads in this one, by default all cores",
  )


def run(options: argparse.Namespace) -> None:
  """Runs the command `celeba_hq`."""
  settings = CelebaSet(
    options.input, options.size, options.labels, options.partition
  )
  metadata = prepare(options.output, settings, options.processes)
  folder = pathlib.Path(options.input) / files.IMAGES
  found = listing.find(folder, images.SUFFIXES)
  taken = set(settings.index.files)
  others = [str(file) for file in found.files if str(file) not in taken]
  left = [*found.left, *((name, "in no list of the set") for name in others)]
  print(
    f"{options.input}: found {len(found.files)} pictures, took {len(taken)}; "
    f"left out {listing.summary(left) or 'none'}"
  )
  print(f"{options.output}/{splits.WHOLE}: {metadata['examples']} examples")
