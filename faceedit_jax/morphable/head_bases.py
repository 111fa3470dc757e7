"""Identity and expression directions and skinning weights of the head.

Every direction is an analytic field on the template. A coefficient of 1 is
one standard deviation of an identity direction (0.5 for the two asymmetries)
or the full strength of an expression. Units are cm.
"""

import numpy as np

from faceedit_jax.morphable import distance_field as field
from faceedit_jax.morphable import head_grid, head_parts
from faceedit_jax.morphable.distance_field import smoothstep

_Y = field.MOUTH_Y
_MOVE, _PAIR, _SCALE, _SCALE_PAIR = "move", "pair", "scale", "scale pair"
_ALL, _UPPER, _LOWER = "all", "upper", "lower"

# name: terms (how, centre, sigma, vector[, part of the mouth]).
# "pair" mirrors a move; a scale stretches by g(p) (p - centre) * vector.
# fmt: off
_IDENTITY = {
  "head_width": (), "head_length": (), "cranium_height": (), "face_length": (),
  "jaw_width": ((_PAIR, (5, -7, 3), (2.2, 2.6, 4), (.55, 0, 0)),),
  "chin_width":
    ((_SCALE, (0, -10.4, 7.5), (2.6, 1.9, 2.5), (.22, 0, 0)),),
  "chin_length": ((_MOVE, (0, -11, 7.5), (2.6, 2, 3), (0, -.5, 0)),),
  "chin_forward": ((_MOVE, (0, -10.4, 8.5), (2.2, 1.7, 2.5), (0, 0, .5)),),
  "gonial_angle":
    ((_PAIR, (4.6, -8, 2.5), (1.8, 1.8, 2.2), (.25, -.55, 0)),),
  "cheekbones":
    ((_PAIR, (5.2, -2.6, 5.5), (1.8, 1.5, 2.4), (.33, .05, .22)),),
  "cheek_full": ((_PAIR, (4, -5.6, 6), (2, 2.2, 2.4), (.48, -.1, .32)),),
  "fat": ((_PAIR, (5, -7.5, 4), (2.5, 3, 3.5), (.65, -.2, .2)),
          (_MOVE, (0, -11.8, 5), (3, 1.6, 2.6), (0, -.75, .5))),
  "forehead_slope": ((_MOVE, (0, 7.5, 7.5), (5, 3, 4), (0, 0, -.55)),),
  "brow_ridge": ((_PAIR, (2.4, 2, 9), (2.3, .95, 1.8), (0, -.05, .33)),),
  "brow_height": ((_PAIR, (2.9, 2.1, 9), (2.2, 1, 2), (0, .22, 0)),),
  "eye_spacing": ((_PAIR, (3.2, 0, 8), (1.6, 1.5, 3), (.2, 0, 0)),),
  "eye_size":
    ((_SCALE_PAIR, (3.2, 0, 7), (1.5, 1.35, 3.2), (.085, .085, .06)),),
  "eye_open": ((_PAIR, (3.2, .65, 8.4), (1.25, .42, 1.5), (0, .15, .02)),),
  "eye_tilt": ((_PAIR, (4.7, 0, 8), (.9, .9, 2), (0, .17, 0)),
               (_PAIR, (1.7, 0, 8), (.6, .8, 2), (0, -.08, 0))),
  "eye_depth": ((_PAIR, (3.2, .1, 8), (1.9, 1.3, 3), (0, 0, .2)),),
  "nose_length": ((_MOVE, (0, -4.4, 10.5), (1.9, 1.4, 3), (0, -.42, 0)),),
  "nose_width": ((_SCALE, (0, -4.4, 9.8), (1.5, 1.1, 1.8), (.6, 0, 0)),),
  "bridge_width": ((_SCALE, (0, -1.2, 9), (1.1, 1.7, 2), (.44, 0, 0)),),
  "bridge_height": ((_MOVE, (0, -.6, 9.5), (.85, 1.6, 2), (0, 0, .32)),),
  "nose_tip_out": ((_MOVE, (0, -4, 11.6), (1.15, 1, 1.6), (0, 0, .5)),),
  "nose_tip_up": ((_MOVE, (0, -4.1, 11.6), (1.2, 1, 1.5), (0, .38, .08)),),
  "nose_hump": ((_MOVE, (0, -2, 10.3), (.75, .85, 1.5), (0, 0, .28)),),
  "tip_bulb": ((_SCALE, (0, -3.9, 10.7), (1.1, .95, 1.2), (.18, .16, .12)),),
  "nostril_flare": ((_PAIR, (1.55, -4.5, 9.8), (.6, .6, 1), (.22, .08, 0)),),
  "mouth_width": ((_SCALE, (0, _Y, 9.5), (2.6, 1.4, 2), (.26, 0, 0)),),
  "mouth_height": ((_MOVE, (0, _Y, 9.5), (3, 1.7, 3), (0, .25, 0)),),
  "upper_lip":
    ((_MOVE, (0, _Y + .75, 10), (2, .42, 1.5), (0, .2, .14), _UPPER),),
  "lower_lip":
    ((_MOVE, (0, _Y - .8, 10), (1.9, .45, 1.5), (0, -.2, .17), _LOWER),),
  "lip_out": ((_MOVE, (0, _Y, 10), (2, 1.1, 1.6), (0, 0, .25)),),
  "muzzle": ((_MOVE, (0, -6.9, 9.5), (3, 2, 3), (0, 0, .3)),),
  "neck_width": (), "ear_size": (), "ear_out": (),
  "asym_nose": ((_MOVE, (0, -4, 11), (1.5, 1.6, 2), (.2, 0, 0)),),
  "asym_mouth": ((_MOVE, (0, _Y, 10), (2.5, 1.2, 2), (.15, 0, 0)),),
}

_EXPRESSION = {
  "smile": (
    (_PAIR, (2.55, _Y, 9.2), (1.25, 1, 1.6), (.85, .72, -.55)),
    (_PAIR, (3.9, -4, 7.8), (1.5, 1.2, 1.8), (.12, .42, .38)),
    (_MOVE, (0, _Y + .6, 10), (1.7, .6, 1.5), (0, .16, -.12), _UPPER),
    (_PAIR, (3.2, -.8, 8.4), (1.4, .45, 1), (0, .13, .05)),
    (_MOVE, (0, _Y - .6, 10), (1.7, .7, 1.5), (0, 0, -.15), _LOWER)),
  "frown": (
    (_PAIR, (2.5, _Y - .1, 9.2), (1, .9, 1.6), (.12, -.65, -.1)),
    (_MOVE, (0, -9.3, 9.5), (1.5, .9, 1.6), (0, .22, .12)),
    (_MOVE, (0, _Y - .2, 10), (1.6, .5, 1.5), (0, .12, .12))),
  "upper_lip_raise": (
    (_MOVE, (0, _Y + .4, 10), (1.7, .75, 1.5), (0, .5, .08), _UPPER),
    (_PAIR, (1.3, -5, 10), (.9, .9, 1.5), (.05, .15, 0))),
  "lower_lip_drop": (
    (_MOVE, (0, _Y - .4, 10), (1.7, .8, 1.5), (0, -.45, .06), _LOWER),),
  "pucker": (
    (_PAIR, (2.4, _Y, 9.2), (1.2, 1, 1.6), (-.95, 0, .45)),
    (_MOVE, (0, _Y, 10), (1.5, 1.1, 1.6), (0, 0, .6)),
    (_MOVE, (0, _Y + .6, 10), (.9, .4, 1.5), (0, .1, 0), _UPPER),
    (_MOVE, (0, _Y - .7, 10), (.9, .4, 1.5), (0, -.1, 0), _LOWER)),
  "stretch": (
    (_PAIR, (2.55, _Y - .1, 9.2), (1.2, 1, 1.6), (.8, -.2, -.4)),),
  "lip_press": (
    (_MOVE, (0, _Y + .5, 10), (2.2, .5, 1.5), (0, -.17, -.22), _UPPER),
    (_MOVE, (0, _Y - .5, 10), (2.2, .5, 1.5), (0, .17, -.25), _LOWER)),
  "mouth_side": ((_MOVE, (0, _Y, 9.6), (2.4, 1.6, 2), (.7, 0, 0)),),
  "cheek_puff": (
    (_PAIR, (3.9, -6.2, 7.2), (1.5, 1.5, 1.8), (.75, 0, .55)),
    (_MOVE, (0, _Y, 10), (2, 1.3, 1.5), (0, 0, .15))),
  "nose_wrinkle": (
    (_PAIR, (.9, -2, 9.8), (1.1, 1.2, 1.3), (0, .32, .05)),
    (_PAIR, (1.4, -4.5, 10), (.7, .7, 1), (.1, .35, 0)),
    (_MOVE, (0, _Y + .5, 10), (1.8, .7, 1.5), (0, .28, 0), _UPPER),
    (_PAIR, (1.3, 1.9, 9.2), (1.1, .9, 1.5), (-.12, -.35, 0))),
  "brow_raise_L": (
    (_MOVE, (3, 2.5, 8.8), (1.9, 1.35, 2), (0, .7, .05)),
    (_MOVE, (3.1, 1, 8.6), (1.4, .45, 1.5), (0, .14, 0))),
  "brow_raise_R": (
    (_MOVE, (-3, 2.5, 8.8), (1.9, 1.35, 2), (0, .7, .05)),
    (_MOVE, (-3.1, 1, 8.6), (1.4, .45, 1.5), (0, .14, 0))),
  "brow_inner_up": ((_MOVE, (0, 2.3, 9.3), (1.6, 1.2, 2), (0, .65, .05)),),
  "brow_furrow": (
    (_PAIR, (1.5, 2, 9.2), (1.3, .95, 2), (-.38, -.5, .1)),
    (_PAIR, (3.4, 1.9, 8.8), (1.5, .9, 2), (0, -.22, 0))),
}
# fmt: on

SHAPE_NAMES = tuple(_IDENTITY)
EXPRESSION_NAMES = (*_EXPRESSION, "blink_L", "blink_R")
SHAPE_STD = np.array(
  [0.5 if name.startswith("asym") else 1.0 for name in SHAPE_NAMES]
)


def mouth_masks(
  kind: np.ndarray, row: np.ndarray, mouth_row: int
) -> tuple[np.ndarray, np.ndarray]:
  """Vertices above and below the slit of the mouth (both boolean)."""
  upper_inside = np.isin(kind, (head_grid.UPPER_LIP, head_grid.UPPER_BAG))
  lower_inside = np.isin(kind, (head_grid.LOWER_LIP, head_grid.LOWER_BAG))
  above = ((row <= mouth_row) & (row >= 0) & ~lower_inside) | upper_inside
  below = ((row > mouth_row) & ~upper_inside) | lower_inside
  return above, below


def _gauss(p: np.ndarray, centre, sigma) -> np.ndarray:
  q = (p - np.array(centre, float)) / np.array(sigma, float)
  return np.exp(-0.5 * (q * q).sum(-1))[:, None]


def _field(p: np.ndarray, terms, masks: dict[str, np.ndarray]) -> np.ndarray:
  mirror = np.array([-1.0, 1, 1])
  total = np.zeros_like(p)
  for how, centre, sigma, vector, *where in terms:
    centre, vector = np.array(centre, float), np.array(vector, float)
    weight = _gauss(p, centre, sigma)
    delta = weight * vector
    if how in (_SCALE, _SCALE_PAIR):
      delta = delta * (p - centre)
    if how == _PAIR:
      delta = delta + _gauss(p, centre * mirror, sigma) * vector * mirror
    elif how == _SCALE_PAIR:
      other = _gauss(p, centre * mirror, sigma)
      delta = delta + other * (p - centre * mirror) * vector
    total += delta * masks[where[0] if where else _ALL][:, None]
  return total


def _special(name: str, p: np.ndarray, ears: np.ndarray) -> np.ndarray:
  """The directions that are not sums of Gaussian terms."""
  x, y, z = p.T
  zero, side = np.zeros(len(p)), np.sign(p[:, 0])
  ear = ears.astype(float)
  match name:
    case "head_width":
      columns = (0.038 * x, zero, zero)
    case "head_length":
      columns = (zero, zero, 0.05 * np.minimum(z, 2))
    case "cranium_height":
      columns = (zero, 0.65 * smoothstep(0, 11, y), zero)
    case "face_length":
      columns = (zero, -0.75 * smoothstep(0, 11, -y), zero)
    case "fat":
      columns = (
        0.05 * x * smoothstep(8, 13, -y),
        zero,
        0.05 * z * smoothstep(9, 13, -y),
      )
    case "neck_width":
      low = smoothstep(10, 13.5, -y)
      columns = (0.10 * x * low, zero, 0.06 * z * low)
    case "ear_size":
      columns = (
        0.11 * ear * (x - 6.6 * side),
        0.11 * ear * (y + 1.6),
        0.11 * ear * z,
      )
    case "ear_out":
      columns = (ear * side * 0.22 * np.clip(0.8 - z, 0, 3), zero, zero)
    case _:
      columns = (zero, zero, zero)
  return np.stack(columns, -1)


def identity_directions(
  p: np.ndarray,
  part: np.ndarray,
  masks: dict[str, np.ndarray],
  eye_ids: np.ndarray,
) -> np.ndarray:
  """The 40 identity directions.

  Args:
    p: (V, 3) template, cm.
    part: (V,) part of every vertex.
    masks: "all", "upper" and "lower" (V,) boolean masks.
    eye_ids: (2, n) vertices of the left and right ball.

  Returns:
    (40, V, 3) displacements per unit coefficient, cm.
  """
  ears = part == head_parts.EARS
  result = []
  for name, terms in _IDENTITY.items():
    delta = _field(p, terms, masks) + _special(name, p, ears)
    for side, ids in zip((1, -1), eye_ids, strict=True):
      # Balls stay round: they move as one, or grow about their centre.
      from_centre = p[ids] - field.EYE * np.array([side, 1, 1])
      if name == "eye_open":
        delta[ids] = 0
      elif name == "eye_size":
        delta[ids] = 0.07 * from_centre
      else:
        delta[ids] = delta[ids].mean(0)
        if name == "head_width":
          delta[ids] += 0.019 * from_centre
    result.append(delta)
  return np.stack(result)


def _blink(p: np.ndarray, skin: head_grid.SkinGrid, side: int) -> np.ndarray:
  """Closes the slit of one eye over the ball; linear in the coefficient."""
  delta = np.zeros_like(p)
  centre = field.EYE * np.array([side, 1, 1])
  slit = head_grid.slit_columns(skin.azimuths, side)
  first, last = slit.min(), slit.max()
  columns = np.arange(first - 3, last + 4)
  inside = np.clip(columns, first, last)
  fade = 1 - np.abs(columns - inside) / 4.0
  top, bottom = skin.grid[skin.eye_row], skin.grid[skin.eye_row + 1]
  gap = (p[bottom[inside]] - p[top[inside]])[:, 1]
  for distance in range(9):
    near = 1 - smoothstep(0, 9, distance)
    for row, sign, share in (
      (skin.eye_row - distance, 1, 0.88),
      (skin.eye_row + 1 + distance, -1, 0.12),
    ):
      ids = skin.grid[row, columns]
      moved = p[ids].copy()
      moved[:, 1] += sign * share * gap * fade * near
      out = moved - centre
      square = (field.EYE_RADIUS + 0.17) ** 2 - out[:, 0] ** 2 - out[:, 1] ** 2
      surface = centre[2] + np.sqrt(np.maximum(square, 0))
      lifted = np.maximum(moved[:, 2], surface) if distance else surface
      moved[:, 2] = np.where(square > 0, lifted, moved[:, 2])
      # Outside the slit the lower edge is the upper edge: it moves once.
      twin = ids == top[columns] if row == skin.eye_row + 1 else ids < 0
      delta[ids[~twin]] += (moved - p[ids])[~twin]
  rims = np.isin(skin.kind, (head_grid.UPPER_RIM, head_grid.LOWER_RIM))
  rims = np.where(rims & (skin.vertices[:, 0] * side > 0))[0]
  delta[rims] = delta[skin.parent[rims]]
  return delta


def expression_directions(
  p: np.ndarray,
  part: np.ndarray,
  masks: dict[str, np.ndarray],
  skin: head_grid.SkinGrid,
) -> np.ndarray:
  """The 16 expression directions; only skin moves.

  Args:
    p: (V, 3) template, cm; its first vertices are those of `skin`.
    part: (V,) part of every vertex.
    masks: "all", "upper" and "lower" (V,) boolean masks.
    skin: the grid, for the two blinks.

  Returns:
    (16, V, 3) displacements per unit coefficient, cm.
  """
  result = [_field(p, terms, masks) for terms in _EXPRESSION.values()]
  result += [_blink(p, skin, 1), _blink(p, skin, -1)]
  result = np.stack(result)
  result[:, part != head_parts.SKIN] = 0
  return result


def jaw_weight(
  p: np.ndarray,
  part: np.ndarray,
  kind: np.ndarray,
  masks: dict[str, np.ndarray],
) -> np.ndarray:
  """How far each vertex follows the jaw, (V,) in 0..1."""
  x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
  hinge_line = -3.5 + (z - 1) * (_Y + 3.5) / 8.5
  width = 0.2 + 1.15 * np.maximum(x - 1.6, 0)
  weight = smoothstep(-1, 1, (hinge_line - y) / width)
  corner = 0.5 * np.clip(x / field.MOUTH_HALF_WIDTH, 0, 1) ** 3
  within = x < field.MOUTH_HALF_WIDTH + 0.01
  upper, lower = masks["upper"] & within, masks["lower"] & within
  weight = np.where(upper, np.minimum(weight, corner), weight)
  weight = np.where(lower, np.maximum(weight, 1 - corner), weight)
  weight = weight * smoothstep(-2, 3.2, z)
  weight *= smoothstep(-15.5, -11.8, y + 0.35 * np.maximum(3 - z, 0))
  fixed = {
    head_parts.LOWER_TEETH: 1.0,
    head_parts.TONGUE: 0.9,
    head_parts.UPPER_TEETH: 0.0,
    head_parts.EARS: 0.0,
    head_parts.EYES: 0.0,
  }
  for which, value in fixed.items():
    weight[part == which] = value
  weight[kind == head_grid.UPPER_BAG] *= 0.3
  return weight


def neck_weight(p: np.ndarray, part: np.ndarray) -> np.ndarray:
  """How far each vertex follows the head above the neck, (V,) in 0..1."""
  weight = smoothstep(-17, -11, p[:, 1] + 0.25 * p[:, 2])
  weight[part != head_parts.SKIN] = 1.0
  return weight
