"""Two frames as one example, of one person or of two."""

import dataclasses
from typing import Any, Literal

from data_pipelines.samplers.columns import column_of, identities_of
from data_pipelines.samplers.identity_pairs import IdentityPairs
from data_pipelines.samplers.video_pairs import PAIRS_PER_IDENTITY, VideoPairs

Within = Literal["video", "identity"]


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Options of pairs, as `source_*` and `query_*` fields of one example.

  Attributes:
    seed: of the choice; None takes the stage's.
    within: see `PairSource`.
    across: see `PairSource`.
    per_identity: see `PairSource`.
  """

  seed: int | None = None
  within: Within | None = None
  across: bool = False
  per_identity: int = PAIRS_PER_IDENTITY

  def sample(self, source: Any, seed: int) -> "PairSource":
    """The pairs of a source's examples."""
    return PairSource(
      source,
      seed if self.seed is None else self.seed,
      ("source_", "query_"),
      self.within,
      self.across,
      self.per_identity,
    )


class PairSource:
  """Two frames as one example, of one person or of two.

  The fields carry a prefix: `image` and `pair_image`.

  Attributes:
    endless: whether `source[i]` goes on beyond `len(source)` with new pairs;
      a loader then draws new ones in every epoch.

  Args:
    source: any source with a field `identity`.
    seed: of the choice.
    prefixes: of the two frames' fields.
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
    prefixes: tuple[str, str] = ("", "pair_"),
    within: Within | None = None,
    across: bool = False,
    per_identity: int = PAIRS_PER_IDENTITY,
  ):
    self._source = source
    self._prefixes = prefixes
    identities = identities_of(source)
    videos = column_of(source, "video")
    if within == "video" and videos is None:
      raise ValueError(
        "within is 'video', but the data has no column `video`; wanted a "
        "set prepared from videos, or within='identity'"
      )
    self.endless = across or videos is not None
    if self.endless:
      self._pairs = VideoPairs(
        identities, videos, seed, within or "video", across, per_identity
      )
    else:
      self._pairs = IdentityPairs(identities, seed)

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> dict[str, Any]:
    i, j = self._pairs(index)
    first, second = self._prefixes
    out = {first + name: value for name, value in self._source[i].items()}
    for name, value in self._source[j].items():
      out[second + name] = value
    return out
