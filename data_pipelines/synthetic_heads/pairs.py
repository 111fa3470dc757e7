"""The evaluation sets: edits whose exact outcome is known.

`pairs` holds fixed triples (source, query, truth) of two unseen people: the
truth is the source's person, seen by the source's camera, with the pose,
expression and light of the query. `swaps` adds the source with the hair,
clothes or background of the query. One example carries all of them, each
field behind a prefix: `source_image`, `query_image`, `truth_image`, ...
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.synthetic_heads import generate as generate_lib
from data_pipelines.synthetic_heads import worlds

PAIRS = 256
SWAPS = 64
_PER_SHARD = 32
_SWAPPED = ("hair", "clothes", "background")


@dataclasses.dataclass(frozen=True)
class PairSettings:
  """What an evaluation set depends on.

  Attributes:
    split: "pairs" or "swaps".
    count: number of examples; example i takes people 2 i and 2 i + 1 of the
      split's own range.
    size: side of the pictures in pixels.
    seed: of the world.
    world: see `worlds.load_world`.
  """

  split: str
  count: int
  size: int
  seed: int = 0
  world: str = worlds.WORLD

  def __post_init__(self):
    if self.split not in ("pairs", "swaps") or self.count < 1 or self.size < 8:
      raise ValueError(
        f"split {self.split!r}, count {self.count}, size {self.size}; wanted "
        "pairs or swaps, at least one example and 8 pixels"
      )

  @property
  def shards(self) -> int:
    """Number of shards; depends on the set alone."""
    return -(-self.count // _PER_SHARD)

  def metadata(self, version: str) -> dict[str, Any]:
    """The settings as JSON values."""
    return {
      "generator": "synthetic_heads",
      "version": str(version),
      **dataclasses.asdict(self),
    }


def make_example(settings: PairSettings, index: int) -> dict[str, Any]:
  """Draws one example of an evaluation set.

  Args:
    settings: of the set.
    index: of the example.

  Returns:
    The fields of source, query and truth behind `source_`, `query_` and
    `truth_`; for swaps also behind `hair_truth_`, `clothes_truth_` and
    `background_truth_`; and `pair`, the index.
  """
  world = worlds.load_world(settings.world)
  people, frames = _factors(world, settings, index)
  # Only the camera stays the source's, and the face at its place in it.
  _, moved = world.counterfactual(
    people[0],
    frames[0],
    pose_from=frames[1],
    expression_from=frames[1],
    light_from=frames[1],
  )
  drawn = dict(
    zip(
      ("source_", "truth_"),
      world.render_frames(people[0], [frames[0], moved], settings.size),
      strict=True,
    )
  )
  (drawn["query_"],) = world.render_frames(
    people[1], [frames[1]], settings.size
  )
  if settings.split == "swaps":
    for name in _SWAPPED:
      donor = {f"{name}_from": people[1]}
      person, _ = world.counterfactual(people[0], frames[0], **donor)
      (drawn[f"{name}_truth_"],) = world.render_frames(
        person, [frames[0]], settings.size
      )
  out: dict[str, Any] = {"pair": index}
  for prefix, example in drawn.items():
    out.update({prefix + name: value for name, value in example.items()})
  return out


def _factors(world, settings: PairSettings, index: int):
  """People and frames of source and query."""
  first = generate_lib.FIRST_IDENTITY[settings.split] + 2 * index
  people = [world.sample_identity(settings.seed, first + i, ()) for i in (0, 1)]
  frames = [world.sample_frame(settings.seed, first + i, 0, ()) for i in (0, 1)]
  return people, frames


def single_truth(
  settings: PairSettings, index: int, factor: str
) -> dict[str, Any]:
  """Draws the source of an example with one factor of its query alone.

  Args:
    settings: of the set.
    index: of the example.
    factor: "pose", "expression" or "light".

  Returns:
    The fields of the picture, as of a frame of the world.
  """
  world = worlds.load_world(settings.world)
  people, frames = _factors(world, settings, index)
  person, moved = world.counterfactual(
    people[0], frames[0], **{f"{factor}_from": frames[1]}
  )
  (drawn,) = world.render_frames(person, [moved], settings.size)
  return drawn


def settings_of(metadata: Mapping[str, Any]) -> PairSettings | str:
  """What a set on disk was drawn with, or why it cannot be drawn on with.

  Args:
    metadata: the settings of the set, from `PairSettings.metadata`.
  """
  names = [field.name for field in dataclasses.fields(PairSettings)]
  missing = [name for name in (*names, "version") if name not in metadata]
  if missing:
    return f"the set does not say its {', '.join(missing)}"
  settings = PairSettings(**{name: metadata[name] for name in names})
  now = str(worlds.load_world(settings.world).VERSION)
  if metadata["version"] != now:
    return (
      f"the set is of version {metadata['version']} of {settings.world}, "
      f"which is at {now}"
    )
  return settings


def shard_examples(
  settings: PairSettings, shard: int
) -> Iterator[dict[str, Any]]:
  """Draws the examples of one shard."""
  last = min(settings.count, (shard + 1) * _PER_SHARD)
  for index in range(shard * _PER_SHARD, last):
    yield make_example(settings, index)


def generate_pairs(
  out_dir: str | os.PathLike,
  split: str = "pairs",
  count: int | None = None,
  size: int = 64,
  seed: int = 0,
  processes: int | generate_lib.Workers | None = None,
  progress: bool = True,
  world: str = worlds.WORLD,
) -> dict[str, Any]:
  """Draws an evaluation set into `out_dir/split`.

  Args:
    out_dir: folder of the data set.
    split: "pairs" (source, query, truth) or "swaps" (with the swaps' truths).
    count: number of examples; 256 pairs or 64 swaps by default.
    size: side of the pictures in pixels.
    seed: of the world.
    processes: as in `generate.run_shards`.
    progress: show a progress bar.
    world: see `worlds.load_world`.

  Returns:
    The split's metadata; an existing complete split is left alone.

  Raises:
    RecordError: a different set lies there, or it cannot be written.
    ValueError: the settings make no set.
  """
  if count is None:
    count = SWAPS if split == "swaps" else PAIRS
  settings = PairSettings(split, count, size, seed, world)
  return generate_lib.run_shards(
    pathlib.Path(out_dir) / split,
    settings.shards,
    count,
    settings,
    settings.metadata(worlds.load_world(world).VERSION),
    shard_examples,
    processes,
    progress,
    f"synthetic heads, {split}",
  )
