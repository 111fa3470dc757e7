"""Accounts for every key of a published weight file."""

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
    fresh: our parameters that no such file has; they start untrained.
    reshaped: "ours: got shape, wanted shape".
  """

  used: list[str] = dataclasses.field(default_factory=list)
  dead: list[str] = dataclasses.field(default_factory=list)
  unexpected: list[str] = dataclasses.field(default_factory=list)
  missing: list[str] = dataclasses.field(default_factory=list)
  fresh: list[str] = dataclasses.field(default_factory=list)
  reshaped: list[str] = dataclasses.field(default_factory=list)

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
    parts = [f"{len(self.used)} used", f"{len(self.dead)} known and not needed"]
    if self.fresh:
      parts.append(f"{len(self.fresh)} of ours start untrained")
    for name, keys in self.faults.items():
      shown = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
      parts.append(f"{len(keys)} {name} ({shown})")
    return ", ".join(parts)


def fit(
  state: Mapping[str, np.ndarray],
  keymap: KeyMap,
  wanted: PyTree,
  fresh: Sequence[str] = (),
  widened: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], Report]:
  """Maps a torch state onto a net's variables, key by key.

  Args:
    state: arrays by torch key.
    keymap: of the net.
    wanted: the net's variables as `jax.eval_shape` gives them.
    fresh: patterns (`re.fullmatch`) of our "/"-joined paths that start
      untrained, whatever the file holds for them.
    widened: patterns of kernels whose further inputs start at zero.

  Returns:
    Arrays by our "/"-joined path, without the fresh ones, and the report. The
    arrays are complete when the report has no faults.
  """
  report = Report()
  ours = flax.traverse_util.flatten_dict(wanted, sep="/")
  new = {p for p in ours if any(re.fullmatch(f, p) for f in fresh)}
  report.fresh = sorted(new)
  out: dict[str, np.ndarray] = {}
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
    if path in new:
      report.dead.append(key)
      continue
    if path not in ours or path in out:
      report.unexpected.append(key)
      continue
    array = LAYOUTS[goal.layout](np.asarray(value))
    shape = tuple(ours[path].shape)
    if any(re.fullmatch(w, path) for w in widened):
      array = _widen(array, shape)
    if tuple(array.shape) != shape:
      report.reshaped.append(f"{path}: got {array.shape}, wanted {shape}")
      continue
    out[path] = np.ascontiguousarray(array, dtype=ours[path].dtype)
    report.used.append(key)
  named = {line.split(":")[0] for line in report.reshaped}
  report.missing = sorted(set(ours) - set(out) - new - named)
  return out, report


def _widen(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """A kernel (..., in, out) with zeros for further inputs."""
  more = shape[-2] - kernel.shape[-2]
  if kernel.ndim != len(shape) or more < 1:
    return kernel
  width = [(0, 0)] * kernel.ndim
  width[-2] = (0, more)
  return np.pad(kernel, width)
