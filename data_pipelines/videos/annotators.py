"""Calls the functions that add fields to every frame, and checks their answers.

The functions are handed in: nets live above this package.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import records

# frame uint8 (s, s, 3) -> {field: array}, or None where there is nothing to
# say; frames uint8 (batch, s, s, 3) -> {field: (batch, ...)} if the function
# has an attribute `batch`. See `Annotators`.
Annotator = Callable[..., Mapping[str, Any] | None]

VALID = "valid"  # in answers to batches: bool (batch,), which frames to keep
TAKEN = ("image", "identity", "video", "frame", "landmarks68", "faces")

Form = dict[str, tuple[str, tuple[int, ...]]]  # {field: (dtype, shape)}

_PIECE = 32  # frames that travel together where no annotator says


class Annotators:
  """Annotators in the order of their names in a mapping.

  An annotator is a function. These attributes of it are optional:
    batch: int; it takes so many frames at once, always exactly that many. What
      a clip lacks is filled with its last frame and cut from the answer.
    needs: names of fields (of annotators before it, or `landmarks68`), given
      to it as keyword arguments beside the frames.
    version: text kept with the set; a set of another version is another set.

  It leaves a frame out by returning None or raising ValueError; of a batch,
  by an entry `valid`, bool (batch,). A batch for which it returns None is left
  out; one for which it raises is tried again frame by frame.

  Args:
    functions: {name: annotator}.

  Raises:
    RecordError: a batch is no positive number.
  """

  def __init__(self, functions: Mapping[str, Annotator]):
    self._functions = dict(functions)
    # What each annotator gave first, and what shards from before hold.
    self._given: dict[str, Form] = {}
    self._stored: Form | None = None
    for name, function in self._functions.items():
      batch = _batch(function)
      if batch is not None and batch < 1:
        raise records.RecordError(
          f"annotator {name!r} has batch {batch}, wanted 1 or more"
        )

  def __bool__(self) -> bool:
    return bool(self._functions)

  @property
  def piece(self) -> int:
    """How many frames should come at a time."""
    return max([_PIECE, *(_batch(f) or 1 for f in self._functions.values())])

  def metadata(self) -> dict[str, str]:
    """{name: version}."""
    return {
      name: str(getattr(function, "version", ""))
      for name, function in self._functions.items()
    }

  def expect(self, fields: Mapping[str, Sequence]) -> None:
    """Takes over what an earlier run stored: {field: [dtype, shape]}."""
    self._stored = {
      name: (dtype, tuple(shape))
      for name, (dtype, shape) in fields.items()
      if name not in TAKEN
    }

  def __call__(
    self, pictures: np.ndarray, points: np.ndarray | None, where: str
  ) -> list[dict[str, np.ndarray] | str]:
    """Annotates a few frames of one clip.

    Args:
      pictures: uint8 (n, s, s, 3).
      points: float32 (n, 68, 2), or None.
      where: names the clip in errors.

    Returns:
      For each frame its fields, or why it is left out.

    Raises:
      RecordError: an answer has the wrong form, or another one than before.
    """
    out: list[Any] = [
      {} if points is None else {"landmarks68": points[i]}
      for i in range(len(pictures))
    ]
    for name, function in self._functions.items():
      places = [i for i, found in enumerate(out) if not isinstance(found, str)]
      batch = _batch(function)
      for start in range(0, len(places), batch or 1):
        some = places[start : start + (batch or 1)]
        answers = self._ask(name, function, pictures, out, some, where)
        for place, answer in zip(some, answers, strict=True):
          if isinstance(answer, str):
            out[place] = answer
          else:
            self._check(name, answer, out[place], where)
            out[place].update(answer)
    for found in out:
      if not isinstance(found, str):
        found.pop("landmarks68", None)
        self._check_stored(found, where)
    return out

  def _ask(self, name, function, pictures, out, places, where) -> list:
    """Calls one annotator; returns a dict or a reason for each place."""
    batch = _batch(function)
    # A batch is always full, so that nets are compiled once.
    filled = places + places[-1:] * ((batch or 1) - len(places))
    frames = pictures[places[0]] if batch is None else pictures[filled]
    given = {}
    for need in getattr(function, "needs", ()):
      if need not in out[places[0]]:
        raise records.RecordError(
          f"annotator {name!r} needs {need!r}, which no annotator before it "
          f"gives; there are {sorted(out[places[0]])}"
        )
      values = [out[place][need] for place in filled]
      given[need] = values[0] if batch is None else np.stack(values)
    try:
      answer = function(frames, **given)
    except ValueError as error:
      if len(places) == 1:
        return [f"{name}: {' '.join(str(error).split())}"]
      return [
        self._ask(name, function, pictures, out, [place], where)[0]
        for place in places
      ]
    if answer is None:
      return [f"{name}: nothing found"] * len(places)
    if not isinstance(answer, Mapping):
      raise records.RecordError(
        f"annotator {name!r} gave a {type(answer).__name__} for {where}, "
        "wanted {field: array} or None"
      )
    arrays = {field: np.asarray(value) for field, value in answer.items()}
    if batch is None:
      return [arrays]
    for field, array in arrays.items():
      if array.shape[:1] != (batch,):
        raise records.RecordError(
          f"annotator {name!r} gave {field!r} of shape {array.shape} for "
          f"{where}, wanted ({batch}, ...): one row for each frame of a batch"
        )
    valid = arrays.pop(VALID, np.ones(batch, bool))
    return [
      {field: array[row] for field, array in arrays.items()}
      if valid[row]
      else f"{name}: nothing found"
      for row in range(len(places))
    ]

  def _check(self, name: str, answer: dict, others: dict, where: str) -> None:
    """All frames carry the same fields, each from one annotator."""
    for field, array in answer.items():
      if field in TAKEN or field in others:
        raise records.RecordError(
          f"annotator {name!r} gave a field {field!r}, which is there already; "
          "wanted another name"
        )
      if array.dtype.kind not in "biuf":
        raise records.RecordError(
          f"annotator {name!r} gave {field!r} of dtype {array.dtype} for "
          f"{where}, wanted plain numbers"
        )
    form = _form(answer)
    first = self._given.setdefault(name, form)
    if form != first:
      raise records.RecordError(
        f"annotator {name!r} gave {_difference(form, first)}: {where}; wanted "
        "the same fields for all frames"
      )

  def _check_stored(self, found: dict, where: str) -> None:
    """Goes on where an earlier run stopped, in the same form."""
    form = _form(found)
    if self._stored is not None and form != self._stored:
      raise records.RecordError(
        f"annotators {', '.join(self._functions)} gave "
        f"{_difference(form, self._stored)}: {where}, after a set begun with "
        "others; choose another --output or remove this one"
      )


def _form(fields: Mapping[str, np.ndarray]) -> Form:
  return {name: (a.dtype.name, a.shape) for name, a in fields.items()}


def _difference(now: Form, before: Form) -> str:
  def text(form, name):
    return "{} {}".format(*form[name]) if name in form else "nothing"

  return ", ".join(
    f"{name!r} as {text(now, name)} where it was {text(before, name)}"
    for name in sorted({*now, *before})
    if now.get(name) != before.get(name)
  )


def _batch(function: Annotator) -> int | None:
  return getattr(function, "batch", None)
