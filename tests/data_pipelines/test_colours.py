"""Colours mean what a file's profile says, and become sRGB."""

import io
import logging
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from data_pipelines import colours, images
from tests.data_pipelines import profiles


@pytest.fixture
def palette(rng):
  """Colours of all kinds, uint8 (24, 24, 3)."""
  return rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)


def _as_today(picture):
  """What pictures without a foreign profile have always given."""
  picture = ImageOps.exif_transpose(picture)
  if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    picture = Image.alpha_composite(white, picture)
  return np.array(picture.convert("RGB"), np.uint8)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(
  "name, primaries",
  [("display_p3", profiles.DISPLAY_P3), ("adobe_rgb", profiles.ADOBE_RGB)],
)
def test_wide_colours_become_srgb(tmp_path, palette, suffix, name, primaries):
  path = tmp_path / f"wide.{suffix}"
  profile = getattr(profiles, name)()
  # Smooth, as JPEG and WebP cannot hold noise.
  picture = np.repeat(np.repeat(palette[:3, :3], 32, 0), 32, 1)
  options = {"subsampling": 0} if suffix == "jpg" else {}
  Image.fromarray(picture).save(
    path, icc_profile=profile, quality=100, **options
  )
  with Image.open(path) as stored:
    values = np.asarray(stored.convert("RGB")) / 255
  light = profiles.linear(values)
  if name == "adobe_rgb":
    light = values ** (563 / 256)
  wanted = profiles.as_srgb(light, primaries).astype(int)
  found = images.read_image(path).astype(int)
  assert np.abs(found - wanted).max() <= 3
  assert np.abs(found - values * 255).max() > 25  # the numbers did change


def test_the_green_of_the_report(tmp_path):
  """sRGB (26, 150, 58) is (71, 148, 70) in Display P3."""
  path = tmp_path / "green.png"
  profile = profiles.display_p3()
  Image.new("RGB", (20, 20), (71, 148, 70)).save(path, icc_profile=profile)
  found = images.read_image(path)[3, 4].astype(int)
  assert np.abs(found - (26, 150, 58)).max() <= 3


def test_every_profile_of_srgb_leaves_the_numbers(tmp_path, palette):
  made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
  ours = profiles.rgb(profiles.SRGB, profiles.srgb_curve())
  for number, profile in enumerate((None, made, ours, colours.srgb_profile())):
    for suffix, options in (("png", {}), ("jpg", {"quality": 90})):
      path = tmp_path / f"{number}.{suffix}"
      Image.fromarray(palette).save(path, icc_profile=profile, **options)
      with Image.open(path) as picture:
        wanted = _as_today(picture)
      np.testing.assert_array_equal(images.read_image(path), wanted)


def test_inks_by_their_profile(tmp_path):
  inks = np.zeros((20, 40, 4), np.uint8)
  inks[:, 10:20, 0] = inks[:, 20:30, 1] = inks[:, 30:, 3] = 255
  picture = Image.frombytes("CMYK", (40, 20), inks.tobytes())
  picture.save(tmp_path / "bare.tif")
  picture.save(tmp_path / "tagged.tif", icc_profile=profiles.cmyk())
  picture.save(tmp_path / "tagged.jpg", icc_profile=profiles.cmyk(), quality=98)
  bare = images.read_image(tmp_path / "bare.tif")
  assert bare[5, [5, 15, 25, 35]].tolist() == [
    *([255, 255, 255], [0, 255, 255], [255, 0, 255], [0, 0, 0]),
  ]
  for name, slack in (("tagged.tif", 0), ("tagged.jpg", 12)):
    found = images.read_image(tmp_path / name)[5, [5, 15, 25, 35]].astype(int)
    paper, cyan, magenta, black = found
    assert (paper >= 245).all() and (black <= 60 + slack).all(), name
    # Printed inks are duller than a screen's.
    assert cyan[0] < cyan[1] - 40 and cyan[1] < 240 + slack, name
    assert magenta[1] < magenta[0] - 40 and magenta[1] > 20, name


def test_grays_by_their_profile(tmp_path):
  shades = np.repeat(np.arange(256, dtype=np.uint8)[None], 20, 0)
  linear = profiles.gray(profiles.gamma(1.0))
  Image.fromarray(shades).save(tmp_path / "gray.png", icc_profile=linear)
  found = images.read_image(tmp_path / "gray.png").astype(int)
  assert (found[..., :1] == found).all()
  wanted = profiles.as_srgb(
    np.repeat(shades[..., None] / 255, 3, -1), profiles.SRGB
  )
  assert np.abs(found - wanted).max() <= 1 and found[0, 20, 0] > 75
  # A profile of colours says what grays are as well.
  colour = profiles.rgb(profiles.SRGB, profiles.gamma(1.0))
  Image.fromarray(shades).save(tmp_path / "colour.png", icc_profile=colour)
  again = images.read_image(tmp_path / "colour.png").astype(int)
  assert np.abs(again - found).max() <= 1
  wide = shades.astype(np.uint16) * 257
  Image.fromarray(wide).save(tmp_path / "wide.png", icc_profile=linear)
  again = images.read_image(tmp_path / "wide.png").astype(int)
  np.testing.assert_array_equal(again, found)


def test_transparency_lies_over_white_whatever_the_colours(tmp_path, palette):
  alpha = np.full((24, 24), 255, np.uint8)
  alpha[:12] = 0
  profile = profiles.display_p3()
  Image.fromarray(palette).save(tmp_path / "full.png", icc_profile=profile)
  Image.fromarray(np.dstack([palette, alpha])).save(
    tmp_path / "clear.png", icc_profile=profile
  )
  full = images.read_image(tmp_path / "full.png")
  clear = images.read_image(tmp_path / "clear.png")
  assert (clear[:12] == 255).all()
  np.testing.assert_array_equal(clear[12:], full[12:])
  indexed = Image.fromarray(palette).quantize(16)
  indexed.save(tmp_path / "p.png", icc_profile=profile, transparency=0)
  numbers = np.asarray(indexed)
  found = images.read_image(tmp_path / "p.png")
  assert (found[numbers == 0] == 255).all()
  solid = indexed.convert("RGB")
  solid.save(tmp_path / "solid.png", icc_profile=profile)
  wanted = images.read_image(tmp_path / "solid.png")
  np.testing.assert_array_equal(found[numbers != 0], wanted[numbers != 0])


def test_transparent_colours_of_sixteen_bits(tmp_path):
  shades = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
  key = int(shades[3, 4])
  Image.fromarray(shades).save(tmp_path / "gray.png", transparency=key)
  found = images.read_image(tmp_path / "gray.png")
  assert (found[3, 4] == 255).all()
  rest = shades != key
  assert np.abs(found[rest][:, 0] - shades[rest] / 257).max() <= 0.5
  assert (found[..., 0] < 250).sum() > 350


def test_broken_profiles_are_ignored_with_a_line(tmp_path, palette, caplog):
  good = profiles.display_p3()
  broken = {
    "noise": bytes(range(256)) * 4,
    "cut": good[:200],
    "short": b"x",
    "inks": profiles.cmyk(),  # for pixels that are colours
    "grays": profiles.gray(profiles.gamma(2.2)),
  }
  for name, profile in broken.items():
    caplog.clear()
    for number in range(2):
      path = tmp_path / f"{name}{number}.png"
      Image.fromarray(palette).save(path, icc_profile=profile)
      np.testing.assert_array_equal(images.read_image(path), palette)
    with caplog.at_level(logging.WARNING):
      pass
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1, lines  # once for each profile
    assert f"{name}0.png: its colour profile is ignored" in lines[0]
    assert "\n" not in lines[0]


def test_a_tagged_result_says_that_it_is_srgb(tmp_path, palette):
  for suffix in ("png", "jpg", "webp", "tif", "bmp", "gif"):
    path = images.write_image(tmp_path / f"a.{suffix}", palette, tagged=True)
    with Image.open(path) as picture:
      profile = picture.info.get("icc_profile")
    assert (profile == colours.srgb_profile()) == (suffix not in ("bmp", "gif"))
  first = (tmp_path / "a.png").read_bytes()
  images.write_image(tmp_path / "b.png", palette, tagged=True)
  assert (tmp_path / "b.png").read_bytes() == first
  images.write_image(tmp_path / "c.png", palette)
  with Image.open(tmp_path / "c.png") as picture:
    assert "icc_profile" not in picture.info


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_strips_are_as_the_whole(rng, monkeypatch, mode, turn):
  shades = rng.integers(0, 65535, (37, 21)).astype(np.uint16)
  picture = {
    "I;16": lambda: Image.fromarray(shades),
    "F": lambda: Image.fromarray(shades.astype(np.float32) / 65535),
  }.get(
    mode,
    lambda: Image.fromarray(
      rng.integers(0, 256, (37, 21, 3), dtype=np.uint8)
    ).convert(mode),
  )()
  if mode == "RGBA":
    picture.putalpha(Image.fromarray((shades >> 8).astype(np.uint8)))
  whole = colours.to_srgb(picture)
  method = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
  }.get(turn, lambda a: a)
  monkeypatch.setattr(colours, "_STRIP", 5 * 21)
  found = colours.to_srgb(picture, turn)
  assert found.flags.c_contiguous
  np.testing.assert_array_equal(found, method(whole))


def test_a_profile_larger_than_pillow_takes(tmp_path, palette, rng):
  """As of printers: some megabytes, compressed in a PNG."""
  large = profiles.display_p3() + rng.bytes(3_000_000)
  large = len(large).to_bytes(4, "big") + large[4:]
  assert len(zlib.compress(large)) > 2_000_000
  buffer = io.BytesIO()
  Image.fromarray(palette).save(buffer, "PNG", icc_profile=large)
  path = tmp_path / "large.png"
  path.write_bytes(buffer.getvalue())
  Image.fromarray(palette).save(
    tmp_path / "small.png", icc_profile=profiles.display_p3()
  )
  np.testing.assert_array_equal(
    images.read_image(path), images.read_image(tmp_path / "small.png")
  )


@pytest.mark.shared
def test_the_photo_of_the_report(shared):
  path = shared / "field_cases" / "P4-icc" / "p3_photo.jpg"
  with Image.open(path) as picture:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
    wanted = ImageCms.profileToProfile(
      picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
  found = images.read_image(path).astype(int)
  assert np.abs(found - np.asarray(wanted)).max() <= 1
