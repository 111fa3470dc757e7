"""Prepares data sets: `python -m data_pipelines.prepare KIND --help`.

`synthetic_heads` draws the embedded world, `image_folder` aligns portraits,
`celeba_hq` takes CelebA-HQ with its attributes, `voxceleb1` and `videos` the
frames of clips. All of them can be stopped at any time and continue where they
were.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines import (
  detectors,
  folder,
  listing,
  records,
  sources,
  tables,
)
from data_pipelines.celeba import prepare as celeba
from data_pipelines.sources import people as people_lib
from data_pipelines.synthetic_heads import attribute_set, worlds
from data_pipelines.synthetic_heads import generate as generate_lib
from data_pipelines.synthetic_heads import pairs as pairs_lib
from data_pipelines.videos import command as videos_command


@dataclasses.dataclass(frozen=True)
class SyntheticSet:
  """The embedded data set with all its splits.

  Attributes:
    size: side of the pictures in pixels.
    identities: people to train on.
    frames: pictures of each person.
    seed: of the world.
    balance: CelebA attribute names brought near one half, for training only.
    validation_identities: people of the validation split; 0 leaves it out.
    test_identities: people of the test split; 0 leaves it out.
    eval_pairs: number of edits with known outcome; 0 leaves them out.
    eval_swaps: number of hair, clothes and background swaps; 0 leaves them out.
    edited_attributes: names of the attributes that edits give and take.
    eval_edits: number of attribute edits with known outcome; 0 leaves them out.
    world: see `synthetic_heads.worlds.load_world`.
    landmarks68: whether people's pictures carry 68 points as well.
  """

  size: int = 64
  identities: int = 1024
  frames: int = 8
  seed: int = 0
  balance: tuple[str, ...] = ()
  validation_identities: int = 16
  test_identities: int = 64
  eval_pairs: int = pairs_lib.PAIRS
  eval_swaps: int = pairs_lib.SWAPS
  edited_attributes: tuple[str, ...] = ()
  eval_edits: int = 0
  world: str = worlds.WORLD
  landmarks68: bool = False

  @classmethod
  def from_mapping(cls, data: Mapping[str, Any]) -> "SyntheticSet":
    """Takes what options say about the set; ignores the rest."""
    names = {field.name for field in dataclasses.fields(cls)}
    values = {
      name: data[name]
      for name in data
      if name in names and data[name] is not None
    }
    for name in ("balance", "edited_attributes"):
      if name in values:
        values[name] = tuple(values[name])
    return cls(**values)

  def splits(self) -> tuple[str, ...]:
    """The splits this set has."""
    people = {
      "train": self.identities,
      "validation": self.validation_identities,
      "test": self.test_identities,
      "pairs": self.eval_pairs,
      "swaps": self.eval_swaps,
      "attributes": self.eval_edits,
    }
    return tuple(name for name, count in people.items() if count)


def prepare_synthetic(
  data_dir: str | os.PathLike,
  settings: SyntheticSet,
  splits: Sequence[str] | None = None,
  processes: int | None = None,
  progress: bool = True,
) -> dict[str, dict[str, Any]]:
  """Draws the missing splits of the embedded set.

  Args:
    data_dir: folder of the set; every split is a folder in it.
    settings: what to draw.
    splits: some of `settings.splits()`; all by default.
    processes: 0 draws in this process, None takes all cores.
    progress: show progress bars.

  Returns:
    {split: metadata}.

  Raises:
    RecordError: a different set lies there, or it cannot be written.
  """
  people = {
    "train": settings.identities,
    "validation": settings.validation_identities,
    "test": settings.test_identities,
  }
  done = {}
  with contextlib.ExitStack() as held:
    workers = processes
    if processes != 0:
      workers = held.enter_context(generate_lib.Workers(processes))
    for split in splits or settings.splits():
      if split in people:
        done[split] = generate_lib.generate(
          data_dir,
          split,
          people[split],
          settings.frames,
          settings.size,
          settings.seed,
          settings.balance if split == "train" else (),
          workers,
          progress,
          settings.world,
          settings.landmarks68,
        )
      elif split in ("pairs", "swaps"):
        done[split] = pairs_lib.generate_pairs(
          data_dir,
          split,
          getattr(settings, f"eval_{split}"),
          settings.size,
          settings.seed,
          workers,
          progress,
          settings.world,
        )
      elif split == attribute_set.SPLIT:
        done[split] = attribute_set.generate_attributes(
          data_dir,
          settings.edited_attributes,
          settings.eval_edits,
          settings.size,
          settings.seed,
          workers,
          progress,
          settings.world,
        )
      else:
        raise ValueError(
          f"no split {split!r}; wanted some of {settings.splits()}"
        )
  return done


def ensure(
  source: sources.SyntheticHeads,
  data_dir: str | os.PathLike,
  processes: int | None = None,
  progress: bool = True,
) -> bool:
  """Makes sure that the embedded set a config asks for is there.

  Args:
    source: where the set lies and what it is drawn with.
    data_dir: where the data lie.
    processes: see `prepare_synthetic`.
    progress: show progress bars.

  Returns:
    Whether anything had to be drawn.

  Raises:
    RecordError: a different set lies there, or it cannot be written.
  """
  path = pathlib.Path(data_dir) / source.folder
  settings = SyntheticSet.from_mapping(dataclasses.asdict(source))
  missing = []
  for split in settings.splits():
    metadata = records.read_metadata(path / split)
    if metadata is None or not metadata["complete"]:
      missing.append(split)
    # What a complete set was made from is compared, not drawn again.
    else:
      _check_same(path / split, split, metadata["settings"], settings, source)
  if not missing:
    return False
  prepare_synthetic(path, settings, missing, processes, progress)
  return True


def _check_same(
  path: pathlib.Path,
  split: str,
  found: Mapping[str, Any],
  settings: SyntheticSet,
  source: sources.SyntheticHeads,
) -> None:
  """Compares what the config says explicitly with the set on disk."""
  wanted: dict[str, Any] = {}
  for name in ("size", "seed", "frames", "world"):
    if name in found and (getattr(source, name) is not None or name == "size"):
      wanted[name] = getattr(settings, name)
  if split in _FOLDER_SPLITS and source.landmarks68 is not None:
    # Sets without the points do not say so.
    found = {"landmarks68": False, **found}
    wanted["landmarks68"] = settings.landmarks68
  if split == "train":
    if source.identities is not None:
      wanted["identities"] = [0, settings.identities]
    if source.balance is not None:
      wanted["balance"] = list(settings.balance)
  if split == attribute_set.SPLIT:
    wanted |= {
      "count": settings.eval_edits,
      "attributes": list(settings.edited_attributes),
    }
  text = records.difference({name: found.get(name) for name in wanted}, wanted)
  if text:
    raise records.RecordError(
      f"{path}: a different set lies there ({text}); choose another "
      "--data_dir or remove this one"
    )


_FOLDER_SPLITS = ("train", "validation", "test")
_LEAST_SIDE, _MOST_SIDE = 8, 8192  # of pictures in pixels


class _Parser(argparse.ArgumentParser):
  """Says what is wrong in one line, without the usage."""

  def error(self, message):
    self.exit(2, f"error: {message}; {self.prog} --help lists the options\n")


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog="python -m data_pipelines.prepare",
    description="Prepares a data set; stopped runs continue where they were.",
  )
  kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
  shows = argparse.ArgumentDefaultsHelpFormatter
  heads = kinds.add_parser(
    "synthetic_heads",
    help="draw the embedded world of heads",
    formatter_class=shows,
  )
  defaults = SyntheticSet()
  heads.add_argument(
    "--data_dir", default="data/synthetic_heads", help="folder of the set"
  )
  heads.add_argument(
    "--size", type=int, default=defaults.size, help="side in pixels"
  )
  heads.add_argument(
    "--identities",
    type=int,
    default=defaults.identities,
    help="people to train on",
  )
  heads.add_argument(
    "--frames", type=int, default=defaults.frames, help="pictures of each"
  )
  heads.add_argument(
    "--validation_identities",
    type=int,
    default=defaults.validation_identities,
    help="people of the validation split",
  )
  heads.add_argument(
    "--test_identities",
    type=int,
    default=defaults.test_identities,
    help="people of the test split",
  )
  heads.add_argument(
    "--eval_pairs",
    type=int,
    default=defaults.eval_pairs,
    help="edits with known outcome",
  )
  heads.add_argument(
    "--eval_swaps",
    type=int,
    default=defaults.eval_swaps,
    help="hair, clothes and background swaps with known outcome",
  )
  heads.add_argument(
    "--edited_attributes",
    default="",
    help="CelebA names, comma separated, that the edits give and take",
  )
  heads.add_argument(
    "--eval_edits",
    type=int,
    default=defaults.eval_edits,
    help="edits of these attributes with known outcome",
  )
  heads.add_argument(
    "--landmarks68",
    action="store_true",
    help="store 68 points of every face as well",
  )
  heads.add_argument("--seed", type=int, default=0, help="of the world")
  heads.add_argument(
    "--balance",
    default="",
    help="CelebA attribute names, comma separated, to bring near one half",
  )
  heads.add_argument(
    "--splits", default="", help="only these splits, comma separated"
  )
  heads.add_argument(
    "--processes",
    type=int,
    default=None,
    help="drawing processes; 0 draws in this one, by default all cores",
  )
  heads.add_argument("--world", default=defaults.world, help=argparse.SUPPRESS)
  faces = kinds.add_parser(
    "image_folder",
    help="align a folder of portraits",
    description=(
      "Reads one sub-folder per person, or files named who_what.jpg. Without "
      "--landmarks and --detector the pictures count as aligned and are cut "
      "square."
    ),
    formatter_class=shows,
  )
  faces.add_argument("--input", required=True, help="folder of pictures")
  faces.add_argument("--output", required=True, help="folder of the set")
  faces.add_argument("--size", type=int, default=256, help="side in pixels")
  faces.add_argument(
    "--landmarks",
    default=None,
    help="five points per picture in pixels: .csv, .json or .npz",
  )
  faces.add_argument(
    "--detector",
    default=detectors.AUTO,
    help=(
      "finds the face where no points are given: "
      f"{', '.join(detectors.DETECTORS)} or a Python file with detect(image); "
      "none takes the pictures as aligned, auto a detector that is installed"
    ),
  )
  faces.add_argument(
    "--holdout",
    type=float,
    default=0.1,
    help="share of people kept for validation and test",
  )
  faces.add_argument(
    "--splits", default="train,validation,test", help="comma separated"
  )
  celeba.add_kind(kinds)
  videos_command.add_kinds(kinds)
  return parser


def _run_synthetic(options: argparse.Namespace) -> None:
  values = vars(options).copy()
  for name in ("balance", "edited_attributes"):
    values[name] = tuple(tables.split_words(getattr(options, name)))
  settings = SyntheticSet.from_mapping(values)
  splits = tables.split_words(options.splits) or None
  done = prepare_synthetic(
    options.data_dir, settings, splits, options.processes
  )
  for split, metadata in done.items():
    print(f"{options.data_dir}/{split}: {metadata['examples']} examples")


def _run_folder(options: argparse.Namespace) -> None:
  splits = tables.split_words(options.splits)
  unknown = [s for s in splits if s not in _FOLDER_SPLITS]
  if unknown or not splits:
    raise ValueError(
      f"--splits={options.splits}; wanted some of {','.join(_FOLDER_SPLITS)}"
    )
  if not _LEAST_SIDE <= options.size <= _MOST_SIDE:
    raise ValueError(
      f"--size={options.size}; wanted {_LEAST_SIDE} to {_MOST_SIDE} pixels"
    )
  if not 0 <= options.holdout < 1:
    raise ValueError(f"--holdout={options.holdout}; wanted 0 up to below 1")
  finder = _find_detector(options)
  problems, listed = [], set()
  for split in splits:
    try:
      report = folder.prepare_folder(
        options.input,
        options.output,
        options.size,
        split,
        options.holdout,
        options.landmarks,
        finder,
      )
    except (sources.SourceError, folder.NothingLeftError) as error:
      problems.append(f"split {split}: {error}")
      continue
    if report.index.path not in listed:
      listed.add(report.index.path)
      _print_found(report.index)
    print(
      f"{options.output}/{split}: took {report.written} of "
      f"{len(report.index.files)} pictures; {_left(report.skipped)}"
    )
    if report.several:
      print(
        f"{report.several} of them show several faces; the largest was taken"
      )
    problems += [
      f"nothing is left of {name!r} ({split})" for name in report.lost
    ]
  if problems:
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise records.RecordError(
      "; ".join(problems[:5]) + more + "; --splits names those that are wanted"
    )


def _print_found(index: people_lib.FolderIndex) -> None:
  print(
    f"{index.path}: found {index.pictures} pictures of {len(index.numbers)} "
    f"people; {_left(index.left)}"
  )


def _left(left: Sequence[tuple[str, str]]) -> str:
  return f"left out {listing.summary(left)}" if left else "left out none"


def _find_detector(options: argparse.Namespace) -> detectors.Finder | None:
  """What finds the faces of a folder, after saying so.

  Raises:
    DetectorError: there is no such detector, or it is not installed.
  """
  name = options.detector
  if name == detectors.AUTO and options.landmarks is not None:
    name = detectors.NONE
  chosen = detectors.choose(name)
  said = []
  if options.landmarks is not None:
    said.append(f"the points of {options.landmarks}")
  if chosen.finder is not None:
    said.append(chosen.finder.name)
  if said:
    print(f"pictures are aligned by {', else by '.join(said)}")
  else:
    why = f" ({chosen.reason})" if chosen.reason else ""
    print(f"pictures count as aligned and are cut square{why}")
  return chosen.finder


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  options = _parser().parse_args(argv)
  try:
    if options.kind == "synthetic_heads":
      _run_synthetic(options)
    elif options.kind == celeba.KIND:
      celeba.run(options)
    elif options.kind in videos_command.KINDS:
      videos_command.run(options)
    else:
      _run_folder(options)
  # Every error of this package is a ValueError; the system's are the others.
  except (ValueError, OSError) as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("stopped; the same command continues here", file=sys.stderr)
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(main())
