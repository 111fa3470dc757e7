"""Reads and writes picture files, with one clear line for every bad one.

Everything inside the library is upright 8-bit sRGB; this is where other kinds
of files end (grayscale, palette, transparent, 16-bit, with a colour profile,
rotated by a camera tag).
"""

import contextlib
import io
import os
import pathlib
import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from data_pipelines import colours, file_kinds, listing, picture_metadata
from faceedit_jax.core.typing import typechecked

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MIN_SIDE = 16
# Largest picture that is read, in millions of pixels, and the environment
# variable that says otherwise.
MAX_MEGAPIXELS = 300.0
MEGAPIXELS_VARIABLE = "FACEEDIT_MAX_MEGAPIXELS"

# Formats that may store other values than those given.
_LOSSY = ("JPEG", "WEBP", "MPO")
# A file that is read a second time, without its metadata, is held whole.
_MOST_BYTES = 1 << 30
_TEXT_BYTES = 16 << 20  # of a PNG's text or profile; Pillow's limit is 1 MB
_ERROR_LETTERS = 100


class ImageError(ValueError):
  """A picture that cannot be used; the message names the file and the cause."""


def max_pixels() -> int:
  """Pixels of the largest picture that is read.

  Raises:
    ImageError: FACEEDIT_MAX_MEGAPIXELS is no number above 0.
  """
  text = os.environ.get(MEGAPIXELS_VARIABLE, "")
  try:
    wanted = float(text or MAX_MEGAPIXELS)
    return int(wanted * 1e6) if 0 < wanted else int("0 or less")
  except (ValueError, OverflowError) as error:
    raise ImageError(
      f"{MEGAPIXELS_VARIABLE}={text}, wanted a number of megapixels above 0"
    ) from error


def _open_pillow_wider() -> None:
  """Takes this library's limits for Pillow's, which are an error's cause here.

  Pillow stops at 1 MB of text in a PNG file and warns above 89 megapixels; it
  also warns of metadata that it cannot read, which are no concern of ours.
  """
  limit = max(PngImagePlugin.MAX_TEXT_CHUNK, _TEXT_BYTES)
  PngImagePlugin.MAX_TEXT_CHUNK = limit
  with contextlib.suppress(ImageError):  # said when a picture is read
    if Image.MAX_IMAGE_PIXELS is not None:
      Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels())
  warnings.filterwarnings("ignore", module=r"PIL\.\w+$")


_open_pillow_wider()


@typechecked
def to_rgb(
  picture: Image.Image, orientation: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
  """Converts any PIL picture to upright 8-bit sRGB, see `colours.to_srgb`.

  Args:
    picture: any PIL picture; of an animation the first frame is taken.
    orientation: how its rows lie, 1 to 8 as EXIF counts it; None reads it from
      its metadata.

  Returns:
    A uint8 array (h, w, 3).
  """
  picture.load()
  if orientation is None:
    orientation = picture_metadata.orientation(picture)
  return colours.to_srgb(picture, orientation)


@typechecked
def read_image(
  path: str | os.PathLike, min_side: int = MIN_SIDE
) -> UInt8[np.ndarray, "h w 3"]:
  """Reads one picture file as 8-bit sRGB.

  Takes about 7 bytes of memory per pixel while it works and 3 afterwards.

  Args:
    path: the file; any format Pillow reads.
    min_side: the shortest side accepted, in pixels.

  Returns:
    A uint8 array (h, w, 3), upright.

  Raises:
    ImageError: the file is missing, is not a picture, is cut short, is
      smaller than `min_side` or larger than FACEEDIT_MAX_MEGAPIXELS.
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


def _to_labels(
  picture: Image.Image, orientation: int | None = None
) -> np.ndarray:
  if picture.format in _LOSSY:
    raise ImageError(
      f"is {picture.format}, which changes classes when it compresses; wanted "
      "PNG"
    )
  picture.load()
  turn = picture_metadata.TRANSPOSE.get(
    orientation or picture_metadata.orientation(picture)
  )
  upright = picture if turn is None else picture.transpose(turn)
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
    return _open(path, path, min_side, convert)
  except ImageError:
    raise
  except PermissionError as error:
    raise ImageError(f"{path}: may not be read (permission denied)") from error
  except MemoryError as error:
    raise ImageError(f"{path}: does not fit into the memory") from error
  # Pillow raises errors of any kind on damaged files, and on sound ones whose
  # metadata are odd.
  except Exception as error:
    bare = _without_metadata(path, min_side, convert)
    if bare is not None:
      return bare
    raise ImageError(f"{path}: {_problem(path, error)}") from error


def _open(
  path: pathlib.Path,
  file: pathlib.Path | io.BytesIO,
  min_side: int,
  convert: Callable,
  orientation: int | None = None,
) -> np.ndarray:
  """Reads a picture; `file` is where its bytes are."""
  with Image.open(file) as picture:
    width, height = picture.size
    if min(width, height) < min_side:
      raise ImageError(
        f"{path}: is {width}x{height} pixels, wanted at least "
        f"{min_side}x{min_side}"
      )
    if width * height > max_pixels():
      raise ImageError(
        f"{path}: is {width}x{height} pixels, wanted at most "
        f"{max_pixels() / 1e6:g} megapixels; {MEGAPIXELS_VARIABLE}="
        f"{-(-width * height // 1_000_000)} reads it"
      )
    try:
      picture.load()
    except (ValueError, TypeError, AttributeError):
      # A TIFF file's pixels are there, and upright, when its tags are looked
      # at.
      if picture.format != "TIFF" or picture.tile:
        raise
      orientation = 1
    try:
      return convert(picture, orientation)
    except ImageError as error:
      raise ImageError(f"{path}: {error}") from error


def _without_metadata(
  path: pathlib.Path, min_side: int, convert: Callable
) -> np.ndarray | None:
  """Reads a file without the parts that its pixels do not need, or None."""
  for profile in (True, False):
    # When the pixels are damaged as well, the first error says it.
    try:
      if path.stat().st_size > _MOST_BYTES:
        return None
      data = path.read_bytes()
      found = picture_metadata.without_metadata(data, profile)
      if found is None:
        return None
      bare, orientation = found
      return _open(path, io.BytesIO(bare), min_side, convert, orientation)
    except ImageError:
      raise
    except Exception:
      continue
  return None


def _problem(path: pathlib.Path, error: Exception) -> str:
  """What is wrong with a file that Pillow could not read."""
  try:
    if not path.stat().st_size:
      return "is empty (0 bytes)"
    if words := file_kinds.words_for(path):
      return f"is not a picture but {words}"
    kind = file_kinds.picture_format(path)
    if kind and file_kinds.lacks_end(path):
      return f"is damaged or cut short ({kind} without its end)"
  except OSError as again:
    return f"cannot be read ({again.strerror or again})"
  if isinstance(error, UnidentifiedImageError):
    if kind:
      return f"is damaged or cut short, or {kind} that Pillow cannot read"
    return "is not a picture Pillow can read"
  text = " ".join(f"{type(error).__name__}: {error}".split())
  return f"is damaged or cut short ({text:.{_ERROR_LETTERS}})"


@typechecked
def write_image(
  path: str | os.PathLike,
  image: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"],
  tagged: bool = False,
) -> pathlib.Path:
  """Writes a picture whole or not at all; the suffix gives the format.

  Args:
    path: the file to write; its folder is made if missing.
    image: uint8 (h, w, 3), or (h, w) for grays.
    tagged: also write the profile of sRGB, where the format can hold one;
      without, numbers are taken as sRGB by all but a few programs.

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
    profile = {"icc_profile": colours.srgb_profile()} if tagged else {}
    Image.fromarray(image).save(temporary, quality=95, **profile)
    os.replace(temporary, path)
  # Encoders have limits of their own, such as WebP's 16383 pixels a side.
  except (OSError, ValueError, SystemError, MemoryError) as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    raise ImageError(f"{path}: cannot be written ({_reason(error)})") from error
  return path


def _reason(error: Exception) -> str:
  text = getattr(error, "strerror", None) or str(error)
  return " ".join(text.split()) or type(error).__name__


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
