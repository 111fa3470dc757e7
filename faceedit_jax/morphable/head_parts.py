"""Eyeballs, teeth, tongue and ears of the procedural head, in cm."""

import dataclasses

import numpy as np

from faceedit_jax.morphable import distance_field as field
from faceedit_jax.morphable.head_grid import lattice

# Parts of the base mesh.
SKIN, EYES, UPPER_TEETH, EARS, TONGUE, LOWER_TEETH = range(6)


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """One separate part; `canonical` are coordinates that ignore identity."""

  name: str
  part: int
  vertices: np.ndarray  # (n, 3) cm
  canonical: np.ndarray  # (n, 3) unit ball, ear (u, w, height) or cm
  faces: np.ndarray  # (f, 3)
  chart: np.ndarray  # (n, 2) in the unit square, y down


def _grid_faces(
  rows: int, columns: int, wrap: bool = False, flip: bool = False
) -> np.ndarray:
  cells = lattice((rows, columns + wrap), upwards=flip)
  return cells[..., 0] * columns + cells[..., 1] % columns


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
  chart = np.stack([radius * np.cos(angle), -radius * np.sin(angle)], -1)
  return (0.5 + 0.5 * chart).reshape(-1, 2)


def unit_sphere(
  columns: int, rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Sphere with its pole forward: vertices, faces and polar chart.

  The chart stretches the front, where the iris lies: its radius is
  1 - (1 - a)^2 for the polar angle a in 0..1.
  """
  angle = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
  polar = np.linspace(0, np.pi, rows)[:, None]
  angle, polar = np.broadcast_arrays(angle, polar)
  points = np.stack(
    [
      np.sin(polar) * np.cos(angle),
      np.sin(polar) * np.sin(angle),
      np.cos(polar),
    ],
    -1,
  ).reshape(-1, 3)
  radius = 1 - (1 - polar / np.pi) ** 2
  return points, _grid_faces(rows, columns, wrap=True), _polar(radius, angle)


def _teeth(
  name: str, part: int, top: float, bottom: float, depth: float, width: float
) -> Part:
  t = np.linspace(-1, 1, 25)
  a = t * np.deg2rad(80)
  points = np.concatenate(
    [
      np.stack(
        [
          width * k * np.sin(a),
          np.full(25, y),
          5.2 + depth * k * np.cos(a),
        ],
        -1,
      )
      for y, k in ((top, 1.0), (bottom, 0.97))
    ]
  )
  across = np.tile(0.5 + 0.5 * t, 2)
  chart = np.stack([across, np.repeat([0.0, 1.0], 25)], -1)
  return Part(name, part, points, points, _grid_faces(2, 25), chart)


def _ear(side: int, columns: int = 24, rows: int = 8) -> Part:
  a = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
  r = np.linspace(0, 1, rows)[:, None]
  a, r = np.broadcast_arrays(a, r)
  u, w = np.cos(a) * r, np.sin(a) * r  # forward, up
  top = np.where(w > 0, 1.0, 0.82 + 0.12 * w)
  helix = 0.6 * np.exp(-(((r - 0.86) / 0.13) ** 2))
  helix *= 0.25 + 0.75 * field.smoothstep(-0.55, 0.2, -0.8 * u + 0.5 * w)
  concha = np.exp(-(((u - 0.1) / 0.36) ** 2) - ((w + 0.08) / 0.42) ** 2)
  antihelix = np.exp(-(((u + 0.32) / 0.14) ** 2) - ((w - 0.1) / 0.5) ** 2)
  height = 0.25 + helix - concha + 0.22 * antihelix
  height[-1] = -0.55  # the rim sinks into the head
  points = np.stack(
    [
      side * (6.55 + 0.72 * height + 0.36 * (1 - u)),
      -1.6 + 2.85 * w,
      -0.75 + 1.6 * u * top - 0.35 * w,
    ],
    -1,
  ).reshape(-1, 3)
  return Part(
    "ear_l" if side > 0 else "ear_r",
    EARS,
    points,
    np.stack([u, w, height], -1).reshape(-1, 3),
    _grid_faces(rows, columns, wrap=True, flip=side > 0),
    _polar(r, a),
  )


def build_parts(detail: str = "full") -> tuple[Part, ...]:
  """All parts but the skin, in the order of the base mesh.

  Args:
    detail: "full" or "light" (eyeballs of 12 x 9 instead of 18 x 12).
  """
  ball, ball_faces, ball_chart = unit_sphere(
    *((18, 12) if detail == "full" else (12, 9))
  )
  eyes = []
  for side, name in ((1, "eye_l"), (-1, "eye_r")):
    centre = field.EYE * np.array([side, 1, 1])
    points = centre + field.EYE_RADIUS * ball
    eyes.append(Part(name, EYES, points, ball, ball_faces, ball_chart))
  oval, oval_faces, oval_chart = unit_sphere(12, 8)
  y = field.MOUTH_Y
  oval = oval * np.array([1.5, 0.55, 2.3]) + np.array([0, y - 1.0, 6.3])
  return (
    *eyes,
    _teeth("teeth_upper", UPPER_TEETH, y + 0.95, y - 0.12, 3.95, 2.6),
    _teeth("teeth_lower", LOWER_TEETH, y - 0.22, y - 1.1, 3.75, 2.45),
    Part("tongue", TONGUE, oval, oval, oval_faces, oval_chart),
    _ear(1),
    _ear(-1),
  )
