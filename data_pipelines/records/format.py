"""One example as bytes, bit for bit the same when read back.

Every record describes itself: a JSON header with name, dtype, shape and codec
of each field, then the fields' bytes.
"""

import dataclasses
import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

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
