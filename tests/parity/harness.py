"""Runs our networks on recorded inputs and weights of the official ones.

A case is `<stem>.json` (constructor options, rounding floor) plus
`<stem>.npz` (`state/<torch key>`, `in/<name>`, `out/<name>`). A runner reads
every size from the json, so other cases of the same network run unchanged.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.weights.keymap import KeyMap, convert

Runner = Callable[["Case"], Mapping[str, np.ndarray]]
RUNNERS: dict[str, Runner] = {}


@dataclass(frozen=True)
class Case:
  """One recorded case; `arrays` is the content of its npz."""

  info: dict
  arrays: Mapping[str, np.ndarray]

  @property
  def name(self) -> str:
    return self.info["case"]

  @property
  def config(self) -> dict:
    return self.info["config"]

  def __getitem__(self, name: str) -> jax.Array:
    """The input `in/<name>`."""
    return jnp.asarray(self.arrays[f"in/{name}"])

  def has(self, name: str) -> bool:
    """Whether there is an input `in/<name>`."""
    return f"in/{name}" in self.arrays

  def image(self, name: str) -> jax.Array:
    """The input `in/<name>`, NCHW to NHWC."""
    return jnp.moveaxis(self[name], 1, -1)

  def outputs(self) -> dict[str, np.ndarray]:
    """Recorded outputs by name."""
    return {k[4:]: v for k, v in self.arrays.items() if k.startswith("out/")}

  def state(self, group: str = "", prefix: str = "") -> dict[str, np.ndarray]:
    """Weights by torch key.

    Args:
      group: state group of the json.
      prefix: keeps only keys that begin with it, and cuts it off.
    """
    head = f"state/{group}/" if group else "state/"
    head += prefix
    return {
      k[len(head) :]: v for k, v in self.arrays.items() if k.startswith(head)
    }

  def variables(self, net, keymap: KeyMap, *args, group="", prefix="", **kw):
    """Converted weights, checked against the structure `net.init` wants."""
    ours = convert(self.state(group, prefix), keymap)
    wanted = jax.eval_shape(net.init, jax.random.key(0), *args, **kw)
    check_structure(ours, wanted)
    return ours


def check_structure(ours, wanted) -> None:
  """Asserts that two trees have the same paths and shapes."""

  def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k): tuple(v.shape) for k, v in leaves}

  got, want = flat(ours), flat(wanted)
  missing = sorted(set(want) - set(got))
  surplus = sorted(set(got) - set(want))
  assert not missing and not surplus, f"missing {missing}; surplus {surplus}"
  wrong = {k: (got[k], want[k]) for k in want if got[k] != want[k]}
  assert not wrong, f"shapes (got, wanted): {wrong}"


def nchw(x) -> np.ndarray:
  """NHWC to NCHW."""
  return np.moveaxis(np.asarray(x), -1, 1)


def runner(*names: str) -> Callable[[Runner], Runner]:
  """Registers a runner for the cases with these names."""

  def register(function: Runner) -> Runner:
    for name in names:
      RUNNERS[name] = function
    return function

  return register


def find_runner(name: str) -> Runner | None:
  """The runner of a case; a longer name of the same network also counts."""
  fitting = [n for n in RUNNERS if name.startswith(n)]
  return RUNNERS[max(fitting, key=len)] if fitting else None


def load_case(folder: Path, stem: str) -> Case:
  """Reads `<stem>.json` and `<stem>.npz`."""
  info = json.loads((folder / f"{stem}.json").read_text())
  with np.load(folder / f"{stem}.npz", allow_pickle=False) as file:
    return Case(info, {k: file[k] for k in file.files})


def bound(case: Case, name: str, reference: np.ndarray) -> float:
  """Largest allowed difference of one output."""
  floor = case.info.get("float32_vs_float64_max_abs") or {}
  scale = float(np.abs(reference).max()) if reference.size else 0.0
  return max(1e-4 * max(1.0, scale), 10 * (floor.get(name) or 0.0))


def compare(case: Case, ours: Mapping[str, np.ndarray]) -> list[tuple]:
  """Rows (output, difference, bound) of every output that we produce.

  Raises:
    AssertionError: nothing to compare, an unknown output, or a wrong shape.
  """
  assert ours, f"{case.name}: no output compared"
  recorded = case.outputs()
  rows = []
  for name, value in ours.items():
    reference = recorded[name]
    value = np.asarray(value)
    assert value.shape == reference.shape, (
      f"{case.name} {name}: got {value.shape}, wanted {reference.shape}"
    )
    if reference.dtype.kind in "iub":
      difference = float((value != reference).mean())
      rows.append((name, difference, 0.0))
    else:
      difference = float(np.abs(value - reference).max())
      rows.append((name, difference, bound(case, name, reference)))
  return rows
