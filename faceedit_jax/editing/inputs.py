"""Reads the inputs of an edit: files, words and arrays -> what a net reads.

Each kind of `core.editing.EditInput` has one reader here.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import align, detectors, images, listing, tables
from faceedit_jax.core.editing import (
  CAMERA_NUMBERS,
  PICTURES,
  SOURCE,
  EditInput,
)
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.editing import alignment as alignment_lib

Picture = str | os.PathLike | np.ndarray


@dataclasses.dataclass(frozen=True)
class Inputs:
  """What one edit reads.

  Attributes:
    arrays: {field: one example, as `EditInput.spec` says, but pictures uint8
      (s, s, 3) or (s, s)}.
    photos: {field: uint8 (h, w, 3)}, photos before alignment.
    squares: {field: the aligned photo}.
    faces: {field: what was found}, photos in which a face was searched.
  """

  arrays: dict[str, np.ndarray]
  photos: dict[str, np.ndarray]
  squares: dict[str, align.Aligned]
  faces: dict[str, detectors.Found]


class InputReader:
  """Reads the inputs that a recipe declares."""

  def __init__(
    self,
    declared: Sequence[EditInput],
    image_size: int,
    aligner: alignment_lib.FaceAligner,
  ):
    # Photos first: other pictures may be cut along with them.
    self._declared = sorted(declared, key=lambda item: item.kind != "photo")
    self._image_size, self._aligner = image_size, aligner

  def read(
    self,
    given: Mapping[str, Any],
    points: Mapping[str, np.ndarray] | None = None,
    framed: bool = False,
    face: detectors.Choice = detectors.LARGEST,
  ) -> Inputs:
    """Reads the inputs of one edit.

    Args:
      given: {field: file, array, text or number}.
      points: five points by file name or field, in pixels.
      framed: all pictures are aligned already.
      face: which face of the source is meant; of other photos the largest.

    Returns:
      The inputs.

    Raises:
      UserError: one line: a required one is missing, or one cannot be used.
    """
    for item in self._declared:
      if item.required and item.field not in given:
        others = [i.field for i in self._declared if i.field != item.field]
        more = f" and any of {others}" if others else ""
        raise UserError(f"edit lacks {item.field!r}; wanted it{more}")
    found = Inputs({}, {}, {}, {})
    for item in self._declared:
      if item.field in given:
        choice = face if item.field == SOURCE else detectors.LARGEST
        self._read(item, given[item.field], points, framed, choice, found)
    return found

  def _read(self, item, value, points, framed, face, found) -> None:
    name, side = item.field, item.size or self._image_size
    if item.kind == "photo":
      photo = load(value, name)
      square, seen = self._cut(photo, value, item, points, framed, face)
      found.photos[name], found.squares[name] = photo, square
      if seen is not None:
        found.faces[name] = seen
      found.arrays[name] = square.image
    elif item.kind in PICTURES:
      labels = item.kind == "label_map"
      picture = (
        read_labels(value, name, item.classes)
        if labels
        else images.to_gray(load(value, name))
      )
      matrix = _matrix(picture, side, found, item.frame_of)
      method = "nearest" if labels else "smooth"
      found.arrays[name] = align.warp(picture, matrix, side, method)
    elif item.kind == "text":
      found.arrays[name] = read_text(value, item)
    elif item.kind == "camera":
      found.arrays[name] = read_camera(value, name)
    else:
      found.arrays[name] = read_number(value, name)

  def _cut(self, photo, value, item, points, framed, face):
    """The square round the face of a photo, and what was found."""
    name = item.field if isinstance(value, np.ndarray) else os.fspath(value)
    five = alignment_lib.listed(points, value, item.field)
    side = item.size or self._image_size
    try:
      return self._aligner.cut(photo, side, five, framed, face)
    except (align.AlignError, detectors.DetectorError) as error:
      raise UserError(f"{name}: {error}") from error


def _matrix(picture, side, found: Inputs, frame_of: str) -> np.ndarray:
  """The map from a label map or sketch to its square."""
  square = found.squares.get(frame_of)
  if square is None or found.photos[frame_of].shape[:2] != picture.shape:
    return align.centre_matrix(*picture.shape, side)
  return square.matrix * (side / square.image.shape[0])


def batch(items: Sequence[Inputs], size: int) -> dict[str, np.ndarray]:
  """The inputs of several edits with the same fields, as `edit` gets them.

  Args:
    items: at least one.
    size: examples of the batch; the last item fills it up.

  Returns:
    {field: (size, ...)} and "row", which names each example's noise: every
    edit gets that of a lone one.
  """
  made = {}
  for name in items[0].arrays:
    rows = np.stack([item.arrays[name] for item in items])
    made[name] = fill(rows, size)
  return made | {"row": np.zeros(size, np.int32)}


def fill(rows: np.ndarray, size: int) -> np.ndarray:
  """Rows (n, ...) as (size, ...), filled up with the last one."""
  return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), 0)])


def units(pictures: np.ndarray) -> np.ndarray:
  """Bytes as float32 in [-1, 1]."""
  return pictures.astype(np.float32) / 127.5 - 1.0


def to_arrays(
  declared: Sequence[EditInput], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Bytes of photos and sketches as numbers, the rest as it is."""
  kinds = {item.field: item.kind for item in declared}
  made = dict(values)
  for name, value in values.items():
    if kinds.get(name) == "photo":
      made[name] = units(value)
    elif kinds.get(name) == "sketch":
      made[name] = units(value)[..., None]
  return made


def load(picture: Picture, role: str) -> np.ndarray:
  """Reads a file, or takes an array.

  Args:
    picture: a file, or uint8 (h, w), (h, w, 3) or (h, w, 4).
    role: what it is for, for errors.

  Returns:
    uint8 (h, w, 3).

  Raises:
    UserError: one line, when it cannot be used.
  """
  if isinstance(picture, str | os.PathLike):
    with as_user_error(role):
      return images.read_image(listing.existing(picture))
  picture = np.asarray(picture)
  flat = picture.ndim == 2
  if picture.dtype != np.uint8 or not (
    flat or (picture.ndim == 3 and picture.shape[2] in (3, 4))
  ):
    raise UserError(
      f"{role} is {picture.dtype} {picture.shape}, wanted uint8 (h, w), "
      "(h, w, 3) or (h, w, 4)"
    )
  if min(picture.shape[:2]) < images.MIN_SIDE:
    raise UserError(
      f"{role} is {picture.shape[1]}x{picture.shape[0]} pixels, wanted at "
      f"least {images.MIN_SIDE}x{images.MIN_SIDE}"
    )
  return images.to_rgb(Image.fromarray(picture))


def read_labels(value: Picture, name: str, classes: int) -> np.ndarray:
  """Reads a label map.

  Args:
    value: a file (`images.read_labels`), or whole numbers (h, w).
    name: what it is for, for errors.
    classes: number of classes.

  Returns:
    uint8 (h, w) below `classes`.

  Raises:
    UserError: one line, when it cannot be used.
  """
  if isinstance(value, str | os.PathLike):
    with as_user_error(name):
      labels = images.read_labels(listing.existing(value))
  else:
    labels = np.asarray(value)
    if labels.ndim != 2 or labels.dtype.kind not in "ui" or not labels.size:
      raise UserError(
        f"{name} is {labels.dtype} {labels.shape}, wanted whole numbers (h, w)"
      )
  low, high = int(labels.min()), int(labels.max())
  if low < 0 or high >= classes:
    wrong = low if low < 0 else high
    raise UserError(f"{name} holds class {wrong}, wanted 0 to {classes - 1}")
  return labels.astype(np.uint8)


def read_text(value: Any, item: EditInput) -> np.ndarray:
  """Tokens (length,) int32 of a text.

  Raises:
    UserError: one line: it is no text, or its tokenizer refuses it.
  """
  if not isinstance(value, str):
    raise UserError(f"{item.field} is {value!r}, wanted a text")
  with as_user_error(item.field):
    tokens = np.asarray(item.tokenizer(value))
  if tokens.shape != (item.length,) or tokens.dtype.kind not in "ui":
    raise UserError(
      f"{item.field}: its tokenizer gave {tokens.dtype} {tokens.shape}, wanted "
      f"whole numbers ({item.length},)"
    )
  return tokens.astype(np.int32)


def read_camera(value: Any, name: str) -> np.ndarray:
  """Reads a camera.

  Args:
    value: 25 numbers: the map from camera to world (4 x 4) and the intrinsics
      (3 x 3), by rows; as an array, a text of numbers, or a `.json`, `.csv` or
      `.txt` file.
    name: what it is for, for errors.

  Returns:
    float32 (25,).

  Raises:
    UserError: one line, when it is something else.
  """
  where = name
  if isinstance(value, str | os.PathLike):
    numbers = numbers_in(os.fspath(value))
    if numbers is None:
      where = f"{name}: {os.fspath(value)}"
      numbers = _camera_file(pathlib.Path(value), where)
    value = numbers
  wrong = f"{where}: wanted {_CAMERA}"
  try:
    flat = np.concatenate([np.ravel(part) for part in value]).astype(np.float32)
  except (ValueError, TypeError) as error:
    raise UserError(wrong) from error
  if flat.shape != (CAMERA_NUMBERS,) or not np.isfinite(flat).all():
    raise UserError(f"{wrong}, got {flat.tolist()}")
  return flat


def _camera_file(path: pathlib.Path, where: str) -> Any:
  """What a file holds, as JSON or as numbers."""
  path = listing.existing(path)
  if not path.is_file():
    raise UserError(f"{where}: no such file, and not {_CAMERA}")
  with as_user_error(where):
    text = tables.read_text(path)
    return json.loads(text) if path.suffix == ".json" else numbers_in(text)


_CAMERA = f"{CAMERA_NUMBERS} finite numbers (camera to world 4x4, intrinsics)"


def numbers_in(text: str) -> list[float] | None:
  """Numbers apart by commas, blanks or lines; None where there is more."""
  text = tables.plain_minus(text).strip("[] \n,")
  try:
    return [float(word) for word in re.split(r"[\s,;]+", text)]
  except ValueError:
    return None


def read_number(value: Any, name: str) -> np.ndarray:
  """A finite number as float32 ().

  Raises:
    UserError: it is none.
  """
  try:
    if isinstance(value, bool) or np.ndim(value):
      raise ValueError
    number = (tables.number if isinstance(value, str) else float)(value)
  except (TypeError, ValueError):
    number = math.nan
  if not math.isfinite(number):
    raise UserError(f"{name} is {value!r}, wanted a finite number")
  return np.float32(number)


def is_absent(value: Any, kind: str | None) -> bool:
  """Whether a value counts as not given; an empty text is a text."""
  if value is None:
    return True
  return kind != "text" and isinstance(value, str) and not value


def describe(item: EditInput) -> str:
  """An input in words, for help."""
  words = {
    "photo": "photo of a face",
    "label_map": f"picture of classes 0 to {item.classes - 1}, gray or palette",
    "sketch": "gray drawing",
    "text": "text",
    "camera": f"{CAMERA_NUMBERS} numbers, or a .json, .csv or .txt file",
    "number": "number",
  }[item.kind]
  if item.frame_of:
    words += f", drawn on {item.frame_of}"
  if item.required:
    words += "; required"
  elif item.default:
    words += f"; {item.default} where it is not given"
  return words


def pictures(
  declared: Sequence[EditInput], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """{field: uint8 picture} of an edit's pictures, the source first."""
  fields = [item.field for item in declared if item.kind in PICTURES]
  fields.sort(key=lambda field: field != SOURCE)
  return {field: arrays[field] for field in fields if field in arrays}
