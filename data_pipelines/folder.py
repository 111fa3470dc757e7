"""Turns folders of portraits into aligned records; bad pictures are skipped."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tqdm
from PIL import ExifTags, Image

from data_pipelines import (
  align,
  detectors,
  face_points,
  images,
  landmarks,
  records,
)
from data_pipelines.sources.people import FolderIndex

# aligned image (s, s, 3) uint8, landmarks5 (5, 2) unit -> more fields.
Annotator = Callable[[np.ndarray, np.ndarray], dict[str, Any]]

# {picture: points, or why it has none}.
_Points = Mapping[pathlib.PurePath, np.ndarray | str]

_SHARD_PICTURES = 256
_LEAST_LOOKED_AT, _MOST_LOOKED_AT = 12, 64


class NothingLeftError(records.RecordError):
  """Not one picture of a split can be used."""


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of a folder.

  Attributes:
    index: the pictures of the split, and what else lay there.
    written: number of examples.
    skipped: (file, reason) of every picture left out.
    lost: people of the split of whom nothing is left.
    several: pictures with several faces, of which the largest was taken.
    metadata: of the set, see `records.finish`.
  """

  index: FolderIndex
  written: int
  skipped: tuple[tuple[str, str], ...]
  lost: tuple[str, ...]
  several: int
  metadata: dict[str, Any]


def _align(
  image: np.ndarray,
  file: pathlib.PurePath,
  size: int,
  given: _Points | None,
  finder: detectors.Finder | None,
) -> tuple[align.Aligned, int]:
  """The aligned picture, and how many faces were seen (0: nobody looked)."""
  points = None if given is None else given[file]
  if isinstance(points, str) and finder is None:
    raise align.AlignError(f"{file}: {points}")
  if isinstance(points, np.ndarray):
    points = face_points.check(points, image.shape[:2], str(file))
    return align.align(image, points, size), 0
  if finder is None:
    return align.centre_square(image, size), 0
  try:
    found = finder.find(image)
  except align.AlignError as error:
    raise align.AlignError(f"{file}: {error}") from error
  return align.align(image, found.points, size), len(found.faces)


def prepare_folder(
  input_dir: str | os.PathLike,
  output_dir: str | os.PathLike,
  size: int,
  split: str = "train",
  holdout: float = 0.1,
  landmarks_file: str | os.PathLike | None = None,
  detector: detectors.Finder | Callable[[np.ndarray], Any] | None = None,
  annotate: Annotator | None = None,
  progress: bool = True,
) -> Report:
  """Writes one split of a folder of people as aligned records.

  Pictures that cannot be read or aligned are left out and listed in
  `skipped.json`; a run that was stopped continues with the missing shards.

  Args:
    input_dir: one sub-folder per person, or files `who_what.jpg`.
    output_dir: the set goes to `output_dir/split`.
    size: side of the aligned pictures in pixels.
    split: see `people.FolderIndex`.
    holdout: share of people kept out of training.
    landmarks_file: five points per picture, in pixels.
    detector: finds the points of pictures that the file lacks; of several
      faces the largest is taken. A `Finder`, or a function that one takes.
      Without either, the pictures count as aligned and are cut square.
    annotate: adds fields to every example, such as codes found by a net.
    progress: show a progress bar.

  Returns:
    What was written and what was skipped.

  Raises:
    ImageError, SourceError, RecordError: the folders cannot be used.
    NothingLeftError: not one picture can.
  """
  index = FolderIndex(input_dir, split, holdout)
  frames = index.frame_numbers()
  given = None
  if landmarks_file is not None:
    table = landmarks.read_landmarks(landmarks_file)
    given = landmarks.match(table, index.files)
    _check_size(index, given)
  shards = -(-len(frames) // _SHARD_PICTURES)
  finder = None if detector is None else detectors.as_finder(detector)
  how = ["file"] if given is not None else []
  how += [finder.name] if finder is not None else []
  settings = {
    "generator": "image_folder",
    "input": str(pathlib.Path(input_dir).resolve()),
    "pictures": len(frames),
    "content": _fingerprint(index, given),
    "size": size,
    "split": split,
    "holdout": holdout,
    "landmarks": " and ".join(how) or "centre",
    "annotated": annotate is not None,
  }
  path = pathlib.Path(output_dir) / split
  todo = records.begin(path, shards, settings)
  bar = tqdm.tqdm(
    total=len(frames),
    initial=min(len(frames), (shards - len(todo)) * _SHARD_PICTURES),
    desc=f"{pathlib.Path(input_dir).name}, {split}",
    unit="picture",
    disable=None if progress else True,
  )

  def examples(shard: int) -> Iterator[dict[str, Any]]:
    skipped: list = []
    start = shard * _SHARD_PICTURES
    for place in range(start, min(len(frames), start + _SHARD_PICTURES)):
      bar.update()
      file = index.files[place]
      try:
        image = images.read_image(index.path / file)
        aligned, faces = _align(image, file, size, given, finder)
      except (images.ImageError, align.AlignError) as error:
        skipped.append((file.as_posix(), str(error)))
        bar.write(f"skipped {error}")
        continue
      example = {
        "image": aligned.image,
        "landmarks5": aligned.landmarks5,
        "alignment": aligned.matrix.astype(np.float32),
        "identity": np.int32(index.identity(file)),
        "frame": np.int32(frames[place]),
        "file": file.as_posix(),
      }
      if finder is not None:
        example["faces"] = np.int32(faces)
      if annotate is not None:
        example.update(annotate(aligned.image, aligned.landmarks5))
      yield example
    # Noted before the shard appears, so that no restart can lose it.
    _note_skipped(path, shard, skipped)

  with bar:
    for shard in todo:
      records.write_shard(path, shard, shards, examples(shard))
  metadata = records.finish(path)
  skipped_all = tuple(
    (file, reason)
    for notes in _skipped(path).values()
    for file, reason in notes
  )
  if not metadata["examples"]:
    # An empty set would answer the next try, with better points, as well.
    shutil.rmtree(path)
    raise NothingLeftError(
      f"{input_dir}: not one of {len(frames)} pictures could be used, "
      f"first: {skipped_all[0][1]}"
    )
  people = {index.identity(file) for file in index.files}
  gone = {file for file, _ in skipped_all}
  people -= {index.identity(f) for f in index.files if f.as_posix() not in gone}
  lost = [name for name, number in index.numbers.items() if number in people]
  several = 0
  if finder is not None:
    faces = records.RecordSource(path, ["faces"]).column("faces")
    several = int((faces > 1).sum())
  return Report(
    index,
    metadata["examples"],
    skipped_all,
    (*lost, *index.absent),
    several,
    metadata,
  )


def _check_size(index: FolderIndex, given: _Points) -> None:
  """Refuses points of smaller versions of the pictures.

  One such set looks like a small face in a corner; many in the same corner do
  not.

  Raises:
    NothingLeftError: all that were looked at lie in the upper left quarters.
  """
  looked = 0
  for file, points in given.items():
    if isinstance(points, str):
      continue
    try:
      with Image.open(index.path / file) as picture:
        wide, high = picture.size
        if picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
          wide, high = high, wide
    except Exception:  # damaged in any way; said when it is read
      continue
    if (points.max(0) > (wide / 2, high / 2)).any():
      return
    looked += 1
    if looked == _MOST_LOOKED_AT:
      break
  if looked >= _LEAST_LOOKED_AT:
    raise NothingLeftError(
      f"the landmarks of all {looked} pictures looked at lie in their upper "
      "left quarters, as if they were those of smaller pictures; wanted pixels "
      f"of the pictures in {index.path}"
    )


def _fingerprint(index: FolderIndex, given: _Points | None) -> str:
  """Tells apart what a set is made from: files, their sizes, their points."""
  seen = hashlib.sha256()
  for file in index.files:
    seen.update(f"{file} {(index.path / file).stat().st_size}\n".encode())
    points = None if given is None else given[file]
    if points is not None and not isinstance(points, str):
      seen.update(np.asarray(points, np.float64).tobytes())
  return seen.hexdigest()[:16]


def _skipped(path: pathlib.Path) -> dict[str, list]:
  file = path / "skipped.json"
  if not file.is_file():
    return {}
  return json.loads(file.read_text(encoding="utf-8"))


def _note_skipped(path: pathlib.Path, shard: int, skipped: list) -> None:
  """Keeps the list over restarts; a redone shard replaces its own entries."""
  notes = _skipped(path)
  notes.pop(str(shard), None)
  if skipped:
    notes[str(shard)] = skipped
  with records.writing(path):
    temporary = path / "skipped.json.tmp"
    temporary.write_text(json.dumps(notes, indent=1), encoding="utf-8")
    temporary.replace(path / "skipped.json")
