"""Reads pickles of arrays without running what they name.

FLAME's files are pickles: of Python 2 with chumpy arrays and sparse matrices,
and of a dict in which some arrays are torch tensors. Neither chumpy nor scipy
nor torch is imported.
"""

import io
import pickle
from typing import Any, BinaryIO

import numpy as np

# Of torch's storages, by the name of the class.
_STORAGES = {
  "DoubleStorage": "<f8",
  "FloatStorage": "<f4",
  "HalfStorage": "<f2",
  "LongStorage": "<i8",
  "IntStorage": "<i4",
  "ShortStorage": "<i2",
  "CharStorage": "i1",
  "ByteStorage": "u1",
  "BoolStorage": "?",
}
_HEAD = 3  # pickles in front of a stored tensor: magic, version, system


class Refused(pickle.UnpicklingError):
  """A pickle that names what it has no business with."""


class _Stub:
  """Stands for a chumpy or scipy object; keeps its state, runs nothing."""

  def __init__(self, *args: Any) -> None:
    self.state: Any = args

  def __setstate__(self, state: Any) -> None:
    self.state = state


def _reconstructor(kind: type, base: type, state: Any) -> Any:
  """What Python 2 pickles call to make an object; for stubs alone."""
  del base, state
  if not issubclass(kind, _Stub):
    raise Refused(f"it builds a {kind.__name__}")
  return kind()


def _encode(text: str, encoding: str = "latin1") -> bytes:
  return text.encode("latin1" if encoding != "utf-8" else encoding)


def _no_hooks(*args: Any) -> dict:
  """In place of the empty OrderedDict in every tensor."""
  del args
  return {}


def _storage(content: bytes) -> np.ndarray:
  """The numbers of a storage that torch has put into a pickle as bytes."""
  file = io.BytesIO(content)
  for _ in range(_HEAD):
    _Unpickler(file).load()
  dtype, count = _Unpickler(file).load()
  _Unpickler(file).load()  # keys of the storages that follow; it is one
  if int.from_bytes(file.read(8), "little") != count:
    raise pickle.UnpicklingError("a tensor of another size than it says")
  return np.frombuffer(file.read(), dtype, count)


def _tensor(storage, offset, size, stride, *rest) -> np.ndarray:
  """A tensor as an array."""
  del rest
  numbers = [offset, *size, *stride]
  if len(size) != len(stride) or min(numbers) < 0:
    raise pickle.UnpicklingError("a tensor with an impossible shape")
  if 0 in size:
    return np.zeros(size, storage.dtype)
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
  if last >= len(storage):
    raise pickle.UnpicklingError("a tensor that reaches beyond its storage")
  steps = [s * storage.itemsize for s in stride]
  view = np.lib.stride_tricks.as_strided(storage[offset:], size, steps)
  return view.copy()


def _names() -> dict[tuple[str, str], Any]:
  multiarray = np._core.multiarray
  names: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("collections", "OrderedDict"): _no_hooks,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
  }
  for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    names[module, "_reconstruct"] = multiarray._reconstruct
    names[module, "scalar"] = multiarray.scalar
  return names


class _Unpickler(pickle.Unpickler):
  """Builds NumPy arrays and stubs; refuses every other name."""

  _allowed = _names()

  def __init__(self, file: BinaryIO) -> None:
    super().__init__(file, encoding="latin1")

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) in self._allowed:
      return self._allowed[module, name]
    if module == "torch" and name in _STORAGES:
      return _STORAGES[name]
    if module.split(".")[0] == "chumpy" or module.startswith("scipy.sparse"):
      return _Stub
    raise Refused(
      f"it names {module}.{name}; only NumPy arrays, tensors, chumpy arrays "
      "and sparse matrices are read"
    )

  def persistent_load(self, pid: Any) -> Any:
    """A storage inside of `_storage`: its type and how many numbers."""
    _, dtype, _, _, count, *_ = pid
    return dtype, count


def load(file: BinaryIO) -> Any:
  """Reads one pickle.

  Args:
    file: at its beginning.

  Returns:
    What it holds: arrays, plain values, and stubs for `dense`.

  Raises:
    Refused: it names anything but arrays.
    Exception: it is damaged; a damaged pickle may raise anything.
  """
  return _Unpickler(file).load()


def dense(value: Any) -> Any:
  """The array that a chumpy array or a sparse matrix stands for.

  Args:
    value: from `load`; arrays are returned as they are.

  Raises:
    ValueError: an object of an unknown kind.
  """
  if not isinstance(value, _Stub):
    return value
  state = value.state
  if not isinstance(state, dict):
    raise ValueError(f"cannot read an object of {state!r:.60}")
  if "idxs" in state:  # chumpy selection
    picked = np.asarray(dense(state["a"])).reshape(-1)[state["idxs"]]
    shape = state.get("preferred_shape")
    return picked if shape is None else picked.reshape(shape)
  if "x" in state:
    return np.asarray(dense(state["x"]))
  if "indptr" in state:  # compressed sparse columns
    rows, columns = state.get("_shape", state.get("shape"))
    matrix = np.zeros((rows, columns))
    column = np.repeat(np.arange(columns), np.diff(state["indptr"]))
    np.add.at(matrix, (state["indices"], column), state["data"])
    return matrix
  raise ValueError(f"an unknown object with {sorted(state)}")
