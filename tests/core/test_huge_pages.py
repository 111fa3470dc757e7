"""Large pages are asked for where they help, once, by the same process."""

import subprocess
import sys

import pytest

from faceedit_jax.core import huge_pages

_GLIBC = ("glibc", "2.36")


@pytest.fixture
def system(tmp_path):
  file = tmp_path / "enabled"
  file.write_text("always [madvise] never\n")
  return file


def _wanted(system, library=_GLIBC, **environment):
  environment = {"JAX_PLATFORMS": "cpu", **environment}
  return huge_pages.wanted(environment, library, system)


def test_wanted_on_a_cpu_whose_system_gives_them(system):
  assert _wanted(system)


@pytest.mark.parametrize(
  "change",
  [
    {"JAX_PLATFORMS": "cuda"},
    {"GLIBC_TUNABLES": ""},
    {"LD_PRELOAD": "libjemalloc.so.2"},
    {"library": ("glibc", "2.34")},
    {"library": ("", "")},
    {"library": ("musl", "2.40")},
  ],
)
def test_not_wanted_elsewhere(system, change):
  assert not _wanted(system, **change)


@pytest.mark.parametrize("state", ["[always] madvise", "always [never]", None])
def test_the_system_decides(tmp_path, state):
  file = tmp_path / "enabled"
  if state is not None:
    file.write_text(state)
  assert not _wanted(file)


def test_a_process_restarts_itself_once():
  code = """
import os, sys
from faceedit_jax.core import huge_pages
print(os.getpid(), flush=True)
huge_pages.wanted = lambda environment: "GLIBC_TUNABLES" not in environment
huge_pages.restart()
print(os.environ["GLIBC_TUNABLES"], *sys.argv[1:])
"""
  line = [sys.executable, "-c", code, "--steps=1", "a b"]
  done = subprocess.run(
    line, capture_output=True, text=True, timeout=120, env={"PATH": ""}
  )
  assert done.returncode == 0, done.stderr
  first, second, last = done.stdout.splitlines()
  assert first == second
  assert last == "glibc.malloc.hugetlb=1 --steps=1 a b"
