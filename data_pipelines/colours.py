"""Any picture of Pillow's as 8-bit sRGB, in memory that holds it once.

A colour profile says what a file's numbers mean; nets and screens take them as
sRGB, so they become that.
"""

import functools
import io
import logging
import struct

import numpy as np
from PIL import Image, ImageCms

_WIDE = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_STRIP = 1 << 22  # pixels that are converted at once
# Most by which a profile's colours may differ from sRGB's, of 255, to be it:
# the many profiles of that name differ in their rounding.
_SAME = 3
_log = logging.getLogger(__name__)


def to_srgb(picture: Image.Image, orientation: int = 1) -> np.ndarray:
  """Converts a picture of any mode to upright 8-bit sRGB.

  Its colour profile is applied, relative colorimetric with black point
  compensation; colours that sRGB lacks become the nearest that it has. Pictures
  without profile, or with one of sRGB, keep their numbers. A profile that
  cannot be used is ignored with a line in the log. Transparent pixels lie over
  white; 16-bit shades are divided by 257.

  Args:
    picture: any PIL picture, its pixels loaded.
    orientation: how its rows lie, 1 to 8 as EXIF counts it.

  Returns:
    uint8 (h, w, 3).
  """
  width, height = picture.size
  shape = (height, width, 3) if orientation < 5 else (width, height, 3)
  upright = np.empty(shape, np.uint8)
  stored = _as_stored(upright, orientation)
  profile = _profile(picture)
  scale = _wide_scale(picture) if picture.mode in _WIDE else None
  rows = max(1, _STRIP // max(width, 1))
  for top in range(0, height, rows):
    part = picture
    if rows < height:
      part = picture.crop((0, top, width, min(height, top + rows)))
    stored[top : top + rows] = _convert(part, profile, scale)
  return upright


def _as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
  """An upright picture seen with the rows and columns of its file."""
  if orientation in (2, 3):
    upright = upright[:, ::-1]
  if orientation in (3, 4):
    return upright[::-1]
  if orientation == 7:
    upright = upright[::-1, ::-1]
  if orientation in (5, 7):
    return upright.swapaxes(0, 1)
  turns = {6: 1, 8: -1}.get(orientation, 0)
  return np.rot90(upright, turns) if turns else upright


def _convert(part: Image.Image, profile, scale: float | None) -> np.ndarray:
  """Some rows as uint8 (h, w, 3) sRGB."""
  clear = None
  if scale is not None:
    key = part.info.get("transparency")
    values = np.asarray(part, np.float64)
    clear = values == key if isinstance(key, int) else None
    part = Image.fromarray(_narrow(values, scale))
    del values
  elif part.mode in _ALPHA or "transparency" in part.info:
    part = _with_alpha(part)
    if profile is not None:
      colours = Image.fromarray(_through(profile, part.convert("RGB")))
      colours.putalpha(part.getchannel("A"))
      part = colours
    white = Image.new("RGBA", part.size, (255, 255, 255, 255))
    part, profile = Image.alpha_composite(white, part), None
  if profile is not None:
    pixels = _through(profile, part)
  else:
    pixels = np.asarray(part.convert("RGB") if part.mode != "RGB" else part)
  if clear is not None and clear.any():
    pixels = np.where(clear[..., None], np.uint8(255), pixels)
  return pixels


def _with_alpha(part: Image.Image) -> Image.Image:
  """RGBA; a transparent colour of 16 bits is brought to the pixels' 8."""
  key = part.info.get("transparency")
  if part.mode in ("RGB", "L") and key is not None:
    levels = key if isinstance(key, tuple) else (key,)
    if all(isinstance(level, int) for level in levels):
      levels = tuple(v >> 8 if v > 255 else v for v in levels)
      part = part.copy()
      part.info["transparency"] = levels if part.mode == "RGB" else levels[0]
  return part.convert("RGBA")


def _wide_scale(picture: Image.Image) -> float:
  """What 16-bit, 32-bit or float shades are multiplied by."""
  width, height = picture.size
  rows = max(1, _STRIP // max(width, 1))
  tops = [
    np.asarray(picture.crop((0, y, width, min(height, y + rows)))).max()
    if rows < height
    else np.asarray(picture).max(initial=0.0)
    for y in range(0, height, rows)
  ]
  top = float(np.max(tops, initial=0.0))
  if picture.mode == "F":
    return 255.0 if top <= 1.0 else 1.0
  # Mode "I" is also what some writers use for plain 8-bit grays.
  return 1 / 257.0 if picture.mode != "I" or top > 255 else 1.0


def _narrow(values: np.ndarray, scale: float) -> np.ndarray:
  """Shades as uint8."""
  # Divided, as the rounding of a product would be another one.
  values = values / 257.0 if scale < 1 else values * scale
  return np.clip(np.round(np.nan_to_num(values)), 0, 255).astype(np.uint8)


def _profile(picture: Image.Image) -> tuple[str, object] | None:
  """A picture's way to sRGB; None where its numbers are taken as they are."""
  data = picture.info.get("icc_profile")
  if not isinstance(data, bytes) or not data or picture.mode == "LAB":
    return None
  kind = "RGB"
  if picture.mode == "CMYK":
    kind = "CMYK"
  elif picture.mode in ("1", "L", "LA", "La", *_WIDE):
    kind = "L"
  found, problem = _way_to_srgb(data, kind)
  if problem:
    name = getattr(picture, "filename", "") or "a picture"
    _say(data, f"{name}: its colour profile is ignored ({problem})")
  return found


def _through(profile: tuple[str, object], part: Image.Image) -> np.ndarray:
  reads, transform = profile
  part = part.convert(reads)
  if isinstance(transform, np.ndarray):
    return transform[np.asarray(part)]
  return np.asarray(transform.apply(part))


@functools.lru_cache(maxsize=64)
def _way_to_srgb(
  data: bytes, kind: str
) -> tuple[tuple[str, object] | None, str]:
  """The mode that a profile reads and its transform or table.

  Args:
    data: of the profile.
    kind: of the picture's colours: "RGB", "L" or "CMYK".

  Returns:
    The way, None where there is nothing to do; and a problem or "".
  """
  try:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    space = profile.profile.xcolor_space.strip()
    reads = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
    # Grays are colours too, but colours are no grays.
    if reads != kind and (kind, reads) != ("L", "RGB"):
      return None, f"it is for {space}, the pixels are {kind}"
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if reads == "L":  # lcms interpolates dark grays too coarsely
      flags |= ImageCms.Flags.NOOPTIMIZE
    transform = ImageCms.buildTransform(
      profile,
      ImageCms.createProfile("sRGB"),
      reads,
      "RGB",
      ImageCms.Intent.RELATIVE_COLORIMETRIC,
      flags,
    )
    samples = _samples(reads)
    result = np.asarray(transform.apply(samples))
    change = result.astype(int) - np.asarray(samples.convert("RGB"))
  # What lcms refuses is a PyCMSError; broken tags may raise anything.
  except Exception as error:
    text = " ".join(str(error).split()) or type(error).__name__
    return None, f"damaged: {text:.80}"
  if reads != "CMYK" and np.abs(change).max() <= _SAME:
    return None, ""
  # Of grays there are so few that a table holds all.
  return (reads, result[0] if reads == "L" else transform), ""


def _samples(mode: str) -> Image.Image:
  """Colours all over a mode's space."""
  if mode == "L":
    return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
  levels = np.linspace(0, 255, 17 if mode == "RGB" else 5).astype(np.uint8)
  grid = np.stack(np.meshgrid(*[levels] * len(mode)), -1)
  return Image.frombytes(mode, (grid.size // len(mode), 1), grid.tobytes())


_said: set[int] = set()


def _say(data: bytes, text: str) -> None:
  """Says something of a profile once, however many pictures carry it."""
  if hash(data) not in _said:
    _said.add(hash(data))
    _log.warning(text)


@functools.cache
def srgb_profile() -> bytes:
  """A profile of sRGB, the same bytes at all times."""
  data = bytearray(
    ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
  )
  data[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # made at
  return bytes(data)
