"""Photos as large as cameras make them, in memory that holds them once."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines import align
from faceedit_jax.core.errors import UserError
from faceedit_jax.editing import alignment, inputs
from faceedit_jax.editing import editor as editor_lib
from tests.benchmarks import picture_memory
from tests.editing import toy_editor


def test_a_photo_is_pasted_into_in_place(editor):
  photo, points = toy_editor.portrait()
  before = photo.copy()
  result = editor.edit(photo, paste_back=True, landmarks={"source": points})
  np.testing.assert_array_equal(photo, before)  # not the caller's own
  assert (result.pasted != photo).any()
  assert (result.pasted[:5] == photo[:5]).all()


def test_photos_are_held_only_to_be_pasted_into(editor):
  photo, points = toy_editor.portrait()
  row = {"source": photo, "pose_from": photo}
  for paste_back, held in ((False, set()), (True, {"source"})):
    table = {"source": points, "pose_from": points}
    prepared = editor._prepare(row, table, False, paste_back)
    assert set(prepared.inputs.photos) == held
    assert prepared.pixels == (photo[..., 0].size if held else 0)


def test_large_photos_share_no_batch(editor, monkeypatch):
  photo, points = toy_editor.portrait()
  sizes, run = [], editor._run

  def counted(items, *arguments):
    sizes.append(len(items))
    return run(items, *arguments)

  monkeypatch.setattr(editor, "_run", counted)
  rows = [{"source": photo}] * 4
  options = {"landmarks": {"source": points}, "paste_back": True}
  wanted = [r.pasted for r in editor.edit_many(rows, **options)]
  assert sizes == [2, 2]
  monkeypatch.setattr(editor_lib, "_HELD_PIXELS", photo[..., 0].size)
  found = [r.pasted for r in editor.edit_many(rows, **options)]
  assert sizes == [2, 2, 1, 1, 1, 1]
  np.testing.assert_array_equal(found, wanted)
  list(editor.edit_many(rows, landmarks=options["landmarks"]))
  assert sizes[6:] == [2, 2]  # nothing is held


def test_a_limit_in_words(tmp_path, monkeypatch):
  Image.new("RGB", (300, 200)).save(tmp_path / "a.jpg")
  monkeypatch.setenv("FACEEDIT_MAX_MEGAPIXELS", "0.01")
  with pytest.raises(UserError, match="FACEEDIT_MAX_MEGAPIXELS=1 reads it"):
    inputs.load(tmp_path / "a.jpg", "source")


def test_the_square_of_a_large_photo_is_cut_by_parts(monkeypatch):
  """The same square whether the photo is shrunk whole or by bands."""
  photo, points = toy_editor.portrait(900, 1200, 450.0, 600.0, 600.0)
  aligner = alignment.FaceAligner("synthetic_heads", 32)
  whole, _ = aligner.cut(photo, 32, points)
  monkeypatch.setattr(align, "_BAND", 10_000)
  np.testing.assert_array_equal(
    aligner.cut(photo, 32, points)[0].image, whole.image
  )


def test_memory_grows_with_the_photo_once(tmp_path):
  """7 bytes of each pixel and some bands: 4 decoded, 3 as an array."""
  each = picture_memory.measure(tmp_path, 16)
  assert 4 < each < 16


def test_an_own_array_is_not_copied_again(rng):
  photo = rng.integers(0, 255, (90, 90, 3), dtype=np.uint8)
  square = align.centre_square(photo, 30)
  pasted = alignment.paste_back(photo, square, 255 - square.image)
  assert pasted is photo
