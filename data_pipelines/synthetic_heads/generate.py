"""Draws sets of synthetic heads to disk, on all cores, resumable per shard.

Factors are a pure function of (seed, identity, frame), so which process draws
a shard, and when, makes no difference to it.
"""

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import tqdm

from data_pipelines import records
from data_pipelines.synthetic_heads import worlds

# Identity indices of the splits; disjoint as long as none has a million.
FIRST_IDENTITY = {
  "train": 0,
  "validation": 1_000_000,
  "test": 2_000_000,
  "pairs": 3_000_000,
  "swaps": 4_000_000,
  "attributes": 5_000_000,
}

_SHARD_EXAMPLES = 512
_WORKER_ENVIRONMENT = {
  # One thread each: the processes are the parallelism. Never the accelerator.
  "JAX_PLATFORMS": "cpu",
  "OMP_NUM_THREADS": "1",
  "OPENBLAS_NUM_THREADS": "1",
  "XLA_FLAGS": (
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
  ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a split depends on; kept in its metadata and compared on reuse.

  Attributes:
    split: its name.
    identities: (first, one past the last) identity index.
    frames: pictures of each person.
    size: side of the pictures in pixels.
    seed: of the world.
    balance: CelebA attribute names to be brought near one half.
    world: see `worlds.load_world`.
    landmarks68: whether examples carry 68 points as well.
  """

  split: str
  identities: tuple[int, int]
  frames: int
  size: int
  seed: int = 0
  balance: tuple[str, ...] = ()
  world: str = worlds.WORLD
  landmarks68: bool = False

  def __post_init__(self):
    first, last = self.identities
    if last <= first or self.frames < 1 or self.size < 8:
      raise ValueError(
        f"split {self.split!r}: identities {self.identities}, frames "
        f"{self.frames}, size {self.size}; wanted at least one identity, one "
        "frame and 8 pixels"
      )

  @property
  def examples(self) -> int:
    """Number of pictures."""
    return (self.identities[1] - self.identities[0]) * self.frames

  @property
  def shards(self) -> int:
    """Number of shards; depends on the set alone, never on the machine."""
    wanted = -(-self.examples // _SHARD_EXAMPLES)
    people = self.identities[1] - self.identities[0]
    return min(people, max(wanted, 8))

  def shard_identities(self, index: int) -> range:
    """The people of one shard."""
    first, last = self.identities
    people = last - first
    bounds = [first + people * i // self.shards for i in (index, index + 1)]
    return range(*bounds)

  def metadata(self, version: str) -> dict[str, Any]:
    """The settings as JSON values."""
    values = dataclasses.asdict(self)
    if not self.landmarks68:  # sets from before do not say it
      del values["landmarks68"]
    return {
      "generator": "synthetic_heads",
      "version": str(version),
      **values,
      "identities": list(self.identities),
      "balance": list(self.balance),
    }


def shard_examples(settings: Settings, index: int) -> Iterator[dict[str, Any]]:
  """Draws the examples of one shard, person by person."""
  world = worlds.load_world(settings.world)
  for person in settings.shard_identities(index):
    identity = world.sample_identity(settings.seed, person, settings.balance)
    frames = [
      world.sample_frame(settings.seed, person, frame, settings.balance)
      for frame in range(settings.frames)
    ]
    more = {"landmarks68": True} if settings.landmarks68 else {}
    yield from world.render_frames(identity, frames, settings.size, **more)


def _worker_environment() -> dict[str, str]:
  """Settings of the drawing processes; they share one compilation cache."""
  user = os.getuid() if hasattr(os, "getuid") else 0
  cache = os.path.join(tempfile.gettempdir(), f"faceedit_jax_{user}")
  shared = {
    "JAX_COMPILATION_CACHE_DIR": cache,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
  }
  kept = {name: os.environ.get(name, value) for name, value in shared.items()}
  return {**_WORKER_ENVIRONMENT, **kept}


# Set by the pool's initialiser in every worker.
_counter = None


def _start_worker(counter) -> None:
  global _counter
  _counter = counter
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  """Ends a worker whose parent was killed; it would draw its shard to the end
  beside those of the next run."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _counted(examples: Iterator, counter) -> Iterator:
  for example in examples:
    yield example
    with counter.get_lock():
      counter.value += 1


def _draw_shard(job: tuple) -> int:
  """Runs in a worker: draws and writes one shard."""
  path, index, shards, examples, settings = job
  drawn = _counted(examples(settings, index), _counter)
  return records.write_shard(path, index, shards, drawn)


@contextlib.contextmanager
def _environment(values: dict[str, str]):
  """Sets variables for processes started inside."""
  old = {name: os.environ.get(name) for name in values}
  os.environ.update(values)
  try:
    yield
  finally:
    for name, value in old.items():
      if value is None:
        os.environ.pop(name, None)
      else:
        os.environ[name] = value


def default_processes() -> int:
  """Cores this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def run_shards(
  path: str | os.PathLike,
  shards: int,
  total: int,
  settings: Any,
  metadata: dict[str, Any],
  examples: Any,
  processes: "int | Workers | None" = None,
  progress: bool = True,
  label: str = "",
) -> dict[str, Any]:
  """Writes the missing shards of a set and completes it.

  Args:
    path: the set's folder.
    shards: number of shards.
    total: number of pictures of the whole set, for the progress bar.
    settings: handed to `examples`.
    metadata: kept with the set; see `records.begin`.
    examples: (settings, shard) -> iterator of examples; a module's function,
      because other processes import it.
    processes: how many draw, or those that do; 0 draws in this process, None
      takes all cores.
    progress: show a bar with pictures per second and the time left.
    label: of the bar.

  Returns:
    The set's metadata.

  Raises:
    RecordError: another set lies there, or a worker died.
  """
  path = pathlib.Path(path)
  todo = records.begin(path, shards, metadata)
  if not todo:
    return records.finish(path)
  bar = tqdm.tqdm(
    total=total,
    initial=total * (shards - len(todo)) // shards,
    desc=label or path.name,
    unit="picture",
    disable=not progress,
    smoothing=0.1,
  )
  jobs = [(str(path), index, shards, examples, settings) for index in todo]
  with bar:
    if processes == 0:
      for job in jobs:
        records.write_shard(
          path, job[1], shards, _ticking(examples(settings, job[1]), bar)
        )
    elif isinstance(processes, Workers):
      processes.run(jobs, bar)
    else:
      with Workers(min(processes or default_processes(), len(jobs))) as workers:
        workers.run(jobs, bar)
  return records.finish(path)


def _ticking(examples: Iterator, bar) -> Iterator:
  for example in examples:
    yield example
    bar.update()


class Workers:
  """Processes that draw, started when first needed and kept for several sets.

  Until the first picture of one it takes 10 s, and 28 s with nothing compiled
  (64 px, two processes on two cores of an Intel Xeon).
  """

  def __init__(self, processes: int | None = None):
    """Plans `processes` of them; None takes all cores."""
    self._processes = processes or default_processes()
    # "spawn": a forked copy of a process that has started JAX may hang.
    self._context = multiprocessing.get_context("spawn")
    self._counter = self._context.Value("q", 0)
    self._held = contextlib.ExitStack()
    self._pool: concurrent.futures.ProcessPoolExecutor | None = None

  def __enter__(self) -> "Workers":
    return self

  def __exit__(self, *error) -> None:
    self._held.close()
    self._pool = None

  def run(self, jobs: Sequence[tuple], bar) -> None:
    """Draws shards, see `_draw_shard`, and moves the bar.

    Raises:
      RecordError: a worker died.
    """
    if self._pool is None:
      self._held.enter_context(_environment(_worker_environment()))
      self._pool = self._held.enter_context(
        concurrent.futures.ProcessPoolExecutor(
          self._processes, self._context, _start_worker, (self._counter,)
        )
      )
    start = bar.n - self._counter.value
    waiting = {self._pool.submit(_draw_shard, job) for job in jobs}
    try:
      while waiting:
        done, waiting = concurrent.futures.wait(
          waiting, 0.5, concurrent.futures.FIRST_COMPLETED
        )
        count = self._counter.value
        bar.set_postfix_str("" if count else "starting, compiling")
        bar.update(start + count - bar.n)
        for future in done:
          future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
      raise records.RecordError(
        "a drawing process was killed (out of memory?); run the same command "
        "again, it continues where it stopped, or use fewer --processes"
      ) from error
    finally:
      for future in waiting:
        future.cancel()


def generate(
  out_dir: str | os.PathLike,
  split: str,
  identities: int | Sequence[int],
  frames_per_identity: int,
  size: int,
  seed: int = 0,
  balance: Sequence[str] = (),
  processes: "int | Workers | None" = None,
  progress: bool = True,
  world: str = worlds.WORLD,
  landmarks68: bool = False,
) -> dict[str, Any]:
  """Draws one split of synthetic heads into `out_dir/split`.

  Args:
    out_dir: folder of the data set.
    split: name of the split.
    identities: how many people, from the split's own range on, or an explicit
      (first, one past the last).
    frames_per_identity: pictures of each person.
    size: side of the pictures in pixels.
    seed: of the world.
    balance: CelebA attribute names to be brought near one half.
    processes: as in `run_shards`.
    progress: show a progress bar.
    world: see `worlds.load_world`.
    landmarks68: whether examples carry 68 points as well.

  Returns:
    The split's metadata; an existing complete split is left alone.

  Raises:
    RecordError: a different set lies there, or it cannot be written.
    ValueError: the settings make no set.
  """
  if isinstance(identities, int):
    if split not in FIRST_IDENTITY:
      raise ValueError(
        f"split {split!r} has no range of its own; name identities as "
        f"(first, last) or use one of {sorted(FIRST_IDENTITY)}"
      )
    first = FIRST_IDENTITY[split]
    identities = (first, first + identities)
  settings = Settings(
    split=split,
    identities=(int(identities[0]), int(identities[1])),
    frames=frames_per_identity,
    size=size,
    seed=seed,
    balance=tuple(balance),
    world=world,
    landmarks68=landmarks68,
  )
  started = time.monotonic()
  metadata = run_shards(
    pathlib.Path(out_dir) / split,
    settings.shards,
    settings.examples,
    settings,
    settings.metadata(worlds.load_world(world).VERSION),
    shard_examples,
    processes,
    progress,
    f"synthetic heads, {split}",
  )
  metadata["seconds"] = time.monotonic() - started
  return metadata
