"""What an evaluator asks of a recipe is checked before anything runs."""

import types

import pytest

from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import needs

WHOLE = types.SimpleNamespace(edit=1, encode=1, decode=1, face=1)


def test_a_recipe_with_all_members_passes():
  needs.check(WHOLE, needs.EditsLatents, "here")


@pytest.mark.parametrize("name", vars(WHOLE))
def test_what_is_missing_is_named(name):
  lacking = types.SimpleNamespace(
    **{k: v for k, v in vars(WHOLE).items() if k != name}
  )
  with pytest.raises(UserError, match=f"^here cannot .* has no {name};"):
    needs.check(lacking, needs.EditsLatents, "here")


def test_a_classifier_edits_nothing():
  reader = types.SimpleNamespace(
    attributes=(), image_size=8, reader=None, batch_spec=None
  )
  needs.check(reader, needs.ReadsAttributes, "here")
  with pytest.raises(UserError, match="has no edit;"):
    needs.check(reader, needs.EditsAttributes, "here")
