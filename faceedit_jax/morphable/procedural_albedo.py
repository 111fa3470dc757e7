"""A plain albedo for the procedural head: skin, lips, eyes, teeth, tongue.

Colours are written as optical density: melanin and blood are exponents, so
that dark and fair skin both stay natural. The textures are logarithms of
linear colour.
"""

import functools

import numpy as np

from faceedit_jax.morphable import head_grid, head_parts
from faceedit_jax.morphable.distance_field import MOUTH_HALF_WIDTH, smoothstep
from faceedit_jax.morphable.head_template import HeadTemplate, build_template
from faceedit_jax.morphable.texels import TexelMap, texel_map

BASE_DENSITY = np.array([0.09, 0.27, 0.48])
MELANIN_DENSITY = np.array([1.0, 1.26, 1.52])
BLOOD_DENSITY = np.array([0.03, 0.38, 0.32])

_MEAN_MELANIN, _STD_MELANIN = 0.7, 0.5
_MEAN_BLOOD, _STD_BLOOD = 0.5, 0.13


@functools.lru_cache(maxsize=8)
def template_texels(detail: str = "full", size: int = 256) -> TexelMap:
  """Texel map of the template's layout, cached per size."""
  t = build_template(detail)
  return texel_map(t.uv, t.uv_faces, size)


def _lips(points: np.ndarray) -> np.ndarray:
  """Cover of the lips in 0..1 at template positions."""
  x, y, z = np.moveaxis(points, -1, 0)
  line = head_grid.mouth_line(x)
  u = np.clip(np.abs(x) / MOUTH_HALF_WIDTH, 0, 1)
  lower = np.clip(np.abs(x) / 2.4, 0, 1)
  bow = 1 - 0.13 * np.exp(-((x / 0.3) ** 2))
  top = line + 0.98 * (1 - u**2.3) ** 0.85 * bow
  bottom = line - 1.08 * (1 - lower**2.3) ** 0.85
  cover = smoothstep(0.07, -0.07, y - top) * smoothstep(-0.07, 0.07, y - bottom)
  return 0.9 * cover * (z > 5) * (np.abs(x) < MOUTH_HALF_WIDTH)


def default_albedo(t: HeadTemplate, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Mean and basis of a plain albedo.

  Args:
    t: the template, of either detail.
    size: side of the textures.

  Returns:
    mean (T, T, 3) and basis (2, T, T, 3), logarithms of linear colour; one
    unit of a direction is one standard deviation of melanin or blood.
  """
  texels = texel_map(t.uv, t.uv_faces, size)
  points = texels.bake(t.vertices, t.faces)
  canonical = texels.bake(t.canonical, t.faces)
  part, kind = t.face_part[texels.face], t.face_kind[texels.face]
  skin = (
    -BASE_DENSITY
    - _MEAN_MELANIN * MELANIN_DENSITY
    - _MEAN_BLOOD * BLOOD_DENSITY
  )
  log = np.broadcast_to(skin, (size, size, 3)).copy()
  lips = (_lips(points) * (part == head_parts.SKIN))[..., None]
  log -= lips * np.array([0.0, 0.5, 0.35])
  # Radius from the pole of the ball: pupil, iris, limbal ring, sclera.
  ball = canonical / np.linalg.norm(canonical, axis=-1, keepdims=True).clip(
    1e-6
  )
  radius = np.hypot(ball[..., 0], ball[..., 1])[..., None]
  iris = np.array([0.16, 0.085, 0.03]) * 1.25
  eye = np.where(radius < 0.6, iris, np.array([0.80, 0.77, 0.74]))
  eye = eye * (1 - 0.55 * np.exp(-(((radius - 0.6) / 0.07) ** 2)))
  eye = np.where(radius < 0.33, 0.008, eye)
  eye = np.where(ball[..., 2:] < 0, 0.75, eye)
  plain = (
    (part == head_parts.EYES, eye),
    (part == head_parts.UPPER_TEETH, (0.78, 0.74, 0.66)),
    (part == head_parts.LOWER_TEETH, (0.78, 0.74, 0.66)),
    (part == head_parts.TONGUE, (0.42, 0.12, 0.11)),
    (kind == head_grid.UPPER_RIM, (0.05, 0.03, 0.025)),
    (kind >= head_grid.UPPER_BAG, (0.10, 0.012, 0.012)),
  )
  is_skin = np.isin(part, (head_parts.SKIN, head_parts.EARS))
  for where, colour in plain:
    value = np.broadcast_to(np.log(np.asarray(colour)), log.shape)
    log = np.where(where[..., None], value, log)
    is_skin &= ~where
  basis = np.stack(
    [-_STD_MELANIN * MELANIN_DENSITY, -_STD_BLOOD * BLOOD_DENSITY]
  )
  basis = basis[:, None, None] * is_skin[None, ..., None]
  return log, basis
