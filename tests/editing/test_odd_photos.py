"""Edits of photos as cameras, phones and programs leave them."""

import io
import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from faceedit_jax import edit
from tests.data_pipelines import profiles
from tests.data_pipelines.test_picture_fuzz import DAMAGE, damaged
from tests.data_pipelines.test_picture_metadata import ORIENTATION, exif_of
from tests.editing.toy_editor import command, portrait

TURN = (ORIENTATION, 3, 1, struct.pack("<H", 6))
FLOAT_MAKE = (0x010F, 11, 1, struct.pack("<f", 1.5))


def run_list(workdir, folder, names, *options):
  """The exit code of a list that edits each of some files."""
  rows = [f"{name},{name}.out.png" for name in names]
  (folder / "list.csv").write_text("\n".join(["source,output", *rows]))
  return edit.main(
    [f"--workdir={workdir}", f"--pairs={folder / 'list.csv'}", *options]
  )


@pytest.mark.filterwarnings("ignore:::PIL")
def test_odd_metadata_cost_no_row_of_a_list(workdir, tmp_path, capfd):
  """Photos that were turned by a camera, with one entry of a wrong type."""
  picture, _ = portrait()
  Image.fromarray(picture).save(tmp_path / "good.png")
  turned = Image.fromarray(np.rot90(picture))
  turned.save(tmp_path / "float.png", exif=exif_of([FLOAT_MAKE, TURN]))
  turned.save(tmp_path / "cut.png", exif=exif_of([TURN, FLOAT_MAKE])[:-8])
  text = PngImagePlugin.PngInfo()
  text.add_text("parameters", "word " * 700_000, zip=True)
  Image.fromarray(picture).save(tmp_path / "text.png", pnginfo=text)
  names = ["good.png", "float.png", "cut.png", "text.png"]
  assert run_list(workdir, tmp_path, names, "--paste_back") == 0
  assert "4 of 4 edits written" in capfd.readouterr().out
  wanted = np.asarray(Image.open(tmp_path / "good.png.out.png"))
  for name in names[1:]:
    found = np.asarray(Image.open(tmp_path / f"{name}.out.png"))
    np.testing.assert_array_equal(found, wanted, err_msg=name)


def seen(path):
  """A file as a screen of sRGB shows it, by its own profile."""
  with Image.open(path) as picture:
    data = picture.info.get("icc_profile")
    if data is None:
      return np.asarray(picture.convert("RGB")).astype(int)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    shown = ImageCms.profileToProfile(
      picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    return np.asarray(shown).astype(int)


@pytest.mark.parametrize("profile", ["display_p3", "adobe_rgb"])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_colours_outside_the_face_are_as_before(
  workdir, tmp_path, profile, suffix, capfd
):
  picture, _ = portrait()
  # Greens and blues that sRGB has as well.
  picture[:40] = (71, 148, 70)
  picture[100:] = (90, 110, 160)
  Image.fromarray(picture).save(
    tmp_path / "a.png", icc_profile=getattr(profiles, profile)()
  )
  output = tmp_path / f"out.{suffix}"
  assert command(workdir, tmp_path, f"--output={output}", "--paste_back") == 0
  before, after = seen(tmp_path / "a.png"), seen(output)
  slack = 4 if suffix == "jpg" else 1
  for rows in (slice(0, 20), slice(104, 120)):
    assert np.abs(after[rows] - before[rows]).max() <= slack
  numbers = np.asarray(Image.open(tmp_path / "a.png"))[:20].astype(int)
  assert np.abs(numbers - before[:20]).max() > 20
  assert capfd.readouterr().err == ""


def test_a_broken_profile_is_one_line(workdir, tmp_path, capfd):
  picture, _ = portrait()
  Image.fromarray(picture).save(
    tmp_path / "a.png", icc_profile=b"no profile " * 20
  )
  assert command(workdir, tmp_path) == 0
  assert capfd.readouterr().err.count("\n") <= 1


@hypothesis.settings(
  max_examples=4,
  derandomize=True,
  deadline=None,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(
  damage=st.lists(DAMAGE, min_size=3, max_size=3),
  formats=st.lists(
    st.sampled_from(["PNG", "JPEG", "WEBP"]), min_size=3, max_size=3
  ),
)
@pytest.mark.filterwarnings("ignore:::PIL")
def test_damaged_files_cost_their_own_rows_only(
  workdir, tmp_path_factory, damage, formats, capfd
):
  folder = tmp_path_factory.mktemp("fuzz")
  picture, _ = portrait()
  names = []
  for number, (changes, format_) in enumerate(
    zip(damage, formats, strict=True)
  ):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format_, exif=exif_of([FLOAT_MAKE]))
    names.append(f"bad{number}.{format_.lower()}")
    (folder / names[-1]).write_bytes(damaged(buffer.getvalue(), changes))
  for name in ("first.png", "last.png"):
    Image.fromarray(picture).save(folder / name)
  capfd.readouterr()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("FACEEDIT_MAX_MEGAPIXELS", "4")
    code = run_list(workdir, folder, ["first.png", *names, "last.png"])
  printed = capfd.readouterr()
  assert code in (0, 1)
  assert (folder / "first.png.out.png").exists()
  assert (folder / "last.png.out.png").exists()
  assert "Traceback" not in printed.err
  lines = [line for line in printed.err.splitlines() if line.strip()]
  assert len(lines) <= 3, printed.err
  failed = [line for line in lines if line.startswith("error: ")]
  written = len(list(folder.glob("*.out.png")))
  assert written + len(failed) == 5 and bool(failed) == (code == 1)
