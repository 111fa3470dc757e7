"""What can be done beside the nets: decoding, cutting and encoding clips.

One job is the clips of one shard. Its frames come in pieces, so that a clip of
any length takes little memory, each job's in order, whichever process reads.
"""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import pathlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import detectors, records
from data_pipelines.videos import face_square, index, reader, settings


@dataclasses.dataclass(frozen=True)
class Piece:
  """A few frames of one clip.

  Attributes:
    numbers: of the frames in the clip.
    encoded: the pictures as they are stored.
    pictures: uint8 (n, s, s, 3), if somebody will look at them.
    points: float32 (n, 68, 2) in unit coordinates, NaN where there are none;
      None in sets without.
    faults: of each frame's points, "" where they can be used.
    faces: how many faces the clip shows; None where nobody looked.
  """

  numbers: list[int]
  encoded: list[records.Encoded]
  pictures: np.ndarray | None
  points: np.ndarray | None
  faults: tuple[str, ...]
  faces: int | None


@dataclasses.dataclass(frozen=True)
class End:
  """The end of a clip; `reason` says why it cannot be used, "" if it can."""

  reason: str = ""


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads jobs; it can be sent to other processes.

  Attributes:
    folder: of the clips.
    chosen: how frames are taken and cut.
    piece: most frames in one `Piece`.
    pictures: whether pieces hold pictures besides the encoded ones.
  """

  folder: str
  chosen: settings.VideoSet
  piece: int
  pictures: bool

  def __call__(self, paths: Sequence[str]) -> Iterator[Piece | End]:
    """For each clip its pieces, then an `End`."""
    for path in paths:
      try:
        yield from self._pieces(pathlib.Path(self.folder) / path)
      except reader.ClipError as error:
        yield End(str(error))
      else:
        yield End()

  def _pieces(self, path: pathlib.Path) -> Iterator[Piece]:
    chosen = self.chosen
    points = reader.read_points(path) if chosen.landmarks else None
    box = faces = None
    if chosen.detector != detectors.NONE:
      found = face_square.of_clip(
        path, chosen.detector, chosen.frame_step, chosen.max_frames
      )
      box, faces = found.box, found.faces
    kept: list[tuple] = []
    for number, frame in reader.frames(
      path, chosen.frame_step, chosen.max_frames
    ):
      picture, (scale, *shift) = reader.square(
        frame, chosen.size, chosen.least_side, box
      )
      placed, fault = None, ""
      if points is not None:
        if number >= len(points):
          raise reader.ClipError(
            f"has landmarks for {len(points)} frames, and more frames"
          )
        fault = reader.points_fault(points[number], frame.shape[:2])
        placed = (points[number] * scale + shift) / chosen.size
      kept.append((number, picture, placed, fault))
      if len(kept) == self.piece:
        yield self._piece(kept, faces)
        kept = []
    if kept:
      yield self._piece(kept, faces)

  def _piece(self, kept: list[tuple], faces: int | None) -> Piece:
    numbers, pictures, points, faults = zip(*kept, strict=True)
    return Piece(
      list(numbers),
      [records.encode_field(picture) for picture in pictures],
      np.stack(pictures) if self.pictures else None,
      np.stack(points).astype(np.float32) if self.chosen.landmarks else None,
      faults,
      faces,
    )


class ReaderDied(Exception):
  """A reading process ended in the middle of job `args[0]`."""


_Read = Callable[[Any], Iterator[Any]]


def stream(
  jobs: Sequence[Any], read: _Read, processes: int
) -> Iterator[tuple[int, Any]]:
  """Reads all jobs; those of several processes come interleaved.

  Args:
    jobs: what `read` takes.
    read: job -> its items; an object that can be pickled.
    processes: how many read; 0 reads in this process.

  Yields:
    (number of the job, item), the items of one job in order.

  Raises:
    VideoError: what `read` raises.
    ReaderDied: a process was killed.
  """
  if processes == 0:
    for number, job in enumerate(jobs):
      for item in read(job):
        yield number, item
    return
  # "spawn": a forked copy of a process that has started JAX may hang.
  context = multiprocessing.get_context("spawn")
  waiting = iter(enumerate(jobs))
  busy: dict[Any, int] = {}
  with contextlib.ExitStack() as held:
    for _, (number, job) in zip(range(processes), waiting, strict=False):
      ours, theirs = context.Pipe()
      worker = context.Process(target=_work, args=(theirs, read), daemon=True)
      worker.start()
      theirs.close()
      held.callback(_stop, worker, ours)
      ours.send(job)
      busy[ours] = number
    while busy:
      for pipe in multiprocessing.connection.wait(list(busy)):
        try:
          kind, item = pipe.recv()
          if kind == "done":
            number, job = next(waiting, (None, None))
            if number is None:
              del busy[pipe]
              continue
            busy[pipe] = number
            pipe.send(job)
        except (EOFError, OSError) as error:
          raise ReaderDied(busy[pipe]) from error
        if kind == "item":
          yield busy[pipe], item
        elif kind == "error":
          raise index.VideoError(item)


def _stop(worker: Any, pipe: Any) -> None:
  pipe.close()
  worker.terminate()
  worker.join()
  worker.close()


def _work(pipe: Any, read: _Read) -> None:
  """Runs in a reading process."""
  # Ctrl-C reaches every process; the first one ends the others.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # A broken pipe: the process that wanted the frames is gone.
  with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
    while True:
      job = pipe.recv()
      try:
        for item in read(job):
          pipe.send(("item", item))
      except (index.VideoError, detectors.DetectorError) as error:
        pipe.send(("error", str(error)))
      pipe.send(("done", None))
