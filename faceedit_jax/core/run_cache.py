"""Keeps what an edit has loaded and compiled, for the next process.

JAX's own cache (`compile_cache`) finds a program by the text that tracing it
gives, and tracing takes longer than an edit. Here a program is found by what
goes into it: the code, the versions, the run's checkpoints and the shapes of
the arguments. The nets lie beside it in one file, since reading them out of
the checkpoints of several stages takes longer than the edit as well.

For CPUs; elsewhere JAX's own cache does. Like that cache the files hold
machine code and pickled values, so they are only read where they belong to
this user.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import pickle
import shutil
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from faceedit_jax.core.typing import PyTree

# Of all runs of one kind of machine; those used least recently make way.
MAX_BYTES = 2 * 2**30
# Larger nets are read from their checkpoints: reading dominates there.
_MAX_NETS = 512 * 2**20
_PACKAGES = ("faceedit_jax", "data_pipelines")
_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "einops")
# XLA's CPU options for programs that run a few times. LLVM's optimisations take
# longer than they save: convolutions and products are library calls. YNNPACK's
# fusions make a program slow to read: each is searched in the whole program.
_FAST = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}
_OPTIONS = ({**_FAST, "xla_cpu_experimental_ynn_fusion_type": ""}, _FAST)
_UNKNOWN = "No such compile option"


class RunCache:
  """What is kept of one run, read with one version of the code.

  Attributes:
    folder: where it lies; None where nothing is kept.
  """

  def __init__(self, folder: pathlib.Path | None = None):
    self.folder = folder

  @classmethod
  def of(
    cls,
    root: pathlib.Path | None,
    config: Mapping[str, Any],
    checkpoints: Sequence[pathlib.Path],
    about: Sequence[Any] = (),
  ) -> "RunCache":
    """The cache of a run.

    Args:
      root: folder of compiled programs (`compile_cache.enable`), or None.
      config: of the run, as JSON values.
      checkpoints: files and folders that the nets are read from.
      about: whatever else decides which nets are read.
    """
    bucket = "://" in (jax.config.jax_compilation_cache_dir or "")
    if root is None or bucket or jax.default_backend() != "cpu":
      return cls()
    try:
      read = [
        (str(path), path.stat().st_mtime_ns, path.stat().st_size)
        for path in checkpoints
      ]
      name = _digest(
        repr(config), repr(read), repr(about), _settings(), code_fingerprint()
      )
      folder = root / "runs" / name
      folder.mkdir(parents=True, exist_ok=True, mode=0o700)
      if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
      os.utime(folder)
    except OSError as error:
      logging.info("nothing is kept for the next edit: %s", error)
      return cls()
    return cls(folder)

  def nets(self, load: Callable[[], PyTree]) -> PyTree:
    """The nets that `load` gives, from here where they are kept.

    Args:
      load: gives dictionaries of arrays.
    """
    kept = self._read("nets")
    if kept is not None:
      return jax.device_put(kept, jax.local_devices()[0])
    made = load()
    leaves = jax.tree.leaves(made)
    plain = all(
      isinstance(leaf, jax.Array)
      and not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
      for leaf in leaves
    )
    if plain and sum(leaf.nbytes for leaf in leaves) <= _MAX_NETS:
      self._write("nets", lambda: jax.tree.map(np.asarray, made))
    return made

  def jit(self, function: Callable[..., Any], label: str) -> "Program":
    """`jax.jit` of a function, whose programs are kept.

    Args:
      function: of arrays alone.
      label: tells it apart from other functions of the run, and from the same
        with other values bound.
    """
    return Program(self, function, label)

  def _read(self, name: str) -> Any:
    """What was kept under a name; None where that is nothing one can read."""
    if self.folder is None:
      return None
    path = self.folder / name
    try:
      return pickle.loads(path.read_bytes())
    except FileNotFoundError:
      return None
    except Exception as error:  # of another version, cut short, unreadable
      logging.info("%s is not used: %s", path, error)
      path.unlink(missing_ok=True)
      return None

  def _write(self, name: str, make: Callable[[], Any]) -> None:
    """Keeps a value; a reader sees it whole or not at all."""
    if self.folder is None:
      return
    try:
      with tempfile.NamedTemporaryFile(
        dir=self.folder, prefix=".part-", delete=False
      ) as file:
        part = pathlib.Path(file.name)
        try:
          pickle.dump(make(), file, protocol=5)
          file.close()
          os.replace(part, self.folder / name)
        finally:
          part.unlink(missing_ok=True)
      _make_room(self.folder)
    except Exception as error:  # a full disk, a value that cannot be kept
      logging.info("%s is not kept: %s", name, error)


class Program:
  """A function compiled once for each kind of arguments, also across processes.

  Called like the function. Arguments are told apart as `jax.jit` does: by their
  structure, shapes and dtypes.
  """

  def __init__(self, cache: RunCache, function: Callable, label: str):
    self._cache, self._function, self._label = cache, function, label
    self._compiled: dict[Any, Callable] = {}

  def __call__(self, *args):
    kind = _kind(args)
    if kind in self._compiled:
      return self._compiled[kind](*args)
    name = f"{_digest(self._label, repr(kind))[:32]}.program"
    kept = self._load(name)
    if kept is not None:
      try:
        made = jax.block_until_ready(kept(*args))
        self._compiled[kind] = kept
        return made
      except jax.errors.JaxRuntimeError as error:
        logging.info("a kept program is not used: %s", error)
    compiled = self._compiled[kind] = self._compile(args)
    made = compiled(*args)
    if self._cache.folder is not None:
      # The answer is there; the next process can wait for its program.
      threading.Thread(
        target=self._keep, args=(name, compiled), daemon=False
      ).start()
    return made

  def programs(self) -> int:
    """For how many kinds of arguments it was compiled."""
    return len(self._compiled)

  def _load(self, name: str) -> Callable | None:
    kept = self._cache._read(name)
    if kept is None:
      return None
    from jax.experimental import serialize_executable  # noqa: PLC0415

    try:
      return serialize_executable.deserialize_and_load(
        *kept, execution_devices=jax.local_devices()[:1]
      )
    except Exception as error:  # XLA's, of what another version has written
      logging.info("a kept program is not used: %s", error)
      return None

  def _keep(self, name: str, compiled: Any) -> None:
    from jax.experimental import serialize_executable  # noqa: PLC0415

    self._cache._write(name, lambda: serialize_executable.serialize(compiled))

  def _compile(self, args):
    lowered = jax.jit(self._function).lower(*args)
    # What JAX may keep has options of its own, so that it is never taken for
    # one of ours: see `_apart`.
    shared = self._cache.folder is None and jax.config.jax_compilation_cache_dir
    if jax.default_backend() != "cpu" or shared:
      return lowered.compile()
    with self._apart():
      for options in _OPTIONS:
        try:
          return lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
          if _UNKNOWN not in str(error):
            raise
      return lowered.compile()

  @contextlib.contextmanager
  def _apart(self):
    """Keeps JAX from keeping the program as well.

    It would be there twice, and one that JAX has read from its cache cannot be
    written again: parts of it are missing then (jaxlib 0.12.0.1).
    """
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    if self._cache.folder is not None:
      jax.config.update(name, float("inf"))
    try:
      yield
    finally:
      jax.config.update(name, before)


@functools.cache
def code_fingerprint() -> str:
  """A digest of our source files, of the caller's, and of library versions."""
  paths = set()
  for package in _PACKAGES:
    found = sys.modules.get(package)
    for root in getattr(found, "__path__", ()):
      paths |= set(pathlib.Path(root).rglob("*.py"))
  installed = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")
  )
  for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    # A script that edits builds no nets; a recipe lies in a module.
    known = not file or file.startswith(installed)
    if name != "__main__" and not known and file.endswith(".py"):
      paths.add(pathlib.Path(file))
  digest = hashlib.sha256()
  for path in sorted(paths):
    digest.update(str(path).encode() + b"\0" + path.read_bytes())
  for library in _LIBRARIES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      digest.update(importlib.metadata.version(library).encode() + b"\0")
  return digest.hexdigest()


def _settings() -> str:
  """What of the environment changes a program."""
  flags = {k: v for k, v in os.environ.items() if k.startswith("XLA_")}
  values = {
    name: value
    for name, value in jax.config.values.items()
    if "cache" not in name and isinstance(value, str | int | float | None)
  }
  device = jax.local_devices()[0]
  return repr(
    (
      sys.version_info[:2],
      sorted(flags.items()),
      sorted(values.items()),
      (device.platform, device.device_kind, device.id, jax.device_count()),
    )
  )


def _kind(args) -> tuple:
  """Structure, shapes and dtypes of arguments."""
  leaves, tree = jax.tree.flatten(args)
  return tree, tuple(
    (leaf.shape, str(leaf.dtype), getattr(leaf, "weak_type", False))
    if hasattr(leaf, "dtype")
    else type(leaf).__name__
    for leaf in leaves
  )


def _digest(*parts: str) -> str:
  return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _make_room(folder: pathlib.Path) -> None:
  """Removes the runs used least recently, but for this one."""
  sizes = {
    run: sum(file.stat().st_size for file in run.iterdir())
    for run in folder.parent.iterdir()
    if run.is_dir()
  }
  for run in sorted(sizes, key=lambda run: run.stat().st_mtime):
    if sum(sizes.values()) <= MAX_BYTES:
      return
    if run != folder:
      shutil.rmtree(run, ignore_errors=True)
      del sizes[run]
