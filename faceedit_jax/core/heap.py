"""Keeps freed memory in the process, for steps on a CPU.

XLA takes the buffers of a step from the C library and frees them after it. The
GNU library hands large ones back to the system at once, which must clear
fresh pages for the next step. Without that, the identity stage of `long`
made 7.8 steps a second instead of 5.3 (one core of an AMD EPYC, 2026-11-21).
"""

import ctypes
import importlib.util
import os

# From malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_NEVER = 2**31 - 1
# Whoever sets one of these has made a choice that stays.
CHOICES = (
  "GLIBC_TUNABLES",
  "LD_PRELOAD",
  "MALLOC_ARENA_MAX",
  "MALLOC_MMAP_THRESHOLD_",
  "MALLOC_TRIM_THRESHOLD_",
)


def cpu_only() -> bool:
  """Whether JAX will compute on the CPU, told without starting it."""
  platforms = os.environ.get("JAX_PLATFORMS")
  if platforms:
    return platforms == "cpu"
  return not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))


def keep() -> bool:
  """Asks the GNU C library to keep freed memory for the next allocation.

  To be called before JAX starts its threads. All of them then share one
  arena, since the others hand memory back whatever their thresholds. With a
  GPU or TPU nothing is done: their steps do not live in this memory, and
  loader threads would wait for each other.

  Returns:
    Whether it was done: False too with another C library, or where the
    environment says how memory is to be handled.
  """
  if not cpu_only() or any(name in os.environ for name in CHOICES):
    return False
  try:
    library = ctypes.CDLL(None)
    library.gnu_get_libc_version  # noqa: B018  (raises elsewhere)
    settings = (
      (_ARENA_MAX, 1),
      (_MMAP_THRESHOLD, _NEVER),
      (_TRIM_THRESHOLD, _NEVER),
    )
    return all([library.mallopt(*setting) == 1 for setting in settings])
  except (AttributeError, OSError, TypeError):
    return False
