"""What a set of videos depends on."""

import dataclasses
from typing import Any

from data_pipelines import detectors

RULES = ("voxceleb1", "parent", "top", "prefix")


@dataclasses.dataclass(frozen=True)
class VideoSet:
  """Which frames are taken, how they are cut, and who is on them.

  Attributes:
    size: side of the pictures in pixels.
    identity: the rule that says who is on a clip, see `index.person_of`.
    separator: ends the person's name in file names (rule "prefix").
    frame_step: every so manieth frame of a clip is taken.
    max_frames: at most so many frames of a clip; 0 takes all.
    min_side: clips with a shorter side in pixels are left out; 0 stands for
      `size`, so that nothing is enlarged.
    landmarks: read 68 points per frame from files beside the clips.
    detector: finds the face that the square of a clip lies round, see
      `detectors.choose`; "none" takes the largest centred square.
    split_seed: of the shuffle that splits the people.
    test_share: share of the people kept for testing.
    validation_share: share of the others kept for validation.

  Raises:
    ValueError: a value makes no set.
  """

  size: int = 256
  identity: str = "parent"
  separator: str = "_"
  frame_step: int = 1
  max_frames: int = 0
  min_side: int = 0
  landmarks: bool = False
  detector: str = detectors.NONE
  split_seed: int = 0
  test_share: float = 0.2
  validation_share: float = 0.05

  def __post_init__(self):
    for name, least in (
      ("size", 8),
      ("frame_step", 1),
      ("max_frames", 0),
      ("min_side", 0),
    ):
      if getattr(self, name) < least:
        raise ValueError(
          f"--{name}={getattr(self, name)}; wanted {least} or more"
        )
    for name in ("test_share", "validation_share"):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(
          f"--{name}={getattr(self, name)}; wanted 0 up to below 1"
        )
    if self.identity not in RULES:
      raise ValueError(
        f"--identity={self.identity}; wanted one of {', '.join(RULES)}"
      )
    if not self.separator:
      raise ValueError("--separator is empty; wanted some text, such as _")

  @property
  def least_side(self) -> int:
    """The shortest side of a clip that is accepted, in pixels."""
    return self.min_side or self.size

  def metadata(self) -> dict[str, Any]:
    """What the records of a given split depend on, as JSON values."""
    values = dataclasses.asdict(self)
    for name in ("split_seed", "test_share", "validation_share"):
      del values[name]  # kept in the split file
    if self.identity != "prefix":
      del values["separator"]
    if self.detector == detectors.NONE:
      del values["detector"]
    return {**values, "min_side": self.least_side}
