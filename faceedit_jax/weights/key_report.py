"""Says of every key of a published weight file where it went."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import flax.traverse_util
import numpy as np

from faceedit_jax.core.typing import PyTree
from faceedit_jax.weights.keymap import LAYOUTS, KeyMap


@dataclasses.dataclass
class Report:
  """Where the keys went.

  Attributes:
    used: keys whose tensors are in the result.
    dead: keys known to have no place in the net: counters, losses.
    unexpected: keys that nobody knows.
    missing: our parameters that the file lacks.
    fresh: our parameters that start untrained.
    elsewhere: how many keys belong to other parts of the file.
    reshaped: "ours: got shape, wanted shape".
    note: on raw and averaged weights, see `parts.Part`.
  """

  used: list[str] = dataclasses.field(default_factory=list)
  dead: list[str] = dataclasses.field(default_factory=list)
  unexpected: list[str] = dataclasses.field(default_factory=list)
  missing: list[str] = dataclasses.field(default_factory=list)
  fresh: list[str] = dataclasses.field(default_factory=list)
  reshaped: list[str] = dataclasses.field(default_factory=list)
  elsewhere: int = 0
  note: str = ""

  @property
  def faults(self) -> dict[str, list[str]]:
    """What must be empty."""
    found = {
      "unexpected": self.unexpected,
      "missing": self.missing,
      "of another shape": self.reshaped,
    }
    return {name: keys for name, keys in found.items() if keys}

  def __str__(self) -> str:
    note = f"{self.note}: " if self.note else ""
    parts = [f"{note}{len(self.used)} used"]
    # Counters of batches, which no net needs, are not worth their names.
    named = [k for k in self.dead if not k.endswith("num_batches_tracked")]
    parts.append(f"{len(self.dead)} known and not needed" + _shown(named, 12))
    if self.elsewhere:
      parts.append(f"{self.elsewhere} of other parts of the file")
    if self.fresh:
      parts.append(f"{len(self.fresh)} of ours start untrained")
    for name, keys in self.faults.items():
      parts.append(f"{len(keys)} {name}" + _shown(keys, 5))
    return ", ".join(parts)


def _shown(keys: Sequence[str], most: int) -> str:
  """The first keys in brackets."""
  if not keys:
    return ""
  more = ", ..." if len(keys) > most else ""
  lines = [" ".join(key.split())[:120] for key in keys[:most]]
  return f" ({', '.join(lines)}{more})"


def fit(
  state: Mapping[str, np.ndarray],
  keymap: KeyMap,
  wanted: PyTree,
  fresh: Sequence[str] = (),
  widened: Sequence[str] = (),
  renewed: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], Report]:
  """Maps a torch state onto a net's variables, key by key.

  Args:
    state: arrays by torch key.
    keymap: of the net.
    wanted: the net's variables as `jax.eval_shape` gives them.
    fresh: patterns (`re.fullmatch`) of our "/"-joined paths that start
      untrained, since no file holds them.
    widened: patterns of kernels whose further inputs start at zero.
    renewed: patterns of kernels that start untrained where the file's have
      another number of inputs.

  Returns:
    Arrays by our "/"-joined path, without the fresh ones, and the report. The
    arrays are complete when the report has no faults.
  """
  report = Report()
  ours = flax.traverse_util.flatten_dict(wanted, sep="/")
  out: dict[str, np.ndarray] = {}
  new = {path for path in ours if _matches(path, fresh)}
  for key, value in state.items():
    try:
      goal = keymap(key)
    except KeyError:
      report.unexpected.append(key)
      continue
    if goal is None:
      report.dead.append(key)
      continue
    path = "/".join((goal.collection, *goal.path))
    if path not in ours or path in out or path in new:
      report.unexpected.append(key)
      continue
    shape = tuple(ours[path].shape)
    try:
      array = LAYOUTS[goal.layout](np.asarray(value))
    except ValueError:  # other axes than the layout turns
      array = np.asarray(value)
    if _matches(path, widened):
      array = _widen(array, shape)
    if tuple(array.shape) == shape:
      out[path] = np.ascontiguousarray(array, dtype=ours[path].dtype)
      report.used.append(key)
    elif _matches(path, renewed) and array.shape[-1:] == shape[-1:]:
      new.add(path)
      report.dead.append(key)
    else:
      report.reshaped.append(f"{path}: got {array.shape}, wanted {shape}")
  named = {line.split(":")[0] for line in report.reshaped}
  report.missing = sorted(set(ours) - set(out) - new - named)
  report.fresh = sorted(new)
  return out, report


def _matches(path: str, patterns: Sequence[str]) -> bool:
  return any(re.fullmatch(pattern, path) for pattern in patterns)


def _widen(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """A kernel (..., in, out) with zeros for further inputs."""
  if kernel.ndim != len(shape):
    return kernel
  more = shape[-2] - kernel.shape[-2]
  if more < 1 or kernel.shape[-1] != shape[-1]:
    return kernel
  width = [(0, 0)] * kernel.ndim
  width[-2] = (0, more)
  return np.pad(kernel, width)
