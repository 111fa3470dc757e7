"""Runs our networks on recorded inputs and weights of the official ones.

A case is `<stem>.json` (constructor options, rounding floor) plus
`<stem>.npz` (`state/<torch key>`, `in/<name>`, `out/<name>`). A runner reads
every size from the json, so other cases of the same network run unchanged, and
gives every recorded output: a case with one left out fails, and so does a case
with an option that its runner does not read.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.weights.keymap import KeyMap, convert
from tests.parity.options import Options

Runner = Callable[["Case"], Mapping[str, np.ndarray]]
RUNNERS: dict[str, Runner] = {}

# Beginnings of the names of cases whose nets are not in the library yet.
NOT_BUILT = {
  "eg3d/": "EG3D, for diffusion-driven GAN inversion",
  "latref/": "LatRef-Diff and the diffusion autoencoder that it edits",
  "parsing/": "face parsing and edges, for diffusion-driven GAN inversion",
  "psp/": "the encoder pSp, for diffusion-driven GAN inversion",
  "sd/clip_text_model": "CLIP's text encoder, for the text condition",
  "sd/controlnet_unet": "ControlNet, for the mask condition",
  "stylegan2/": "StyleGAN2, for diffusion-driven GAN inversion",
}


# Keys of a json that say where a case is from and how its arrays were made.
PROVENANCE = (
  "io",
  "module_path",
  "n_parameters",
  "norm_eps_x10_max_relative_change",
  "notes",
  "npz_bytes",
  "parameters_without_influence_on_any_output",
  "repo",
  "revision",
  "seed",
  "set",
  "state_dtype",
  "torch",
)


@dataclass(frozen=True)
class Case:
  """One recorded case; `arrays` is the content of its npz."""

  info: dict
  arrays: Mapping[str, np.ndarray]
  config: Options = field(init=False)

  def __post_init__(self):
    object.__setattr__(self, "config", Options(self.info["config"]))

  @property
  def name(self) -> str:
    return self.info["case"]

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

  def recorded(self, outputs: Mapping) -> dict:
    """Those of the outputs that this case has; not every case has all."""
    return {k: v for k, v in outputs.items() if f"out/{k}" in self.arrays}

  def unread(self) -> dict:
    """Options that no runner looked at, and keys of the json nobody knows."""
    known = {*PROVENANCE, *_DESCRIPTION, "case", "config"}
    strange = {k: v for k, v in self.info.items() if k not in known}
    return strange | self.config.unread()

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


def _groups(case: Case, groups: list) -> bool:
  if groups == [""]:  # one, whose keys have no group in front
    return True
  keys = [k for k in case.arrays if k.startswith("state/")]
  return {k.split("/")[1] for k in keys} == set(groups)


def _shapes(case: Case, stats: dict) -> bool:
  shapes = {name: list(value["shape"]) for name, value in stats.items()}
  return shapes == {k: list(v.shape) for k, v in case.outputs().items()}


# What a json says of its arrays beside the options, and how that is checked.
_DESCRIPTION: dict[str, Callable[[Case, Any], bool]] = {
  "float32_vs_float64_max_abs": (
    lambda case, floor: set(floor or ()) <= set(case.outputs())
  ),
  "layout": lambda _, layout: layout.startswith(("NCHW", "channels last")),
  "n_state_tensors": lambda case, count: (
    count == sum(k.startswith("state/") for k in case.arrays)
  ),
  "out_stats": _shapes,
  "state_groups": _groups,
}


def check_description(case: Case) -> None:
  """Asserts that the json and the arrays of a case belong together."""
  for name, agrees in _DESCRIPTION.items():
    if name in case.info:
      assert agrees(case, case.info[name]), (
        f"{case.name}: {name} of the json does not describe the arrays: "
        f"{str(case.info[name])[:200]}"
      )


def nchw(x) -> np.ndarray:
  """NHWC to NCHW."""
  return np.moveaxis(np.asarray(x), -1, 1)


def nearest(candidates: Iterable[np.ndarray], reference: np.ndarray):
  """The one of several arrays that a record without its settings means."""
  fitting = [c for c in candidates if c.shape == reference.shape]
  return min(fitting, key=lambda c: float(np.abs(c - reference).max()))


def runner(*names: str) -> Callable[[Runner], Runner]:
  """Registers a runner for the cases with these names."""

  def register(function: Runner) -> Runner:
    for name in names:
      RUNNERS[name] = function
    return function

  return register


def find_runner(name: str) -> Runner:
  """The runner of a case; a longer name of the same network also counts.

  Raises:
    LookupError: there is none.
  """
  found = _longest(name)
  if found not in RUNNERS:
    raise LookupError(
      f"{name}: no runner, and not in NOT_BUILT (tests/parity/harness.py)"
    )
  return RUNNERS[found]


def why_not(name: str) -> str | None:
  """Why a case is not run, or None: it is."""
  found = _longest(name)
  if found in RUNNERS or found not in NOT_BUILT:
    return None
  return f"not built: {NOT_BUILT[found]}"


def _longest(name: str) -> str:
  """The name in RUNNERS or NOT_BUILT that fits a case best."""
  fitting = [n for n in {*RUNNERS, *NOT_BUILT} if name.startswith(n)]
  return max(fitting, key=len, default="")


def read_name(folder: Path, stem: str) -> str:
  """The name of a case."""
  return json.loads((folder / f"{stem}.json").read_text())["case"]


def load_case(folder: Path, stem: str) -> Case:
  """Reads `<stem>.json` and `<stem>.npz`."""
  info = json.loads((folder / f"{stem}.json").read_text())
  with np.load(folder / f"{stem}.npz", allow_pickle=False) as file:
    return Case(info, {k: file[k] for k in file.files})


def bound(case: Case, name: str, reference: np.ndarray) -> float:
  """Largest allowed difference of one output; 0 for integers."""
  if reference.dtype.kind in "iub":
    return 0.0
  floor = case.info.get("float32_vs_float64_max_abs") or {}
  scale = float(np.abs(reference).max()) if reference.size else 0.0
  return max(1e-4 * max(1.0, scale), 10 * (floor.get(name) or 0.0))


def compare(case: Case, ours: Mapping[str, np.ndarray]) -> list[tuple]:
  """Rows (output, difference, bound) of every recorded output.

  Raises:
    AssertionError: an output of one side that the other lacks, or of another
      shape.
  """
  recorded = case.outputs()
  marks = {
    name.removesuffix("robust"): recorded.pop(name)
    for name in [n for n in recorded if n.endswith("/robust")]
  }
  missing = sorted(set(recorded) - set(ours))
  surplus = sorted(set(ours) - set(recorded))
  assert not missing and not surplus, (
    f"{case.name}: outputs not compared {missing}, not recorded {surplus}"
  )
  rows = []
  for name, reference in recorded.items():
    value = np.asarray(ours[name])
    assert value.shape == reference.shape, (
      f"{case.name} {name}: got {value.shape}, wanted {reference.shape}"
    )
    if reference.dtype.kind in "iub":
      gap = value != reference
    else:
      gap = np.abs(np.asarray(value, np.float64) - reference)
    group = name[: name.rfind("/") + 1]
    if group in marks:
      gap = gap[_where(marks[group], gap.shape)]
    difference = float(gap.max()) if gap.size else 0.0
    rows.append((name, difference, bound(case, name, reference)))
  return rows


def _where(mark: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Where an output counts beside a mark `<group>/robust` of its case.

  The mark (b, h, w) is false at pixels that rounding decides. It says nothing
  of outputs without pixels.
  """
  if mark.shape == shape[: mark.ndim]:
    mark = mark.reshape(mark.shape + (1,) * (len(shape) - mark.ndim))
  elif mark.shape == (shape[0], *shape[2:]):
    mark = mark[:, None]
  else:
    mark = np.ones((), bool)
  return np.broadcast_to(mark, shape)


def check(case: Case, run: Runner) -> list[tuple]:
  """Rows of `compare` for a case and its runner.

  Raises:
    AssertionError: with a reason, where the case cannot be run or compared;
      it names the options of the json that the runner did not look at.
  """
  check_description(case)
  try:
    return compare(case, run(case))
  except NotImplementedError as error:
    raise AssertionError(f"{case.name}: {error}") from error
  except Exception as error:
    kind = type(error).__name__
    raise AssertionError(f"{kind}: {error}; {_not_looked_at(case)}") from error


def failures(case: Case, rows: list[tuple]) -> str:
  """What is wrong with a case that was run; empty when nothing is.

  That is an output that differs from the recorded one, or an option of the
  json that the runner did not look at: the numbers may agree by chance.
  """
  faults = []
  if wrong := [row for row in rows if not row[1] <= row[2]]:
    faults.append(", ".join(f"{n} {d:.2e} > {b:.2e}" for n, d, b in wrong))
  if case.unread():
    faults.append(_not_looked_at(case))
  return f"{case.name}: {'; '.join(faults)}" if faults else ""


def _not_looked_at(case: Case) -> str:
  return f"options that the runner does not read: {case.unread()}"
