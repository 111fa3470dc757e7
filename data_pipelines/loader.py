"""Feeds batches: the same examples in the same order on any number of hosts.

The pipeline is source -> shuffle(seed) -> repeat -> transform(seed, index) ->
this host's indices -> threads -> batch. The random part sees only the global
index, and the host's slice comes last, so neither the number of hosts nor the
step a run resumes at changes an example or its augmentation.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import numpy as np

from data_pipelines import samplers

Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]

_TRANSFORM_STREAM = 1  # keeps augmentation apart from other uses of the seed


@dataclasses.dataclass(frozen=True)
class Options:
  """A data section's part `loader`.

  Attributes:
    batch_size: examples of a batch, over all hosts.
    num_threads: reading threads; 0 reads in the caller's thread.
    limit: only so many of the source's first examples; 0 takes all.
  """

  batch_size: int
  num_threads: int = 8
  limit: int = 0

  def __post_init__(self):
    if self.num_threads < 0 or self.limit < 0:
      raise ValueError(
        f"num_threads is {self.num_threads} and limit {self.limit}, wanted 0 "
        "or more"
      )


class _HostSlice(grain.MapDataset):
  """Local index j -> global index (start + j div b) G + host b + j mod b."""

  def __init__(
    self,
    parent: grain.MapDataset,
    start: int,
    batch_size: int,
    process_index: int,
    process_count: int,
  ):
    super().__init__(parent)
    self._start = start
    self._global = batch_size
    self._local = batch_size // process_count
    self._process = process_index

  def __len__(self) -> int:
    length = len(self._parent) // self._global - self._start
    return max(0, length) * self._local

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    step, place = divmod(index, self._local)
    first = (self._start + step) * self._global + self._process * self._local
    return self._parent[first + place]


class Loader:
  """An endless iterator of this host's share of the batches.

  Attributes:
    position: the number of the next step, counted over the whole run. It is
      all that has to be saved: a loader made with `start_step=position`
      continues exactly there.
  """

  def __init__(self, batches: Iterator[dict[str, np.ndarray]], start: int):
    self._batches = batches
    self.position = start

  def __iter__(self) -> "Loader":
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    batch = next(self._batches)
    self.position += 1
    return batch

  def close(self) -> None:
    """Stops the reading threads."""
    close = getattr(self._batches, "close", None)
    if close is not None:
      close()


def _stack(examples: list[dict[str, Any]]) -> dict[str, Any]:
  """Stacks numbers; texts stay lists."""
  out = {}
  for name, first in examples[0].items():
    values = [example[name] for example in examples]
    if isinstance(first, str):
      out[name] = values
      continue
    shapes = {np.shape(value) for value in values}
    if len(shapes) > 1:
      raise ValueError(
        f"field {name!r} has shapes {sorted(shapes)} within one batch; bring "
        "them to one size with a transform"
      )
    out[name] = np.stack(values)
  return out


def make_loader(
  source: Any,
  transform: Transform | None,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 8,
  shuffle: bool = True,
) -> Loader:
  """Makes the batches of one host.

  Args:
    source: `len(source)` examples, `source[i]` a dict of arrays. If it has an
      attribute `endless` that is true, epochs after the first take the examples
      from `len(source)` on.
    transform: (example, generator) -> example, or None. The generator depends
      on (seed, global index) alone.
    batch_size: the global batch size, over all hosts.
    seed: of order and augmentation.
    start_step: the first step to deliver.
    process_index: this host.
    process_count: number of hosts.
    num_threads: reading threads; 0 reads in the caller's thread.
    shuffle: a new order every epoch; otherwise the source's own.

  Returns:
    A `Loader`; batches are {name: array (batch_size / process_count, ...)}.

  Raises:
    ValueError: the source is empty, or the batch does not divide.
  """
  if len(source) < 1:
    raise ValueError("the data source is empty")
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f"batch size {batch_size} is not divisible by {process_count} "
      "processes; change `batch_size` of the stage's data"
    )
  if not 0 <= process_index < process_count:
    raise ValueError(f"process {process_index} of {process_count}")

  def apply(index: int, example: dict[str, Any]) -> dict[str, Any]:
    rng = samplers.generator(seed, _TRANSFORM_STREAM, index)
    return transform(example, rng)

  length = len(source)

  def take(index: int, place: int) -> dict[str, Any]:
    return source[index - index % length + place]

  endless = getattr(source, "endless", False)
  dataset = grain.MapDataset.source(range(length) if endless else source)
  if shuffle:
    dataset = dataset.shuffle(seed=seed % 2**32)
  dataset = dataset.repeat()
  if endless:
    dataset = dataset.map_with_index(take)
  if transform is not None:
    dataset = dataset.map_with_index(apply)
  dataset = _HostSlice(
    dataset, start_step, batch_size, process_index, process_count
  )
  local = batch_size // process_count
  options = grain.ReadOptions(
    num_threads=num_threads,
    prefetch_buffer_size=max(2 * local, num_threads) if num_threads else 0,
  )
  dataset = dataset.to_iter_dataset(options)
  dataset = dataset.batch(local, drop_remainder=True, batch_fn=_stack)
  return Loader(iter(dataset), start_step)


class DeviceLoader:
  """Batches already on the devices, a few steps ahead.

  Attributes:
    position: the number of the next step handed out. Batches that wait on the
      device are not counted, so it is safe to save at any time.
  """

  def __init__(self, iterator: Iterator, shardings: Any, size: int):
    self._iterator = iterator
    self._shardings = shardings
    self._size = max(1, size)
    self._waiting: collections.deque = collections.deque()
    self.position = getattr(iterator, "position", 0)

  def __iter__(self) -> "DeviceLoader":
    return self

  def _put(self, batch: Mapping[str, Any]) -> dict[str, Any]:
    import jax  # imported late: preparation of data needs no accelerator

    out = {}
    for name, value in batch.items():
      if not isinstance(value, np.ndarray):
        continue  # texts stay on the host
      sharding = self._shardings
      if isinstance(sharding, Mapping):
        sharding = sharding[name]
      if sharding is None:
        out[name] = jax.device_put(value)
      else:
        out[name] = jax.make_array_from_process_local_data(sharding, value)
    return out

  def __next__(self) -> dict[str, Any]:
    while len(self._waiting) < self._size:
      try:
        self._waiting.append(self._put(next(self._iterator)))
      except StopIteration:
        break
    if not self._waiting:
      raise StopIteration
    self.position += 1
    return self._waiting.popleft()

  def close(self) -> None:
    """Drops waiting batches and stops the reading threads."""
    self._waiting.clear()
    close = getattr(self._iterator, "close", None)
    if close is not None:
      close()


def prefetch_to_device(
  iterator: Iterator, shardings: Any = None, size: int = 2
) -> DeviceLoader:
  """Moves batches to the devices ahead of their use.

  Args:
    iterator: of numpy batches, each this host's share; usually a `Loader`.
    shardings: one sharding for all fields, {name: sharding}, or None for the
      default device.
    size: how many batches wait on the devices.

  Returns:
    An iterator of device batches with `.position`.
  """
  return DeviceLoader(iterator, shardings, size)
