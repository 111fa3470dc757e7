"""Files of `torch.save`, and plain pickles of arrays, without torch.

Since torch 1.6 a file is a zip archive with a pickle and a member per storage;
before, it was four pickles and the storages behind them. Stored numbers are
mapped, not read: a file of many gigabytes costs what is taken from it.
"""

import dataclasses
import io
import math
import mmap
import pathlib
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from faceedit_jax.files import file_kinds, inert_pickle
from faceedit_jax.files.inert_pickle import Damaged, Inert, Name

_DTYPES = {
  "float64": np.float64,
  "float32": np.float32,
  "float16": np.float16,
  "bfloat16": ml_dtypes.bfloat16,
  "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
  "float8_e5m2": ml_dtypes.float8_e5m2,
  "int64": np.int64,
  "int32": np.int32,
  "int16": np.int16,
  "int8": np.int8,
  "uint8": np.uint8,
  "uint16": np.uint16,
  "uint32": np.uint32,
  "uint64": np.uint64,
  "bool": np.bool_,
  "complex64": np.complex64,
  "complex128": np.complex128,
}
_STORAGES = {
  "DoubleStorage": "float64",
  "FloatStorage": "float32",
  "HalfStorage": "float16",
  "BFloat16Storage": "bfloat16",
  "LongStorage": "int64",
  "IntStorage": "int32",
  "ShortStorage": "int16",
  "CharStorage": "int8",
  "ByteStorage": "uint8",
  "BoolStorage": "bool",
  "ComplexFloatStorage": "complex64",
  "ComplexDoubleStorage": "complex128",
  "UntypedStorage": "uint8",
}
Allows = Callable[[str], bool]  # of a name in a pickle
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older layout
_NESTED = 3  # pickles inside of pickles
# What an expanded tensor may hold more than its storage, in bytes.
_EXPANDED = 1 << 26
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of a zip archive


class Refused(ValueError):
  """A good file of another sort, or one that is not to be trusted."""


@dataclasses.dataclass
class _Storage:
  """Numbers side by side; of the older layout they come after the pickle."""

  dtype: np.dtype
  count: int
  data: np.ndarray | None = None
  whole: "_Storage | None" = None  # of very old files: it is a part of another
  start: int = 0

  def numbers(self) -> np.ndarray:
    """All of them."""
    if self.whole is not None and self.whole.whole is None:
      return self.whole.numbers()[self.start : self.start + self.count]
    if self.data is None:
      raise Damaged("a tensor whose numbers are not in the file")
    return self.data


@dataclasses.dataclass
class _Tensor:
  """A view of a storage."""

  storage: _Storage
  offset: int
  size: tuple
  stride: tuple
  dtype: np.dtype | None = None

  def array(self) -> np.ndarray:
    """The view, checked against what is there."""
    data = self.storage.numbers()
    if self.dtype is not None:
      whole = data.nbytes // self.dtype.itemsize * self.dtype.itemsize
      data = data.view(np.uint8)[:whole].view(self.dtype)
    numbers = (self.offset, *self.size, *self.stride)
    if (
      len(self.size) != len(self.stride)
      or len(self.size) > 32
      or any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers)
    ):
      raise Damaged("a tensor with an impossible shape")
    count = math.prod(self.size)
    if not count:
      return np.zeros(self.size, data.dtype)
    pairs = zip(self.size, self.stride, strict=True)
    last = self.offset + sum((n - 1) * step for n, step in pairs)
    if last >= len(data):
      raise Damaged("a tensor that reaches beyond its storage")
    if (count - len(data)) * data.itemsize > _EXPANDED:
      raise Damaged(f"a tensor of {count} numbers in a storage of {len(data)}")
    # A step along an axis of one is never made, and may be of any size.
    steps = [
      step * data.itemsize if n > 1 else 0
      for n, step in zip(self.size, self.stride, strict=True)
    ]
    return np.lib.stride_tricks.as_strided(
      data[self.offset :], self.size, steps, writeable=False
    )


class _Dtype(Inert):
  """`numpy.dtype(...)`; one of numbers, or else of no use."""

  def __init__(self, text: Any, *args: Any) -> None:
    super().__init__("numpy.dtype", args)
    self.text, self.order = text, "="

  def build(self, state: Any) -> None:
    if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
      self.order = state[1]

  def dtype(self) -> np.dtype | None:
    text = self.text
    if not isinstance(text, str) or not re.fullmatch(r"[biufc]\d{1,2}", text):
      return None
    return np.dtype(text).newbyteorder(self.order)


class _Array(Inert):
  """A NumPy array, which pickles make empty and fill afterwards."""

  def __init__(self, *args: Any) -> None:
    super().__init__("numpy.ndarray", args)
    self.value: np.ndarray | None = None
    self.objects: list[Any] = []  # of an array of objects

  def build(self, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) != 5:
      raise Damaged("an array without its numbers")
    _, shape, dtype, columns_first, data = state
    if isinstance(data, str):  # of Python 2
      data = data.encode("latin1")
    self.fill(data, dtype, shape, "F" if columns_first else "C")

  def fill(self, data: Any, dtype: Any, shape: Any, order: str) -> None:
    """Takes numbers; objects and records stay without effect."""
    of = dtype.dtype() if isinstance(dtype, _Dtype) else None
    self.objects = data if isinstance(data, list) else []
    if of is None or not isinstance(data, bytes | bytearray):
      return
    if not isinstance(shape, tuple) or any(type(n) is not int for n in shape):
      raise Damaged("an array with an impossible shape")
    if min(shape, default=0) < 0 or math.prod(shape) * of.itemsize != len(data):
      raise Damaged("an array of another size than it says")
    self.value = np.frombuffer(data, of).reshape(shape, order=order)


def _scalar(dtype: Any, data: Any) -> Any:
  """A number of NumPy's as one of Python's."""
  of = dtype.dtype() if isinstance(dtype, _Dtype) else None
  if isinstance(data, str):
    data = data.encode("latin1")
  if of is None or not isinstance(data, bytes) or len(data) != of.itemsize:
    return Inert("numpy.generic")
  return np.frombuffer(data, of)[0].item()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
  array = _Array()
  array.fill(data, dtype, shape, "F" if order == "F" else "C")
  return array


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any):
  """`_rebuild_tensor_v2`."""
  if not isinstance(storage, _Storage):
    return Inert("torch.Tensor")
  if len(rest) > 2 and rest[2]:  # conjugated or negated when it is read
    return Inert("torch.Tensor")
  if not all(isinstance(part, tuple | list) for part in (size, stride)):
    raise Damaged("a tensor with an impossible shape")
  return _Tensor(storage, offset, tuple(size), tuple(stride))


def _typed_tensor(storage, offset, size, stride, grad, hooks, dtype, *rest):
  """`_rebuild_tensor_v3`."""
  made = _tensor(storage, offset, size, stride, grad, hooks, *rest)
  if isinstance(made, _Tensor):
    text = dtype.text.removeprefix("torch.") if isinstance(dtype, Name) else ""
    if text not in _DTYPES:
      return Inert(f"torch.Tensor of {text}")
    made.dtype = np.dtype(_DTYPES[text])
  return made


def _first(value: Any, *rest: Any) -> Any:
  """What only wraps its first argument."""
  del rest
  return value


def _of_type(function: Any, kind: Any, args: Any, *rest: Any) -> Any:
  """`_rebuild_from_type_v2`: a tensor of somebody's class."""
  del kind, rest
  made = _TENSORS.get(function.text if isinstance(function, Name) else "")
  if made is None or not isinstance(args, tuple):
    return Inert("torch.Tensor")
  return made(*args)


_TENSORS: Mapping[str, Callable[..., Any]] = {
  "torch._utils._rebuild_tensor": _tensor,
  "torch._utils._rebuild_tensor_v2": _tensor,
  "torch._utils._rebuild_tensor_v3": _typed_tensor,
}


def _known(depth: int, allows: Allows) -> dict[str, Callable[..., Any]]:
  """What a pickle may ask for; see `inert_pickle.load`."""
  left = [1 << 16]  # so many nested files may be opened

  def nested(content: Any, *rest: Any) -> Any:
    del rest
    left[0] -= 1
    if not isinstance(content, bytes) or depth >= _NESTED or left[0] < 0:
      raise Damaged("a tensor inside of a tensor")
    return _read_pickles(io.BytesIO(content), content, allows, depth + 1)

  known = dict(_TENSORS)
  for name in (
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
    "_rebuild_device_tensor_from_numpy",
    "_rebuild_device_tensor_from_cpu_tensor",
    "_rebuild_xla_tensor",
  ):
    known[f"torch._utils.{name}"] = _first
  for module in ("torch._tensor", "torch.tensor"):
    known[f"{module}._rebuild_from_type_v2"] = _of_type
  known["torch.storage._load_from_bytes"] = nested
  known["numpy.dtype"] = _Dtype
  for core in ("core", "_core"):
    known[f"numpy.{core}.multiarray._reconstruct"] = _Array
    known[f"numpy.{core}.multiarray.scalar"] = _scalar
    known[f"numpy.{core}.numeric._frombuffer"] = _frombuffer
  return known


def _storage(pid: Any) -> tuple[np.dtype, str, int, tuple]:
  """(type, key, count, the rest) of a persistent id."""
  if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
    raise Damaged("a reference to what is no storage")
  _, kind, key, _, count, *rest = pid
  last = kind.text.rpartition(".")[2] if isinstance(kind, Name) else ""
  if last not in _STORAGES:
    raise Refused(f"it holds numbers of the type {last or kind!r:.40}")
  if type(count) is not int or count < 0 or not isinstance(key, str | int):
    raise Damaged("a storage of an impossible size")
  return np.dtype(_DTYPES[_STORAGES[last]]), str(key), count, tuple(rest)


def array(value: Any) -> Any:
  """The array that a value of `read` stands for, or the value itself.

  Raises:
    Damaged: a tensor that its storage does not hold.
  """
  if isinstance(value, _Tensor):
    return value.array()
  if isinstance(value, _Array) and value.value is not None:
    return value.value
  return value


def only_object(value: Any) -> Any:
  """What an array of one object holds, or None for any other value."""
  objects = value.objects if isinstance(value, _Array) else []
  return objects[0] if len(objects) == 1 else None


def read(path: pathlib.Path) -> Any:
  """Reads a file of torch, or a pickle.

  Args:
    path: of a file that is not empty.

  Returns:
    What it holds: plain values, `Inert`s, and what `array` makes arrays of.

  Raises:
    Refused: it is to be read otherwise, or is a trap.
    Damaged: it makes no sense.
  """
  with path.open("rb") as file:
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  try:
    if content[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
      return _read_zip(path, content)
    return _read_pickles(content, memoryview(content))
  except inert_pickle.Trap as e:
    raise Refused(
      f"it names {e}, which runs programs or opens files when it is loaded the "
      "usual way: do not open it with torch either"
    ) from e


def _read_zip(path: pathlib.Path, content: mmap.mmap) -> Any:
  try:
    archive = zipfile.ZipFile(path)
  except Exception as e:  # of several sorts, and none is meant for users
    raise Damaged(f"it is cut short: it begins as a zip archive ({e})") from e
  with archive:
    if kind := file_kinds.of_archive(archive.namelist()):
      raise Refused(kind)
    return _Archive(archive, content).load()


class _Archive:
  """torch's layout since 1.6."""

  def __init__(self, archive: zipfile.ZipFile, content: mmap.mmap) -> None:
    self._archive, self._content = archive, content
    names = [n for n in archive.namelist() if n.split("/")[-1] == "data.pkl"]
    self._top = min(names, key=len).removesuffix("data.pkl")
    self._found: dict[str, _Storage] = {}
    # What unpacking may add: nobody packs weights, which hardly get smaller.
    self._unpacked = (1 << 26) + 4 * len(content)

  def load(self) -> Any:
    """All that the pickle holds."""
    order = b"little"
    if f"{self._top}byteorder" in self._archive.namelist():
      order = bytes(self._member("byteorder"))
    self._order = ">" if order == b"big" else "<"
    pickled = io.BytesIO(bytes(self._member("data.pkl")))
    return inert_pickle.load(pickled, _known(0, _everything), self._storage)

  def _storage(self, pid: Any) -> _Storage:
    dtype, key, count, _ = _storage(pid)
    if key not in self._found:
      data = self._member(f"data/{key}")
      if count * dtype.itemsize > len(data):
        raise Damaged(
          f"a storage of {count} numbers has {len(data)} bytes in the file"
        )
      array = np.frombuffer(data, dtype.newbyteorder(self._order), count)
      self._found[key] = _Storage(dtype, count, array)
    return self._found[key]

  def _member(self, name: str) -> memoryview | bytes:
    try:
      info = self._archive.getinfo(self._top + name)
    except KeyError as e:
      raise Damaged(f"{name} is missing in it") from e
    if info.flag_bits & 1:
      raise Refused("it is a zip archive with a password")
    if info.compress_type == zipfile.ZIP_STORED:
      return self._stored(info)
    self._unpacked -= info.file_size
    if self._unpacked < 0:
      raise Damaged("it is packed so tightly that it cannot be weights")
    try:
      with self._archive.open(info) as file:
        return file.read(info.file_size)
    except Exception as e:  # of several packers
      raise Damaged(f"{name}: {e}") from e

  def _stored(self, info: zipfile.ZipInfo) -> memoryview:
    start, size = info.header_offset, _LOCAL_HEADER.size
    head = self._content[start : start + size] if start >= 0 else b""
    if len(head) < size or head[:4] != b"PK\x03\x04":
      raise Damaged("a member of the archive is not where it says")
    _, name, extra = _LOCAL_HEADER.unpack(head)
    start += size + name + extra
    if start + info.file_size > len(self._content):
      raise Damaged("it is cut short")
    return memoryview(self._content)[start : start + info.file_size]


def _everything(name: str) -> bool:
  del name
  return True


def load(content: bytes, allows: Allows) -> Any:
  """Reads a pickle of arrays in memory; see `read`.

  Args:
    content: of a file, from the beginning of the pickle.
    allows: which names it may hold.

  Raises:
    inert_pickle.Trap: it holds another name.
  """
  return _read_pickles(io.BytesIO(content), content, allows)


def _read_pickles(
  file: Any, content: Any, allows: Allows = _everything, depth: int = 0
) -> Any:
  """torch's older layout, or one pickle of arrays.

  Args:
    file: to read from.
    content: the same as bytes.
    allows: see `load`.
    depth: how many pickles it lies in.
  """
  known, found = _known(depth, allows), {}

  def persistent(pid: Any) -> Any:
    if isinstance(pid, tuple) and pid[:1] == ("module",) and len(pid) > 1:
      return pid[1]  # a class, with its source for a warning
    dtype, key, count, rest = _storage(pid)
    whole = found.setdefault(key, _Storage(dtype, count))
    if not rest or rest[0] is None:
      return whole
    _, start, size = rest[0]
    if any(type(n) is not int or n < 0 for n in (start, size)):
      raise Damaged("a storage of an impossible size")
    return _Storage(dtype, size, None, whole, start)

  first = inert_pickle.load(file, known, None, allows)
  if first != _MAGIC or type(first) is not int:
    return first
  for _ in range(2):  # protocol, and the machine that wrote it
    about = inert_pickle.load(file, known, None, allows)
  little = not isinstance(about, dict) or about.get("little_endian", True)
  value = inert_pickle.load(file, known, persistent, allows)
  keys = inert_pickle.load(file, known, None, allows)
  at = file.tell()
  for key in keys if isinstance(keys, list) else ():
    storage = found.get(str(key))
    if storage is None or storage.data is not None:
      raise Damaged("a storage that no tensor names, or one twice")
    count = int.from_bytes(content[at : at + 8], "little")
    size = count * storage.dtype.itemsize
    if len(content) - at < 8 + size or count < storage.count:
      raise Damaged("it is cut short")
    order = "<" if little else ">"
    storage.data = np.frombuffer(
      content, storage.dtype.newbyteorder(order), count, at + 8
    )
    at += 8 + size
  return value
