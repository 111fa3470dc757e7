"""Writes metrics and preview pictures without making the loop wait."""

import json
import os
import pathlib
import queue
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from PIL import Image, ImageDraw, ImageFont

from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import WorkdirError

_QUEUE = 64  # writes in flight before the loop has to wait
_FONT = 11


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Turns pictures in [-1, 1] into bytes; bytes pass unchanged.

  Args:
    images: (..., h, w, c) float in [-1, 1] or uint8; NaN becomes black.

  Returns:
    The same shape, uint8.
  """
  images = np.asarray(images)
  if images.dtype == np.uint8:
    return images
  images = np.nan_to_num(images.astype(np.float32), nan=-1.0)
  return np.clip(np.round((images + 1.0) * 127.5), 0, 255).astype(np.uint8)


def make_grid(
  rows: Mapping[str, np.ndarray],
  columns: int = 8,
  gap: int = 2,
  named: bool = False,
) -> np.ndarray:
  """Lays pictures out as a sheet: one row per name, one column per example.

  Args:
    rows: {name: (n, h, w, 1 or 3)} in [-1, 1] or uint8. Rows of smaller
      pictures are enlarged to the tallest one.
    columns: pictures shown per row at most.
    gap: white pixels between pictures.
    named: whether each row has its name before it.

  Returns:
    (H, W, 3) uint8.

  Raises:
    ValueError: for no rows, or an entry that is not a batch of pictures.
  """
  if not rows:
    raise ValueError("a sheet needs at least one row of pictures")
  cells = []
  for name, images in rows.items():
    images = to_uint8(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
      raise ValueError(
        f"row {name!r} has shape {images.shape}, wanted (n, h, w, 1 or 3)"
      )
    if images.shape[-1] == 1:
      images = np.repeat(images, 3, axis=-1)
    cells.append(images[:columns])
  size = max(max(c.shape[1:3]) for c in cells)
  width = max(len(c) for c in cells)
  step = size + gap
  sheet = np.full(
    (len(cells) * step + gap, width * step + gap, 3), 255, np.uint8
  )
  for row, images in enumerate(cells):
    for column, picture in enumerate(images):
      h, w = (
        max(1, s * size // max(picture.shape[:2])) for s in picture.shape[:2]
      )
      if (h, w) != picture.shape[:2]:
        small = Image.fromarray(picture)
        picture = np.asarray(small.resize((w, h), Image.Resampling.NEAREST))
      top, left = gap + row * step, gap + column * step
      sheet[top : top + h, left : left + w] = picture
  return _with_names(sheet, list(rows), step, gap) if named else sheet


def _with_names(sheet, names, step, gap):
  """A sheet with the names of its rows, `step` pixels apart, at its left."""
  texts = [name.replace("_", " ") for name in names]
  font = ImageFont.load_default(_FONT)
  margin = gap + int(max(font.getlength(text) for text in texts)) + 1
  out = Image.new("RGB", (margin + sheet.shape[1], len(sheet)), "white")
  out.paste(Image.fromarray(sheet), (margin, 0))
  draw = ImageDraw.Draw(out)
  for row, text in enumerate(texts):
    middle = gap + row * step + (step - gap) // 2
    draw.text((gap, middle), text, fill="black", font=font, anchor="lm")
  return np.asarray(out)


def open_tensorboard(directory: str | os.PathLike) -> Any | None:
  """A clu writer of TensorBoard files.

  Args:
    directory: where the event files go.

  Returns:
    The writer, or None where TensorFlow or TensorBoard is not installed.
  """
  try:
    import tensorflow as tf  # noqa: PLC0415  (seconds to import)
    from clu import metric_writers  # noqa: PLC0415  (imports TensorFlow)
  except ImportError as e:
    logging.warning("no TensorBoard files: %s", e)
    return None
  # TensorFlow would otherwise claim the memory of every accelerator.
  tf.config.set_visible_devices([], "GPU")
  return metric_writers.SummaryWriter(os.fspath(directory))


class Writer:
  """Metrics to `metrics.jsonl`, pictures to `previews/`, both to TensorBoard.

  One background thread does the writing; the order of calls is kept. Without
  TensorFlow only the TensorBoard files are left out. On every process but the
  first all methods do nothing.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    tensorboard: bool = True,
    start_step: int = 0,
    enabled: bool = True,
  ):
    """Opens the files.

    Args:
      directory: `<workdir>/<stage>`.
      tensorboard: also write TensorBoard files, if TensorFlow is there.
      start_step: the step the run goes on from; lines that a killed run wrote
        beyond it are dropped, so no step is listed twice.
      enabled: False on all processes but the first.

    Raises:
      WorkdirError: when the files cannot be opened.
    """
    self._directory = pathlib.Path(directory)
    self._enabled = enabled
    self._error: BaseException | None = None
    self._board = None
    if not enabled:
      return
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
      _drop_after(self._directory / "metrics.jsonl", start_step)
      self._lines = open(self._directory / "metrics.jsonl", "a")  # noqa: SIM115
    except OSError as e:
      raise WorkdirError(
        f"cannot write to {self._directory}: {e.strerror or e}; "
        "choose another --workdir"
      ) from e
    if tensorboard:
      self._board = open_tensorboard(self._directory / "tensorboard")
    self._queue: queue.Queue = queue.Queue(_QUEUE)
    self._thread = threading.Thread(
      target=self._work, name="writer", daemon=True
    )
    self._thread.start()

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes one line of metrics.

    Args:
      step: training step.
      scalars: {name: number}.
    """
    self._put(self._scalars, step, {k: float(v) for k, v in scalars.items()})

  def write_images(
    self, step: int, rows: Mapping[str, np.ndarray], name: str = "preview"
  ) -> None:
    """Writes a sheet to `previews/<step>_<name>.png` and to TensorBoard.

    Args:
      step: training step.
      rows: {name: (n, h, w, 3)} in [-1, 1] or uint8.
      name: name of the sheet.
    """
    if rows:
      self._put(self._images, step, dict(rows), name)

  def write_hparams(self, hparams: Mapping[str, Any]) -> None:
    """Writes the hyper-parameters.

    Args:
      hparams: nested values; names are joined with ".".
    """
    flat = config_lib.flatten(hparams)
    self._put(self._hparams, {k: _plain(v) for k, v in flat.items()})

  def flush(self) -> None:
    """Waits until everything is written.

    Raises:
      WorkdirError: when a write failed.
    """
    if self._enabled:
      self._queue.join()
      self._raise()

  def close(self) -> None:
    """Writes what is left and closes the files."""
    if not self._enabled:
      return
    self._enabled = False
    self._queue.put(None)
    self._thread.join()
    self._lines.close()
    if self._board is not None:
      self._board.close()
    self._raise()

  def _put(self, function, *args):
    if self._enabled:
      self._raise()
      self._queue.put((function, args))

  def _raise(self):
    error, self._error = self._error, None
    if error is not None:
      reason = getattr(error, "strerror", None) or error
      raise WorkdirError(
        f"cannot write metrics to {self._directory}: {reason}"
      ) from error

  def _work(self):
    while (task := self._queue.get()) is not None:
      try:
        task[0](*task[1])
      except Exception as e:  # handed to the loop by the next call
        self._error = e
      finally:
        self._queue.task_done()
    self._queue.task_done()

  def _scalars(self, step, scalars):
    self._lines.write(json.dumps({"step": step, **scalars}) + "\n")
    self._lines.flush()
    if self._board is not None:
      self._board.write_scalars(step, scalars)
      self._board.flush()

  def _images(self, step, rows, name):
    rows = {k: np.asarray(v) for k, v in rows.items()}
    sheet = make_grid(rows, named=True)
    folder = self._directory / "previews"
    folder.mkdir(exist_ok=True)
    path = folder / f"{step:08d}_{name}.png"
    part = path.with_suffix(".part")
    Image.fromarray(sheet).save(part, format="PNG")
    os.replace(part, path)
    if self._board is not None:
      self._board.write_images(step, {name: sheet[None]})
      self._board.flush()

  def _hparams(self, hparams):
    path = self._directory / "hparams.json"
    path.write_text(json.dumps(hparams, indent=2, sort_keys=True) + "\n")
    if self._board is not None:
      self._board.write_hparams(hparams)
      self._board.flush()


def _plain(value: Any) -> bool | int | float | str:
  """A value of one of the types that TensorBoard shows."""
  return value if isinstance(value, bool | int | float | str) else str(value)


def _drop_after(path: pathlib.Path, step: int) -> None:
  """Drops the lines of later steps, and a half-written last line."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text().splitlines():
    try:
      if json.loads(line)["step"] <= step:
        kept.append(line + "\n")
    except (json.JSONDecodeError, KeyError, TypeError):
      continue
  part = path.with_suffix(".part")
  part.write_text("".join(kept))
  os.replace(part, path)
