"""Atomic asynchronous checkpoints, restored onto any mesh, whole or by net.

Layout: `<stage>/checkpoints/<step>/` is one Orbax checkpoint with the item
`state`; data position, config and library version travel as JSON beside it.
"""

import copy
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import time
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from orbax.checkpoint import v1 as ocp

from faceedit_jax.core import files
from faceedit_jax.core.errors import CheckpointError, WorkdirError
from faceedit_jax.core.typing import PyTree

_ITEM = "state"
# Shapes and dtypes of the state, in the JSON part: Orbax opens every array to
# say them, which takes longer than reading the nets of an edit.
_LEAVES = "leaves"
_HALF = ".orbax-checkpoint-tmp"  # ends the name of a save in progress
_SHOWN = 3  # entries named in an error before "... and N more"


@dataclasses.dataclass(frozen=True)
class Record:
  """What a checkpoint holds besides the state, all plain JSON values.

  Attributes:
    step: number of finished training steps.
    data: position of the data stream, {"batches": n, "seed": s, ...}.
    config: the configuration of the run.
    meta: {"version", "recipe", "tree_hash", ...}.
  """

  step: int
  data: Mapping[str, Any]
  config: Mapping[str, Any]
  meta: Mapping[str, Any]


def flat_shapes(tree: PyTree) -> dict[str, tuple[tuple[int, ...], str]]:
  """Lists the leaves of a tree.

  Args:
    tree: arrays or `ShapeDtypeStruct`s in any containers.

  Returns:
    {"params/net/kernel": (shape, dtype name)}; random keys are listed as
    ((), "key") whatever their implementation.
  """
  flat = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      flat[name] = ((), "key")
    else:
      flat[name] = (tuple(leaf.shape), str(jnp.dtype(leaf.dtype)))
  return flat


def tree_hash(tree: PyTree) -> str:
  """Hashes paths, shapes and dtypes of a tree; a renamed layer changes it."""
  lines = sorted(f"{k} {v[0]} {v[1]}" for k, v in flat_shapes(tree).items())
  return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def steps_in(directory: str | os.PathLike) -> list[int]:
  """Lists the finished checkpoints of a directory, oldest first."""
  root = pathlib.Path(directory)
  if not root.is_dir():
    return []
  # A save in progress has a temporary name until it is renamed into place.
  names = [p.name for p in root.iterdir() if p.is_dir() and p.name.isdigit()]
  return sorted(int(n) for n in names if (root / n / _ITEM).is_dir())


class Checkpoints:
  """The sequence of checkpoints of one stage.

  Saving copies the state off the devices and returns; the write goes on in
  the background and becomes visible by one rename, so a process killed at any
  moment leaves the previous checkpoint usable.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    max_to_keep: int = 3,
    keep_period: int | None = None,
  ):
    """Opens, or creates, the directory for writing.

    Args:
      directory: `<workdir>/<stage>/checkpoints`.
      max_to_keep: newest checkpoints kept.
      keep_period: also keep every multiple of this many steps for good.

    Raises:
      WorkdirError: when the directory cannot be written to.
    """
    if max_to_keep < 1:
      raise WorkdirError(
        f"max_to_keep={max_to_keep} checkpoints, wanted at least 1"
      )
    self.directory = pathlib.Path(directory).absolute()
    if jax.process_index() == 0:
      files.check_writable(self.directory)
      _remove_halves(self.directory)
    policies = ocp.training.preservation_policies
    kept = [policies.LatestN(max_to_keep)]
    if keep_period:
      kept.append(policies.EveryNSteps(keep_period))
    with _one_line(self.directory):
      self._orbax = ocp.training.Checkpointer(
        self.directory,
        preservation_policy=policies.AnyPreservationPolicy(kept),
      )
    self._pending = None

  @property
  def latest(self) -> int | None:
    """Step of the newest finished checkpoint, or None."""
    steps = steps_in(self.directory)
    return steps[-1] if steps else None

  def save(
    self,
    state: PyTree,
    record: Record,
  ) -> None:
    """Starts an asynchronous save; waits for the one before it first.

    Args:
      state: the training state. It may be donated right after this returns.
      record: step, data position, config and meta.

    Raises:
      WorkdirError: when this save cannot start or the one before it failed.
    """
    self.wait()
    if jax.process_index() == 0:
      files.check_writable(self.directory, _local_bytes(state))
    with _one_line(self.directory):
      self._pending = self._orbax.save_checkpointables_async(
        record.step,
        {_ITEM: _detached(state)},
        force=True,
        custom_metadata={
          "data": dict(record.data),
          "config": dict(record.config),
          "meta": dict(record.meta),
          _LEAVES: flat_shapes(state),
        },
      )

  def wait(self) -> None:
    """Waits for the save in flight.

    Raises:
      WorkdirError: when it failed; older checkpoints are untouched.
    """
    pending, self._pending = self._pending, None
    if pending is not None:
      with _one_line(self.directory):
        pending.result()

  def restore(
    self, abstract: PyTree, step: int | None = None
  ) -> tuple[PyTree, Record]:
    """Restores a state; see `restore`."""
    self.wait()
    return restore(self.directory, abstract, step)

  def close(self) -> None:
    """Waits for the save in flight and stops the background threads."""
    try:
      self.wait()
    finally:
      with _one_line(self.directory):
        self._orbax.close()


def restore(
  directory: str | os.PathLike, abstract: PyTree, step: int | None = None
) -> tuple[PyTree, Record]:
  """Restores a whole state, bit by bit, onto this run's mesh.

  Args:
    directory: a `checkpoints` directory.
    abstract: the state as `ShapeDtypeStruct`s that carry shardings.
    step: which checkpoint; the newest when None.

  Returns:
    The state and its record.

  Raises:
    CheckpointError: one line naming the first differences when the checkpoint
      holds another state, or saying that there is none.
  """
  path = _path(directory, step)
  _check(path, "", flat_shapes(abstract))
  with _loading(path, partial=False):
    state = ocp.load_checkpointables(path, {_ITEM: abstract})[_ITEM]
  return state, read_record(directory, int(path.name))


def read_record(
  directory: str | os.PathLike, step: int | None = None
) -> Record:
  """Reads the JSON part of a checkpoint alone."""
  path = _path(directory, step)
  found = _custom_metadata(path)
  return Record(
    step=int(path.name),
    data=found.get("data", {}),
    config=found.get("config", {}),
    meta=found.get("meta", {}),
  )


def stored_shapes(
  directory: str | os.PathLike, step: int | None = None
) -> dict[str, tuple[tuple[int, ...], str]]:
  """Lists the leaves that a checkpoint stores, without reading them."""
  path = _path(directory, step)
  leaves = _custom_metadata(path).get(_LEAVES)
  if leaves is None:  # saved before they were written there
    return dict(_metadata(path)[0])
  return {
    name: (tuple(shape), dtype) for name, (shape, dtype) in leaves.items()
  }


def _custom_metadata(path: pathlib.Path) -> dict:
  """What `save` has given Orbax as JSON.

  Orbax's reader lists every array of the checkpoint as well, which takes a
  second where a run has many stages; its file says it at once.
  """
  try:
    found = json.loads((path / "_CHECKPOINT_METADATA").read_text())
    found = found["custom_metadata"]
    if isinstance(found, dict):
      return found
  except (OSError, ValueError, KeyError, TypeError):
    pass  # another layout of Orbax's: it knows
  return copy.deepcopy(_metadata(path)[1])


def _metadata(path: pathlib.Path) -> tuple[dict, dict]:
  """The shapes and the record of a checkpoint."""
  # A checkpoint never changes; one of the same step, made anew, is younger.
  return _read_metadata(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read_metadata(path: pathlib.Path, made: int) -> tuple[dict, dict]:
  del made
  with _loading(path, partial=False):
    found = ocp.checkpointables_metadata(path)
    return flat_shapes(found.metadata[_ITEM]), found.custom_metadata or {}


def restore_parts(
  directory: str | os.PathLike,
  parts: Mapping[tuple[str, ...], PyTree],
  step: int | None = None,
) -> dict[tuple[str, ...], PyTree]:
  """Restores parts of a state; nothing else is read.

  Args:
    directory: a `checkpoints` directory.
    parts: {path: abstract tree}, say {("params", "unet"): tree}, the leaves as
      `ShapeDtypeStruct`s with the shardings wanted.
    step: which checkpoint; the newest when None.

  Returns:
    {path: tree}.

  Raises:
    CheckpointError: one line when a part has another structure.
  """
  path = _path(directory, step)
  nested = {}
  for where, tree in parts.items():
    _check(path, "/".join(where), flat_shapes(tree))
    node = nested
    for key in where[:-1]:
      node = node.setdefault(key, {})
    node[where[-1]] = tree
  with _loading(path, partial=True):
    found = ocp.load_checkpointables(path, {_ITEM: nested})[_ITEM]
  return {
    where: functools.reduce(lambda n, k: n[k], where, found) for where in parts
  }


def _remove_halves(directory: pathlib.Path, quiet: float = 0.0) -> None:
  """Removes what a killed process or a failed save left half-written.

  Args:
    directory: of the checkpoints.
    quiet: seconds for which nothing may come back. Orbax's threads go on
      writing for a moment after one of them has failed.
  """
  end = time.monotonic() + quiet
  give_up = end + 10.0
  while True:
    halves = list(directory.glob(f"*{_HALF}"))
    for half in halves:
      shutil.rmtree(half, ignore_errors=True)
    now = time.monotonic()
    if halves:
      end = min(now + quiet, give_up)
    if now >= end:
      return
    time.sleep(0.05)


def _path(directory: str | os.PathLike, step: int | None) -> pathlib.Path:
  directory = pathlib.Path(directory).absolute()
  steps = steps_in(directory)
  if not steps:
    raise CheckpointError(f"no checkpoint in {directory}")
  if step is None:
    step = steps[-1]
  if step not in steps:
    raise CheckpointError(f"no checkpoint of step {step} in {directory}: "
                          f"it has {steps}")  # fmt: skip
  return directory / str(step)


def _check(
  path: pathlib.Path,
  prefix: str,
  wanted: Mapping[str, Any],
) -> None:
  """Compares the stored leaves below a prefix with the wanted ones."""
  stored = stored_shapes(path.parent, int(path.name))
  if prefix:
    head = f"{prefix}/"
    stored = {
      k[len(head) :]: v for k, v in stored.items() if k.startswith(head)
    }
  missing = [k for k in wanted if k not in stored]
  extra = [k for k in stored if k not in wanted]
  changed = [
    f"{k} is {_text(stored[k])} there, {_text(v)} here"
    for k, v in wanted.items()
    if k in stored and v[1] != "key" and stored[k] != v
  ]
  problems = []
  if missing:
    problems.append(f"lacks {_some(missing)}")
  if extra:
    problems.append(f"has {_some(extra)} that this run does not have")
  if changed:
    problems.append(_some(changed))
  if problems:
    where = f" [{prefix}]" if prefix else ""
    raise CheckpointError(
      f"checkpoint {path}{where} does not fit this run: "
      + "; ".join(problems)
      + "; use the config it was made with, or another --workdir"
    )


def _text(leaf: tuple[tuple[int, ...], str]) -> str:
  return f"{leaf[1]}[{','.join(map(str, leaf[0]))}]"


def _some(items: list[str]) -> str:
  more = len(items) - _SHOWN
  shown = ", ".join(items[:_SHOWN])
  return f"{shown} and {more} more" if more > 0 else shown


def _local_bytes(tree: PyTree) -> int:
  return sum(
    getattr(leaf, "nbytes", 0)
    for leaf in jax.tree.leaves(tree)
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  )


@jax.jit
def _copy(tree: PyTree) -> PyTree:
  return jax.tree.map(jnp.copy, tree)


def _detached(state: PyTree) -> PyTree:
  """A state whose buffers the next step cannot reuse while they are written.

  On CPU the "copy" to the host is a view of the very buffer that the next
  step gets as a donation; elsewhere it is a real copy.
  """
  return _copy(state) if jax.default_backend() == "cpu" else state


class _one_line:  # noqa: N801
  """Turns a failure to write into a WorkdirError of one line."""

  def __init__(self, directory: pathlib.Path):
    self._directory = directory

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    if error is None or not isinstance(error, Exception):
      return False
    if isinstance(error, WorkdirError):
      return False
    if jax.process_index() == 0:
      _remove_halves(self._directory, quiet=1.0)
    steps = steps_in(self._directory)
    kept = f"step {steps[-1]} is intact" if steps else "none was there before"
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    logging.debug("checkpoint failure", exc_info=error)
    raise WorkdirError(
      f"cannot write a checkpoint to {self._directory} ({kept}): {first[:300]}"
    ) from error


class _loading:  # noqa: N801
  """Orbax loading options, and one line in place of its long errors."""

  def __init__(self, path: pathlib.Path, partial: bool):
    self._path = path
    context = ocp.Context()
    context.pytree.loading.partial_load = partial
    self._context = context
    self._warnings = warnings.catch_warnings()

  def __enter__(self):
    self._warnings.__enter__()
    # Shardings are given by this run or, for a look at one net, not needed.
    warnings.filterwarnings("ignore", message="Sharding info not provided")
    self._context.__enter__()
    return self

  def __exit__(self, kind, error, trace):
    self._context.__exit__(kind, error, trace)
    self._warnings.__exit__(kind, error, trace)
    if error is None or not isinstance(error, Exception):
      return False
    if isinstance(error, CheckpointError):
      return False
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise CheckpointError(
      f"cannot read checkpoint {self._path}: {first[:300]}"
    ) from error
