"""The evaluation set of attributes: what an edit should have come to.

An example is one picture of an unseen person, one attribute to give or take,
and the same picture with nothing but that attribute changed. Glasses, bangs
and smiles come in many forms, so the truth is drawn several times, the same
for everybody who draws the set.
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.synthetic_heads import generate as generate_lib
from data_pipelines.synthetic_heads import worlds

SPLIT = "attributes"
DRAWS = 8
_PER_SHARD = 32
# People looked at for one example, until one can show the attribute.
_CANDIDATES = 16


@dataclasses.dataclass(frozen=True)
class AttributeSettings:
  """What the set depends on.

  Attributes:
    attributes: names of the attributes; examples take turns with them.
    count: number of examples.
    size: side of the pictures in pixels.
    seed: of the world.
    world: see `worlds.load_world`.
    draws: truths of each example.
  """

  attributes: tuple[str, ...]
  count: int
  size: int
  seed: int = 0
  world: str = worlds.WORLD
  draws: int = DRAWS

  def __post_init__(self):
    if self.count < 1 or self.size < 8 or self.draws < 1:
      raise ValueError(
        f"edits {self.count}, size {self.size}, draws {self.draws}; wanted at "
        "least one example, 8 pixels and one draw"
      )
    known = worlds.load_world(self.world).EDITED_ATTRIBUTES
    unknown = [name for name in self.attributes if name not in known]
    if unknown or not self.attributes:
      raise ValueError(
        f"attributes {', '.join(self.attributes) or '()'} of the split "
        f"{SPLIT}; wanted some of {', '.join(known)}"
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
      "split": SPLIT,
      **dataclasses.asdict(self),
      "attributes": list(self.attributes),
    }


def _person(settings: AttributeSettings, name: str, index: int) -> Any:
  """The first of an example's candidates who can show the attribute."""
  world = worlds.load_world(settings.world)
  first = generate_lib.FIRST_IDENTITY[SPLIT] + _CANDIDATES * index
  for person in range(first, first + _CANDIDATES):
    # Balanced, so that both values of each attribute are edited.
    drawn = world.sample_identity(settings.seed, person, settings.attributes)
    if world.can_edit(drawn, name):
      return drawn
  raise ValueError(
    f"none of people {first} to {first + _CANDIDATES - 1} can show {name}; "
    "choose another seed"
  )


def make_example(settings: AttributeSettings, index: int) -> dict[str, Any]:
  """Draws one example.

  Args:
    settings: of the set.
    index: of the example; its attribute is the one at `index` modulo their
      number.

  Returns:
    `source_image` (s, s, 3) and `source_labels` (s, s) uint8,
    `source_landmarks5` (5, 2) float32, `source_attributes` (A,) int8 in the
    world's order, `source_identity`, `attribute` (its place in
    `settings.attributes`) and `target` (its value in the truth) int32, and
    `truth0_image`, `truth1_image`, ... (s, s, 3) uint8.
  """
  world = worlds.load_world(settings.world)
  place = index % len(settings.attributes)
  name = settings.attributes[place]
  identity = _person(settings, name, index)
  frame = world.sample_frame(
    settings.seed, identity.index, 0, settings.attributes
  )
  target = not world.attributes(identity, frame)[name]
  forms = settings.draws if world.has_forms(name, target) else 1
  edits = [(identity, frame)] + [
    world.attribute_counterfactual(identity, frame, name, target, draw)
    for draw in range(forms)
  ]
  source, *truths = _render(world, edits, settings.size)
  out = {
    f"source_{field}": source[field]
    for field in ("image", "labels", "landmarks5", "attributes", "identity")
  }
  out |= {
    f"truth{draw}_image": truths[draw % forms]["image"]
    for draw in range(settings.draws)
  }
  return out | {"attribute": np.int32(place), "target": np.int32(target)}


def _render(world, pairs, size: int) -> list[dict[str, Any]]:
  """Draws (identity, frame) pairs; runs of one person are drawn together."""
  out: list = []
  for _, run in itertools.groupby(pairs, lambda pair: id(pair[0])):
    people, frames = zip(*run, strict=True)
    out += world.render_frames(people[0], frames, size)
  return out


def shard_examples(
  settings: AttributeSettings, shard: int
) -> Iterator[dict[str, Any]]:
  """Draws the examples of one shard."""
  last = min(settings.count, (shard + 1) * _PER_SHARD)
  for index in range(shard * _PER_SHARD, last):
    yield make_example(settings, index)


def generate_attributes(
  out_dir: str | os.PathLike,
  attributes: Sequence[str],
  count: int,
  size: int = 64,
  seed: int = 0,
  processes: int | generate_lib.Workers | None = None,
  progress: bool = True,
  world: str = worlds.WORLD,
) -> dict[str, Any]:
  """Draws the set into `out_dir/attributes`.

  Args:
    out_dir: folder of the data set.
    attributes: names of the attributes to give and take.
    count: number of examples.
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
  settings = AttributeSettings(tuple(attributes), count, size, seed, world)
  return generate_lib.run_shards(
    pathlib.Path(out_dir) / SPLIT,
    settings.shards,
    count,
    settings,
    settings.metadata(worlds.load_world(world).VERSION),
    shard_examples,
    processes,
    progress,
    f"synthetic heads, {SPLIT}",
  )
