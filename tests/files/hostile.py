"""How hostile files are judged: what comes of one, and what it may cost."""

import contextlib
import tracemalloc

import numpy as np

from faceedit_jax.weights import reader

MEGABYTE = 1 << 20


@contextlib.contextmanager
def little(limit=64 * MEGABYTE):
  """Bounds what is held at one time."""
  tracemalloc.start()
  try:
    yield
    assert tracemalloc.get_traced_memory()[1] < limit
  finally:
    tracemalloc.stop()


def outcome(path):
  """The arrays of a file, or the line on it; nothing else comes of it."""
  try:
    found = reader.read(path)
  except ValueError as e:
    assert "\n" not in str(e) and str(path) in str(e)
    return str(e)
  _arrays(found)
  return found


def _arrays(found):
  assert isinstance(found, dict | np.ndarray)
  if isinstance(found, dict):
    for key, value in found.items():
      assert isinstance(key, str)
      _arrays(value)
  else:
    assert not found.dtype.hasobject
    found.reshape(-1)[-1:].tolist()  # where its memory ends
