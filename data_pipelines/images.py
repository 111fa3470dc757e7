"""Reads and writes picture files, with one clear line for every bad one.

Everything inside the library is 8-bit RGB; this is where other kinds of files
(grayscale, palette, transparent, 16-bit, rotated by a camera tag) end.
"""

import contextlib
import os
import pathlib
import struct
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from data_pipelines import listing
from faceedit_jax.core.typing import typechecked

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MIN_SIDE = 16

# Formats that may store other values than those given.
_LOSSY = ("JPEG", "WEBP", "MPO")
_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class ImageError(ValueError):
  """A picture that cannot be used; the message names the file and the cause."""


def _from_wide(picture: Image.Image) -> np.ndarray:
  """Brings 16-bit, 32-bit and float grayscale to 8 bits.

  Args:
    picture: a single-channel picture of mode I, I;16* or F.

  Returns:
    A uint8 array (h, w); 16-bit files are divided by 257, float ones that stay
    within 0..1 are multiplied by 255.
  """
  values = np.asarray(picture, np.float64)
  top = values.max(initial=0.0)
  if picture.mode == "F":
    values = values * 255.0 if top <= 1.0 else values
  elif picture.mode != "I" or top > 255:
    # Mode "I" is also what some writers use for plain 8-bit grays.
    values = values / 257.0
  return np.clip(np.round(np.nan_to_num(values)), 0, 255).astype(np.uint8)


@typechecked
def to_rgb(picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
  """Converts any PIL picture to 8-bit RGB.

  The camera's rotation tag is applied, transparent pixels are laid over white,
  and only the first frame of an animation is used.

  Args:
    picture: any PIL picture.

  Returns:
    A uint8 array (h, w, 3).
  """
  picture = ImageOps.exif_transpose(picture)
  if picture.mode in _SIXTEEN_BIT or picture.mode == "F":
    gray = _from_wide(picture)
    return np.repeat(gray[..., None], 3, axis=-1)
  if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (
    "transparency" in picture.info
  ):
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    picture = Image.alpha_composite(white, picture)
  return np.array(picture.convert("RGB"), np.uint8)


@typechecked
def read_image(
  path: str | os.PathLike, min_side: int = MIN_SIDE
) -> UInt8[np.ndarray, "h w 3"]:
  """Reads one picture file as 8-bit RGB.

  Args:
    path: the file; any format Pillow reads.
    min_side: the shortest side accepted, in pixels.

  Returns:
    A uint8 array (h, w, 3), upright.

  Raises:
    ImageError: the file is missing, is not a picture, is cut short, or is
      smaller than `min_side`.
  """
  return _read(path, min_side, to_rgb)


def to_gray(image: np.ndarray) -> np.ndarray:
  """Gray (h, w) of 8-bit RGB (h, w, 3)."""
  return np.asarray(Image.fromarray(image).convert("L"))


@typechecked
def read_labels(
  path: str | os.PathLike, min_side: int = MIN_SIDE
) -> UInt8[np.ndarray, "h w"]:
  """Reads the class of each pixel from a picture file.

  Args:
    path: a palette picture, whose indices are the classes, or a gray one,
      whose values are; without lossy compression.
    min_side: the shortest side accepted, in pixels.

  Returns:
    A uint8 array (h, w), upright.

  Raises:
    ImageError: as of `read_image`, or the file holds colours, transparent
      pixels or values above 255, or its format does not keep values exactly.
  """
  return _read(path, min_side, _to_labels)


def _to_labels(picture: Image.Image) -> np.ndarray:
  if picture.format in _LOSSY:
    raise ImageError(
      f"is {picture.format}, which changes classes when it compresses; wanted "
      "PNG"
    )
  upright = ImageOps.exif_transpose(picture)
  values = np.asarray(upright)
  if values.ndim == 3 and upright.mode == "RGB":
    # Written by programs that know no gray.
    if (values == values[..., :1]).all():
      values = values[..., 0]
  if values.ndim != 2 or upright.mode == "F":
    raise ImageError(
      f"holds colours (mode {upright.mode}), wanted classes: a gray or a "
      "palette picture"
    )
  if values.max(initial=0) > 255:
    raise ImageError(f"holds class {values.max()}, wanted 0 to 255")
  return values.astype(np.uint8)


def _read(
  path: str | os.PathLike, min_side: int, convert: Callable
) -> np.ndarray:
  """Opens a picture file, converts it, and says in one line what is wrong."""
  path = pathlib.Path(path)
  if not path.exists():
    raise ImageError(f"{path}: no such file")
  if path.is_dir():
    raise ImageError(f"{path}: is a folder, wanted a picture file")
  try:
    with Image.open(path) as picture:
      width, height = picture.size
      if min(width, height) < min_side:
        raise ImageError(
          f"{path}: is {width}x{height} pixels, wanted at least "
          f"{min_side}x{min_side}"
        )
      try:
        return convert(picture)
      except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
  except ImageError:
    raise
  except Image.DecompressionBombError as error:
    raise ImageError(f"{path}: has too many pixels ({error})") from error
  except Image.UnidentifiedImageError as error:
    raise ImageError(f"{path}: is not a picture Pillow can read") from error
  except PermissionError as error:
    raise ImageError(f"{path}: may not be read (permission denied)") from error
  # Pillow's decoders raise all of these on damaged files.
  except (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
  ) as error:
    raise ImageError(
      f"{path}: is damaged or cut short ({type(error).__name__}: {error})"
    ) from error


@typechecked
def write_image(
  path: str | os.PathLike,
  image: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"],
) -> pathlib.Path:
  """Writes a picture whole or not at all; the suffix gives the format.

  Args:
    path: the file to write; its folder is made if missing.
    image: uint8 (h, w, 3), or (h, w) for grays.

  Returns:
    The path written.

  Raises:
    ImageError: the suffix is unknown, or the folder cannot be written.
  """
  path = pathlib.Path(path)
  if path.suffix.lower() not in SUFFIXES:
    raise ImageError(
      f"{path}: unknown picture suffix {path.suffix!r}, wanted one of "
      f"{' '.join(SUFFIXES)}"
    )
  temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(temporary, quality=95)
    os.replace(temporary, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    raise ImageError(
      f"{path}: cannot be written ({error.strerror or error})"
    ) from error
  return path


def list_images(folder: str | os.PathLike) -> listing.Listing:
  """All picture files under a folder, in order.

  Args:
    folder: searched with its sub-folders, see `listing.find`.

  Returns:
    The files, and what was left out.

  Raises:
    ImageError: the folder does not exist or holds no picture.
  """
  folder = listing.existing(folder)
  if not folder.is_dir():
    raise ImageError(f"{folder}: no such folder of pictures")
  found = listing.find(folder, SUFFIXES)
  if not found.files:
    left = f"; left out: {listing.summary(found.left)}" if found.left else ""
    raise ImageError(
      f"{folder}: no picture found (looked for {' '.join(SUFFIXES)}{left})"
    )
  return found
