"""What a file is that should be a picture, in words, by its first bytes.

Downloads end as web pages, repositories hold pointers instead of files, and
suffixes lie; an error that says so saves a search.
"""

import os
import pathlib
import re
import struct

_HEAD = 1024  # bytes that are looked at
_TAIL = 4096  # in which a whole file has its end; what follows is padding

# First bytes of the formats that cameras and programs write.
_PICTURES = (
  (b"\xff\xd8\xff", "JPEG"),
  (b"\x89PNG\r\n\x1a\n", "PNG"),
  (b"GIF87a", "GIF"),
  (b"GIF89a", "GIF"),
  (b"BM", "BMP"),
  (b"II*\0", "TIFF"),
  (b"MM\0*", "TIFF"),
  (b"II+\0", "TIFF"),
  (b"MM\0+", "TIFF"),
)
_OTHERS = (
  (b"\xff\x0a", "JPEG XL, which is not read; convert it to JPEG or PNG"),
  (
    b"\0\0\0\x0cJXL ",
    "JPEG XL, which is not read; convert it to JPEG or PNG",
  ),
  (b"PK\x03\x04", "a zip archive; unpack it"),
  (b"PK\x05\x06", "an empty zip archive"),
  (b"\x1f\x8b", "a gzip archive; unpack it"),
  (b"BZh", "a bzip2 archive; unpack it"),
  (b"\xfd7zXZ\0", "an xz archive; unpack it"),
  (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
  (b"Rar!", "a rar archive; unpack it"),
  (b"%PDF", "a PDF document"),
  (b"\x93NUMPY", "an array of NumPy's"),
  (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
  (b"FLV\x01", "a video (Flash)"),
  (b"\0\0\x01\xba", "a video (MPEG)"),
  (b"\0\0\x01\xb3", "a video (MPEG)"),
  (b"0&\xb2u\x8ef\xcf\x11", "a video (Windows Media)"),
  (b"OggS", "a sound or video (Ogg)"),
  (b"ID3", "a sound (MP3)"),
)
# Brands of ISO's container, whose files begin with a length and `ftyp`.
_STILLS = {b"avif": "AVIF", b"avis": "AVIF"} | {
  brand: "HEIC"
  for brand in (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"),
    *(b"mif1", b"msf1"),
  )
}
_RAW = {b"crx ": "a raw photo (CR3); develop it to JPEG or PNG"}


def words_for(path: str | os.PathLike) -> str:
  """What a file is, if it is no picture of a common kind.

  Args:
    path: an existing file.

  Returns:
    Words that continue "is not a picture but ...", such as "a web page
    (HTML); download it again"; "" for pictures and where nothing is known.
  """
  head = _read_head(path)
  if picture_format(path):
    return ""
  brand = head[8:12]
  if head[4:8] == b"ftyp":
    # The first brand may be a general one; the others follow.
    brands = [brand, *re.findall(b"....", head[16 : _box_length(head)], re.S)]
    still = next((_STILLS[b] for b in brands if b in _STILLS), None)
    if still:
      return f"{still}, which cannot be read here; convert it to JPEG or PNG"
    return _RAW.get(brand, "a video (MP4 or QuickTime)")
  if head[4:8] in (b"moov", b"mdat", b"wide"):
    return "a video (QuickTime)"
  if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WAVE"):
    return "a video (AVI)" if head[8:12] == b"AVI " else "a sound (WAV)"
  for start, words in _OTHERS:
    if head.startswith(start):
      return words
  if _is_safetensors(head, os.path.getsize(path)):
    return "a file of weights (safetensors)"
  if re.match(rb"\x80[\x02-\x05]", head):
    return "a pickle of Python's"
  if head[257:262] == b"ustar":
    return "a tar archive; unpack it"
  return _text_words(head)


def picture_format(path: str | os.PathLike) -> str:
  """The picture format that a file's first bytes name; "" for none."""
  head = _read_head(path)
  if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
    return "WebP"
  return next((name for magic, name in _PICTURES if head.startswith(magic)), "")


def lacks_end(path: str | os.PathLike) -> bool:
  """Whether a JPEG, PNG, GIF or WebP file stops before its end."""
  kind, size = picture_format(path), os.path.getsize(path)
  if kind == "WebP":
    (length,) = struct.unpack("<I", _read_head(path)[4:8].ljust(4, b"\0"))
    return size < length + 8
  end = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}.get(kind)
  if end is None:
    return False
  with pathlib.Path(path).open("rb") as file:
    file.seek(max(0, size - _TAIL))
    tail = file.read()
  if kind == "GIF":  # whose end is too short to be looked for
    return not tail.rstrip(b"\0").endswith(end)
  return end not in tail


def _read_head(path: str | os.PathLike) -> bytes:
  with pathlib.Path(path).open("rb") as file:
    return file.read(_HEAD)


def _box_length(head: bytes) -> int:
  (length,) = struct.unpack(">I", head[:4])
  return min(length, _HEAD)


def _is_safetensors(head: bytes, size: int) -> bool:
  """A length, then that much JSON."""
  if len(head) < 10 or head[8:9] != b"{":
    return False
  (length,) = struct.unpack("<Q", head[:8])
  return length + 8 <= size


def _text_words(head: bytes) -> str:
  """What kind of text; "" where it is none."""
  if head.startswith(b"version https://git-lfs"):
    return "a pointer of git-lfs; fetch the file with `git lfs pull`"
  if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
    return "text (UTF-16)"
  text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
  if b"<svg" in text:
    return "a drawing (SVG), wanted pixels"
  if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
    return "a web page (HTML); download it again"
  if b"<html" in text:
    return "a web page (HTML); download it again"
  if text.startswith((b"<?xml", b"<error")):
    return "XML, as servers answer errors with; download it again"
  control = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in head)
  if not head or control:
    return ""
  return "JSON" if text[:1] in (b"{", b"[") else "text"
