"""Splits people, not clips, and keeps what was drawn in `splits.json`.

A file written once is read again ever after, so that people never move from
one split to another.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable

from data_pipelines import listing, records, tables
from data_pipelines.videos import index, settings

SPLITS = ("train", "validation", "test")
FILE = "splits.json"

_DRAWN = ("split_seed", "test_share", "validation_share")

People = dict[str, list[str]]  # the names in each split


def draw(
  people: Iterable[str], seed: int, test_share: float, validation_share: float
) -> People:
  """Splits people by a seeded shuffle.

  Every share above zero gets one person at least, as long as one is left to
  train on.

  Args:
    people: names, in any order.
    seed: of the shuffle.
    test_share: share of all people.
    validation_share: share of those who are not in the test split.

  Returns:
    {split: sorted names}.
  """
  # Sorted by hashes: unlike a generator's shuffle, the same in every version.
  order = sorted(
    set(people),
    key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest(),
  )
  test = _count(len(order), test_share)
  validation = _count(len(order) - test, validation_share)
  return {
    "train": sorted(order[test + validation :]),
    "validation": sorted(order[test : test + validation]),
    "test": sorted(order[:test]),
  }


def _count(people: int, share: float) -> int:
  wanted = max(round(people * share), 1 if share > 0 else 0)
  return max(min(wanted, people - 1), 0)


def read(path: str | os.PathLike) -> tuple[People, dict]:
  """Reads a split file.

  Args:
    path: JSON, {"train": [names], "validation": [names], "test": [names]};
      any of the three may be missing.

  Returns:
    The people, and what they were drawn with ({} in files of one's own).

  Raises:
    VideoError: it cannot be read, or a person is in it twice.
  """
  path = pathlib.Path(path)
  try:
    content = json.loads(tables.read_text(path))
  except (ValueError, RecursionError) as error:
    raise index.VideoError(
      f"{path}: cannot be read as a split file ({error})"
    ) from error
  wanted = f"{path}: wanted lists of persons under {', '.join(SPLITS)}"
  if not isinstance(content, dict):
    raise index.VideoError(f"{wanted}; got a {type(content).__name__}")
  unknown = sorted(set(content) - {*SPLITS, *_DRAWN})
  if unknown or not set(content) & set(SPLITS):
    raise index.VideoError(f"{wanted}; got {unknown or sorted(content)}")
  home: dict[str, str] = {}
  for split in SPLITS:
    names = content.get(split, [])
    if not (
      isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
      raise index.VideoError(f"{wanted}; {split} is no list of texts")
    for name in map(listing.normal, names):
      if name in home:
        raise index.VideoError(
          f"{path}: person {name!r} is in {home[name]} and in {split}; wanted "
          "every person once"
        )
      home[name] = split
  people = {
    split: sorted(map(listing.normal, content.get(split, [])))
    for split in SPLITS
  }
  return people, {k: content[k] for k in _DRAWN if k in content}


def settle(
  output: str | os.PathLike,
  people: Iterable[str],
  chosen: settings.VideoSet,
  split_file: str | os.PathLike | None = None,
) -> People:
  """The split of a set: as it was written before, as given, or drawn.

  Args:
    output: folder of the set; `splits.json` in it is read, or written once.
    people: everybody in the set.
    chosen: what to draw with.
    split_file: a split of one's own, see `read`.

  Returns:
    {split: sorted names}.

  Raises:
    VideoError: a file cannot be used, or another split was written before.
    RecordError: the folder cannot be written.
  """
  path = pathlib.Path(output) / FILE
  drawn = {name: getattr(chosen, name) for name in _DRAWN}
  given = read(split_file)[0] if split_file is not None else None
  if path.exists():
    there, there_drawn = read(path)
    text = ""
    if given is not None and given != there:
      text = f"it is not that of {split_file}"
    elif given is None and there_drawn:
      text = records.difference(there_drawn, drawn)
    if text:
      raise index.VideoError(
        f"{path}: another split was written before ({text}); choose another "
        "--output or remove this one"
      )
    return there
  split = given if given is not None else draw(people, *drawn.values())
  content = split if given is not None else {**drawn, **split}
  with records.writing(pathlib.Path(output)):
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_atomic(path, json.dumps(content, indent=1).encode())
  return split
