"""The commands `voxceleb1` and `videos` of a command line."""

import argparse
from collections.abc import Mapping

import numpy as np

from data_pipelines import detectors, listing, records, tables
from data_pipelines.videos import annotators as annotators_lib
from data_pipelines.videos import index, prepare, settings, skips, splits

KINDS = ("voxceleb1", "videos")


def add_kinds(kinds: argparse._SubParsersAction) -> None:
  """Adds both commands to those of a parser."""
  shows = argparse.ArgumentDefaultsHelpFormatter
  voxceleb = kinds.add_parser(
    "voxceleb1",
    help="take the frames of VoxCeleb1 as cut for motion models",
    description=(
      "Reads clips person#video#start#end.mp4 or person#video#utterance#"
      "number.mp4, files or folders of frames, below train/ and test/ or "
      "without them. People are split anew: those two folders share some."
    ),
    formatter_class=shows,
  )
  videos = kinds.add_parser(
    "videos",
    help="take the frames of any folder of face videos",
    description="Reads video files and folders of frames, however deep.",
    formatter_class=shows,
  )
  defaults = settings.VideoSet()
  videos.add_argument(
    "--identity",
    default=defaults.identity,
    choices=settings.RULES[1:],
    help=(
      "who is on a clip: the folder it lies in, the first folder of its path, "
      "or its name up to the last --separator"
    ),
  )
  videos.add_argument(
    "--separator", default=defaults.separator, help="ends the person's name"
  )
  # VoxCeleb1's clips are cut round their faces already.
  for parser, detector in (
    (voxceleb, detectors.NONE),
    (videos, detectors.AUTO),
  ):
    _add_common(parser, defaults)
    parser.add_argument(
      "--detector",
      default=detector,
      help=(
        "cut a square round the largest face of each clip: "
        f"{', '.join(detectors.DETECTORS)} or a Python file with "
        "detect(image); none cuts the centred square, auto takes a detector "
        "that is installed"
      ),
    )


def _add_common(
  parser: argparse.ArgumentParser, defaults: settings.VideoSet
) -> None:
  parser.add_argument("--input", required=True, help="folder of clips")
  parser.add_argument("--output", required=True, help="folder of the set")
  for name, text in (
    ("size", "side in pixels; frames are cut square and resized"),
    ("frame_step", "take every so manieth frame"),
    ("max_frames", "of a clip at most; 0 takes all"),
    ("min_side", "leave out clips with a shorter side; 0 means --size"),
    ("split_seed", "of the shuffle that splits the people"),
  ):
    parser.add_argument(
      f"--{name}", type=int, default=getattr(defaults, name), help=text
    )
  for name, text in (
    ("test_share", "share of the people kept for testing"),
    ("validation_share", "share of the others kept for validation"),
  ):
    parser.add_argument(
      f"--{name}", type=float, default=getattr(defaults, name), help=text
    )
  parser.add_argument(
    "--landmarks",
    action="store_true",
    help="read 68 points per frame from the .npz or .csv beside each clip",
  )
  parser.add_argument(
    "--split_file",
    default=None,
    help='a split of your own: {"train": [persons], "test": [...]}',
  )
  parser.add_argument(
    "--splits",
    default=",".join(splits.SPLITS),
    help="prepare only these, comma separated",
  )
  parser.add_argument(
    "--processes",
    type=int,
    default=None,
    help="decoding processes; 0 decodes in this one, by default all cores",
  )


def settle_detector(name: str) -> tuple[str, str]:
  """The detector that cuts the clips, and what to say about it.

  Args:
    name: what the user named.

  Raises:
    DetectorError: there is no such detector, or it is not installed.
  """
  chosen = detectors.choose(name)
  if chosen.finder is None:
    why = f" ({chosen.reason})" if chosen.reason else ""
    return detectors.NONE, f"clips are cut to their centred square{why}"
  found = chosen.finder.name if name == detectors.AUTO else name
  return found, f"clips are cut round their largest face, found by {found}"


def run(
  options: argparse.Namespace,
  annotators: Mapping[str, annotators_lib.Annotator] | None = None,
) -> prepare.Report:
  """Runs one of the commands and prints what it did.

  Args:
    options: as parsed.
    annotators: see `prepare.prepare_videos`.

  Returns:
    What was written and what was skipped.

  Raises:
    ValueError: one line; also where nothing of a person or a split is left,
      when all others are written.
  """
  names = set(settings.VideoSet.__dataclass_fields__)
  values = {k: v for k, v in vars(options).items() if k in names}
  if options.kind == "voxceleb1":
    values["identity"] = "voxceleb1"
  if options.processes is not None and options.processes < 0:
    raise ValueError(f"--processes={options.processes}; wanted 0 or more")
  values["detector"], said = settle_detector(options.detector)
  print(said)
  report = prepare.prepare_videos(
    options.input,
    options.output,
    settings.VideoSet(**values),
    annotators,
    options.split_file,
    tables.split_words(options.splits),
    options.processes,
  )
  print(f"{options.input}: found {report.found} clips")
  for split, metadata in report.metadata.items():
    used = [v for v in metadata["names"]["video"] if v not in report.clips]
    print(
      f"{options.output}/{split}: {metadata['examples']} frames of "
      f"{len(used)} clips"
    )
    if values["detector"] != detectors.NONE and metadata["examples"]:
      path = f"{options.output}/{split}"
      rows = records.RecordSource(path, ["faces", "video"])
      several = np.unique(rows.column("video")[rows.column("faces") > 1])
      print(
        f"{path}: {len(several)} clips show several faces; the largest was "
        "taken"
      )
  frames = sum(entry["skipped"] for entry in report.frames.values())
  if report.clips or frames:
    print(
      f"{len(report.clips)} clips and {frames} frames skipped, see "
      f"{options.output}/{skips.FILE}; {listing.summary(report.clips.items())}"
    )
  _check_left(report)
  return report


def _check_left(report: prepare.Report) -> None:
  lost = [f"person {name!r} ({split})" for name, split in report.lost.items()]
  lost += [f"split {split!r}" for split in report.empty]
  if lost:
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    advice = "; name the splits with --splits" if report.empty else ""
    raise index.VideoError(
      f"nothing is left of {', '.join(lost[:5])}{more}{advice}"
    )
