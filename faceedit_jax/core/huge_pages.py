"""Large memory pages for steps on a CPU.

XLA takes the buffers of every step from the C library, which takes large ones
from the system and hands them back. Cleared page by page, 4 kB each, they took
a quarter of a training step: the embedded estimator needs 137 ms with pages of
2 MB and 178 without (batch of 16, one core of an Intel Xeon, jax 0.10.2).
"""

import importlib.util
import os
import pathlib
import platform
import sys
from collections.abc import Mapping

_TUNABLES = "GLIBC_TUNABLES"
_WANTED = "glibc.malloc.hugetlb=1"
# Whoever sets one of these has made a choice that stays.
CHOICES = (_TUNABLES, "LD_PRELOAD")
_FIRST_VERSION = (2, 35)  # of the GNU C library that knows the setting
_SYSTEM = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def cpu_only(environment: Mapping[str, str]) -> bool:
  """Whether JAX will compute on the CPU, told without starting it."""
  platforms = environment.get("JAX_PLATFORMS")
  if platforms:
    return platforms == "cpu"
  return not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))


def wanted(
  environment: Mapping[str, str],
  library: tuple[str, str] | None = None,
  system: pathlib.Path = _SYSTEM,
) -> bool:
  """Whether asking for large pages would change anything.

  Args:
    environment: of the process.
    library: name and version of the C library; by default this one's.
    system: file where Linux says who gets large pages.

  Returns:
    True where steps run on the CPU, the environment leaves the choice, and the
    system gives large pages to those who ask.
  """
  if any(name in environment for name in CHOICES):
    return False
  name, version = library or platform.libc_ver()
  try:
    known = tuple(int(n) for n in version.split(".")[:2]) >= _FIRST_VERSION
    if name != "glibc" or not known or "[madvise]" not in system.read_text():
      return False
  except (OSError, ValueError):
    return False
  return cpu_only(environment)


def restart() -> None:
  """Begins this program anew with large pages, where that is `wanted`.

  The C library reads the setting only at the start of a process, so the
  process is replaced by itself: same number, arguments and open files. To be
  called first of all, from the program's own file.
  """
  if sys.executable and wanted(os.environ):
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, arguments, {**os.environ, _TUNABLES: _WANTED})
