"""Files of safetensors; their numbers are mapped, not read."""

import json
import mmap
import pathlib
import struct

import ml_dtypes
import numpy as np
import safetensors

_DTYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "F8_E4M3": ml_dtypes.float8_e4m3fn,
  "F8_E5M2": ml_dtypes.float8_e5m2,
  "I64": np.int64,
  "I32": np.int32,
  "I16": np.int16,
  "I8": np.int8,
  "U64": np.uint64,
  "U32": np.uint32,
  "U16": np.uint16,
  "U8": np.uint8,
  "BOOL": np.bool_,
  "C64": np.complex64,
}
_LENGTH = struct.Struct("<Q")


def recognised(path: pathlib.Path) -> bool:
  """Whether a file begins as safetensors do: a length, then JSON."""
  with path.open("rb") as file:
    head = file.read(_LENGTH.size + 1)
  return head[_LENGTH.size :] == b"{" and head[6:8] == b"\0\0"


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a file.

  Args:
    path: of a file.

  Returns:
    Arrays by key, read-only.

  Raises:
    ValueError: it is damaged, or holds numbers that NumPy has no type for.
  """
  try:
    # It checks lengths, shapes, types and that offsets neither overlap nor
    # leave anything out.
    with safetensors.safe_open(path, "numpy"):
      pass
  except Exception as e:
    raise ValueError(_fault(path) or str(e)) from e
  with path.open("rb") as file:
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  (length,) = _LENGTH.unpack(content[: _LENGTH.size])
  start = _LENGTH.size + length
  found = {}
  for key, entry in json.loads(content[_LENGTH.size : start]).items():
    if key == "__metadata__":
      continue
    if entry["dtype"] not in _DTYPES:
      raise ValueError(
        f"{key} has the type {entry['dtype']}, which is not read"
      )
    dtype = np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<")
    begin, end = entry["data_offsets"]
    data = np.frombuffer(
      content, dtype, (end - begin) // dtype.itemsize, start + begin
    )
    found[key] = data.reshape(entry["shape"])
  return found


def _fault(path: pathlib.Path) -> str:
  """Of a file that its library refuses: how much of it is missing."""
  size = path.stat().st_size
  with path.open("rb") as file:
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    whole = _LENGTH.size + length
    if whole <= size:
      try:
        entries = json.loads(file.read(length)).values()
        ends = [e["data_offsets"][1] for e in entries if "data_offsets" in e]
        whole += max(ends, default=0)
      except Exception:  # the library has said what is wrong
        return ""
  missing = whole - size
  return f"it is cut short: {missing:,} bytes are missing" * (missing > 0)
