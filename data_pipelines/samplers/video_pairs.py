"""Pairs of frames of a person's videos."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.samplers.randomness import generator

PAIRS_PER_IDENTITY = 100  # of an epoch, as PIRender and DPE count it
_ORDER_STREAM = 1  # keeps the order of people apart from the choice of frames


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
      raise ValueError(f"per_identity is {per_identity}, wanted 1 or more")
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
