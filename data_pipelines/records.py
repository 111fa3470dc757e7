"""Sets of examples on disk: array_record shards that need no TensorFlow.

A set is a folder with one `metadata.json`, and per shard one `.array_record`
file and one `.npz` with its integer scalars (identity, frame, ...) and its
attributes. Every record describes itself: a JSON header with name, dtype, shape
and codec of each field, then the fields' bytes. Shards appear whole or not at
all, so an interrupted run continues with the missing ones.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import struct
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

FORMAT = "faceedit-records-1"
METADATA = "metadata.json"
ATTRIBUTES = "attributes"  # the vector that is indexed beside the scalars

Example = Mapping[str, Any]  # numpy arrays and scalars, or str


class RecordError(ValueError):
  """A set that cannot be read or written; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Encoded:
  """A field in the form in which it is stored.

  Encoding pictures takes most of the time of writing them; other processes can
  do it beforehand.

  Attributes:
    head: its dtype, shape and codec.
    payload: its bytes.
  """

  head: list
  payload: bytes


def encode_field(value: Any) -> Encoded:
  """Encodes one numpy array, number or text.

  Raises:
    RecordError: it is none of these.
  """
  if isinstance(value, Encoded):
    return value
  if isinstance(value, str):
    return Encoded(["str", [], "utf8"], value.encode("utf-8"))
  array = np.asarray(value)
  if array.dtype.hasobject or array.dtype.kind not in "biuf":
    raise RecordError(
      f"cannot store dtype {array.dtype}, wanted numbers or str"
    )
  array = array.astype(array.dtype.newbyteorder("="), copy=False)
  head = [array.dtype.name, list(array.shape)]
  if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=4)
    return Encoded([*head, "png"], buffer.getvalue())
  raw = np.ascontiguousarray(array).tobytes()
  if len(raw) >= 256:
    return Encoded([*head, "zlib"], zlib.compress(raw, 4))
  return Encoded([*head, "raw"], raw)


def encode(example: Example) -> bytes:
  """Serialises one example.

  Args:
    example: {name: numpy array, number, str or `Encoded`}.

  Returns:
    The record's bytes; `decode` gives the same arrays back, bit for bit.

  Raises:
    RecordError: a field is neither numeric nor text.
  """
  header, parts = [], []
  for name in sorted(example):
    try:
      field = encode_field(example[name])
    except RecordError as error:
      raise RecordError(f"field {name!r}: {error}") from error
    header.append([name, *field.head, len(field.payload)])
    parts.append(field.payload)
  head_bytes = json.dumps(header, separators=(",", ":")).encode("utf-8")
  return b"".join([struct.pack("<I", len(head_bytes)), head_bytes, *parts])


def decode(
  record: bytes, fields: Sequence[str] | None = None
) -> dict[str, Any]:
  """Reads one record.

  Args:
    record: bytes made by `encode`.
    fields: names to decode; all by default.

  Returns:
    {name: numpy array or str}.

  Raises:
    RecordError: the bytes are no such record, or a wanted field is missing.
  """
  try:
    (length,) = struct.unpack_from("<I", record)
    header = json.loads(record[4 : 4 + length])
    offset = 4 + length
    out, names = {}, []
    for name, dtype, shape, codec, size in header:
      names.append(name)
      if fields is None or name in fields:
        payload = record[offset : offset + size]
        out[name] = _decode_field(payload, dtype, shape, codec)
      offset += size
  except (struct.error, ValueError, zlib.error, OSError) as error:
    raise RecordError(f"not a readable record ({error})") from error
  missing = [name for name in fields or () if name not in out]
  if missing:
    raise RecordError(f"record has no field {missing}; it has {names}")
  return out


def _decode_field(payload: bytes, dtype: str, shape: list, codec: str) -> Any:
  if codec == "utf8":
    return payload.decode("utf-8")
  if codec == "png":
    return np.array(Image.open(io.BytesIO(payload)))
  raw = zlib.decompress(payload) if codec == "zlib" else payload
  return np.frombuffer(raw, dtype).reshape(shape).copy()


def shard_name(index: int, shards: int) -> str:
  """File name of one shard."""
  return f"shard-{index:05d}-of-{shards:05d}.array_record"


def write_atomic(path: pathlib.Path, data: bytes) -> None:
  """Writes a file whole; the process number keeps two writers apart."""
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  try:
    temporary.write_bytes(data)
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def read_metadata(path: str | os.PathLike) -> dict[str, Any] | None:
  """The metadata of a set, or None where there is none.

  Raises:
    RecordError: the file is damaged or of another format.
  """
  file = pathlib.Path(path) / METADATA
  if not file.is_file():
    return None
  try:
    metadata = json.loads(file.read_text(encoding="utf-8"))
  except (json.JSONDecodeError, OSError) as error:
    raise RecordError(f"{file}: cannot be read ({error})") from error
  if metadata.get("format") != FORMAT:
    raise RecordError(
      f"{file}: format is {metadata.get('format')!r}, wanted {FORMAT!r}"
    )
  return metadata


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
  """One line naming the settings in which two sets differ, "" if none."""
  # A round trip through JSON, because that is how the old ones were kept.
  new = json.loads(json.dumps(dict(new)))
  names = sorted(set(old) | set(new))
  return ", ".join(
    f"{name}: {old.get(name)!r} there, {new.get(name)!r} wanted"
    for name in names
    if old.get(name) != new.get(name)
  )


def begin(
  path: str | os.PathLike,
  shards: int,
  settings: Mapping[str, Any],
  names: Mapping[str, Sequence[str]] | None = None,
) -> list[int]:
  """Starts or continues a set.

  Args:
    path: the set's folder; made if missing.
    shards: number of shards.
    settings: what the examples depend on; JSON values.
    names: {integer field: what its numbers stand for}, kept in the metadata.

  Returns:
    The shards still to be written; empty if the set is complete.

  Raises:
    RecordError: another set lies there, or the folder cannot be written.
  """
  path = pathlib.Path(path)
  metadata = read_metadata(path)
  if metadata is not None:
    text = difference(metadata["settings"], settings)
    if text or metadata["shards"] != shards:
      text = text or f"shards: {metadata['shards']} there, {shards} wanted"
      raise RecordError(
        f"{path}: a different set lies there ({text}); choose another folder "
        "or remove this one"
      )
    if metadata["complete"]:
      return []
  else:
    metadata = {
      "format": FORMAT,
      "complete": False,
      "shards": shards,
      "settings": dict(settings),
    }
    if names is not None:
      metadata["names"] = {name: list(all_) for name, all_ in names.items()}
    try:
      path.mkdir(parents=True, exist_ok=True)
      write_atomic(path / METADATA, json.dumps(metadata, indent=1).encode())
    except OSError as error:
      raise RecordError(
        f"{path}: cannot be written ({error.strerror or error}); choose "
        "another folder with --data_dir"
      ) from error
  return [
    i for i in range(shards) if not (path / shard_name(i, shards)).exists()
  ]


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


def finish(path: str | os.PathLike) -> dict[str, Any]:
  """Marks a set complete once every shard is there.

  Returns:
    The metadata: format, complete, shards, settings, examples, lengths, fields
    {name: [dtype, shape]}, and names if `begin` was given some.

  Raises:
    RecordError: shards are missing.
  """
  path = pathlib.Path(path)
  metadata = read_metadata(path)
  if metadata is None:
    raise RecordError(f"{path}: no set was started there")
  if metadata["complete"]:
    return metadata
  lengths, fields = [], {}
  for index in range(metadata["shards"]):
    final = path / shard_name(index, metadata["shards"])
    if not final.exists():
      raise RecordError(
        f"{path}: shard {index} of {metadata['shards']} missing"
      )
    length, found = shard_summary(path, index, metadata["shards"])
    lengths.append(length)
    fields.update(found)
  metadata.update(
    complete=True, examples=sum(lengths), lengths=lengths, fields=fields
  )
  with writing(path):
    write_atomic(path / METADATA, json.dumps(metadata, indent=1).encode())
  for leftover in path.glob("*.tmp"):
    leftover.unlink(missing_ok=True)
  return metadata


def write_records(
  path: str | os.PathLike,
  examples: Iterable[Example],
  shards: int = 1,
  settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Writes a small set in one go; shard i takes every `shards`-th block.

  Args:
    path: the set's folder.
    examples: all examples; they are collected before writing.
    shards: number of shards.
    settings: noted in the metadata.

  Returns:
    The metadata, see `finish`.
  """
  examples = list(examples)
  todo = begin(path, shards, settings or {})
  bounds = np.linspace(0, len(examples), shards + 1).astype(int)
  for index in todo:
    part = examples[bounds[index] : bounds[index + 1]]
    write_shard(path, index, shards, part)
  return finish(path)


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
      from data_pipelines.synthetic_heads import generate

      world = settings.get("world", generate.WORLD)
      return tuple(generate.load_world(world).ATTRIBUTE_NAMES)
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
