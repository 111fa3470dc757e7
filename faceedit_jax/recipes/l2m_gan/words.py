"""Reads what an attribute edit is asked for: "+Smiling,-Eyeglasses", 0.8.

A strength is the `degree` of L2M-GAN's released code: how far along the line
from the picture's own style code to the transformed one.
"""

import difflib
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from faceedit_jax.core import signs
from faceedit_jax.core.typing import Array


def parse_edits(
  text: str, attributes: Sequence[str]
) -> tuple[tuple[int, bool], ...]:
  """Reads attributes to give and to take away, in order.

  Args:
    text: names separated by commas; "+" or nothing before a name gives the
      attribute, "-" takes it away, as does a typographic minus.
    attributes: the names that are known.

  Returns:
    ((index into `attributes`, True to give or False to take away), ...).

  Raises:
    ValueError: one line: no text, no name, or an unknown one with the nearest.
  """
  if not isinstance(text, str):
    raise ValueError(
      f"attribute is {text!r}, wanted names like '+{attributes[0]}'; it knows "
      f"{', '.join(attributes)}"
    )
  return tuple(
    _edit(word.strip(), text, attributes) for word in text.split(",")
  )


def _edit(word: str, text: str, attributes: Sequence[str]) -> tuple[int, bool]:
  sign, name = "", word
  if word and word[0] in f"+-{signs.PLUSES}{signs.MINUSES}":
    sign, name = word[0], word[1:].strip()
  if name in attributes:
    return attributes.index(name), not sign or sign in f"+{signs.PLUSES}"
  known = ", ".join(attributes)
  if not name:
    where = f"in {text!r}" if text.strip() else "given"
    raise ValueError(f"attribute: no name {where}; it knows {known}")
  plain = {a.lower().replace("_", ""): a for a in attributes}
  wanted = name.lower().replace("_", "").replace(" ", "")
  near = difflib.get_close_matches(wanted, plain, n=1)
  hint = f"did you mean {plain[near[0]]}? " if near else ""
  raise ValueError(f"attribute {name!r} is unknown; {hint}it knows {known}")


def parse_strength(value: Any, name: str = "strength") -> float | Array:
  """A strength: 0 leaves the picture as it is, 1 is the target; beyond goes on.

  Args:
    value: a finite number; a traced one is taken as it is.
    name: of the option, for the error.

  Returns:
    The number.

  Raises:
    ValueError: one line: it is no finite number.
  """
  if isinstance(value, jax.Array):
    return value
  real = isinstance(value, numbers.Real) and not isinstance(value, bool)
  if not real or not math.isfinite(value):
    raise ValueError(
      f"{name}: {value!r} is no number; wanted one like 0.8 (0 is the picture "
      "itself, 1 the target)"
    )
  return float(value)


def parse_strengths(
  value: Any, name: str = "strengths"
) -> tuple[float | Array, ...]:
  """The strengths of a strip.

  Args:
    value: a number, or a sequence of numbers; an empty one asks for no strip.
    name: of the option, for the error.

  Returns:
    The numbers in their order.

  Raises:
    ValueError: one line: what is no finite number.
  """
  if isinstance(value, str):
    raise ValueError(
      f"{name}: {value!r} are no numbers; wanted some like 0,0.5,1, or "
      "FIRST:LAST:COUNT like 0:1.5:7"
    )
  # A traced number calls itself iterable.
  several = isinstance(value, Iterable) and getattr(value, "ndim", 1)
  value = value if several else (value,)
  return tuple(parse_strength(v, name) for v in value)
