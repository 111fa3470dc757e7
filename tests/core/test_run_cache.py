"""Programs and nets that a later process finds again."""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.core import compile_cache, run_cache


@pytest.fixture
def checkpoint(tmp_path):
  path = tmp_path / "checkpoint"
  path.write_text("1")
  return path


@pytest.fixture
def cache_of(tmp_path, checkpoint):
  def make(config=None, about=()):
    return run_cache.RunCache.of(
      tmp_path / "cache", config or {"size": 8}, [checkpoint], about
    )

  return make


def double(x):
  return {"twice": 2 * x["a"], "sum": x["a"].sum()}


def never(x):
  raise AssertionError("traced")


def kept(cache, count=1):
  """Waits for the programs of a cache, which are written behind the answer."""
  end = time.monotonic() + 20
  while time.monotonic() < end:
    found = sorted(cache.folder.glob("*.program"))
    if len(found) >= count:
      return found
    time.sleep(0.02)
  raise AssertionError(f"{cache.folder} has {list(cache.folder.iterdir())}")


def batch(count=4):
  return {"a": jnp.arange(count, dtype=jnp.float32)}


def test_a_program_is_found_again_without_tracing(cache_of):
  first = cache_of()
  made = first.jit(double, "double")(batch())
  kept(first)
  # The function of another process; this one would show that it was traced.
  program = cache_of().jit(never, "double")
  for _ in range(2):
    again = program(batch())
    np.testing.assert_array_equal(again["twice"], made["twice"])
  assert program.programs() == 1


def test_what_a_program_depends_on(cache_of, checkpoint, monkeypatch):
  first = cache_of()
  first.jit(double, "double")(batch())
  kept(first)

  def traced(cache, label="double", argument=None):
    with pytest.raises(AssertionError, match="traced"):
      cache.jit(never, label)(argument or batch())

  traced(cache_of(), label="double eta=1")
  traced(cache_of(), argument=batch(5))
  traced(cache_of(), argument={"a": jnp.arange(4)})
  traced(cache_of(), argument={"a": batch()["a"], "b": jnp.zeros(())})
  traced(cache_of(config={"size": 16}))
  traced(cache_of(about=("ema",)))
  with monkeypatch.context() as patch:
    patch.setattr(run_cache, "code_fingerprint", lambda: "other code")
    traced(cache_of())
  with monkeypatch.context() as patch:
    patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    traced(cache_of())
  with jax.default_matmul_precision("float32"):
    assert cache_of().folder != first.folder
  os.utime(checkpoint, ns=(1, 1))
  traced(cache_of())


def test_an_own_module_counts_as_code(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  module = tmp_path / "own_recipe_of_this_test.py"
  module.write_text("WIDTH = 1\n")
  __import__(module.stem)
  read = run_cache.code_fingerprint.__wrapped__
  before = read()
  assert read() == before
  module.write_text("WIDTH = 2\n")
  assert read() != before


@pytest.mark.parametrize("damage", [b"", b"no pickle", None])
def test_a_damaged_program_is_made_anew(cache_of, damage):
  first = cache_of()
  first.jit(double, "double")(batch())
  path = kept(first)[0]
  path.write_bytes(path.read_bytes()[:200] if damage is None else damage)
  made = cache_of().jit(double, "double")(batch())
  assert made["sum"] == 6


def test_nets_are_read_once(cache_of):
  calls = []

  def load():
    calls.append(1)
    return {"net": {"params": batch(), "empty": {}}}, {"n": jnp.int32(3)}

  made = cache_of().nets(load)
  again = cache_of().nets(load)
  assert calls == [1]

  def same(one, other):
    assert isinstance(other, jax.Array) and one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)

  jax.tree.map(same, made, again)


@pytest.mark.parametrize("kind", ["keys", "large"])
def test_nets_that_are_not_kept(cache_of, kind, monkeypatch):
  monkeypatch.setattr(run_cache, "_MAX_NETS", 8)
  made = {"k": jax.random.key(0)} if kind == "keys" else batch(3)
  cache = cache_of()
  assert cache.nets(lambda: made) is made
  assert not list(cache.folder.iterdir())


def test_nothing_is_kept_without_a_folder(checkpoint, tmp_path):
  cache = run_cache.RunCache.of(None, {}, [checkpoint])
  assert cache.folder is None
  assert cache.jit(double, "double")(batch())["sum"] == 6
  assert cache.nets(batch)["a"].shape == (4,)
  assert sorted(tmp_path.iterdir()) == [checkpoint]


def test_nothing_is_kept_in_a_bucket(checkpoint, tmp_path, monkeypatch):
  before = jax.config.jax_compilation_cache_dir
  monkeypatch.chdir(tmp_path)
  jax.config.update("jax_compilation_cache_dir", "gs://bucket/cache")
  try:
    root = compile_cache.enable()
    assert run_cache.RunCache.of(root, {}, [checkpoint]).folder is None
  finally:
    jax.config.update("jax_compilation_cache_dir", before)
  assert sorted(tmp_path.iterdir()) == [checkpoint]


def test_a_folder_that_cannot_be_written(tmp_path, checkpoint):
  (tmp_path / "cache").write_text("a file")
  cache = run_cache.RunCache.of(tmp_path / "cache", {}, [checkpoint])
  assert cache.folder is None


def test_runs_used_least_recently_make_way(cache_of, monkeypatch):
  caches = [cache_of(about=(i,)) for i in range(3)]
  for i, cache in enumerate(caches):
    (cache.folder / "nets").write_bytes(b"0" * 1000)
    os.utime(cache.folder, (i, i))
  # Used again: the first is the youngest now.
  cache_of(about=(0,))
  monkeypatch.setattr(run_cache, "MAX_BYTES", 2000)
  cache_of(about=(0,)).nets(batch)
  assert [cache.folder.is_dir() for cache in caches] == [True, False, True]


def test_a_program_that_jax_keeps_is_not_taken_for_ours(cache_of, tmp_path):
  """What JAX has read from its cache cannot be written again."""
  changed = {
    "jax_compilation_cache_dir": str(tmp_path / "jax"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
  }
  before = {name: getattr(jax.config, name) for name in changed}
  for name, value in changed.items():
    jax.config.update(name, value)
  try:
    run_cache.RunCache().jit(double, "double")(batch(6))
    jax.clear_caches()
    first = cache_of()
    first.jit(double, "double")(batch(6))
    kept(first)
    assert cache_of().jit(never, "double")(batch(6))["sum"] == 15
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


def test_jax_keeps_no_second_copy(cache_of, tmp_path):
  folder = tmp_path / "jax"
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", str(folder))
  try:
    cache = cache_of()
    cache.jit(double, "double")(batch())
    kept(cache)
  finally:
    jax.config.update("jax_compilation_cache_dir", before)
  assert not folder.exists() or not list(folder.glob("*double*"))
  assert jax.config.jax_persistent_cache_min_compile_time_secs < 10
