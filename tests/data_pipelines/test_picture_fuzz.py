"""Random metadata and random damage: a picture, or one line.

The seed is fixed and the number of examples bounded; raise `EXAMPLES` to search
longer.
"""

import io
import struct
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import images, prepare
from tests.data_pipelines import profiles
from tests.data_pipelines.test_picture_metadata import (
  ORIENTATION,
  exif_of,
  upright,
)

# The library's own filter, which pytest puts aside.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

EXAMPLES = 80
fuzzed = hypothesis.settings(
  max_examples=EXAMPLES,
  derandomize=True,
  deadline=None,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
TURN = (ORIENTATION, 3, 1, struct.pack("<H", 6))
# Tags that Pillow follows, and any others.
TAGS = st.one_of(
  st.sampled_from(
    [0x010F, 0x0110, 0x011A, 0x0128, 0x8769, 0x8825, 0xA005, 0x927C, 0x0201]
  ),
  st.integers(0, 0xFFFF).filter(lambda tag: tag != ORIENTATION),
)
ENTRIES = st.lists(
  st.tuples(
    TAGS,
    st.integers(0, 18),
    st.one_of(
      st.integers(0, 3), st.sampled_from([255, 2**16, 2**31, 2**32 - 1])
    ),
    st.binary(max_size=40),
  ),
  max_size=5,
)
CHUNKS = st.lists(
  st.tuples(
    st.sampled_from(
      [
        *(b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"pHYs", b"tIME"),
        *(b"gAMA", b"cHRM", b"sRGB", b"bKGD", b"sBIT", b"hIST", b"caBX"),
        *(b"acTL", b"fcTL", b"fdAT", b"cICP", b"prVt", b"zzzz"),
      ]
    ),
    st.one_of(
      st.binary(max_size=60),
      st.binary(max_size=30).map(lambda b: b"name\0\0" + zlib.compress(b)),
      st.binary(max_size=30).map(lambda b: b"XML:com.adobe.xmp\0\0\0\0\0" + b),
    ),
    st.booleans(),
    st.integers(0, 3),
  ),
  min_size=1,
  max_size=4,
)
DAMAGE = st.lists(
  st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["set", "cut", "drop", "double"]),
    st.binary(min_size=1, max_size=4),
  ),
  min_size=1,
  max_size=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("fuzz")


def read(folder, name, data):
  """The picture, or None after one clear line."""
  path = folder / name
  path.write_bytes(data)
  try:
    found = images.read_image(path)
  except images.ImageError as error:
    text = str(error)
    assert text.startswith(f"{path}: ") and "\n" not in text, text
    assert len(text) - len(str(path)) < 200, text
    return None
  assert found.dtype == np.uint8 and found.ndim == 3
  return found


def stored(format_, **options):
  buffer = io.BytesIO()
  Image.fromarray(np.rot90(upright())).save(buffer, format_, **options)
  return buffer.getvalue()


@fuzzed
@hypothesis.given(
  entries=ENTRIES,
  place=st.integers(0, 5),
  order=st.sampled_from("<>"),
  format_=st.sampled_from(["JPEG", "PNG", "WEBP"]),
)
def test_other_entries_leave_a_photo_upright(
  folder, entries, place, order, format_
):
  entries.insert(place, (*TURN[:3], struct.pack(f"{order}H", 6)))
  data = stored(format_, exif=exif_of(entries, order), quality=95)
  found = read(folder, "entries", data)
  assert found is not None and found.shape == upright().shape
  assert np.abs(found.astype(int) - upright()).mean() < 12


@fuzzed
@hypothesis.given(
  entries=ENTRIES,
  damage=DAMAGE,
  format_=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]),
)
def test_damaged_exif_leaves_the_pixels(folder, entries, damage, format_):
  exif = damaged(exif_of([*entries, TURN]), damage)[:60_000]
  hypothesis.assume(exif)
  try:
    data = stored(format_, exif=exif, quality=95)
  except Exception:  # Pillow writes a TIFF's tags one by one
    hypothesis.reject()
  found = read(folder, "damaged_exif", data)
  assert found is not None
  assert sorted(found.shape) == sorted(upright().shape)


@fuzzed
@hypothesis.given(chunks=CHUNKS)
def test_chunks_leave_a_png_as_it_is(folder, chunks):
  parts = _parts(stored("PNG"))
  for name, body, whole, place in chunks:
    check = zlib.crc32(name + body) if whole else 7
    chunk = struct.pack(">I", len(body)) + name + body
    parts.insert(
      min(place + 1, len(parts) - 1), chunk + struct.pack(">I", check)
    )
  data = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
  found = read(folder, "chunks", data)
  assert found is not None
  if not {b"acTL", b"fcTL", b"fdAT"} & {chunk[0] for chunk in chunks}:
    np.testing.assert_array_equal(found, np.rot90(upright()))


def _parts(data):
  """The chunks of a PNG file; the pixels in two of them."""
  parts, at = [], 8
  while at < len(data):
    (length,) = struct.unpack_from(">I", data, at)
    parts.append(data[at : at + length + 12])
    at += length + 12
  (pixels,) = [part for part in parts if part[4:8] == b"IDAT"]
  halves = pixels[8 : len(pixels) // 2], pixels[len(pixels) // 2 : -4]
  place = parts.index(pixels)
  parts[place : place + 1] = [
    struct.pack(">I", len(half))
    + b"IDAT"
    + half
    + struct.pack(">I", zlib.crc32(b"IDAT" + half))
    for half in halves
  ]
  return parts


def damaged(data, changes):
  """Bytes with some of them set, left out, doubled, or cut off."""
  for where, how, values in changes:
    at = int(where * len(data))
    if how == "set":
      data = data[:at] + values + data[at + len(values) :]
    elif how == "cut":
      data = data[:at] if len(data) > 300 or at else data
    elif how == "drop":
      data = data[:at] + data[at + 8 * len(values) :]
    else:
      data = data[:at] + data[at : at + 8 * len(values)] + data[at:]
  return data


@fuzzed
@hypothesis.given(
  damage=DAMAGE,
  format_=st.sampled_from(
    ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000"]
  ),
  profile=st.sampled_from(["none", "display_p3", "cmyk"]),
)
def test_damaged_files(folder, damage, format_, profile):
  options = {"exif": exif_of([TURN])}
  if profile != "none":
    options["icc_profile"] = getattr(profiles, profile)()
  data = damaged(stored(format_, **options), damage)
  with pytest.MonkeyPatch.context() as patch:
    # Sizes are damaged too.
    patch.setenv(images.MEGAPIXELS_VARIABLE, "4")
    read(folder, "damaged", data)


@fuzzed
@hypothesis.given(
  head=st.sampled_from(
    [
      *(b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0"),
      *(b"RIFF\0\0\0\0WEBP", b"BM", b"\0\0\0\x20ftyp", b"<html>", b"{", b"P6"),
    ]
  ),
  body=st.binary(max_size=200),
)
def test_files_of_noise(folder, head, body):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv(images.MEGAPIXELS_VARIABLE, "4")
    read(folder, "noise", head + body)


def test_a_folder_of_odd_files_is_prepared(tmp_path, capfd):
  """From end to end: what can be read is taken, the rest is listed."""
  top, draw = tmp_path / "photos" / "anna", np.random.default_rng(1)
  top.mkdir(parents=True)
  good = {
    "odd_exif.jpg": stored(
      "JPEG", exif=exif_of([(0x010F, 11, 1, b"\0\0\xc0\x3f"), TURN])
    ),
    "cut_exif.jpg": stored("JPEG", exif=exif_of([TURN])[:20]),
    "profile.png": stored("PNG", icc_profile=b"no profile at all"),
    "plain.png": stored("PNG"),
  }
  bad = {
    "cut.jpg": stored("JPEG")[:400],
    "page.jpg": b"<!doctype html><html></html>",
    "noise.png": draw.bytes(300),
    "none.gif": b"",
  }
  for name, data in (good | bad).items():
    (top / name).write_bytes(data)
  code = prepare.main(
    [
      *("image_folder", f"--input={tmp_path / 'photos'}"),
      *(f"--output={tmp_path / 'out'}", "--size=16", "--holdout=0"),
      "--splits=train",
    ]
  )
  printed = capfd.readouterr()
  assert code == 0
  assert "Traceback" not in printed.err + printed.out
  lines = [line for line in printed.err.splitlines() if line.strip()]
  lines = [line for line in lines if "picture/s" not in line]  # of the bar
  assert len(lines) <= 3, printed.err
  assert "took 4 of 8 pictures" in printed.out
