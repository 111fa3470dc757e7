"""Keeps compiled programs on disk, so that the next process starts at once.

JAX's persistent compilation cache, on by default. What it saves is measured by
`python -m tests.benchmarks.start_times`.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
from collections.abc import Mapping

import jax
from absl import logging

VARIABLE = "FACEEDIT_COMPILE_CACHE"
OFF = ("0", "off", "false", "no", "none")
# Of one kind of machine; the programs used least recently make way.
MAX_BYTES = 4 * 2**30
# A program that compiles sooner than this is not worth a file.
_MIN_SECONDS = 0.2
_CPUINFO = pathlib.Path("/proc/cpuinfo")


def enable() -> pathlib.Path | None:
  """Switches the cache on, unless somebody has chosen already.

  Programs lie in `~/.cache/faceedit_jax/<processor>`, or in a folder below
  `XDG_CACHE_HOME`. FACEEDIT_COMPILE_CACHE names another folder, or "off".
  JAX_COMPILATION_CACHE_DIR and the other settings of JAX, where they are
  given, stay as they are. JAX tells programs of other versions, devices and
  flags apart; processors have a folder each, since programs for one may stop
  on another. Several processes may share it.

  Returns:
    The folder, or None where there is none: switched off, or not writable.
  """
  if jax.config.jax_compilation_cache_dir:
    return pathlib.Path(jax.config.jax_compilation_cache_dir)
  root = folder(os.environ)
  if root is None:
    return None
  path = root / processor()
  try:
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
      raise PermissionError(f"{path} is not writable")
  except OSError as error:
    logging.info("compiled programs are not kept: %s", error)
    return None
  settings = {
    "jax_compilation_cache_dir": str(path),
    "jax_compilation_cache_max_size": MAX_BYTES,
    "jax_persistent_cache_min_compile_time_secs": _MIN_SECONDS,
  }
  for name, value in settings.items():
    if name.upper() not in os.environ:
      jax.config.update(name, value)
  # Without a bound JAX writes no time of use, so none is missing.
  if jax.config.jax_compilation_cache_max_size != -1:
    with contextlib.suppress(OSError):
      _drop_halves(path)
  return path


def folder(environment: Mapping[str, str]) -> pathlib.Path | None:
  """The folder for all kinds of machines; None where the cache is off."""
  given = environment.get(VARIABLE, "").strip()
  if given.lower() in OFF:
    return None
  if given:
    return pathlib.Path(given).expanduser().absolute()
  base = environment.get("XDG_CACHE_HOME") or "~/.cache"
  with contextlib.suppress(RuntimeError):  # no home directory
    return pathlib.Path(base).expanduser().absolute() / "faceedit_jax"
  return None


def processor(cpuinfo: pathlib.Path = _CPUINFO) -> str:
  """A name of this kind of processor, by what it can execute.

  Args:
    cpuinfo: where Linux lists the features.
  """
  parts = [platform.system(), platform.machine(), platform.processor()]
  with contextlib.suppress(OSError):
    known = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    for line in cpuinfo.read_text().splitlines():
      name, _, value = line.partition(":")
      if not line.strip() and len(parts) > 3:
        break  # the first processor's entry ends here
      if name.strip() in known:
        parts.append(" ".join(sorted(value.split())))
  digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
  return f"{platform.machine() or 'unknown'}-{digest}"


def _drop_halves(path: pathlib.Path) -> None:
  """Removes programs whose writer was killed; JAX would trip over them.

  JAX writes a program, then the time of its last use beside it.
  """
  import filelock  # noqa: PLC0415

  with contextlib.suppress(filelock.Timeout):
    with filelock.FileLock(path / ".lockfile", timeout=1):
      for program in path.glob("*-cache"):
        name = program.name.removesuffix("-cache")
        if not (path / f"{name}-atime").is_file():
          program.unlink(missing_ok=True)
