"""Reads pickles of arrays without running what they name.

FLAME's files are pickles: of Python 2 with chumpy arrays and sparse matrices,
and of a dict in which some arrays are torch tensors. Neither chumpy nor scipy
nor torch is imported.
"""

import re
from typing import Any, BinaryIO

import numpy as np

from faceedit_jax.files import torch_file
from faceedit_jax.files.inert_pickle import Inert, Trap

# Names that such a pickle has business with.
_ALLOWED = re.compile(
  r"numpy\.(ndarray|dtype)|numpy\._?core\.multiarray\.(_reconstruct|scalar)"
  r"|numpy\._?core\.numeric\._frombuffer|_codecs\.encode|builtins\.bytes"
  r"|copyreg\._reconstructor|builtins\.object|collections\.OrderedDict"
  r"|torch\._utils\._rebuild_tensor(_v2)?|torch\.storage\._load_from_bytes"
  r"|torch\.\w+Storage|chumpy\..+|scipy\.sparse.*"
)
_LARGEST = 1 << 26  # entries of a matrix that a file says to be sparse


class Refused(ValueError):
  """A pickle that names what it has no business with."""


def load(file: BinaryIO) -> Any:
  """Reads one pickle.

  Args:
    file: at its beginning.

  Returns:
    What it holds: plain values, and what `dense` makes arrays of. Of an array
    of one object, that object.

  Raises:
    Refused: it names anything but arrays.
    ValueError: it is damaged.
  """
  try:
    found = torch_file.load(
      file.read(), lambda name: bool(_ALLOWED.fullmatch(name))
    )
  except Trap as e:
    raise Refused(
      f"it names {e}; only NumPy arrays, tensors, chumpy arrays and sparse "
      "matrices are read"
    ) from e
  return torch_file.only_object(found) or found


def dense(value: Any) -> Any:
  """The array that a chumpy array or a sparse matrix stands for.

  Args:
    value: from `load`; arrays are returned as they are.

  Raises:
    ValueError: an object of an unknown kind.
  """
  value = torch_file.array(value)
  if not isinstance(value, Inert):
    return value
  state = value.state
  if not isinstance(state, dict):
    raise ValueError(f"cannot read an object of {state!r:.60}")
  if "idxs" in state:  # chumpy selection
    picked = np.asarray(dense(state["a"])).reshape(-1)[dense(state["idxs"])]
    shape = state.get("preferred_shape")
    return picked if shape is None else picked.reshape(shape)
  if "x" in state:
    return np.asarray(dense(state["x"]))
  if "indptr" in state:  # compressed sparse columns
    rows, columns = state.get("_shape", state.get("shape"))
    if rows * columns > _LARGEST:
      raise ValueError(f"a matrix of {rows} x {columns}")
    matrix = np.zeros((rows, columns))
    ends, where, data = (dense(state[k]) for k in ("indptr", "indices", "data"))
    column = np.repeat(np.arange(columns), np.diff(ends))
    np.add.at(matrix, (where, column), data)
    return matrix
  raise ValueError(f"an unknown object with {sorted(state)}")
