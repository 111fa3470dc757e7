"""Sets of examples, opened by kind.

A source is anything with `len(source)` and `source[i] -> {name: array}`. A new
kind is a file here, with a frozen dataclass of its options that has
`open(data_dir, split)`, and a line in `KINDS`; or a builder of TensorFlow
Datasets, which needs neither.
"""

from data_pipelines.sources.array_record import ArrayRecord
from data_pipelines.sources.domain_folder import (
  DomainError,
  DomainFolder,
  DomainFolderSource,
)
from data_pipelines.sources.image_folder import ImageFolder, ImageFolderSource
from data_pipelines.sources.online import Online, OnlineSource
from data_pipelines.sources.source import Source, SourceError
from data_pipelines.sources.synthetic_heads import SyntheticHeads
from data_pipelines.sources.tfds_set import Tfds, TfdsSource

# By the key `kind` of a config's section data.source.
KINDS = {
  "synthetic_heads": SyntheticHeads,
  "online": Online,
  "array_record": ArrayRecord,
  "image_folder": ImageFolder,
  "domain_folder": DomainFolder,
  "tfds": Tfds,
}

__all__ = [
  "KINDS",
  "ArrayRecord",
  "DomainError",
  "DomainFolder",
  "DomainFolderSource",
  "ImageFolder",
  "ImageFolderSource",
  "Online",
  "OnlineSource",
  "Source",
  "SourceError",
  "SyntheticHeads",
  "Tfds",
  "TfdsSource",
]
