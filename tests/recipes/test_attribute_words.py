"""What an attribute edit is asked for, in words and numbers."""

import jax
import numpy as np
import pytest

from faceedit_jax.recipes.l2m_gan import words

NAMES = ("Smiling", "Eyeglasses", "Bangs", "No_Beard")


@pytest.mark.parametrize(
  "text, edits",
  [
    ("Smiling", [(0, True)]),
    ("+Smiling", [(0, True)]),
    ("-Bangs", [(2, False)]),
    (" +Bangs , -Smiling,Eyeglasses", [(2, True), (0, False), (1, True)]),
    ("-No_Beard,+No_Beard", [(3, False), (3, True)]),
  ],
)
def test_edits(text, edits):
  assert words.parse_edits(text, NAMES) == tuple(edits)


@pytest.mark.parametrize(
  "text, message",
  [
    ("Smilling", r"^attribute 'Smilling' is unknown; did you mean Smiling\?"),
    ("-smiling", "'smiling' is unknown; did you mean Smiling"),
    ("+Smiling,no beard", "'no beard' is unknown; did you mean No_Beard"),
    ("Male", "'Male' is unknown; it knows Smiling, Eyeglasses, Bangs, No_Bear"),
    ("--Bangs", "'-Bangs' is unknown; did you mean Bangs"),
    ("", "no name given; it knows Smiling"),
    ("+Smiling,", r"no name in '\+Smiling,'"),
    ("+", "no name in"),
    (1, r"attribute is 1, wanted names like '\+Smiling'"),
    (None, "attribute is None"),
  ],
)
def test_wrong_edits(text, message):
  with pytest.raises(ValueError, match=message) as error:
    words.parse_edits(text, NAMES)
  assert len(str(error.value).splitlines()) == 1


def test_strengths():
  assert words.parse_strength(np.float32(0.5)) == 0.5
  assert words.parse_strengths((-0.5, 0, 1)) == (-0.5, 0.0, 1.0)
  assert words.parse_strengths([2]) == words.parse_strengths(2) == (2.0,)
  assert words.parse_strengths(()) == ()
  assert words.parse_strengths(np.linspace(0, 1, 3)) == (0.0, 0.5, 1.0)


def test_strengths_may_be_traced():
  double = jax.jit(
    lambda one, more: (
      2 * words.parse_strength(one),
      [2 * s for s in words.parse_strengths(more)],
    )
  )
  assert double(0.5, (1.0, 2.0)) == (1.0, [2.0, 4.0])
  assert double(0.5, 3.0) == (1.0, [6.0])


@pytest.mark.parametrize("value", ["much", None, True, float("nan"), 1j])
def test_strengths_that_are_no_numbers(value):
  with pytest.raises(ValueError, match="^strength: .* is no number; wanted"):
    words.parse_strength(value)
  with pytest.raises(ValueError, match="^strengths: .*no number"):
    words.parse_strengths((0, value))


@pytest.mark.parametrize("text", ["0,0.5,l", "0:1.5", ""])
def test_strengths_with_a_typo(text):
  with pytest.raises(ValueError, match=f"'{text}' are no numbers; wanted"):
    words.parse_strengths(text)
