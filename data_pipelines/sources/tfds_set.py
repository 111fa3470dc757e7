"""Sets of TensorFlow Datasets."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.sources.source import SourceError


@dataclasses.dataclass(frozen=True)
class Tfds:
  """Options of `TfdsSource`.

  Attributes:
    name: of the data set, with config and version if need be.
    split: in the words of TensorFlow Datasets.
  """

  name: str
  split: str = "train"

  def open(
    self, data_dir: str | os.PathLike, split: str | None = None
  ) -> "TfdsSource":
    """Opens the examples of `split`, or of the options' own."""
    return TfdsSource(self.name, split or self.split, data_dir)


class TfdsSource:
  """A prepared TensorFlow Datasets set, read without TensorFlow.

  Args:
    name: of the data set, with config and version if need be.
    split: in the words of TensorFlow Datasets.
    data_dir: where it was prepared, in the array_record format.
  """

  def __init__(self, name: str, split: str, data_dir: str | os.PathLike):
    self._name, self._split = name, split
    self._data_dir = os.fspath(data_dir)
    self._source = self._open()

  def _open(self, **options: Any) -> Any:
    import tensorflow_datasets as tfds  # slow to import

    try:
      return tfds.data_source(
        self._name, split=self._split, data_dir=self._data_dir, **options
      )
    except Exception as error:  # many kinds, none of them speaks of the config
      raise SourceError(
        f"tfds:{self._name}, split {self._split!r}, cannot be opened in "
        f"{self._data_dir} ({type(error).__name__}: "
        f"{str(error).splitlines()[0]}); prepare it with `tfds build "
        "--file_format=array_record`"
      ) from error

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    out = {}
    for name, value in self._source[index].items():
      if isinstance(value, bytes):
        value = value.decode("utf-8")
      elif name in ("regions", "labels") and np.ndim(value) == 3:
        value = value[..., 0]
      out[name] = value
    return out

  @property
  def attribute_names(self) -> tuple[str, ...]:
    """What the numbers of the field `attributes` stand for.

    Raises:
      SourceError: the set does not say.
    """
    metadata = self._source.dataset_info.metadata or {}
    if "attribute_names" not in metadata:
      raise SourceError(
        f"tfds:{self._name} names no attributes; wanted `attribute_names` in "
        "the metadata that its builder gives"
      )
    return tuple(metadata["attribute_names"])

  def attribute_table(
    self, positions: Sequence[int] | np.ndarray | None = None
  ) -> np.ndarray:
    """Attributes of all examples, or of those at `positions`; int8 (n, A).

    Records are read through, but no picture is decoded.
    """
    import tensorflow_datasets as tfds

    pictures = {
      name: tfds.decode.SkipDecoding()
      for name, feature in self._source.dataset_info.features.items()
      if isinstance(feature, tfds.features.Image)
    }
    source = self._open(decoders=pictures)
    rows = range(len(self)) if positions is None else positions
    return np.stack([source[int(i)]["attributes"] for i in rows]).astype(
      np.int8
    )
