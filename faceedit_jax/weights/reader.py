"""Reads published weight files without running anything that they hold.

`.safetensors` by its own library; torch's formats by torch with
`weights_only`, which builds tensors and plain values and refuses the rest.
"""

import pathlib
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.flax

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".tar", ".pkl", ".bin")
# Training frameworks leave records of their own beside the tensors (callbacks,
# options, scores). They are stood in for by empty objects; no code of theirs is
# called.
_BOOKKEEPING = (
  "pytorch_lightning.",
  "lightning.",
  "omegaconf.",
  "argparse.",
  "numpy.",
  "_codecs.encode",
)

# Put before every key by torch's DataParallel and compile.
_WRAPPERS = ("module.", "_orig_mod.")


class _StandIn:
  """Takes the place of an object that nobody reads."""

  def __init__(self, *args, **kwargs):
    del args, kwargs

  def __setstate__(self, state):
    del state


def read(path: str | pathlib.Path) -> dict[str, Any]:
  """Reads a weight file.

  Args:
    path: `.safetensors`, or one of TORCH_SUFFIXES.

  Returns:
    What the file holds: arrays by key; a torch file may nest them.

  Raises:
    ValueError: one line: no such file, another format, a damaged file, or one
      that names code to be run.
  """
  path = pathlib.Path(path)
  check_file(path, "weight file")
  if path.suffix == ".safetensors":
    try:
      flat = safetensors.flax.load_file(path)
    except Exception as e:  # its own, and those of types that NumPy lacks
      raise ValueError(f"weight file {path} is damaged: {e}") from e
    return {key: np.asarray(value) for key, value in flat.items()}
  if path.suffix not in TORCH_SUFFIXES:
    raise ValueError(
      f"weight file {path} ends in {path.suffix!r}; wanted .safetensors or one "
      f"of {', '.join(TORCH_SUFFIXES)}"
    )
  found = _arrays(_read_torch(path))
  if not isinstance(found, dict):
    raise ValueError(
      f"weight file {path} holds a {type(found).__name__}, wanted a dict of "
      "tensors"
    )
  return found


def check_file(path: pathlib.Path, what: str) -> None:
  """Raises a ValueError of one line unless there is a file with content."""
  if path.is_dir():
    raise ValueError(f"{what} {path} is a folder; wanted a file in it")
  if not path.is_file():
    raise ValueError(f"{what} {path} does not exist")
  if not path.stat().st_size:
    raise ValueError(f"{what} {path} is empty")


def read_all(paths: Sequence[str | pathlib.Path]) -> dict[str, Any]:
  """Reads a net that is published in one or more files; see `read`.

  Raises:
    ValueError: one line: as `read`, or two files share a key.
  """
  found: dict[str, Any] = {}
  for path in paths:
    more = read(path)
    if twice := sorted(set(found) & set(more)):
      raise ValueError(
        f"weight file {path} holds {twice[:5]}, which another of the "
        f"{len(paths)} files holds too"
      )
    found |= more
  return found


def _read_torch(path: pathlib.Path) -> Any:
  try:
    import torch
  except ImportError as e:
    raise ValueError(
      f"weight file {path} is torch's: reading it needs torch (pip install "
      "'faceedit_jax[torch]'); a .safetensors file does not"
    ) from e
  try:
    names = []
    if zipfile.is_zipfile(path):  # else torch's format before 1.6
      names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    unknown = [n for n in names if not n.startswith(_BOOKKEEPING)]
    if not unknown:
      known = [(_StandIn, name) for name in names]
      with torch.serialization.safe_globals(known):
        return torch.load(path, map_location="cpu", weights_only=True)
  except Exception as e:  # a damaged pickle may raise anything
    unknown = re.findall(r"GLOBAL ([\w.]+)", str(e))[:1]
    if not unknown:
      line = str(e).split("\n")[0].split(". ")[0] or type(e).__name__
      raise ValueError(
        f"weight file {path} is damaged or not torch's: {line:.120}"
      ) from e
  raise ValueError(
    f"weight file {path} is refused: it names {unknown[:5]}; only tensors and "
    "plain values are read"
  )


def _arrays(value: Any) -> Any:
  """The same with arrays in place of tensors."""
  if isinstance(value, Mapping):
    return {str(key): _arrays(item) for key, item in value.items()}
  if not hasattr(value, "detach"):
    return value
  value = value.detach()
  if str(value.dtype) == "torch.bfloat16":  # NumPy has none
    value = value.float()
  return value.cpu().numpy()


def section(raw: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
  """The arrays of one part of a file, by key without the part's name.

  Args:
    raw: from `read`.
    name: a nested dict ("E_flame"), or a prefix of keys
      ("first_stage_model."); of both the longer way down is looked for, below
      `state_dict` if there is one. "" is everything. A wrapper's prefix
      that all keys share ("module.") is left out.

  Returns:
    Arrays by key; empty when there is no such part.
  """
  inner = raw.get("state_dict", raw)
  if not isinstance(inner, Mapping):
    return {}
  if isinstance(inner.get(name), Mapping):
    inner, name = inner[name], ""
  found = {k: v for k, v in inner.items() if isinstance(v, np.ndarray)}
  for wrapper in _WRAPPERS:
    if all(key.startswith(wrapper) for key in found):
      found = {key[len(wrapper) :]: v for key, v in found.items()}
  return {
    key[len(name) :]: value
    for key, value in found.items()
    if key.startswith(name)
  }


def count(raw: Any) -> int:
  """How many arrays a file holds."""
  if isinstance(raw, Mapping):
    return sum(map(count, raw.values()))
  return int(isinstance(raw, np.ndarray))
