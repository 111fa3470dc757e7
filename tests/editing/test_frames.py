"""Squares cut from photos, what is cut along with them, and the way back."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.core import editing
from faceedit_jax.core.errors import UserError
from faceedit_jax.editing import Editor
from tests.editing.toy_editor import SIZE, ToyEditor, portrait


def variant(editor, cls):
  """An editor of the same nets with another recipe."""
  fields = dataclasses.fields(editor.recipe)
  recipe = cls(**{f.name: getattr(editor.recipe, f.name) for f in fields})
  return Editor(recipe, editor._variables, editor._frozen, SIZE)


class Enlarged(ToyEditor):
  """The same edit at twice the resolution."""

  def edit(self, *arguments, **options):
    image = super().edit(*arguments, **options)["image"]
    return {"image": image.repeat(2, 1).repeat(2, 2)}


class Moved(Enlarged):
  """An edit whose result shows something else."""

  keeps_frame = False


class Cropped(Enlarged):
  """An edit that is no square."""

  def edit(self, *arguments, **options):
    return {"image": super().edit(*arguments, **options)["image"][:, :, 1:]}


class Masked(ToyEditor):
  """Paints what a label map and a sketch, drawn on the source, say."""

  edit_inputs = (
    editing.EditInput("source", "photo"),
    editing.EditInput(
      "labels", "label_map", classes=3, frame_of="source", required=True
    ),
    editing.EditInput("lines", "sketch", frame_of="source", size=2 * SIZE),
  )

  def edit(self, variables, frozen, inputs, rng):
    labels = inputs["labels"]
    image = jnp.stack([labels - 1.0] * 3, -1)
    return {"image": image}


def test_a_larger_edit_is_pasted_where_it_belongs(editor):
  photo, _ = portrait(200, 160, 100, 80, 60)
  other, _ = portrait(ground=200)
  given = {"light_from": other, "paste_back": True}
  plain = editor.edit(photo, **given)
  large = variant(editor, Enlarged).edit(photo, **given)
  assert large.image.shape == (2 * SIZE, 2 * SIZE, 3)
  assert large.source.shape == (SIZE, SIZE, 3)
  changed = (plain.pasted != photo).any(-1)
  difference = np.abs(plain.pasted.astype(int) - large.pasted)[changed]
  moved = np.abs(plain.pasted.astype(int) - photo)[changed]
  assert difference.mean() < 0.2 * moved.mean()
  outside = ~(changed | (large.pasted != photo).any(-1))
  assert outside.mean() > 0.7


@pytest.mark.parametrize(
  "cls, message",
  [
    (Moved, "Moved does not keep the frame of its source"),
    (Cropped, "the edit is 63x64 pixels, which is no square to paste back"),
  ],
)
def test_what_cannot_be_pasted_back(editor, cls, message):
  own = variant(editor, cls)
  photo, _ = portrait()
  assert own.edit(photo).pasted is None
  with pytest.raises(UserError, match=message) as error:
    own.edit(photo, paste_back=True)
  assert len(str(error.value).splitlines()) == 1


def test_what_is_drawn_on_a_photo_is_cut_along_with_it(editor):
  own = variant(editor, Masked)
  photo, points = portrait(200, 160, 120, 70, 60)
  face = photo[..., 0] == 255
  labels = np.where(face, 2, 0)
  lines = np.where(face, 255, 0).astype(np.uint8)
  result = own.edit(
    photo, landmarks={"source": points}, labels=labels, lines=lines
  )
  cut = result.inputs["labels"]
  assert set(np.unique(cut)) == {0, 2}
  red = result.source[..., 0].astype(int) - result.source[..., 1] > 60
  assert (red == (cut == 2)).mean() > 0.97
  # At its own size, and gray where the edge runs through a pixel.
  drawn = result.inputs["lines"]
  assert drawn.shape == (2 * SIZE, 2 * SIZE)
  both = (drawn > 127) == (cut == 2).repeat(2, 0).repeat(2, 1)
  assert both.mean() > 0.97
  assert ((drawn > 20) & (drawn < 235)).any()


def test_other_sizes_show_the_square_already(editor):
  own = variant(editor, Masked)
  photo, points = portrait()
  labels = np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 3
  given = {"landmarks": {"source": points}, "labels": labels}
  np.testing.assert_array_equal(
    own.edit(photo, **given).inputs["labels"], labels
  )
  # And where there is no photo.
  alone = own.edit(labels=labels)
  np.testing.assert_array_equal(alone.inputs["labels"], labels)
  with pytest.raises(UserError, match="paste_back needs 'source'"):
    own.edit(labels=labels, paste_back=True)
