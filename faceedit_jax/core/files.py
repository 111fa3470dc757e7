"""Files of a run: folders that can be written, held by one run, whole files."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
from typing import Any

from absl import logging

from faceedit_jax.core.errors import WorkdirError


def check_writable(directory: str | os.PathLike, need_bytes: int = 0) -> None:
  """Creates a directory and proves that it can be written to.

  Args:
    directory: the directory, created with its parents.
    need_bytes: free space wanted there.

  Raises:
    WorkdirError: one line saying why it cannot be used.
  """
  root = pathlib.Path(directory)
  probe = root / f".probe-{os.getpid()}"
  try:
    root.mkdir(parents=True, exist_ok=True)
    probe.write_bytes(b"0" * 512)
    probe.unlink()
    free = shutil.disk_usage(root).free
  except OSError as e:
    raise WorkdirError(
      f"cannot write to {root}: {e.strerror or e}; choose another --workdir"
    ) from e
  if free < need_bytes:
    raise WorkdirError(
      f"{root} has {free / 1e6:.0f} MB free, a checkpoint needs "
      f"{need_bytes / 1e6:.0f} MB; free some space or choose another --workdir"
    )


@contextlib.contextmanager
def claim(directory: str | os.PathLike):
  """Holds a directory, so that no second run writes to it meanwhile.

  The system lets go of it when the process ends, however it ends. File systems
  without locks are used unguarded.

  Raises:
    WorkdirError: another process holds it, or it cannot be made.
  """
  check_writable(directory)
  held = os.open(directory, os.O_RDONLY)
  try:
    try:
      fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      raise WorkdirError(
        f"{directory} is being written by another run; wait for its end, stop "
        "it, or choose another --workdir"
      ) from e
    except OSError as e:
      logging.info("%s cannot be locked: %s", directory, e)
    yield
  finally:
    os.close(held)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes JSON so that a reader sees the old file or the new one, whole."""
  path = pathlib.Path(path)
  part = path.with_name(f"{path.name}.part")
  try:
    part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    os.replace(part, path)
  except OSError as e:
    part.unlink(missing_ok=True)
    raise WorkdirError(f"cannot write {path}: {e.strerror or e}") from e
