"""Exact counterfactuals of attributes: this person with and without a smile."""

import itertools

import numpy as np

from data_pipelines.synthetic_heads import labels
from data_pipelines.synthetic_heads.factors import (
  Frame,
  Identity,
  as_factor,
  replace,
)
from data_pipelines.synthetic_heads.frames import (
  draw_expression,
  expression_vector,
  smile_blink,
)
from data_pipelines.synthetic_heads.identity import BANG_SWEEP, draw_glasses
from data_pipelines.synthetic_heads.streams import Stream
from faceedit_jax.morphable.head_bases import EXPRESSION_NAMES

EDITED_ATTRIBUTES = ("Smiling", "Eyeglasses", "Bangs")

# What the mood does to the mouth. Lips pressed, stretched or drawn aside come
# on top of every mood and stay.
_MOUTH = ("smile", "upper_lip_raise", "frown", "pucker")
# Either side of the eyes that `labels.attributes` calls narrow, as in frames.
_OPEN_EYES, _NARROW_EYES = 0.33, 0.37


def _check_name(name: str) -> None:
  if name not in EDITED_ATTRIBUTES:
    raise ValueError(
      f"attribute {name!r} has no counterfactual; wanted one of "
      f"{', '.join(EDITED_ATTRIBUTES)}"
    )


def can_edit(identity: Identity, name: str) -> bool:
  """Whether a person can be shown both with and without an attribute.

  All but bangs can be given to everybody. Every hair style carries a fringe,
  buzz cut, afro and bun included (by looking at all of them), but a bald head
  has none and a hat hides it.

  Raises:
    ValueError: for an attribute without counterfactuals.
  """
  _check_name(name)
  covered = identity.hat["kind"] > 0 or identity.hair["shown"] == 0
  return name != "Bangs" or not covered


def has_forms(name: str, value: bool) -> bool:
  """Whether the draws of a counterfactual differ from one another.

  Raises:
    ValueError: for an attribute without counterfactuals.
  """
  _check_name(name)
  return name == "Smiling" or bool(value)


def attribute_counterfactual(
  identity: Identity, frame: Frame, name: str, value: bool, draw: int = 0
) -> tuple[Identity, Frame]:
  """The same person and picture with one attribute at a given value.

  Only what makes the attribute changes; every other number stays bit for bit,
  the camera too: a smile moves no head. Other attributes stay as well; of the
  moods of the other value, one that opens the mouth as the source does is
  drawn, and the eyes that a smile narrows stay open or narrow as they were.

  Args:
    identity, frame: the source.
    name: one of EDITED_ATTRIBUTES.
    value: whether the result has the attribute, whatever the source has.
    draw: glasses, bangs and smiles come in many forms; each number is one,
      fixed for a person and frame. Taking glasses or bangs away knows one,
      see `has_forms`.

  Returns:
    The identity and the frame to render.

  Raises:
    ValueError: for another name, or bangs for a head that cannot show them.
  """
  if not can_edit(identity, name):
    raise ValueError(
      f"person {identity.index} is bald or wears a hat and shows no bangs; "
      "ask can_edit first"
    )
  key = (int(identity.seed), int(identity.index), int(frame.index))

  def stream(*names):
    return Stream(*key, "attribute", name, int(value), int(draw), *names)

  if name == "Smiling":
    return identity, _with_mood(identity, frame, bool(value), stream)
  if name == "Eyeglasses":
    none = identity.glasses | as_factor(on=0, sun=0)
    glasses = draw_glasses(stream(), True) if value else none
    return replace(identity, glasses=glasses), frame
  changed = as_factor(bangs=float(value))
  if value:
    changed |= as_factor(bang_sweep=stream().uniform(*BANG_SWEEP))
  return replace(identity, hair=identity.hair | changed), frame


def _with_mood(
  identity: Identity, frame: Frame, smiling: bool, stream
) -> Frame:
  """The frame with the mouth of a drawn mood, smiling or not."""
  has = labels.attributes(identity, frame)
  for attempt in itertools.count():
    s = stream(attempt)
    mood = s.uniform(0, 0.5) if smiling else s.uniform(0.5, 1)
    drawn, degrees = draw_expression(s, {"Smiling": mood})
    jaw = np.array([np.deg2rad(degrees), 0, 0]).astype(np.float32)
    if (jaw[0] > labels.OPEN_JAW) == has["Mouth_Slightly_Open"]:
      break
  new = dict(zip(EXPRESSION_NAMES, frame.expression, strict=True))
  mouth = dict(zip(EXPRESSION_NAMES, drawn, strict=True))
  narrows = smile_blink(mouth["smile"]) - smile_blink(new["smile"])
  new |= {name: mouth[name] for name in _MOUTH}
  if narrows:
    for name in ("blink_L", "blink_R"):
      blink = new[name] + narrows
      if has["Narrow_Eyes"]:
        new[name] = max(blink, _NARROW_EYES)
      else:
        new[name] = min(blink, _OPEN_EYES)
  return replace(frame, expression=expression_vector(**new), jaw=jaw)
