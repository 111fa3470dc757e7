"""Picture files of every kind, good and bad."""

import os

import numpy as np
import pytest
from PIL import Image

from data_pipelines import images


def _gradient(height=24, width=32):
  y, x = np.mgrid[:height, :width]
  return np.stack([x * 7, y * 9, x + y], -1).astype(np.uint8)


def test_round_trip(tmp_path):
  image = _gradient()
  path = images.write_image(tmp_path / "new" / "a.png", image)
  assert np.array_equal(images.read_image(path), image)
  assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_grayscale_becomes_three_equal_channels(tmp_path):
  gray = _gradient()[..., 0]
  Image.fromarray(gray).save(tmp_path / "g.png")
  out = images.read_image(tmp_path / "g.png")
  assert np.array_equal(out, np.repeat(gray[..., None], 3, -1))


def test_transparent_pixels_lie_over_white(tmp_path):
  rgba = np.dstack([_gradient(), np.full((24, 32), 255, np.uint8)])
  rgba[:12, :, 3] = 0
  Image.fromarray(rgba).save(tmp_path / "t.png")
  out = images.read_image(tmp_path / "t.png")
  assert (out[:12] == 255).all()
  assert np.array_equal(out[12:], rgba[12:, :, :3])


def test_palette_and_its_transparency(tmp_path):
  picture = Image.fromarray(np.eye(20, dtype=np.uint8)).convert("P")
  picture.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
  picture.save(tmp_path / "p.png")
  out = images.read_image(tmp_path / "p.png")
  assert tuple(out[0, 1]) == (10, 20, 30) and tuple(out[3, 3]) == (200, 100, 50)
  picture.save(tmp_path / "q.png", transparency=0)
  out = images.read_image(tmp_path / "q.png")
  assert tuple(out[0, 1]) == (255, 255, 255)


def test_sixteen_bit_keeps_its_shades(tmp_path):
  wide = (np.arange(20 * 20).reshape(20, 20) * 160).astype(np.uint16)
  Image.fromarray(wide).save(tmp_path / "w.png")
  out = images.read_image(tmp_path / "w.png")
  assert np.abs(out[..., 0] - wide / 257.0).max() <= 0.5
  Image.fromarray(wide / 65535.0 * np.float32(1)).convert("F").save(
    tmp_path / "f.tif"
  )
  out = images.read_image(tmp_path / "f.tif")
  assert np.abs(out[..., 0] - wide / 257.0).max() <= 0.51


def test_camera_rotation_is_applied(tmp_path):
  picture = Image.fromarray(_gradient())
  exif = Image.Exif()
  exif[0x0112] = 6  # the camera was turned by a quarter
  picture.save(tmp_path / "r.png", exif=exif)
  out = images.read_image(tmp_path / "r.png")
  assert np.array_equal(out, np.rot90(_gradient(), -1))


def test_missing(tmp_path):
  with pytest.raises(images.ImageError, match="none.png: no such file"):
    images.read_image(tmp_path / "none.png")
  with pytest.raises(images.ImageError, match="is a folder"):
    images.read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated(tmp_path, suffix, share, rng):
  path = tmp_path / f"cut.{suffix}"
  noise = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
  images.write_image(path, noise)
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])
  with pytest.raises(images.ImageError, match=f"cut.{suffix}") as caught:
    images.read_image(path)
  assert "\n" not in str(caught.value)


def test_tiny(tmp_path):
  images.write_image(tmp_path / "t.png", np.zeros((5, 40, 3), np.uint8))
  with pytest.raises(images.ImageError, match="40x5 pixels, wanted at least"):
    images.read_image(tmp_path / "t.png")


def test_no_picture(tmp_path):
  (tmp_path / "x.jpg").write_text("hello, this is no picture")
  with pytest.raises(images.ImageError, match="not a picture"):
    images.read_image(tmp_path / "x.jpg")


def test_unwritable_place(tmp_path):
  blocker = tmp_path / "file"
  blocker.write_text("")
  with pytest.raises(images.ImageError, match="cannot be written"):
    images.write_image(blocker / "a.png", _gradient())
  with pytest.raises(images.ImageError, match="unknown picture suffix"):
    images.write_image(tmp_path / "a.xyz", _gradient())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
  tmp_path.chmod(0o500)
  try:
    with pytest.raises(images.ImageError, match="cannot be written"):
      images.write_image(tmp_path / "a.png", _gradient())
  finally:
    tmp_path.chmod(0o700)


def test_list_images(tmp_path):
  for name in ("b/2.png", "b/1.png", "a.jpg", ".hidden/3.png"):
    images.write_image(tmp_path / name, _gradient())
  (tmp_path / "notes.txt").write_text("")
  found = [p.as_posix() for p in images.list_images(tmp_path).files]
  assert found == ["a.jpg", "b/1.png", "b/2.png"]
  with pytest.raises(images.ImageError, match="no such folder"):
    images.list_images(tmp_path / "none")
  (tmp_path / "empty").mkdir()
  with pytest.raises(images.ImageError, match="no picture found"):
    images.list_images(tmp_path / "empty")


def test_classes_of_label_maps(tmp_path):
  classes = (np.arange(20 * 20).reshape(20, 20) % 200).astype(np.uint8)
  gray = Image.fromarray(classes)
  gray.save(tmp_path / "gray.png")
  palette = gray.copy()
  palette.putpalette([200, 10, 30] * 256)
  assert palette.mode == "P"
  palette.save(tmp_path / "palette.png")
  palette.save(tmp_path / "clear.png", transparency=3)
  Image.fromarray(classes.astype(np.uint16)).save(tmp_path / "wide.png")
  Image.fromarray(np.repeat(classes[..., None], 3, -1)).save(
    tmp_path / "three.png"
  )
  for name in ("gray", "palette", "clear", "wide", "three"):
    found = images.read_labels(tmp_path / f"{name}.png")
    np.testing.assert_array_equal(found, classes, err_msg=name)


def test_pictures_that_hold_no_classes(tmp_path):
  Image.fromarray(_gradient()).save(tmp_path / "colours.png")
  gray = Image.fromarray(_gradient()[..., 0])
  gray.save(tmp_path / "gray.jpg")
  gray.convert("RGBA").save(tmp_path / "alpha.png")
  Image.fromarray(np.full((20, 20), 300, np.uint16)).save(tmp_path / "wide.png")
  for name, message in {
    "colours.png": "holds colours .mode RGB.",
    "alpha.png": "holds colours .mode RGBA.",
    "gray.jpg": "is JPEG, which changes classes",
    "wide.png": "holds class 300, wanted 0 to 255",
    "none.png": "no such file",
  }.items():
    with pytest.raises(images.ImageError, match=f"{name}: {message}"):
      images.read_labels(tmp_path / name)
