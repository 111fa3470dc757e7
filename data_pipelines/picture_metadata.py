"""What a picture file says beside its pixels: which way is up.

Programs write metadata of every kind and break it in every way. Viewers show
such pictures all the same, so nothing here raises.
"""

import contextlib
import re
import struct
import zlib
from typing import Any

from PIL import Image

# By orientation, what stands a picture upright.
TRANSPOSE = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # tag of EXIF
_XMP = re.compile(rb'tiff:Orientation(?:="|>)\s*([1-8])')
# TIFF's types: how one value is unpacked. ASCII and UNDEFINED are bytes.
_TYPES = {
  **{1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 7: "s", 8: "h", 9: "i"},
  **{11: "f", 12: "d", 13: "I", 16: "Q", 17: "q"},
}
_RATIONALS = {5: "II", 10: "ii"}
_MOST_ENTRIES = 1000  # of a directory; cameras write a few dozen
_MOST_PROFILE = 16 << 20  # bytes of a colour profile that are unpacked


def orientation(picture: Image.Image) -> int:
  """How the stored rows lie, as EXIF counts it.

  Args:
    picture: opened by Pillow.

  Returns:
    1 to 8; 1 where nothing usable is said. A value of another type than EXIF
    wants counts if it means such a number.
  """
  value = None
  # Whatever the metadata make Pillow raise.
  with contextlib.suppress(Exception):
    value = picture.getexif().get(_ORIENTATION)
  number = _meant(value)
  if number:
    return number
  info = picture.info
  raw = info.get("exif")
  if isinstance(raw, bytes) and (number := orientation_in(raw)):
    return number
  for name in ("XML:com.adobe.xmp", "xmp"):
    text = info.get(name)
    if isinstance(text, str):
      text = text.encode("utf-8", "ignore")
    if isinstance(text, bytes) and (found := _XMP.search(text)):
      return int(found[1])
  return 1


def orientation_in(exif: bytes) -> int:
  """The orientation in EXIF bytes, 1 to 8; 0 where there is none.

  Reads that entry alone, so that no other one can be in the way.
  """
  data = re.sub(rb"^(?:Exif\0\0)*", b"", exif)
  order = {b"II": "<", b"MM": ">"}.get(data[:2])
  if order is None:
    return 0
  try:
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for entry in range(min(count, _MOST_ENTRIES)):
      at = start + 2 + 12 * entry
      tag, kind, values = struct.unpack_from(f"{order}HHI", data, at)
      if tag == _ORIENTATION:
        number = _meant(_value(data, order, kind, values, at + 8))
        if number:
          return number
  except struct.error:  # the directory is cut short
    pass
  return 0


def _value(data: bytes, order: str, kind: int, count: int, at: int) -> Any:
  """The first value of an entry, or its text; `at` is where it is held."""
  form = _RATIONALS.get(kind, _TYPES.get(kind))
  if form is None:
    return None
  if form == "s":
    form = f"{min(count, 8)}s"
  size = struct.calcsize(f"={form}")
  if size * (1 if form.endswith("s") else max(count, 1)) > 4:
    (at,) = struct.unpack_from(f"{order}I", data, at)
  values = struct.unpack_from(order + form, data, at)
  if kind in _RATIONALS:
    return values[0] / values[1] if values[1] else None
  return values[0]


def _meant(value: Any) -> int:
  """The orientation that a value of any type means, or 0."""
  if isinstance(value, tuple | list) and value:
    value = value[0]
  if isinstance(value, bytes) and len(value) == 1 and value[0] <= 8:
    value = value[0]
  if isinstance(value, bytes):
    value = value.decode("ascii", "ignore")
  if isinstance(value, str):
    value = value.strip("\0 ")
    value = int(value) if value in tuple("12345678") else 0
  try:
    number = int(value)
    if number != value:
      return 0
  except (TypeError, ValueError, ArithmeticError):
    return 0
  # A short that was read as the upper half of a long.
  if number > 0xFFFF and number & 0xFFFF == 0:
    number >>= 16
  return number if 1 <= number <= 8 else 0


def without_metadata(
  data: bytes, profile: bool = True
) -> tuple[bytes, int] | None:
  """A JPEG or PNG file without what is not needed for its pixels.

  Args:
    data: the file's bytes.
    profile: keep the colour profile.

  Returns:
    The file with its pixels, colour profile and transparency alone, and its
    orientation; None for other files.
  """
  if data.startswith(b"\x89PNG\r\n\x1a\n"):
    return _bare_png(data, profile)
  if data.startswith(b"\xff\xd8"):
    return _bare_jpeg(data, profile)
  return None


def _bare_png(data: bytes, profile: bool) -> tuple[bytes, int]:
  kept, turn, at = [data[:8]], 1, 8
  while at + 8 <= len(data):
    length, name = struct.unpack_from(">I4s", data, at)
    end = at + 12 + length
    body, check = data[at + 8 : end - 4], data[end - 4 : end]
    whole = check == struct.pack(">I", zlib.crc32(name + body))
    critical = not name[0] & 0x20
    if name == b"eXIf":
      turn = orientation_in(body) or turn
    elif (
      critical
      or name == b"tRNS"
      or (profile and whole and _is_profile(name, body))
    ):
      kept.append(data[at:end])
    at = end
  return b"".join(kept), turn


def _is_profile(name: bytes, body: bytes) -> bool:
  """Whether a chunk holds a colour profile of a size that can be true."""
  if name != b"iCCP":
    return False
  packed = body.partition(b"\0")[2][1:]
  unpack = zlib.decompressobj()
  try:
    unpack.decompress(packed, _MOST_PROFILE)
  except zlib.error:
    return False
  return unpack.eof


def _bare_jpeg(data: bytes, profile: bool) -> tuple[bytes, int]:
  kept, turn, at = [data[:2]], 1, 2
  while at + 4 <= len(data) and data[at] == 0xFF:
    marker = data[at + 1]
    if marker == 0xFF:  # filled up
      at += 1
      continue
    if marker == 0xDA:  # the pixels follow
      break
    (length,) = struct.unpack_from(">H", data, at + 2)
    end = at + 2 + max(length, 2)
    body = data[at + 4 : end]
    if marker == 0xE1 and body.startswith(b"Exif\0"):
      turn = orientation_in(body) or turn
    application = 0xE0 <= marker <= 0xEF or marker == 0xFE
    # JFIF and Adobe say how colours are coded.
    needed = marker in (0xE0, 0xEE) or (
      profile and marker == 0xE2 and body.startswith(b"ICC_PROFILE\0")
    )
    if needed or not application:
      kept.append(data[at:end])
    at = end
  kept.append(data[at:])
  return b"".join(kept), turn
