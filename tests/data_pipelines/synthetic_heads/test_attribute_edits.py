"""Attributes given and taken: nothing else changes, and pictures show it."""

import numpy as np
import pytest

from data_pipelines.synthetic_heads import labels, render, tables
from data_pipelines.synthetic_heads.attribute_edits import (
  EDITED_ATTRIBUTES,
  attribute_counterfactual,
  can_edit,
)
from data_pipelines.synthetic_heads.factors import (
  FRAME_FACTORS,
  IDENTITY_FACTORS,
  as_factor,
  replace,
)
from data_pipelines.synthetic_heads.frames import sample_frame
from data_pipelines.synthetic_heads.identity import sample_identity
from faceedit_jax.morphable.head_bases import EXPRESSION_NAMES

ALL = labels.ATTRIBUTE_NAMES


def _sources(count, balance=EDITED_ATTRIBUTES + ("Narrow_Eyes",)):
  for i in range(count):
    yield sample_identity(5, i, balance), sample_frame(5, i, 1, balance)


def _changed(before, after, names):
  """Factors of which any number differs."""

  def equal(a, b):
    if isinstance(a, dict):
      return all(np.array_equal(a[k], b[k]) for k in a)
    return np.array_equal(a, b)

  return {n for n in names if not equal(getattr(before, n), getattr(after, n))}


@pytest.mark.parametrize("name", EDITED_ATTRIBUTES)
@pytest.mark.parametrize("value", [True, False])
def test_only_the_named_attribute_changes(name, value):
  factors = {"Smiling": "expression", "Eyeglasses": "glasses", "Bangs": "hair"}
  seen = set()
  for person, frame in _sources(120):
    before = labels.attributes(person, frame)
    for draw in (0, 3):
      edited = attribute_counterfactual(person, frame, name, value, draw)
      assert labels.attributes(*edited) == before | {name: value}
      found = _changed(person, edited[0], IDENTITY_FACTORS)
      found |= _changed(frame, edited[1], FRAME_FACTORS)
      allowed = {factors[name]} | ({"jaw"} if name == "Smiling" else set())
      assert found <= allowed
      assert before[name] == value or factors[name] in found
    seen.add(before[name])
  assert seen == {True, False}


def test_a_mood_leaves_brows_nose_and_cheeks_alone():
  mouth = {"smile", "upper_lip_raise", "frown", "pucker", "blink_L", "blink_R"}
  kept = [i for i, n in enumerate(EXPRESSION_NAMES) if n not in mouth]
  blink = EXPRESSION_NAMES.index("blink_L")
  for person, frame in _sources(30, ()):
    smile = attribute_counterfactual(person, frame, "Smiling", True)[1]
    np.testing.assert_array_equal(
      smile.expression[kept], frame.expression[kept]
    )
    # A smile closes the eyes by a fifth of what exceeds 0.3, or a little less.
    reach = 0.2 * (smile.expression[0] - 0.3) + 1e-6
    assert smile.expression[blink] - frame.expression[blink] <= reach
    assert not np.array_equal(smile.expression, frame.expression)


def test_hair_styles_keep_all_but_the_fringe():
  (person, frame), *_ = _sources(1)
  sweeps = set()
  for draw in range(8):
    made, _ = attribute_counterfactual(person, frame, "Bangs", True, draw)
    assert made.hair["bangs"] == 1 and abs(made.hair["bang_sweep"]) <= 5
    sweeps.add(float(made.hair["bang_sweep"]))
    kept = set(person.hair) - {"bangs", "bang_sweep"}
    assert all(made.hair[k] is person.hair[k] for k in kept)
  assert len(sweeps) == 8


def test_draws_are_fixed_and_differ():
  (person, frame), (other, _), *_ = _sources(2)

  def widths(who):
    return [
      float(
        attribute_counterfactual(who, frame, "Eyeglasses", True, d)[0].glasses[
          "width"
        ]
      )
      for d in range(8)
    ]

  assert widths(person) == widths(person)
  assert len(set(widths(person) + widths(other))) == 16
  suns = [
    float(
      attribute_counterfactual(p, f, "Eyeglasses", True, d)[0].glasses["sun"]
    )
    for p, f in _sources(60)
    for d in range(8)
  ]
  assert abs(np.mean(suns) - 0.2) < 0.06  # three deviations of 480 draws


def test_what_cannot_be_edited():
  (person, frame), *_ = _sources(1)
  with pytest.raises(ValueError, match="'Male' has no .* Smiling, Eyeglasses"):
    attribute_counterfactual(person, frame, "Male", True)
  bald = replace(person, hair=person.hair | as_factor(shown=0.0))
  hat = replace(person, hat=person.hat | as_factor(kind=1))
  for who in (bald, hat):
    assert not can_edit(who, "Bangs") and can_edit(who, "Smiling")
    with pytest.raises(ValueError, match="shows no bangs"):
      attribute_counterfactual(who, frame, "Bangs", True)


def test_pictures_change_where_the_attribute_is():
  (person, frame), *_ = _sources(1)
  person = replace(
    person,
    glasses=person.glasses | as_factor(on=0, sun=0),
    hair=person.hair | as_factor(bangs=0),
  )
  frame = attribute_counterfactual(person, frame, "Smiling", False)[1]
  frame = replace(frame, pose=np.zeros(3, np.float32))
  plain = render.render(person, frame, 64)
  rows = plain["landmarks5"][:, 1]
  for name, low, high in (
    ("Smiling", rows[2], 1.0),  # below the nose, but for the lids
    ("Eyeglasses", 0.2, rows[2] + 0.05),
    ("Bangs", 0.0, rows[0] + 0.1),
  ):
    edited = attribute_counterfactual(person, frame, name, True)
    drawn = render.render(*edited, 64)
    change = np.abs(drawn["image"].astype(int) - plain["image"]).max(-1)
    inside = np.zeros_like(change, bool)
    inside[int(low * 64) : int(high * 64)] = True
    assert (change > 20).sum() > 15, name
    assert change[inside].sum() > 0.8 * change.sum(), name
    assert drawn["attributes"][ALL.index(name)] == 1
    assert (drawn["labels"] == labels.LABEL["eye_g"]).any() == (
      name == "Eyeglasses"
    )


def test_every_hair_style_shows_its_fringe():
  (person, frame), *_ = _sources(1)
  frame = replace(frame, pose=np.zeros(3, np.float32))
  for style in tables.STYLE_NAMES:
    if style == "bald":
      continue
    hair = dict(tables.STYLE_DEFAULTS, **tables.STYLES[style])
    hair = person.hair | as_factor(**hair) | as_factor(bangs=0, hairline=0)
    plain = replace(person, hair=hair)
    fringed, _ = attribute_counterfactual(plain, frame, "Bangs", True)
    areas = [
      (render.render(p, frame, 32)["labels"] == labels.LABEL["hair"]).sum()
      for p in (plain, fringed)
    ]
    assert areas[1] > areas[0] + 20, style
