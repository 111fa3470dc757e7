"""Writes one shard of a set: whole, or not at all."""

import contextlib
import io
import json
import os
import pathlib
from collections.abc import Iterable

import numpy as np

from data_pipelines.records.format import (
  Encoded,
  Example,
  RecordError,
  encode,
)
from data_pipelines.records.metadata import (
  ATTRIBUTES,
  shard_name,
  write_atomic,
)


class ShardWriter:
  """Writes one shard whole; a killed run leaves only a `.tmp` file.

  Args:
    path: the set's folder, started with `begin`.
    index: number of the shard.
    shards: how many there are.
  """

  def __init__(self, path: str | os.PathLike, index: int, shards: int):
    from array_record.python import array_record_module

    self._path = pathlib.Path(path)
    self._final = self._path / shard_name(index, shards)
    name = f"{self._final.name}.{os.getpid()}.tmp"
    self._temporary = self._final.with_name(name)
    self._scalars: dict[str, list] = {}
    self._attributes: list[np.ndarray] = []
    self._fields: dict[str, list] = {}
    self._count = 0
    with writing(self._path):
      # One record per group keeps random access cheap; fields are compressed.
      self._writer = array_record_module.ArrayRecordWriter(
        str(self._temporary), "group_size:1,uncompressed"
      )

  def add(self, example: Example) -> None:
    """Appends one example."""
    with writing(self._path):
      self._writer.write(encode(example))
    self._count += 1
    for name, value in example.items():
      if isinstance(value, str):
        self._fields[name] = ["str", []]
        continue
      if isinstance(value, Encoded):
        self._fields[name] = value.head[:2]
        continue
      value = np.asarray(value)
      self._fields[name] = [value.dtype.name, list(value.shape)]
      if value.ndim == 0 and value.dtype.kind in "iu":
        self._scalars.setdefault(name, []).append(int(value))
      elif name == ATTRIBUTES and value.ndim == 1 and value.dtype == np.int8:
        self._attributes.append(value)

  def close(self) -> int:
    """Makes the shard appear; returns the number of its examples."""
    with writing(self._path):
      self._writer.close()
      buffer = io.BytesIO()
      columns = {
        name: np.asarray(values, np.int64)
        for name, values in self._scalars.items()
        if len(values) == self._count
      }
      if len(self._attributes) == self._count > 0:
        columns[ATTRIBUTES] = np.stack(self._attributes)
      np.savez(
        buffer,
        __count__=np.int64(self._count),
        __fields__=np.array(json.dumps(self._fields)),
        **columns,
      )
      # The index goes first: a shard that exists always has one.
      write_atomic(self._final.with_suffix(".npz"), buffer.getvalue())
      os.replace(self._temporary, self._final)
    return self._count

  def abort(self) -> None:
    """Drops what was written."""
    with contextlib.suppress(Exception):
      self._writer.close()
    self._temporary.unlink(missing_ok=True)


def write_shard(
  path: str | os.PathLike,
  index: int,
  shards: int,
  examples: Iterable[Example],
) -> int:
  """Writes one shard in one go, see `ShardWriter`.

  Args:
    path: the set's folder, started with `begin`.
    index: number of the shard.
    shards: how many there are.
    examples: its examples, in order.

  Returns:
    The number of examples written.
  """
  writer = ShardWriter(path, index, shards)
  try:
    for example in examples:
      writer.add(example)
    return writer.close()
  except BaseException:
    writer.abort()
    raise


@contextlib.contextmanager
def writing(path: pathlib.Path):
  """Says in one line that a set cannot be written: a full disk, mostly."""
  try:
    yield
  # array_record reports what the system says as a RuntimeError.
  except (OSError, RuntimeError) as error:
    text = " ".join(str(error).split())
    raise RecordError(
      f"{path}: cannot write there ({text}); what is finished stays, the same "
      "command continues"
    ) from error


def shard_summary(
  path: str | os.PathLike, index: int, shards: int
) -> tuple[int, dict[str, list]]:
  """Number of examples of a written shard, and {name: [dtype, shape]}."""
  file = pathlib.Path(path) / shard_name(index, shards)
  with np.load(file.with_suffix(".npz")) as summary:
    fields = json.loads(str(summary["__fields__"]))
    return int(summary["__count__"]), fields
