"""Which examples go together: pairs of people or clips, balanced identities.

Each is again a source, and each choice a pure function of (seed, index), so
it does not depend on hosts, threads or where a run was resumed.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WITHIN = ("video", "identity")
PAIRS_PER_IDENTITY = 100  # of an epoch, as PIRender and DPE count it

_ORDER_STREAM = 1  # keeps the order of people apart from the choice of frames


def generator(seed: int, *indices: int) -> np.random.Generator:
  """A NumPy generator that depends on nothing but its arguments."""
  return np.random.default_rng([int(seed), *(int(i) for i in indices)])


def group_by(identities: Sequence[int] | np.ndarray) -> list[np.ndarray]:
  """Positions of each identity's examples, identities in rising order."""
  identities = np.asarray(identities)
  order = np.argsort(identities, kind="stable")
  _, starts = np.unique(identities[order], return_index=True)
  return np.split(order, starts[1:]) if len(order) else []


def column_of(source: Any, name: str) -> np.ndarray | None:
  """The values of one integer field, or None if a source keeps no such column.

  Nothing is read through: sources without columns have none.
  """
  if not hasattr(source, "column"):
    return None
  try:
    return np.asarray(source.column(name))
  except (ValueError, KeyError):  # what sources say of an unknown column
    return None


def identities_of(source: Any) -> np.ndarray:
  """The identity of every example of a source.

  Sources that keep the column (`source.column("identity")`) answer at once;
  any other is read through.
  """
  if hasattr(source, "column"):
    return np.asarray(source.column("identity"))
  return np.asarray([int(source[i]["identity"]) for i in range(len(source))])


class IdentityPairs:
  """Draws two different examples of one identity.

  Args:
    identities: the identity of every example.
    seed: of the choice.

  Raises:
    ValueError: no identity has two examples.
  """

  def __init__(self, identities: Sequence[int] | np.ndarray, seed: int = 0):
    self._groups = [g for g in group_by(identities) if len(g) > 1]
    if not self._groups:
      raise ValueError(
        f"no identity has two examples among {len(identities)}; pairs need "
        "sets with at least two frames for each person"
      )
    self._seed = seed
    # As many draws to an epoch as there are ordered pairs.
    self._length = sum(len(g) * (len(g) - 1) for g in self._groups)

  def __len__(self) -> int:
    return self._length

  def __call__(self, index: int) -> tuple[int, int]:
    """Returns the positions (i, j), i != j, of pair `index`."""
    rng = generator(self._seed, index)
    group = self._groups[rng.integers(len(self._groups))]
    i, j = rng.choice(len(group), 2, replace=False)
    return int(group[i]), int(group[j])


class VideoPairs:
  """Draws two frames: a person, a video of that person, two frames of it.

  Frames are drawn with replacement, every video of a person equally often, as
  PIRender and DPE do. In an epoch every person comes equally often; beyond its
  end other pairs follow. For each frame 4 bytes are kept, none if the examples
  lie in the order of people and videos, as in prepared sets.

  Args:
    identities: the identity of every example.
    videos: the video of every example; None counts a person's as one.
    seed: of the choice.
    within: "video": both frames of one video; "identity": of any two videos
      of the person, which may be the same.
    across: the second frame is one of another person.
    per_identity: pairs of each person in an epoch.

  Raises:
    ValueError: there are too few people.
  """

  def __init__(
    self,
    identities: Sequence[int] | np.ndarray,
    videos: Sequence[int] | np.ndarray | None = None,
    seed: int = 0,
    within: str = "video",
    across: bool = False,
    per_identity: int = PAIRS_PER_IDENTITY,
  ):
    if per_identity < 1:
      raise ValueError(
        f"pairs_per_identity is {per_identity}, wanted 1 or more"
      )
    identities = np.asarray(identities)
    videos = identities if videos is None else np.asarray(videos)
    order = np.lexsort((videos, identities))
    identities, videos = identities[order], videos[order]
    # Where a video begins among frames, and a person among videos.
    begins = np.flatnonzero(_changes(identities) | _changes(videos))
    self._video_starts = np.append(begins, len(order))
    persons = np.flatnonzero(_changes(identities[begins]))
    self._person_starts = np.append(persons, len(begins))
    self._people = len(persons)
    wanted = 2 if across else 1
    if self._people < wanted:
      raise ValueError(
        f"the data has {self._people} people, wanted {wanted} or more for pairs"
      )
    sorted_already = np.array_equal(order, np.arange(len(order)))
    self._order = None if sorted_already else order.astype(np.int32)
    self._seed, self._within, self._across = seed, within, across
    self._length = self._people * per_identity
    self._round = functools.lru_cache(maxsize=256)(self._draw_round)

  def __len__(self) -> int:
    return self._length

  def __call__(self, index: int) -> tuple[int, int]:
    """Returns the positions (i, j) of pair `index`; i may be j."""
    turn, place = divmod(int(index), self._people)
    person = int(self._round(turn)[place])
    rng = generator(self._seed, index)
    video = self._draw_video(person, rng)
    other = video
    if self._across:
      # Any but the same one.
      person = (person + rng.integers(1, self._people)) % self._people
      other = self._draw_video(person, rng)
    elif self._within == "identity":
      other = self._draw_video(person, rng)
    return self._draw_frame(video, rng), self._draw_frame(other, rng)

  def _draw_round(self, turn: int) -> np.ndarray:
    """An order of all people; each round has its own."""
    rng = generator(self._seed, turn, _ORDER_STREAM)
    return rng.permutation(self._people).astype(np.int32)

  def _draw_video(self, person: int, rng: np.random.Generator) -> int:
    return int(rng.integers(*self._person_starts[person : person + 2]))

  def _draw_frame(self, video: int, rng: np.random.Generator) -> int:
    place = rng.integers(*self._video_starts[video : video + 2])
    return int(place if self._order is None else self._order[place])

  def __getstate__(self) -> dict[str, Any]:
    state = dict(self.__dict__)
    del state["_round"]
    return state

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._round = functools.lru_cache(maxsize=256)(self._draw_round)


def _changes(values: np.ndarray) -> np.ndarray:
  """Whether each value differs from the one before; the first does."""
  return np.append(np.ones(min(1, len(values)), bool), np.diff(values) != 0)


class PairSource:
  """Two frames as one example, of one person or of two.

  The second frame's fields carry `prefix`: `image` and `pair_image`.

  Attributes:
    endless: whether `source[i]` goes on beyond `len(source)` with new pairs;
      a loader then draws new ones in every epoch.

  Args:
    source: any source with a field `identity`.
    seed: of the choice.
    prefix: of the second frame's fields.
    within: see `VideoPairs`. None stands for "video" where the source keeps a
      column `video`; else any two different frames of a person are drawn, see
      `IdentityPairs`.
    across: the second frame is one of another person.
    per_identity: pairs of each person in an epoch; where a person's frames are
      drawn by `IdentityPairs`, an epoch has all of its pairs.

  Raises:
    ValueError: there are too few people or frames, or no videos.
  """

  def __init__(
    self,
    source: Any,
    seed: int = 0,
    prefix: str = "pair_",
    within: str | None = None,
    across: bool = False,
    per_identity: int = PAIRS_PER_IDENTITY,
  ):
    self._source = source
    self._prefix = prefix
    if within not in (None, *WITHIN):
      raise ValueError(
        f"pair_within is {within!r}, wanted one of {', '.join(WITHIN)}"
      )
    identities = identities_of(source)
    videos = column_of(source, "video")
    if within == "video" and videos is None:
      raise ValueError(
        "pair_within is 'video', but the data has no column `video`; wanted a "
        "set prepared from videos, or pair_within='identity'"
      )
    self.endless = across or videos is not None
    if self.endless:
      self._pairs = VideoPairs(
        identities, videos, seed, within or "video", across, per_identity
      )
    else:
      self._pairs = IdentityPairs(identities, seed)

  @classmethod
  def from_config(
    cls, source: Any, data: Mapping[str, Any], seed: int, prefix: str
  ) -> "PairSource":
    """Reads `pair_seed` (else `seed`), `pair_within`, `pair_across` and
    `pairs_per_identity` of a data section."""
    own, count = data.get("pair_seed"), data.get("pairs_per_identity")
    return cls(
      source,
      seed if own is None else own,
      prefix,
      data.get("pair_within"),
      bool(data.get("pair_across")),
      PAIRS_PER_IDENTITY if count is None else count,
    )

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> dict[str, Any]:
    i, j = self._pairs(index)
    second: Mapping[str, Any] = self._source[j]
    out = dict(self._source[i])
    out.update({self._prefix + name: value for name, value in second.items()})
    return out


class BalancedSource:
  """Every identity equally often, however many frames it has.

  Identities take turns and each goes through its frames; one epoch is as many
  turns as the longest identity has frames, so no frame is left out.

  Args:
    source: any source with a field `identity`.
  """

  def __init__(self, source: Any):
    self._source = source
    self._groups = group_by(identities_of(source))
    if not self._groups:
      raise ValueError("the data source is empty")

  def __len__(self) -> int:
    return len(self._groups) * max(len(group) for group in self._groups)

  def _position(self, index: int) -> int:
    turn, person = divmod(index, len(self._groups))
    group = self._groups[person]
    return int(group[turn % len(group)])

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._source[self._position(index)]

  def column(self, name: str) -> np.ndarray:
    """The values of one integer field, in the order of this source."""
    values = np.asarray(self._source.column(name))
    return values[[self._position(i) for i in range(len(self))]]


class SubsetSource:
  """Some examples of a source, in a given order.

  Args:
    source: any source.
    positions: of the examples to keep.
  """

  def __init__(self, source: Any, positions: Sequence[int] | np.ndarray):
    self._source = source
    self._positions = np.asarray(positions)

  def __len__(self) -> int:
    return len(self._positions)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f"example {index} of {len(self)}")
    return self._source[int(self._positions[index])]

  def column(self, name: str) -> np.ndarray:
    """The values of one integer field."""
    return np.asarray(self._source.column(name))[self._positions]

  @property
  def attribute_names(self) -> tuple[str, ...]:
    """Names of the field `attributes`, as the source has them."""
    return self._source.attribute_names

  def attribute_table(
    self, positions: Sequence[int] | np.ndarray | None = None
  ) -> np.ndarray:
    """Attributes of all examples, or of those at `positions`; int8 (n, A)."""
    kept = self._positions
    kept = kept if positions is None else kept[np.asarray(positions)]
    return self._source.attribute_table(kept)


class TakeSource(SubsetSource):
  """The first `count` examples of a source."""

  def __init__(self, source: Any, count: int):
    if count < 1 or count > len(source):
      raise ValueError(
        f"wanted {count} examples of a source of {len(source)}; change `limit`"
      )
    super().__init__(source, np.arange(count))
