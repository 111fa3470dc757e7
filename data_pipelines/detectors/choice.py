"""Which of several faces in a photo is meant."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines import align
from data_pipelines.detectors.face import Face

_WANTED = "wanted largest, a number from 1 (by size), or x,y in pixels"


@dataclasses.dataclass(frozen=True)
class Choice:
  """One of the faces in a photo.

  Attributes:
    number: of the face, from 1, the largest.
    at: (x, y) in pixels of the photo; the face there, whatever its number.
  """

  number: int = 1
  at: tuple[float, float] | None = None

  def pick(self, faces: Sequence[Face]) -> int:
    """Place of the chosen face among some.

    Args:
      faces: at least one, the largest first.

    Raises:
      AlignError: there is none of this number, or none at this place.
    """
    if self.at is None:
      if self.number > len(faces):
        raise align.AlignError(
          f"there is no face {self.number}: {places(faces)}"
        )
      return self.number - 1
    away = [np.linalg.norm(face.centre - self.at) for face in faces]
    nearest = int(np.argmin(away))
    # The points of a face fill the middle of its aligned square.
    if away[nearest] > faces[nearest].side / 2:
      x, y = self.at
      raise align.AlignError(
        f"there is no face at {x:g},{y:g}: {places(faces)}"
      )
    return nearest


LARGEST = Choice()


def places(faces: Sequence[Face]) -> str:
  """Where the faces are, in words; numbers are those of a `Choice`."""
  named = "; ".join(
    f"{number} at {face.centre[0]:.0f},{face.centre[1]:.0f}"
    for number, face in enumerate(faces, start=1)
  )
  return f"faces by size: {named}"


def choice_of(value: Any, name: str = "face") -> Choice:
  """Reads a choice.

  Args:
    value: "largest", a number, "x,y", or a pair of numbers.
    name: what is read, for errors.

  Raises:
    ValueError: it is none of these.
  """
  if isinstance(value, Choice):
    return value
  words = value.split(",") if isinstance(value, str) else value
  wrong = f"{name} is {value!r}; {_WANTED}"
  if isinstance(value, bool) or value is None:
    raise ValueError(wrong)
  if isinstance(words, int | np.integer):
    words = [words]
  if not isinstance(words, Sequence | np.ndarray) or len(words) not in (1, 2):
    raise ValueError(wrong)
  if len(words) == 1 and str(words[0]).strip() == "largest":
    return LARGEST
  try:
    numbers = [float(word) for word in words]
  except (TypeError, ValueError) as error:
    raise ValueError(wrong) from error
  if not all(map(math.isfinite, numbers)):
    raise ValueError(wrong)
  if len(numbers) == 2:
    return Choice(at=(numbers[0], numbers[1]))
  if numbers[0] < 1 or numbers[0] % 1:
    raise ValueError(wrong)
  return Choice(number=int(numbers[0]))
