"""Reads a set of records: any example by its number, in any order."""

import os
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.records.format import RecordError, decode
from data_pipelines.records.metadata import (
  ATTRIBUTES,
  read_metadata,
  shard_name,
)
from data_pipelines.synthetic_heads import worlds


class RecordSource:
  """Random access to a set: `len(source)`, `source[i]`, `column(name)`.

  Args:
    path: the set's folder.
    fields: names to decode; all by default. Leaving pictures out that are not
      used saves most of the reading time.

  Raises:
    RecordError: there is no complete set.
  """

  def __init__(
    self, path: str | os.PathLike, fields: Sequence[str] | None = None
  ):
    self.path = pathlib.Path(path)
    metadata = read_metadata(self.path)
    if metadata is None:
      raise RecordError(
        f"{self.path}: no set of records there; make one with "
        "`python -m data_pipelines.prepare`"
      )
    if not metadata["complete"]:
      raise RecordError(
        f"{self.path}: the set is incomplete; run the same preparation again, "
        "it continues where it stopped"
      )
    unknown = [f for f in fields or () if f not in metadata["fields"]]
    if unknown:
      raise RecordError(
        f"{self.path}: no field {unknown}; the set has "
        f"{sorted(metadata['fields'])}"
      )
    self.metadata = metadata
    self._fields = None if fields is None else tuple(fields)
    self._reader = None
    self._lock = threading.Lock()

  def _files(self) -> list[pathlib.Path]:
    count = self.metadata["shards"]
    return [
      self.path / shard_name(i, count)
      for i in range(count)
      if self.metadata["lengths"][i]
    ]

  def __len__(self) -> int:
    return self.metadata["examples"]

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = int(index)
    if not 0 <= index < len(self):
      raise IndexError(f"example {index} of {len(self)} in {self.path}")
    return decode(self._source()[index], self._fields)

  def _source(self):
    # Opened on first use, so that the object can be sent to other processes.
    with self._lock:
      if self._reader is None:
        from array_record.python import array_record_data_source

        self._reader = array_record_data_source.ArrayRecordDataSource(
          [str(file) for file in self._files()]
        )
      return self._reader

  def column(self, name: str) -> np.ndarray:
    """All values of one integer scalar field, without reading pictures.

    `attributes` is such a field too, and gives a row per example.

    Raises:
      RecordError: no such field is indexed.
    """
    parts = []
    for file in self._files():
      with np.load(file.with_suffix(".npz")) as index:
        if name not in index.files:
          known = [f for f in index.files if not f.startswith("__")]
          raise RecordError(
            f"{self.path}: no column {name!r}; columns are {known}"
          )
        parts.append(index[name])
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)

  @property
  def attribute_names(self) -> tuple[str, ...]:
    """What the numbers of the field `attributes` stand for.

    Raises:
      RecordError: the set does not say.
    """
    settings = self.metadata["settings"]
    if "attribute_names" in settings:
      return tuple(settings["attribute_names"])
    if settings.get("generator") == "synthetic_heads":
      world = worlds.load_world(settings.get("world", worlds.WORLD))
      return tuple(world.ATTRIBUTE_NAMES)
    raise RecordError(
      f"{self.path}: the set names no attributes; wanted a set of synthetic "
      "heads, or `attribute_names` in the settings it was prepared with"
    )

  def attribute_table(
    self, positions: Sequence[int] | np.ndarray | None = None
  ) -> np.ndarray:
    """Attributes of all examples, or of those at `positions`; int8 (n, A).

    Raises:
      RecordError: the examples carry none.
    """
    try:
      table = self.column(ATTRIBUTES)
    except RecordError:  # a set from before attributes were indexed
      source = self._source()
      rows = range(len(self)) if positions is None else positions
      return np.stack(
        [decode(source[int(i)], (ATTRIBUTES,))[ATTRIBUTES] for i in rows]
      ).astype(np.int8)
    return table if positions is None else table[np.asarray(positions)]

  def __getstate__(self) -> dict[str, Any]:
    state = dict(self.__dict__)
    state["_reader"] = state["_lock"] = None
    return state

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._lock = threading.Lock()
