"""Odd metadata change nothing but which way is up."""

import io
import itertools
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data_pipelines import images, picture_metadata

# The library's own filter, which pytest puts aside.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

MAKE, ORIENTATION = 0x010F, 0x0112
# Types of TIFF, each with bytes of one value.
VALUES = {
  1: b"\x07",
  2: b"text that is longer than four bytes\0",
  3: struct.pack("<H", 7),
  4: struct.pack("<I", 70000),
  5: struct.pack("<II", 3, 0),
  6: b"\xff",
  7: b"\0\1\2\3\4",
  8: struct.pack("<h", -7),
  9: struct.pack("<i", -70000),
  10: struct.pack("<ii", -3, 7),
  11: struct.pack("<f", 1.5),
  12: struct.pack("<d", float("nan")),
  13: struct.pack("<I", 8),
  16: struct.pack("<Q", 2**40),
  99: b"\1\2\3\4",
}


def exif_of(entries, order="<"):
  """EXIF bytes of entries (tag, type, count, value bytes)."""
  head = {"<": b"II*\0", ">": b"MM\0*"}[order]
  table = struct.pack(f"{order}H", len(entries))
  body, offset = b"", 8 + 2 + 12 * len(entries) + 4
  for tag, kind, count, value in entries:
    held = value.ljust(4, b"\0")
    if len(value) > 4:
      held = struct.pack(f"{order}I", offset + len(body))
      body += value
    table += struct.pack(f"{order}HHI", tag, kind, count) + held
  start = struct.pack(f"{order}I", 8)
  return b"Exif\0\0" + head + start + table + b"\0" * 4 + body


def upright(height=24, width=36):
  """A picture without symmetry that JPEG keeps well, and is read from it."""
  y, x = np.mgrid[:height, :width]
  return np.stack([x * 7, y * 9, x + 2 * y], -1).astype(np.uint8)


def saved(path, exif, picture=None, **options):
  """Saves a picture that was turned by a quarter, with that EXIF."""
  turned = np.rot90(upright() if picture is None else picture)
  with Image.fromarray(turned) as image:
    image.save(path, exif=exif, **options)
  return path


def reads_upright(path, slack=12):
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    # As in a program, where the library's own filter is in force.
    warnings.filterwarnings("ignore", module=r"PIL\.\w+$")
    found = images.read_image(path).astype(int)
  assert found.shape == upright().shape, path.name
  assert np.abs(found - upright()).mean() < slack, path.name


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("kind", VALUES)
def test_any_type_in_any_tag(tmp_path, suffix, kind):
  turn = (ORIENTATION, 3, 1, struct.pack("<H", 6))
  odd = (kind, 1, VALUES[kind])
  for number, entries in enumerate(
    (
      [(MAKE, *odd), turn],
      [(0x8769, *odd), (0x8825, *odd), turn],  # directories of their own
      [(0x011A, *odd), (0x0128, *odd), turn],  # resolution, as sizes are read
      [(MAKE, kind, 0, b""), (0x0131, kind, 2**31, b"\xff" * 4), turn],
    )
  ):
    options = {"quality": 95}
    reads_upright(
      saved(tmp_path / f"{number}.{suffix}", exif_of(entries), **options)
    )


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
  "kind, form", [(1, "B"), (3, "H"), (4, "I"), (6, "b"), (8, "h"), (9, "i")]
)
def test_an_orientation_of_another_type(tmp_path, order, kind, form):
  value = struct.pack(order + form, 6)
  exif = exif_of([(ORIENTATION, kind, 1, value)], order)
  reads_upright(saved(tmp_path / "a.jpg", exif, quality=95))
  assert picture_metadata.orientation_in(exif) == 6


@pytest.mark.parametrize(
  "kind, count, value, wanted",
  [
    (2, 2, b"6\0", 6),
    (5, 1, struct.pack("<II", 6, 1), 6),
    (10, 1, struct.pack("<ii", 6, 1), 6),
    (11, 1, struct.pack("<f", 6.0), 6),
    (12, 1, struct.pack("<d", 6.0), 6),
    (7, 1, b"\6", 6),
    (3, 2, struct.pack("<HH", 6, 0), 6),
    (3, 3, struct.pack("<HHH", 6, 0, 0), 6),
    (4, 1, struct.pack("<I", 6 << 16), 6),
    (16, 1, struct.pack("<Q", 6), 6),
    (3, 1, struct.pack("<H", 0), 0),
    (3, 1, struct.pack("<H", 9), 0),
    (8, 1, struct.pack("<h", -6), 0),
    (11, 1, struct.pack("<f", 6.5), 0),
    (12, 1, struct.pack("<d", float("inf")), 0),
    (5, 1, struct.pack("<II", 6, 0), 0),
    (2, 4, b"six\0", 0),
    (3, 0, b"", 0),
    (99, 1, b"\6\0\0\0", 0),
  ],
)
def test_what_an_orientation_means(tmp_path, kind, count, value, wanted):
  exif = exif_of([(ORIENTATION, kind, count, value)])
  assert picture_metadata.orientation_in(exif) == wanted
  path = saved(tmp_path / "a.png", exif)
  turned = np.rot90(upright())
  found = images.read_image(path)
  np.testing.assert_array_equal(found, upright() if wanted else turned)


def test_every_orientation_is_as_pillow_has_it(tmp_path):
  for turn in range(1, 9):
    path = tmp_path / f"{turn}.png"
    exif = exif_of([(ORIENTATION, 3, 1, struct.pack("<H", turn))])
    Image.fromarray(upright()).save(path, exif=exif)
    method = picture_metadata.TRANSPOSE.get(turn)
    wanted = Image.fromarray(upright())
    wanted = wanted.transpose(method) if method is not None else wanted
    np.testing.assert_array_equal(images.read_image(path), np.asarray(wanted))
    labels = Image.fromarray(upright()[..., 0])
    labels.save(path, exif=exif)
    wanted = labels.transpose(method) if method is not None else labels
    np.testing.assert_array_equal(images.read_labels(path), np.asarray(wanted))


def test_an_orientation_in_xmp_alone(tmp_path):
  packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
  turned = Image.fromarray(np.rot90(upright()))
  turned.save(tmp_path / "a.jpg", xmp=packet, quality=95)
  reads_upright(tmp_path / "a.jpg")
  # Beside EXIF that cannot be read.
  turned.save(
    tmp_path / "b.jpg", xmp=packet, exif=b"Exif\0\0rubbish", quality=95
  )
  reads_upright(tmp_path / "b.jpg")


@pytest.mark.parametrize("cut", [2, 7, 9, 15, 20, 26, 31])
def test_exif_cut_short(tmp_path, cut):
  whole = exif_of(
    [(MAKE, 2, 6, b"maker\0"), (ORIENTATION, 3, 1, struct.pack("<H", 1))]
  )
  path = saved(tmp_path / "a.jpg", whole[:cut], quality=95)
  found = images.read_image(path)
  assert found.shape == np.rot90(upright()).shape


def test_tags_of_a_tiff_file(tmp_path):
  """Pillow writes such tags back when it turns the picture."""
  path = tmp_path / "a.tif"
  Image.fromarray(np.rot90(upright())).save(path, tiffinfo={ORIENTATION: 6})
  reads_upright(path, 0.1)
  data = bytearray(path.read_bytes())
  # The description's type becomes FLOAT.
  Image.fromarray(np.rot90(upright())).save(
    path, tiffinfo={ORIENTATION: 6, MAKE: "abcd"}
  )
  data = bytearray(path.read_bytes())
  at = data.index(struct.pack("<HH", MAKE, 2))
  data[at : at + 12] = struct.pack("<HHIf", MAKE, 11, 1, 1.5)
  path.write_bytes(data)
  reads_upright(path, 0.1)


def _chunk(name, body, check=None):
  check = zlib.crc32(name + body) if check is None else check
  return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)


def _with_chunk(chunk, after=b"IHDR"):
  """A PNG file with a chunk more."""
  buffer = io.BytesIO()
  Image.fromarray(upright()).save(buffer, "PNG")
  data = buffer.getvalue()
  at = data.index(after) - 4
  (length,) = struct.unpack(">I", data[at : at + 4])
  end = at + 12 + length
  return data[:end] + chunk + data[end:]


@pytest.mark.parametrize("megabytes", [3, 40])
def test_large_texts_in_a_png(tmp_path, megabytes):
  """As image generators and editors write their history."""
  text = "word " * (200_000 * megabytes)
  packed = zlib.compress(text.encode())
  for number, chunk in enumerate(
    (
      _chunk(b"zTXt", b"history\0\0" + packed),
      _chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed),
      _chunk(b"tEXt", b"parameters\0" + text.encode()),
      _chunk(b"iCCP", b"profile\0\0" + packed),
    )
  ):
    for after in (b"IHDR", b"IDAT"):
      path = tmp_path / f"{number}.png"
      path.write_bytes(_with_chunk(chunk, after))
      np.testing.assert_array_equal(
        images.read_image(path), upright(), err_msg=f"{number} {after}"
      )


@pytest.mark.parametrize(
  "chunk",
  [
    _chunk(b"tEXt", b"comment\0hello", check=1),
    _chunk(b"pHYs", b"\0"),
    _chunk(b"pHYs", b""),
    _chunk(b"tIME", b"\0"),
    _chunk(b"gAMA", b"\0\0"),
    _chunk(b"cHRM", b"\0\0\0"),
    _chunk(b"sRGB", b""),
    _chunk(b"iCCP", b""),
    _chunk(b"iCCP", b"a\0\7xx"),
    _chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 500)[:-6]),
    _chunk(b"zTXt", b"a\0\7xx"),
    _chunk(b"zTXt", b"a\0\0xx"),
    _chunk(b"iTXt", b"a\0\1\0\0\0xx"),
    _chunk(b"iTXt", b"a"),
    _chunk(b"tEXt", b""),
    _chunk(b"eXIf", b"II"),
    _chunk(b"acTL", b"\0"),
    _chunk(b"acTL", struct.pack(">II", 0, 0)),
    _chunk(b"fcTL", b"\0"),
    _chunk(b"caBX", b"\xff" * 100),
    _chunk(b"0000", b""),
  ],
  ids=lambda chunk: repr(chunk[4:24]),
)
def test_odd_chunks_of_a_png(tmp_path, chunk):
  path = tmp_path / "a.png"
  path.write_bytes(_with_chunk(chunk))
  np.testing.assert_array_equal(images.read_image(path), upright())


def test_a_turn_is_kept_beside_what_must_be_left_out(tmp_path):
  exif = exif_of([(ORIENTATION, 3, 1, struct.pack("<H", 6))])
  path = saved(tmp_path / "a.png", exif)
  data = path.read_bytes()
  bad = _chunk(b"tEXt", b"comment\0hello", check=1)
  at = data.index(b"IDAT") - 4
  path.write_bytes(data[:at] + bad + data[at:])
  np.testing.assert_array_equal(images.read_image(path), upright())
  path = saved(tmp_path / "a.jpg", exif, quality=95)
  data = path.read_bytes()
  bare, turn = picture_metadata.without_metadata(data)
  assert turn == 6 and b"Exif" not in bare and len(bare) < len(data)
  with Image.open(io.BytesIO(bare)) as whole, Image.open(path) as first:
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(first))


def test_segments_of_a_jpeg(tmp_path):
  buffer = io.BytesIO()
  Image.fromarray(upright()).save(buffer, "JPEG", quality=95)
  data = buffer.getvalue()
  bodies = (
    *(b"", b"\0", b"Exif\0\0", b"Exif\0\0MM", b"MPF\0II*\0\1\0\0\0"),
    *(b"MPF\0" + b"\xff" * 30, b"ICC_PROFILE\0\1", b"ICC_PROFILE\0\1\2abc"),
    *(b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff", b"http://ns.adobe"),
  )
  for marker, body in itertools.product((0xE1, 0xE2, 0xED, 0xFE), bodies):
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:2] + segment + data[2:])
    found = images.read_image(path).astype(int)
    assert np.abs(found - upright()).mean() < 12, (hex(marker), body)


def test_pillow_keeps_its_wider_limits():
  assert PngImagePlugin.MAX_TEXT_CHUNK >= 16 << 20
  assert Image.MAX_IMAGE_PIXELS is None or Image.MAX_IMAGE_PIXELS >= 300e6


@pytest.mark.shared
def test_the_files_of_the_reports(shared):
  top = shared / "field_cases"
  good = images.read_image(top / "P2-exif" / "good.jpg").astype(int)
  odd = images.read_image(top / "P2-exif" / "make_is_float.jpg")
  assert np.abs(odd - good).mean() < 3
  for name in ("text_3mb_zip.png", "xmp_3mb.png"):
    found = images.read_image(top / "P3-png-text" / name)
    assert found.std() > 20
