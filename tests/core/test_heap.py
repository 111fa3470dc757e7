"""Freed memory stays in the process."""

import os
import platform
import subprocess
import sys

import pytest

from faceedit_jax.core import heap

COUNT_FAULTS = """
import ctypes, resource, sys
from faceedit_jax.core import heap

done = heap.keep() if sys.argv[1] == "keep" else None
c, size = ctypes.CDLL(None), ctypes.c_size_t(2**26)  # 16,384 pages
c.malloc.restype = ctypes.c_void_p
def touch():
  block = ctypes.c_void_p(c.malloc(size))
  c.memset(block, 1, size)
  c.free(block)
for _ in range(3):
  touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
  touch()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(done, faults)
"""


def run(how, **environment):
  clean = {k: v for k, v in os.environ.items() if k not in heap.CHOICES}
  done = subprocess.run(
    [sys.executable, "-c", COUNT_FAULTS, how],
    env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
    capture_output=True,
    text=True,
    check=True,
  )
  answer, faults = done.stdout.split()
  return answer, int(faults)


@pytest.mark.skipif(
  platform.libc_ver()[0] != "glibc", reason="GNU C library only"
)
def test_kept_memory_is_not_cleared_again():
  answer, kept = run("keep")
  assert answer == "True"
  _, free = run("free")
  assert free > 10_000, "the system's default costs nothing to begin with"
  assert kept < free / 20


def test_choices_and_accelerators_are_left_alone(monkeypatch):
  assert run("keep", MALLOC_ARENA_MAX="4")[0] == "False"
  monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
  assert not heap.cpu_only()
  assert not heap.keep()
