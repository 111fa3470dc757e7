"""Compiled programs that are kept: where, whose, how many, how safely."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from faceedit_jax.core import compile_cache

PROGRAM = """
  import json, logging, sys
  from faceedit_jax.core import compile_cache
  import jax, jax.numpy as jnp
  hits = []
  jax.monitoring.register_event_listener(
    lambda name, **kw: hits.append(name)
  )
  path = compile_cache.enable()
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  number = float(sys.argv[1])
  value = jax.jit(lambda x: jnp.sin(x) * number)(jnp.ones(3))[0]
  print(json.dumps({
    "path": path and str(path),
    "value": float(value),
    "bytes": jax.config.jax_compilation_cache_max_size,
    "hits": sum(name.endswith("compilation_cache/cache_hits")
                for name in hits),
  }))
"""


def start(number, **environment):
  """A process of its own that compiles `sin(x) * number`."""
  inherited = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("JAX_COMP", "JAX_PERS", "FACEEDIT_COMP", "XDG_"))
  }
  return subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(PROGRAM), str(number)],
    env={**inherited, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def result(process):
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0, err
  return json.loads(out) | {"err": err}


def test_a_second_process_finds_what_the_first_has_compiled(tmp_path):
  first = result(start(2, XDG_CACHE_HOME=str(tmp_path)))
  assert first["hits"] == 0
  wanted = tmp_path / "faceedit_jax" / compile_cache.processor()
  assert first["path"] == str(wanted)
  assert first["bytes"] == compile_cache.MAX_BYTES
  # What a killed writer leaves: half a program without its time.
  program = next(p for p in wanted.glob("*-cache") if "lambda" in p.name)
  half = program.with_name(f"{'0' * 8}-cache")
  half.write_bytes(program.read_bytes()[:40])
  # Two at once, one of them with a program of its own.
  both = [start(n, XDG_CACHE_HOME=str(tmp_path)) for n in (2, 3)]
  found = [result(process) for process in both]
  assert found[0]["hits"] > 0
  assert [f["value"] for f in found] == pytest.approx(
    [1.68294, 2.52441], rel=1e-5
  )
  assert not half.exists()


def test_it_can_be_moved_and_switched_off(tmp_path):
  moved = start(2, FACEEDIT_COMPILE_CACHE=str(tmp_path / "here"))
  off = start(2, FACEEDIT_COMPILE_CACHE="off", XDG_CACHE_HOME=str(tmp_path))
  jaxs = start(
    2,
    JAX_COMPILATION_CACHE_DIR=str(tmp_path / "jax"),
    XDG_CACHE_HOME=str(tmp_path),
  )
  assert result(moved)["path"].startswith(str(tmp_path / "here"))
  assert result(off)["path"] is None
  assert result(jaxs)["path"] == str(tmp_path / "jax")
  assert not (tmp_path / "faceedit_jax").exists()
  assert list((tmp_path / "jax").glob("*-cache"))


def test_without_a_bound_nothing_is_removed(tmp_path):
  unbounded = {
    "XDG_CACHE_HOME": str(tmp_path),
    "JAX_COMPILATION_CACHE_MAX_SIZE": "-1",
  }
  assert result(start(2, **unbounded))["hits"] == 0
  assert result(start(2, **unbounded))["hits"] > 0


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
  (tmp_path / "file").write_text("")
  found = result(start(2, FACEEDIT_COMPILE_CACHE=str(tmp_path / "file")))
  assert found["path"] is None and found["value"] == pytest.approx(
    1.68294, rel=1e-5
  )
  assert "Traceback" not in found["err"]


def test_the_folder_follows_the_environment(tmp_path):
  folder = compile_cache.folder
  assert folder({"XDG_CACHE_HOME": str(tmp_path)}).parent == tmp_path
  assert folder({"HOME": "/home/x"}).name == "faceedit_jax"
  for word in compile_cache.OFF:
    assert folder({compile_cache.VARIABLE: word.upper()}) is None


def test_processors_have_names_of_their_own(tmp_path):
  names = []
  for flags in ("sse2 avx2", "avx2 sse2", "sse2 avx2 avx512f"):
    path = tmp_path / flags.replace(" ", "_")
    path.write_text(
      f"processor : 0\nmodel name : A\ncpu MHz : {len(names)}\n"
      f"flags : {flags}\n\nprocessor : 1\nmodel name : B\nflags : x\n"
    )
    names.append(compile_cache.processor(path))
  assert names[0] == names[1] != names[2]
  assert compile_cache.processor(tmp_path / "none")
