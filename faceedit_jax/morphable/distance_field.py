"""The head as a signed distance: a smooth union of ellipsoids and capsules.

Units are centimetres; x is the subject's left, y up, z forward; the origin
lies on the line between the eyes, above the ear canals.
"""

from collections.abc import Sequence

import numpy as np

EYE = np.array([3.25, 0.0, 6.85])  # centre of the left eyeball
EYE_RADIUS = 1.60
MOUTH_Y = -7.45
MOUTH_HALF_WIDTH = 2.55

# Rounds |x| off at the midline, so that mirrored pairs leave no crease.
_MIDLINE = 0.03


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
  """Hermite step from `low` (0) to `high` (1); `low > high` falls."""
  t = np.clip((x - low) / (high - low), 0.0, 1.0)
  return t * t * (3.0 - 2.0 * t)


def _ellipsoid(
  x: np.ndarray,
  y: np.ndarray,
  z: np.ndarray,
  centre: Sequence[float],
  radii: Sequence[float],
) -> np.ndarray:
  """Bound of the distance to an ellipsoid, exact to first order near it."""
  qx = (x - centre[0]) / radii[0]
  qy = (y - centre[1]) / radii[1]
  qz = (z - centre[2]) / radii[2]
  near = np.sqrt(qx * qx + qy * qy + qz * qz)
  qx, qy, qz = qx / radii[0], qy / radii[1], qz / radii[2]
  slope = np.sqrt(qx * qx + qy * qy + qz * qz)
  return near * (near - 1.0) / np.maximum(slope, 1e-6)


def _capsule(
  x: np.ndarray,
  y: np.ndarray,
  z: np.ndarray,
  start: Sequence[float],
  end: Sequence[float],
  radii: Sequence[float],
) -> np.ndarray:
  """Distance to a segment minus a radius that varies linearly along it."""
  ax, ay, az = (e - s for s, e in zip(start, end, strict=True))
  px, py, pz = x - start[0], y - start[1], z - start[2]
  t = (px * ax + py * ay + pz * az) / (ax * ax + ay * ay + az * az)
  t = np.clip(t, 0.0, 1.0)
  px, py, pz = px - t * ax, py - t * ay, pz - t * az
  distance = np.sqrt(px * px + py * py + pz * pz)
  return distance - (radii[0] + (radii[1] - radii[0]) * t)


def _union(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
  """Polynomial smooth minimum with blend radius `blend`."""
  h = np.clip(0.5 + 0.5 * (b - a) / blend, 0.0, 1.0)
  return b + (a - b) * h - blend * h * (1.0 - h)


_E, _P, _C = "ellipsoid", "pair", "capsule"
_ADD, _CUT = 1, -1

# (what, sign, primitive, blend radius, primitive's arguments), in the order in
# which they are blended: the order matters. "pair" is mirrored in x.
_SCULPTURE = (
  ("forehead", _ADD, _E, 1.8, (0, 4.4, 3.6), (6.1, 5.3, 5.5)),
  ("face block", _ADD, _E, 2.0, (0, -2.6, 3.0), (6.1, 7.6, 5.9)),
  ("temple fill", _ADD, _P, 2.0, (4.9, 0.3, 2.6), (1.6, 3.0, 3.0)),
  ("jaw", _ADD, _E, 1.8, (0, -7.2, 3.9), (4.8, 3.7, 4.7)),
  ("gonial", _ADD, _P, 1.8, (4.0, -6.2, 1.9), (1.5, 2.7, 2.6)),
  ("zygoma", _ADD, _P, 2.0, (4.5, -2.3, 5.0), (1.8, 1.3, 2.3)),
  ("cheek fat", _ADD, _P, 1.8, (3.2, -4.6, 6.5), (2.3, 2.5, 2.2)),
  ("buccal fill", _ADD, _P, 1.8, (4.1, -5.6, 4.7), (1.7, 2.3, 2.3)),
  ("muzzle", _ADD, _E, 1.6, (0, -6.9, 6.9), (2.9, 2.7, 2.6)),
  ("chin", _ADD, _E, 1.7, (0, -10.2, 7.2), (1.7, 1.4, 1.85)),
  ("brow ridge", _ADD, _P, 1.4, (2.7, 2.1, 7.3), (2.5, 1.0, 1.35)),
  ("neck", _ADD, "neck", 2.8, (), ()),
  ("socket", _CUT, _P, 1.0, (3.25, 0.1, 9.75), (1.75, 1.15, 1.95)),
  ("outer orbit", _CUT, _P, 1.8, (6.1, 1.2, 9.2), (1.5, 2.0, 2.0)),
  ("bridge", _ADD, _C, 0.9, (0, 0.5, 8.15), (0, -3.5, 10.3), (0.6, 0.82)),
  ("tip", _ADD, _E, 0.6, (0, -3.85, 10.6), (1.02, 0.9, 1.05)),
  ("wings", _ADD, _P, 0.5, (1.12, -4.4, 9.75), (0.6, 0.6, 0.9)),
  ("nostrils", _CUT, _P, 0.3, (0.55, -5.15, 10.4), (0.3, 0.32, 0.5)),
  ("lid", _ADD, _P, 0.32, tuple(EYE), (EYE_RADIUS + 0.13,) * 3),
  ("philtrum", _CUT, _C, 0.5, (0, -5.7, 10.35), (0, -6.2, 10.5), (0.2, 0.22)),
  ("upper lip", _ADD, _P, 0.5, (0.65, -6.92, 9.1), (1.75, 0.66, 0.98)),
  ("lower lip", _ADD, _E, 0.55, (0, -8.05, 8.98), (2.0, 0.76, 1.05)),
  ("mouth line", _CUT, _E, 0.35, (0, MOUTH_Y, 10.45), (3.1, 0.16, 0.8)),
  ("mentolabial", _CUT, _E, 0.8, (0, -9.1, 10.4), (1.7, 0.45, 0.95)),
  ("corner", _CUT, _P, 0.8, (2.95, MOUTH_Y - 0.05, 9.4), (0.5, 0.5, 0.5)),
)


def head_distance(points: np.ndarray) -> np.ndarray:
  """Signed distance (a bound of it) of points to the template head.

  Args:
    points: (..., 3) positions in cm.

  Returns:
    (...) distances in cm, negative inside the head.
  """
  x, y, z = points[..., 0], points[..., 1], points[..., 2]
  mirrored = np.sqrt(x * x + _MIDLINE)
  distance = _ellipsoid(x, y, z, (0, 3.3, -0.7), (7.3, 8.2, 9.1))
  for _, sign, primitive, blend, *args in _SCULPTURE:
    if primitive == "capsule":
      part = _capsule(x, y, z, *args)
    elif primitive == "neck":
      column = _capsule(x, y, z, (0, -8.0, -2.0), (0, -26, -3.4), (4.35, 5.2))
      muscle = _ellipsoid(mirrored, y, z, (2.4, -14.5, 0.7), (1.1, 5.5, 1.3))
      part = _union(column, muscle, 1.8)
    else:
      first = mirrored if primitive == "pair" else x
      part = _ellipsoid(first, y, z, *args)
    if sign == _ADD:
      distance = _union(distance, part, blend)
    else:
      distance = -_union(-distance, part, blend)
  return distance


def shoot(
  origins: np.ndarray,
  directions: np.ndarray,
  far: float = 17.0,
  near: float = 1.0,
  step: float = 0.18,
  bisections: int = 20,
) -> np.ndarray:
  """Where rays that come from outside first meet the head.

  Args:
    origins: (..., 3) points inside the head, cm.
    directions: (..., 3) unit vectors that point outwards.
    far: distance from the origin at which the march inwards begins, cm.
    near: distance at which it gives up; such rays return that point.
    step: march step, cm.
    bisections: refinement steps after the first sign change.

  Returns:
    (..., 3) points on the surface.
  """
  shape = origins.shape
  origins, directions = origins.reshape(-1, 3), directions.reshape(-1, 3)
  inside = np.full(len(origins), near)
  outside = np.full(len(origins), near)
  active = np.arange(len(origins))
  previous = far
  for t in np.arange(far, near, -step):
    value = head_distance(origins[active] + directions[active] * t)
    hit = value < 0
    inside[active[hit]], outside[active[hit]] = t, previous
    active = active[~hit]
    previous = t
    if not len(active):
      break
  for _ in range(bisections):
    middle = 0.5 * (inside + outside)
    is_in = head_distance(origins + directions * middle[:, None]) < 0
    inside = np.where(is_in, middle, inside)
    outside = np.where(is_in, outside, middle)
  points = origins + directions * (0.5 * (inside + outside))[:, None]
  return points.reshape(shape)
