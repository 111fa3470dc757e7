"""Labelled picture sheets, and colours for masks that are no pictures yet."""

from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from faceedit_jax.core import writers

_CELL = 160  # smallest side of a shown picture, in pixels
_LABEL, _GAP, _FONT = 20, 4, 13
# Twelve colours that are easy to tell apart; more masks start again.
_PALETTE = np.array(
  [
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167),
    (0, 114, 178), (213, 94, 0), (240, 228, 66), (150, 150, 150),
    (110, 60, 160), (150, 90, 50), (140, 200, 90), (60, 60, 60),
  ],
  np.float32,
)  # fmt: skip


def picture_of(value: np.ndarray) -> np.ndarray | None:
  """An array as a picture, if it can be one.

  Args:
    value: (h, w, 3) in [-1, 1]; (h, w), (h, w, 1) or (h, w, k) masks in
      [0, 1], which are painted in one colour per mask; uint8 pictures.

  Returns:
    uint8 (h, w, 3), or None for arrays of any other shape.
  """
  value = np.asarray(value)
  if value.ndim == 2:
    value = value[..., None]
  if value.ndim != 3 or not value.size:
    return None
  if value.shape[-1] == 3:
    return writers.to_uint8(value)
  masks = np.nan_to_num(value.astype(np.float32))
  if masks.shape[-1] == 1:
    if value.dtype != np.uint8:
      masks = 255 * masks
    colours = np.repeat(masks, 3, axis=-1)
  else:
    count = masks.shape[-1]
    colours = masks @ _PALETTE[np.arange(count) % len(_PALETTE)]
  return np.clip(np.round(colours), 0, 255).astype(np.uint8)


def paint_labels(labels: np.ndarray) -> np.ndarray:
  """Classes uint8 (h, w) as colours, uint8 (h, w, 3)."""
  return _PALETTE[labels % len(_PALETTE)].astype(np.uint8)


def labelled(
  pictures: Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]],
) -> np.ndarray:
  """Pictures side by side, each under its name.

  Args:
    pictures: {name: uint8 (h, w, 3)}, or pairs of the two; small ones are
      enlarged without smoothing, so that their pixels stay visible.

  Returns:
    uint8 (H, W, 3) on white.

  Raises:
    ValueError: there is no picture.
  """
  named = pictures.items() if isinstance(pictures, Mapping) else pictures
  named = list(named)
  if not named:
    raise ValueError("a sheet needs at least one picture")
  tallest = max(max(p.shape[:2]) for _, p in named)
  cell = tallest * max(1, -(-_CELL // tallest))
  sheet = Image.new(
    "RGB",
    (len(named) * (cell + _GAP) + _GAP, cell + _LABEL + _GAP),
    "white",
  )
  draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
  for column, (name, picture) in enumerate(named):
    left = _GAP + column * (cell + _GAP)
    text = name.replace("_", " ")
    while text and draw.textlength(text, font) > cell:
      text = text[:-1]
    draw.text((left, 1), text, fill="black", font=font)
    height, width = (
      max(1, side * cell // max(picture.shape[:2]))
      for side in picture.shape[:2]
    )
    shown = Image.fromarray(picture)
    shown = shown.resize((width, height), Image.Resampling.NEAREST)
    sheet.paste(shown, (left, _LABEL))
  return np.asarray(sheet)
