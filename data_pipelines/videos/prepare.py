"""Turns folders of videos into sets of frames; bad clips are skipped.

Clips are decoded by processes and annotated and written by this one. A shard
holds whole clips and appears whole, so a run that was stopped continues with
the missing shards.
"""

import contextlib
import dataclasses
import os
import pathlib
import pickle
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from data_pipelines import records
from data_pipelines.synthetic_heads import generate
from data_pipelines.videos import annotators as annotators_lib
from data_pipelines.videos import index, reader, skips, splits, work
from data_pipelines.videos import settings as settings_lib

# A shard is what a stopped run may lose. Every reader of a set keeps its
# shards open, and systems allow 1024 files: there must not be too many.
_SHARD_CLIPS = 16
_LEAST_SHARDS, _MOST_SHARDS = 8, 256
# Frames wait until their clip turns out to be whole, beyond this on disk.
_WAITING_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of a folder of videos.

  Attributes:
    metadata: {split: metadata}, see `records.finish`. `names` says which person
      an `identity` and which clip a `video` is.
    clips: {clip: why it was left out}.
    frames: {clip: {"skipped": how many of its frames were left out, "frames":
      of how many, "first": why the first of them}}.
    found: how many clips there were, those left out among them.
    lost: {person: split} of those of whom nothing is left.
    empty: splits that were wanted and have nobody.
  """

  metadata: dict[str, dict[str, Any]]
  clips: dict[str, str]
  frames: dict[str, dict[str, Any]]
  found: int
  lost: dict[str, str]
  empty: tuple[str, ...]


def prepare_videos(
  input_dir: str | os.PathLike,
  output_dir: str | os.PathLike,
  settings: settings_lib.VideoSet | None = None,
  annotators: Mapping[str, annotators_lib.Annotator] | None = None,
  split_file: str | os.PathLike | None = None,
  only: Sequence[str] | None = None,
  processes: int | None = None,
  progress: bool = True,
) -> Report:
  """Writes a folder of videos as sets of frames, split by person.

  Frames carry `image` uint8 (s, s, 3), `identity`, `video` (the clip) and
  `frame` (its number in the clip) as int32, where a detector cut them `faces`
  (how many the clip showed at most at once), `landmarks68` float32 (68, 2) in
  unit coordinates if asked for, and what the annotators give.

  Args:
    input_dir: see `index.find_clips`.
    output_dir: gets a set for every split that has people, `splits.json` and
      `skipped.json`.
    settings: which frames are taken and who is on them; `VideoSet()` if None.
    annotators: {name: function}, see `annotators.Annotators`; called in this
      process, in this order.
    split_file: a split of one's own, see `splits.read`. Clips of people who
      are not in it are left out.
    only: some of the splits; all by default.
    processes: how many decode; 0 decodes in this process, None takes all cores.
    progress: show a progress bar.

  Returns:
    What was written and what was skipped.

  Raises:
    VideoError, RecordError: the folders cannot be used, another set or split
      lies there, an annotator misbehaves, or not one frame can be used.
  """
  chosen = settings or settings_lib.VideoSet()
  functions = annotators_lib.Annotators(annotators or {})
  reader.require_av()
  clips, wrong = index.find_clips(input_dir, chosen.identity, chosen.separator)
  output = pathlib.Path(output_dir)
  people = splits.settle(
    output, (clip.person for clip in clips), chosen, split_file
  )
  home = {name: split for split in people for name in people[split]}
  for clip in clips:
    if clip.person not in home:
      wrong[clip.path] = (
        f"person {clip.person!r} is in no split of {output / splits.FILE}"
      )
  numbers = {name: number for number, name in enumerate(sorted(home))}
  skipped = skips.Skipped(output)
  sets, empty, absent = [], [], set(wrong)
  for split in only or splits.SPLITS:
    if split not in splits.SPLITS:
      raise index.VideoError(
        f"no split {split!r}; wanted some of {', '.join(splits.SPLITS)}"
      )
    own = [clip for clip in clips if home.get(clip.person) == split]
    if own:
      sets.append(_Set(output, split, own, numbers, chosen, functions, skipped))
    elif _is_wanted(split, chosen, split_file, people):
      empty.append(split)
  if not sets:
    raise index.VideoError(
      f"{input_dir}: none of its {len({c.person for c in clips})} persons is "
      f"in a wanted split of {output / splits.FILE}"
    )
  for one in sets:
    one.begin()
  skipped.replace(wrong, wrong)
  skipped.save()
  if processes is None:
    processes = generate.default_processes()
  label = pathlib.Path(input_dir).name
  _write(sets, input_dir, chosen, functions, processes, label, progress)
  metadata = {one.split: records.finish(one.path) for one in sets}
  if not any(one["examples"] for one in metadata.values()):
    # Empty sets would answer the next try, with better clips, as well.
    for one in sets:
      shutil.rmtree(one.path)
    path, reason = skipped.first()
    raise records.RecordError(
      f"{input_dir}: not one of {len(clips) + len(wrong)} clips could be used, "
      f"first {path}: {reason}"
    )
  for one in sets:
    if not metadata[one.split]["examples"]:
      shutil.rmtree(one.path)
      del metadata[one.split]
      empty.append(one.split)
  return Report(
    metadata,
    skipped.clips,
    skipped.frames,
    len({clip.path for clip in clips} | absent),
    {name: one.split for one in sets for name in one.lost()},
    tuple(empty),
  )


def _is_wanted(
  split: str,
  chosen: settings_lib.VideoSet,
  split_file: str | os.PathLike | None,
  people: splits.People,
) -> bool:
  """Whether a split without clips was meant to have some."""
  if split_file is not None or people[split]:
    return bool(people[split])
  shares = {"test": chosen.test_share, "validation": chosen.validation_share}
  held_out = sum(share > 0 for share in shares.values())
  # Where there are enough people, a file of one's own has left the split out.
  too_few = sum(map(len, people.values())) <= held_out
  return too_few and shares.get(split, 1.0) > 0


class _Set:
  """One split: its clips, in shards.

  The number of shards depends on the clips alone, never on the machine.
  """

  def __init__(
    self,
    output: pathlib.Path,
    split: str,
    clips: list[index.Clip],
    numbers: dict[str, int],
    chosen: settings_lib.VideoSet,
    functions: annotators_lib.Annotators,
    skipped: skips.Skipped,
  ):
    self.path, self.split = output / split, split
    self.clips, self.numbers = clips, numbers
    self.chosen, self.functions = chosen, functions
    self.skipped = skipped
    wanted = -(-len(clips) // _SHARD_CLIPS)
    self.shards = min(len(clips), max(_LEAST_SHARDS, wanted), _MOST_SHARDS)
    self.todo: list[int] = []

  def shard_clips(self, shard: int) -> range:
    """The numbers of the clips in a shard."""
    bounds = [len(self.clips) * i // self.shards for i in (shard, shard + 1)]
    return range(*bounds)

  def lost(self) -> list[str]:
    """People whose clips are all left out."""
    left = {c.person for c in self.clips if c.path not in self.skipped.clips}
    people = {clip.person for clip in self.clips}
    return sorted(people - left)

  def begin(self) -> None:
    """Starts or continues the set on disk."""
    self.todo = records.begin(
      self.path,
      self.shards,
      {
        "generator": "videos",
        **self.chosen.metadata(),
        "split": self.split,
        "clips": len(self.clips),
        "content": index.fingerprint(self.clips),
        "annotators": self.functions.metadata(),
      },
      {
        "identity": sorted(self.numbers, key=self.numbers.__getitem__),
        "video": [clip.path for clip in self.clips],
      },
    )
    for shard in set(range(self.shards)) - set(self.todo):
      count, fields = records.shard_summary(self.path, shard, self.shards)
      if count:
        self.functions.expect(fields)
        break


def _write(
  sets: Sequence[_Set],
  input_dir: str | os.PathLike,
  chosen: settings_lib.VideoSet,
  functions: annotators_lib.Annotators,
  processes: int,
  label: str,
  progress: bool,
) -> None:
  """Reads, annotates and writes the missing shards of all sets."""
  shards = [_Shard(one, shard) for one in sets for shard in one.todo]
  jobs = [[clip.path for clip in shard.clips] for shard in shards]
  total = sum(len(one.clips) for one in sets)
  read = work.Reader(
    os.fspath(input_dir), chosen, functions.piece, bool(functions)
  )
  bar = tqdm.tqdm(
    total=total,
    initial=total - sum(map(len, jobs)),
    desc=label,
    unit="clip",
    disable=not progress,
    smoothing=0.1,
  )
  seen = 0
  with contextlib.ExitStack() as held:
    held.enter_context(bar)
    for shard in shards:
      held.callback(shard.abort)
    items = work.stream(jobs, read, min(processes, len(jobs)))
    held.enter_context(contextlib.closing(items))
    try:
      for job, item in items:
        if isinstance(item, work.Piece):
          shards[job].take(item)
          seen += len(item.numbers)
          bar.set_postfix_str(f"{seen} frames", refresh=False)
          continue
        reason = shards[job].end_clip(item.reason)
        if reason:
          bar.write(f"skipped {reason}")
        bar.update()
    except work.ReaderDied as error:
      raise records.RecordError(
        f"{shards[error.args[0]].clip.path}: the process that read it was "
        "killed; run the same command again with fewer --processes, or take "
        "this clip away if it fails once more"
      ) from error


class _Shard:
  """One shard while it is written, and the clip that its job is at."""

  def __init__(self, home: _Set, shard: int):
    self._home, self._shard = home, shard
    places = home.shard_clips(shard)
    self._places = list(places)
    self.clips = [home.clips[place] for place in places]
    self._writer: records.ShardWriter | None = None
    self._held: tempfile.SpooledTemporaryFile | None = None
    self._done = 0
    self._reasons: dict[str, str] = {}
    self._frames: dict[str, dict[str, Any]] = {}
    self._start_clip()

  def _start_clip(self) -> None:
    self._kept = self._dropped = 0
    self._first = ""
    if self._held is not None:
      self._held.close()
      self._held = None

  @property
  def clip(self) -> index.Clip:
    """The clip that is being read."""
    return self.clips[min(self._done, len(self.clips) - 1)]

  def take(self, piece: work.Piece) -> None:
    """Annotates some frames and holds them until their clip has ended."""
    home, path = self._home, self.clip.path
    places = [i for i, reason in enumerate(piece.faults) if not reason]
    answers: dict[int, Any] = {place: {} for place in places}
    if home.functions and places:
      points = None if piece.points is None else piece.points[places]
      found = home.functions(piece.pictures[places], points, path)
      answers = dict(zip(places, found, strict=True))
    with records.writing(home.path):
      if self._held is None:
        self._held = tempfile.SpooledTemporaryFile(
          _WAITING_BYTES, dir=home.path
        )
      for i, number in enumerate(piece.numbers):
        answer = piece.faults[i] or answers[i]
        if isinstance(answer, str):
          self._first = self._first or f"frame {number}: {answer}"
          self._dropped += 1
          continue
        example = {
          "image": piece.encoded[i],
          "identity": np.int32(home.numbers[self.clip.person]),
          "video": np.int32(self._places[self._done]),
          "frame": np.int32(number),
          **answer,
        }
        if piece.faces is not None:
          example["faces"] = np.int32(piece.faces)
        if piece.points is not None:
          example["landmarks68"] = piece.points[i]
        pickle.dump(example, self._held)
        self._kept += 1

  def end_clip(self, reason: str) -> str:
    """Writes the clip's frames, or drops them; returns "clip reason" if so."""
    path = self.clip.path
    if not reason and not self._kept:
      reason = f"not one frame could be used, first {self._first}"
    if reason:
      self._reasons[path] = reason
    else:
      if self._dropped:
        self._frames[path] = {
          "skipped": self._dropped,
          "frames": self._dropped + self._kept,
          "first": self._first,
        }
      self._append()
    self._start_clip()
    self._done += 1
    if self._done == len(self.clips):
      self._close()
    return f"{path}: {reason}" if reason else ""

  def _open(self) -> records.ShardWriter:
    if self._writer is None:
      home = self._home
      self._writer = records.ShardWriter(home.path, self._shard, home.shards)
    return self._writer

  def _append(self) -> None:
    writer = self._open()
    self._held.seek(0)
    for _ in range(self._kept):
      writer.add(pickle.load(self._held))

  def _close(self) -> None:
    # Noted before the shard appears, so that no restart can lose it.
    skipped = self._home.skipped
    paths = [clip.path for clip in self.clips]
    skipped.replace(paths, self._reasons, self._frames)
    skipped.save()
    self._open().close()
    self._writer = None

  def abort(self) -> None:
    """Drops what is not whole."""
    self._start_clip()
    if self._writer is not None:
      self._writer.abort()
