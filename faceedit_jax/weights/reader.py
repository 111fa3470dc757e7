"""Reads published weight files without running anything that they hold.

What a file is, its content says, not its name: `.safetensors` by their own
library, files of torch and pickles as data (`torch_file`), neither with torch.
"""

import pathlib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from faceedit_jax.files import file_kinds, safetensors_file, torch_file
from faceedit_jax.files.inert_pickle import Inert

# How weight files are usually called.
SUFFIXES = (".pt", ".pth", ".ckpt", ".tar", ".pkl", ".bin")
_DEPTH = 100  # no state is nested so deep


def read(path: str | pathlib.Path) -> dict[str, Any]:
  """Reads a weight file.

  Args:
    path: of safetensors, of `torch.save` in any of its layouts, or a pickle of
      arrays, under any name.

  Returns:
    The arrays that the file holds, by key; a file of torch may nest them. What
    is no tensor is left out. A module that was saved whole is its state.

  Raises:
    ValueError: one line: no such file, another format, a damaged file, or one
      that names what runs programs.
  """
  path = pathlib.Path(path)
  check_file(path, "weight file")
  try:
    if safetensors_file.recognised(path):
      return safetensors_file.read(path)
    value = torch_file.read(path)
    found = _Arrays().of(value)
  except torch_file.Refused as e:
    raise ValueError(f"weight file {path} is refused: {e}") from e
  except Exception as e:  # anything at all can stand in a file
    raise ValueError(_fault(path, e)) from e
  if isinstance(found, dict):
    return found
  if isinstance(found, np.ndarray):
    what = "a single tensor without a key"
  elif isinstance(value, Mapping):
    what = f"no tensors; its keys are {reprlib.repr(sorted(map(str, value)))}"
  elif isinstance(value, Inert):
    what = f"a {value.kind:.60} without tensors"
  else:
    what = f"no tensors but a {type(value).__name__}"
  raise ValueError(
    f"weight file {path} holds {what}; wanted a dictionary of tensors"
  )


def _fault(path: pathlib.Path, error: Exception) -> str:
  """A line on a file that cannot be read."""
  advice = ""
  if path.suffix.lower() not in (*SUFFIXES, ".safetensors"):
    advice = (
      f" (its name ends in {path.suffix!r}; wanted .safetensors or one of "
      f"{', '.join(SUFFIXES)})"
    )
  if kind := file_kinds.of_file(path):
    return f"weight file {path} is no weight file: {kind}{advice}"
  with path.open("rb") as file:
    start = file.read(12)
  text = " ".join(str(error).split()) or type(error).__name__
  if len(start) > 4 and start.decode("latin1").isprintable():
    text = "it is a text"
  return (
    f"weight file {path} is damaged or none: {text:.160}; it has "
    f"{path.stat().st_size:,} bytes and begins with {start!r}; download it "
    f"again, or name another{advice}"
  )


def check_file(path: pathlib.Path, what: str) -> None:
  """Raises a ValueError of one line unless there is a file with content."""
  if path.is_dir():
    raise ValueError(f"{what} {path} is a folder; wanted a file in it")
  if not path.is_file():
    raise ValueError(f"{what} {path} does not exist")
  if not path.stat().st_size:
    raise ValueError(f"{what} {path} is empty; download it again")


def read_all(paths: Sequence[str | pathlib.Path]) -> dict[str, Any]:
  """Reads a net that is published in one or more files; see `read`.

  Raises:
    ValueError: one line: as `read`, or two files share a key.
  """
  found: dict[str, Any] = {}
  for path in paths:
    if twice := _merge(found, read(path)):
      raise ValueError(
        f"weight file {path} holds {twice[:5]}, which another of the "
        f"{len(paths)} files holds too"
      )
  return found


def _merge(found: dict[str, Any], more: Mapping[str, Any]) -> list[str]:
  """Adds arrays, and names those that were there before."""
  twice = []
  for key, value in more.items():
    both = key in found and isinstance(value, dict)
    if both and isinstance(found[key], dict):
      found[key] = dict(found[key])
      twice += _merge(found[key], value)
    elif key in found:
      twice.append(key)
    else:
      found[key] = value
  return sorted(twice)


class _Arrays:
  """Picks the arrays of what a file holds; every part is looked at once."""

  def __init__(self) -> None:
    self._seen: dict[int, Any] = {}

  def of(self, value: Any, depth: int = 0) -> Any:
    """An array, {key: of its parts}, or None where there are none."""
    value = torch_file.array(value)
    if isinstance(value, np.ndarray):
      return value
    if not isinstance(value, Inert | dict | list | tuple) or depth > _DEPTH:
      return None
    if id(value) not in self._seen:
      self._seen[id(value)] = None  # a part that holds itself ends here
      parts = self._parts(value)
      found = {
        key.decode("latin1") if isinstance(key, bytes) else str(key): array
        for key, item in parts.items()
        if (array := self.of(item, depth + 1)) is not None
      }
      self._seen[id(value)] = found or None
    return self._seen[id(value)]

  def _parts(self, value: Any) -> dict[Any, Any]:
    """Entries of a dict or a list, or of an object that is one; attributes."""
    if isinstance(value, list | tuple):
      return dict(enumerate(value))
    if isinstance(value, dict):
      return value
    state = value.state
    if isinstance(state, tuple) and state:  # of a class with slots
      state = state[0]
    if isinstance(state, dict) and "_parameters" in state:
      # A module of torch: its state names its parts without these.
      inside = [state.get(n) for n in ("_parameters", "_buffers", "_modules")]
      return {k: v for part in inside for k, v in _items(part)}
    content = value.items or state
    return self._parts(content) if _is_plain(content) else {}


def _is_plain(value: Any) -> bool:
  return isinstance(value, dict | list | tuple)


def _items(part: Any) -> Iterable[tuple[Any, Any]]:
  return part.items() if isinstance(part, dict) else ()
