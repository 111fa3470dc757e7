"""A file that is no picture is named in words."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from data_pipelines import file_kinds, images


def _zip():
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as file:
    file.writestr("a.txt", "a")
  return buffer.getvalue()


def _tar():
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as file:
    file.addfile(tarfile.TarInfo("a"))
  return buffer.getvalue()


def _safetensors():
  head = json.dumps({"w": {"dtype": "F32", "shape": [1]}}).encode()
  return struct.pack("<Q", len(head)) + head + b"\0" * 4


def _box(brand, *others):
  body = brand + b"\0\0\0\0" + b"".join(others)
  return struct.pack(">I", len(body) + 8) + b"ftyp" + body + b"\0" * 64


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>"
KINDS = {
  "html": (PAGE, "a web page (HTML); download it again"),
  "old html": (b"\n <HTML><body>Sorry</body></HTML>", "a web page (HTML)"),
  "marked html": (b"\xef\xbb\xbf" + PAGE, "a web page (HTML)"),
  "xhtml": (b"<?xml version='1.0'?><html></html>", "a web page (HTML)"),
  "answer": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "XML"),
  "json": (b'{"message": "Not Found"}', "JSON"),
  "svg": (b"<?xml version='1.0'?><svg width='9'/>", "a drawing (SVG)"),
  "pointer": (POINTER, "a pointer of git-lfs; fetch the file with `git lfs"),
  "safetensors": (_safetensors(), "a file of weights (safetensors)"),
  "zip": (_zip(), "a zip archive"),
  "gzip": (gzip.compress(b"a"), "a gzip archive"),
  "tar": (_tar(), "a tar archive"),
  "pickle": (pickle.dumps({"a": 1}), "a pickle of Python's"),
  "pdf": (b"%PDF-1.7\n\x80\x80", "a PDF document"),
  "heic": (_box(b"heic", b"mif1"), "HEIC, which cannot be read here; convert"),
  "heif": (_box(b"mif1", b"heic"), "HEIC, which cannot be read here"),
  "mp4": (_box(b"isom", b"mp42"), "a video (MP4 or QuickTime)"),
  "mov": (_box(b"qt  "), "a video (MP4 or QuickTime)"),
  "raw": (_box(b"crx "), "a raw photo (CR3)"),
  "webm": (b"\x1aE\xdf\xa3" + b"\0" * 30, "a video (Matroska or WebM)"),
  "avi": (b"RIFF\0\0\0\0AVI LIST", "a video (AVI)"),
  "text": (b"no picture", "text"),
}


@pytest.mark.parametrize("name", KINDS)
def test_words(tmp_path, name):
  data, words = KINDS[name]
  path = tmp_path / "photo.jpg"
  path.write_bytes(data)
  with pytest.raises(images.ImageError) as error:
    images.read_image(path)
  text = str(error.value)
  assert text.startswith(f"{path}: is not a picture but {words}")
  assert "\n" not in text


def test_empty_and_unknown_files(tmp_path):
  path = tmp_path / "photo.png"
  path.write_bytes(b"")
  with pytest.raises(images.ImageError, match=r"is empty \(0 bytes\)"):
    images.read_image(path)
  path.write_bytes(b"\x01\x02\x03\x04" * 50)
  with pytest.raises(images.ImageError, match="is not a picture Pillow can"):
    images.read_image(path)
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\1" * 300 + b"IEND")
  with pytest.raises(images.ImageError, match="is damaged or cut short, or"):
    images.read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cut_files(tmp_path, suffix, share, rng):
  noise = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
  path = images.write_image(tmp_path / f"a.{suffix}", noise)
  whole = path.read_bytes()
  assert not file_kinds.lacks_end(path)
  # What some programs put behind the end is no cut.
  path.write_bytes(whole + b"\0" * 1000)
  assert not file_kinds.lacks_end(path)
  path.write_bytes(whole[: int(share * len(whole))])
  with pytest.raises(images.ImageError) as error:
    images.read_image(path)
  assert "is damaged or cut short (" in str(error.value)
  assert "without its end)" in str(error.value)


def test_readable_under_a_wrong_suffix(tmp_path, rng):
  """What a file is counts, not its name."""
  picture = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
  Image.fromarray(picture).save(tmp_path / "a.png")
  (tmp_path / "a.png").rename(tmp_path / "a.jpg")
  np.testing.assert_array_equal(images.read_image(tmp_path / "a.jpg"), picture)
  from PIL import features

  if features.check("avif"):
    Image.fromarray(picture).save(tmp_path / "b.avif", quality=100)
    (tmp_path / "b.avif").rename(tmp_path / "b.png")
    assert images.read_image(tmp_path / "b.png").shape == picture.shape


def test_a_limit_of_its_own(tmp_path, monkeypatch):
  path = images.write_image(
    tmp_path / "a.png", np.zeros((200, 300, 3), np.uint8)
  )
  monkeypatch.setenv(images.MEGAPIXELS_VARIABLE, "0.05")
  with pytest.raises(images.ImageError) as error:
    images.read_image(path)
  assert str(error.value) == (
    f"{path}: is 300x200 pixels, wanted at most 0.05 megapixels; "
    "FACEEDIT_MAX_MEGAPIXELS=1 reads it"
  )
  monkeypatch.setenv(images.MEGAPIXELS_VARIABLE, "1")
  assert images.read_image(path).shape == (200, 300, 3)
  for wrong in ("many", "-3", "0", "nan"):
    monkeypatch.setenv(images.MEGAPIXELS_VARIABLE, wrong)
    with pytest.raises(images.ImageError, match="wanted a number of megapixel"):
      images.read_image(path)
