"""One edited picture, what led to it, and sheets of both."""

import dataclasses
from typing import Any

import numpy as np

from data_pipelines.detectors import Found
from faceedit_jax.core import sheets
from faceedit_jax.core.editing import SOURCE
from faceedit_jax.core.errors import UserError

STRIP = "strip"


@dataclasses.dataclass(frozen=True)
class EditResult:
  """One edited picture and what led to it; pictures are uint8.

  Attributes:
    image: (h, w, 3), the edit. Its size is the recipe's choice; where the
      recipe edits a photo in place, it shows the aligned square.
    inputs: {field: picture} as they were read: photos aligned (s, s, 3), label
      maps and sketches (s, s).
    points: (5, 2), the face points in pixels of the source photo; None where
      no photo is edited.
    matrix: (2, 3), from pixels of the source photo to the aligned square, or
      None.
    pasted: (h, w, 3), the source photo with the edit in place, if asked for.
    outputs: {name: array} all else that the recipe returns for this picture.
    shown: {name: (h, w, 3)}, those outputs as pictures.
    options: {name: value} the options that were given.
    label_maps: fields of the label maps among the inputs.
    faces: {field: what was found} of the photos in which a face was searched.
  """

  image: np.ndarray
  inputs: dict[str, np.ndarray]
  points: np.ndarray | None
  matrix: np.ndarray | None
  pasted: np.ndarray | None
  outputs: dict[str, np.ndarray]
  shown: dict[str, np.ndarray]
  options: dict[str, Any] = dataclasses.field(default_factory=dict)
  label_maps: tuple[str, ...] = ()
  faces: dict[str, Found] = dataclasses.field(default_factory=dict)

  @property
  def source(self) -> np.ndarray | None:
    """The aligned source photo (s, s, 3), where a photo is edited."""
    return self.inputs.get(SOURCE)

  @property
  def references(self) -> dict[str, np.ndarray]:
    """{field: picture} of the inputs beside the source."""
    return {k: v for k, v in self.inputs.items() if k != SOURCE}

  @property
  def strip(self) -> np.ndarray | None:
    """Several edits side by side (h, n w, 3), where the recipe makes them."""
    return self.shown.get(STRIP)

  @property
  def rendering(self) -> np.ndarray | None:
    """The rendering (h, w, 3) that the edit follows, where there is one."""
    return self.shown.get("rendering")

  def sheet(self) -> np.ndarray:
    """All pictures side by side with their names, uint8 (H, W, 3)."""
    rest = {k: v for k, v in self.shown.items() if k != STRIP}
    middle = {k: rest.pop(k) for k in ("rendering",) if k in rest}
    first = {k: self._shown(k) for k in self.inputs}
    return sheets.labelled({**first, **middle, "edit": self.image, **rest})

  def strip_sheet(self) -> np.ndarray:
    """The source and the pictures of the strip, labelled, uint8 (H, W, 3).

    A picture's label is its value in the option that lists one for each, such
    as strengths; its number where there is none.

    Raises:
      UserError: this edit has no strip.
    """
    if self.strip is None:
      raise UserError("this edit made no strip; it needs a list as an option")
    count = self.strip.shape[1] // self.image.shape[1]
    lists = [v for v in self.options.values() if isinstance(v, list | tuple)]
    labels = next((v for v in lists if len(v) == count), range(1, count + 1))
    pictures = np.split(self.strip, count, axis=1)
    named = zip(map(_label, labels), pictures, strict=True)
    first = [] if self.source is None else [(SOURCE, self.source)]
    return sheets.labelled([*first, *named])

  def _shown(self, field: str) -> np.ndarray:
    """An input as a picture with three channels."""
    picture = self.inputs[field]
    if field in self.label_maps:
      return sheets.paint_labels(picture)
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2)


def _label(value: Any) -> str:
  """A number without noise digits, and without the sign of -0."""
  return f"{value + 0.0:.4g}" if isinstance(value, int | float) else str(value)
