"""Several processes as one run: start, barriers, and copies on one device."""

import os

import jax
from jax.experimental import multihost_utils

from faceedit_jax.core import sharding
from faceedit_jax.core.errors import UserError
from faceedit_jax.core.typing import PyTree

_LOCAL = ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID")


def initialize() -> None:
  """Joins this process to the others; call it before any device is touched.

  On TPU pods, SLURM and the like JAX finds the others by itself. Elsewhere
  COORDINATOR (host:port), NUM_PROCESSES and PROCESS_ID say who they are.

  Raises:
    UserError: only some of the three are set, or the others cannot be reached.
  """
  given = {name: os.environ[name] for name in _LOCAL if name in os.environ}
  if given and len(given) < len(_LOCAL):
    lacking = sorted(set(_LOCAL) - set(given))
    raise UserError(f"--distributed: {sorted(given)} set, {lacking} not set")
  options = {}
  try:
    if given:
      options = {
        "coordinator_address": given["COORDINATOR"],
        "num_processes": int(given["NUM_PROCESSES"]),
        "process_id": int(given["PROCESS_ID"]),
      }
    jax.distributed.initialize(**options)
  except (ValueError, RuntimeError) as e:
    raise UserError(
      f"--distributed: {str(e).splitlines()[0]}; set COORDINATOR=host:port, "
      "NUM_PROCESSES and PROCESS_ID where JAX cannot find them by itself"
    ) from e


def barrier(name: str) -> None:
  """Waits until every process is here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def to_local(tree: PyTree, mesh: jax.sharding.Mesh) -> PyTree:
  """Copies arrays of a mesh to the first device of this process, whole.

  All processes must call it. Inference then needs no other process.
  """
  if not jax.tree.leaves(tree):
    return tree
  whole = jax.jit(lambda t: t, out_shardings=sharding.replicated(mesh))(tree)
  return jax.tree.map(lambda x: x.addressable_data(0), whole)
