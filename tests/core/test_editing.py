"""Declarations of an edit: what they accept, and who edits at all."""

import numpy as np
import pytest

from faceedit_jax.core import editing
from faceedit_jax.core.editing import EditInput
from faceedit_jax.core.errors import UserError
from tests import toy_recipes


@pytest.mark.parametrize(
  "item, shape, dtype, span",
  [
    (EditInput("a", "photo"), (8, 8, 3), "float32", (-1, 1)),
    (EditInput("a", "photo", size=4), (4, 4, 3), "float32", (-1, 1)),
    (EditInput("a", "label_map", classes=19), (8, 8), "uint8", (0, 18)),
    (EditInput("a", "sketch"), (8, 8, 1), "float32", (-1, 1)),
    (EditInput("a", "text", tokenizer=np.array, length=7), (7,), "int32", None),
    (EditInput("a", "camera"), (25,), "float32", None),
    (EditInput("a", "number"), (), "float32", None),
  ],
)
def test_what_an_edit_gets(item, shape, dtype, span):
  field = item.spec(8)
  assert (field.shape, field.dtype, field.range) == (shape, dtype, span)


@pytest.mark.parametrize(
  "given, message",
  [
    ({"kind": "mask"}, "edit input 'a': kind is 'mask', wanted one of photo"),
    ({"kind": "label_map"}, "classes is 0, wanted 2 to 256"),
    ({"kind": "label_map", "classes": 300}, "classes is 300"),
    ({"kind": "text", "length": 3}, "a text needs a tokenizer"),
    ({"kind": "text", "tokenizer": np.array}, "a text needs a tokenizer"),
    ({"kind": "photo", "frame_of": "b"}, "frame_of is for label maps"),
  ],
)
def test_declarations_that_make_no_sense(given, message):
  with pytest.raises(ValueError, match=message):
    EditInput("a", **given)


def test_who_edits():
  latent = toy_recipes.ToyLatent()
  assert editing.editable(latent) is latent
  # A class does for its values.
  assert isinstance(toy_recipes.ToyLatent, editing.Editable)
  assert not isinstance(latent, editing.FindsFacePoints)
  assert not isinstance(toy_recipes.ToyAutoencoder, editing.Editable)
  with pytest.raises(UserError, match="^ToyAutoencoder trains a net that oth"):
    editing.editable(toy_recipes.ToyAutoencoder())


def test_a_declaration_that_is_missing_is_named():
  class Half(toy_recipes.ToyAutoencoder):
    edit_inputs = toy_recipes.PHOTO
    alignment = "synthetic_heads"
    keeps_frame = True

    def edit(self, variables, frozen, inputs, rng):
      return {"image": inputs["image"]}

  with pytest.raises(
    UserError, match="lacks inference_options, traced_options"
  ):
    editing.editable(Half())
  assert editing.inference_options(Half()) == ()
