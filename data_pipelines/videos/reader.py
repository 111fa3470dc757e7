"""Reads the frames of a clip: a video file or a folder of pictures.

Whatever is wrong with a clip ends as one `ClipError`.
"""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import face_points, file_kinds, images, listing, tables
from data_pipelines.videos import index

POINTS = 68

# A file whose index is not at hand counts as cut short if so many seconds of
# what its header says are missing.
_MISSING_SECONDS = 0.5


_LONGEST_PIXEL = 8.0  # what goes beyond it is a writer's mistake
_MOST_FRAMES = 10**7  # of a clip, in tables of points


class ClipError(ValueError):
  """A clip that cannot be used; the message says why."""


def require_av() -> Any:
  """The package that reads video files.

  Raises:
    VideoError: it is not installed.
  """
  try:
    import av  # only sets made from video files need it
  except ImportError as error:
    raise index.VideoError(
      "reading video files needs PyAV: pip install 'faceedit_jax[video]', or "
      "pip install 'av>=18.1'"
    ) from error
  return av


def frames(
  path: str | os.PathLike, step: int = 1, limit: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
  """Reads a clip frame by frame.

  Args:
    path: a video file, or a folder of pictures in the order of their names,
      numbers in them as numbers.
    step: every so manieth frame.
    limit: at most so many; 0 reads all.

  Yields:
    The frame's number in the clip and uint8 (h, w, 3), upright.

  Raises:
    ClipError: it is no clip, is damaged or cut short, or holds no frame.
    VideoError: it is gone. Clips that vanish, as with a disk that is taken
      away, must not count as bad.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise index.VideoError(
      f"{path}: is gone since the folder was listed; the same command continues"
    )
  read = _folder_frames if path.is_dir() else _file_frames
  count = 0
  for number, frame in read(path, step):
    yield number, frame
    count += 1
    if count == limit:
      return
  if not count:
    raise ClipError("holds no frame")


def _folder_frames(
  path: pathlib.Path, step: int
) -> Iterator[tuple[int, np.ndarray]]:
  files = sorted(
    (
      file
      for file in path.iterdir()
      if file.suffix.lower() in images.SUFFIXES and file.name[0] != "."
    ),
    key=lambda file: listing.order(file.name),
  )
  for number in range(0, len(files), step):
    try:
      yield number, images.read_image(files[number], min_side=1)
    except images.ImageError as error:
      raise ClipError(f"frame {number}: {error}") from error


def _file_frames(
  path: pathlib.Path, step: int
) -> Iterator[tuple[int, np.ndarray]]:
  av = require_av()
  number = 0
  try:
    with av.open(str(path)) as container:
      if not container.streams.video:
        raise ClipError("has no pictures, only other tracks")
      video = container.streams.video[0]
      video.codec_context.thread_count = 1  # clips are read side by side
      _check_index(video, path)
      shape = _pixel_shape(video)
      seconds = 0.0
      for packet in container.demux():
        if packet.is_corrupt:
          raise ClipError(f"is cut short or damaged after {number} frames")
        if packet.pts is not None:
          end = (packet.pts + (packet.duration or 0)) * packet.time_base
          seconds = max(seconds, float(end))
        if packet.stream_index != video.index:
          continue
        for frame in packet.decode():
          if number % step == 0:
            yield number, _picture(frame, shape)
          number += 1
      _check_duration(container, seconds, av.time_base)
  except ClipError:
    raise
  except FileNotFoundError as error:
    raise index.VideoError(f"{path}: is gone ({error})") from error
  # What PyAV raises, and the plain errors that its readers let through.
  except (av.FFmpegError, OSError, EOFError, ValueError, RuntimeError) as error:
    reason = getattr(error, "strerror", None) or str(error)
    words = "" if number else file_kinds.words_for(path)
    if words and "video" not in words:
      reason = f"{reason}; it is {words}"
    what = f"is damaged after {number} frames" if number else "cannot be read"
    raise ClipError(f"{what} ({' '.join(reason.split())})") from error


def _picture(frame: Any, pixel_shape: float) -> np.ndarray:
  """A frame as players show it.

  Args:
    frame: PyAV's.
    pixel_shape: width of its pixels over their height.

  Returns:
    uint8 (h, w, 3) RGB by the file's own colour matrix, with square pixels,
    turned and mirrored as its display matrix says.
  """
  picture = frame.to_ndarray(format="rgb24")
  if pixel_shape != 1:
    height, width = picture.shape[:2]
    size = (
      round(width * max(pixel_shape, 1.0)),
      round(height / min(pixel_shape, 1.0)),
    )
    resized = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    picture = np.asarray(resized)
  return np.ascontiguousarray(_as_shown(picture, _display_matrix(frame)))


def _display_matrix(frame: Any) -> np.ndarray | None:
  """(2, 2), from x and y as stored to x and y as shown; None without."""
  # By number: iterated, it gives its data with PyAV 18, their types with 19.
  for number in range(len(frame.side_data)):
    data = frame.side_data[number]
    if data.type.name == "DISPLAYMATRIX":
      numbers = np.frombuffer(bytes(data), np.int32, 9).reshape(3, 3)
      return numbers[:2, :2].T.astype(np.float64)
  return None


def _as_shown(picture: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
  """Turns by quarters and mirrors; other angles go to the nearest quarter."""
  if matrix is None or not matrix.any():
    return picture
  (xx, xy), (yx, yy) = matrix
  if abs(xx) + abs(yy) < abs(xy) + abs(yx):
    picture = picture.swapaxes(0, 1)
    xx, yy = xy, yx
  picture = picture[:, ::-1] if xx < 0 else picture
  return picture[::-1] if yy < 0 else picture


def _pixel_shape(video: Any) -> float:
  """Width of a pixel over its height; 1 where none is said, or none can be."""
  shape = float(video.sample_aspect_ratio or 1)
  return shape if 1 / _LONGEST_PIXEL <= shape <= _LONGEST_PIXEL else 1.0


def _check_index(video: Any, path: pathlib.Path) -> None:
  """Compares a file's end with that of its frames, before reading any."""
  end = max((e.pos + e.size for e in video.index_entries), default=0)
  size = path.stat().st_size
  if end > size:
    raise ClipError(f"is cut short: {size} bytes of at least {end}")


def _check_duration(container: Any, seconds: float, base: int) -> None:
  if container.duration is None:
    return
  wanted = (container.duration + (container.start_time or 0)) / base
  if seconds < wanted - _MISSING_SECONDS:
    raise ClipError(f"is cut short: {seconds:.1f} of {wanted:.1f} seconds")


def square(
  image: np.ndarray,
  size: int,
  least_side: int,
  box: tuple[float, float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """A square of a frame, resized without aliasing.

  `align.centre_square` gives the same to within rounding; Pillow's own resize
  takes a fifth of its time, and there are millions of frames.

  Args:
    image: uint8 (h, w, 3).
    size: side of the square in pixels.
    least_side: of squares that are accepted, in pixels.
    box: left, top and side in pixels; the largest centred square when None.

  Returns:
    uint8 (size, size, 3), and (3,): scale and shift (x, y) from pixels of the
    frame to pixels of the square.

  Raises:
    ClipError: the frame is too small.
  """
  height, width = image.shape[:2]
  side = min(height, width)
  left, top = (width - side) / 2, (height - side) / 2
  what = f"frames are {width}x{height} pixels"
  if box is not None:
    left, top, side = box
    what = f"the square round the face has {side:.0f} pixels"
  if side < least_side:
    raise ClipError(
      f"{what}, wanted {least_side} at least (--min_side, --size)"
    )
  scale = size / side
  matrix = np.array([scale, -scale * left, -scale * top])
  if (height, width, side) == (size, size, size):
    return image, matrix
  box = (left, top, left + side, top + side)
  picture = Image.fromarray(image)
  resized = picture.resize((size, size), Image.Resampling.BICUBIC, box)
  return np.array(resized), matrix


def read_points(path: str | os.PathLike) -> np.ndarray:
  """Reads the 68 points per frame that lie beside a clip.

  Args:
    path: of the clip; `.npz` (one array (frames, 68, 2)) or `.csv` (a line
      frame,x1,y1,...,x68,y68 for each frame, numbered from 0; a header is
      allowed) takes the place of its suffix. Separators and encodings: see
      `tables.read_table`.

  Returns:
    float64 (frames, 68, 2) in pixels of the clip; NaN for frames without.

  Raises:
    ClipError: there is no such file, or it holds something else.
  """
  path = pathlib.Path(path)
  has_suffix = path.suffix.lower() in index.SUFFIXES
  stem = path.stem if has_suffix else path.name
  archive, table = (path.with_name(stem + end) for end in (".npz", ".csv"))
  try:
    if archive.is_file():
      with np.load(archive, allow_pickle=False) as file:
        if len(file.files) != 1:
          raise ClipError(f"{archive.name}: {file.files}, wanted one array")
        points = np.asarray(file[file.files[0]], np.float64)
    elif table.is_file():
      points = _read_table(table)
    else:
      raise ClipError(f"has no landmarks beside it ({archive.name} or .csv)")
  except ClipError:
    raise
  # Damaged archives make their reader raise whatever there is.
  except Exception as error:
    raise ClipError(f"landmarks cannot be read ({error})") from error
  if points.ndim != 3 or points.shape[1:] != (POINTS, 2):
    raise ClipError(
      f"landmarks have shape {points.shape}, wanted (frames, {POINTS}, 2)"
    )
  return points


def _read_table(path: pathlib.Path) -> np.ndarray:
  wanted = 1 + 2 * POINTS
  rows: dict[int, list[float]] = {}
  table = tables.read_table(path, lambda cells: len(cells) >= wanted)
  for place, row in enumerate(table.rows):
    cells = row.cells
    if not place and not any(map(tables.is_number, cells)):
      continue  # a header
    # A running number before the frame's, as pandas writes it.
    cells = cells[1:] if len(cells) == wanted + 1 else cells
    try:
      number, *values = map(tables.number, cells)
    except ValueError as error:
      raise ClipError(f"{path.name} line {row.line}: {error}") from error
    whole = 0 <= number < _MOST_FRAMES and number % 1 == 0
    if len(values) != 2 * POINTS or not whole:
      raise ClipError(
        f"{path.name} line {row.line}: {len(cells)} numbers, wanted a frame "
        f"and {2 * POINTS} coordinates"
      )
    rows[int(number)] = values
  points = np.full((max(rows, default=-1) + 1, POINTS, 2), np.nan)
  for number, values in rows.items():
    points[number] = np.asarray(values).reshape(POINTS, 2)
  return points


def points_fault(points: np.ndarray, picture: tuple[int, int]) -> str:
  """What is wrong with the 68 points of a frame; "" where nothing is.

  Args:
    points: (68, 2) in pixels; not finite where there are none.
    picture: height and width of the frame in pixels.
  """
  if not np.isfinite(points).all():
    return "no landmarks"
  problem = face_points.fault(face_points.of_68(points), picture)
  return f"landmarks {problem}; wanted the 68 of iBUG" if problem else ""
