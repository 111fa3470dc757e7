"""Synthetic heads drawn when asked for."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.sources.source import SourceError
from data_pipelines.synthetic_heads import generate, worlds


@dataclasses.dataclass(frozen=True)
class Online:
  """Options of `OnlineSource`; nothing is read below `data_dir`.

  Attributes:
    size: see `OnlineSource`, as all others.
  """

  size: int
  identities: int = 100_000
  frames: int = 8
  split: str = "train"
  seed: int = 0
  balance: tuple[str, ...] = ()
  world: str = worlds.WORLD
  landmarks68: bool = False

  def open(
    self, data_dir: str | os.PathLike, split: str | None = None
  ) -> "OnlineSource":
    """Opens the examples of `split`, or of the options' own."""
    del data_dir
    return OnlineSource(
      self.size,
      self.identities,
      self.frames,
      split or self.split,
      self.seed,
      self.balance,
      self.world,
      self.landmarks68,
    )


class OnlineSource:
  """Synthetic heads drawn when asked for; nothing is stored.

  Args:
    size: side of the pictures in pixels.
    identities: how many people.
    frames: pictures of each.
    split: its range of identities is used.
    seed: of the world.
    balance: CelebA attribute names to be brought near one half.
    world: see `synthetic_heads.worlds.load_world`.
    landmarks68: whether examples carry 68 points as well.
  """

  def __init__(
    self,
    size: int,
    identities: int = 100_000,
    frames: int = 8,
    split: str = "train",
    seed: int = 0,
    balance: Sequence[str] = (),
    world: str = worlds.WORLD,
    landmarks68: bool = False,
  ):
    if split not in generate.FIRST_IDENTITY:
      raise SourceError(
        f"no split {split!r}; wanted one of {sorted(generate.FIRST_IDENTITY)}"
      )
    self._size, self._people, self._frames = size, identities, frames
    self._first = generate.FIRST_IDENTITY[split]
    self._seed, self._balance = seed, tuple(balance)
    self._world = worlds.load_world(world)
    self._more = {"landmarks68": True} if landmarks68 else {}
    self._identity = functools.lru_cache(maxsize=256)(self._draw_identity)

  def _draw_identity(self, person: int) -> Any:
    return self._world.sample_identity(self._seed, person, self._balance)

  def __len__(self) -> int:
    return self._people * self._frames

  def __getitem__(self, index: int) -> dict[str, Any]:
    person, frame = divmod(int(index), self._frames)
    person += self._first
    drawn = self._world.sample_frame(self._seed, person, frame, self._balance)
    (example,) = self._world.render_frames(
      self._identity(person), [drawn], self._size, **self._more
    )
    return dict(example)

  def column(self, name: str) -> np.ndarray:
    """The identity or frame of every example."""
    person, frame = np.divmod(np.arange(len(self)), self._frames)
    columns = {"identity": person + self._first, "frame": frame}
    if name not in columns:
      raise SourceError(f"no column {name!r}; wanted identity or frame")
    return columns[name]

  @property
  def attribute_names(self) -> tuple[str, ...]:
    """What the numbers of the field `attributes` stand for."""
    return tuple(self._world.ATTRIBUTE_NAMES)

  def attribute_table(
    self, positions: Sequence[int] | np.ndarray | None = None
  ) -> np.ndarray:
    """Attributes of all examples, or of those at `positions`; int8 (n, A).

    Factors are drawn, pictures are not: about 1 ms each on one core.
    """
    rows = []
    for index in range(len(self)) if positions is None else positions:
      person, frame = divmod(int(index), self._frames)
      person += self._first
      drawn = self._world.sample_frame(self._seed, person, frame, self._balance)
      has = self._world.attributes(self._identity(person), drawn)
      rows.append([has[name] for name in self.attribute_names])
    return np.asarray(rows, np.int8)
