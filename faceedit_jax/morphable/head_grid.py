"""The skin of the procedural head: a grid of rays with real slits.

Rows are elevations, columns azimuths (0 in front, positive towards the
subject's left). The rows of both eyes and of the mouth are doubled; the two
copies share their vertices except strictly inside a slit, where no triangle
joins them, so lids close and lips part. Units are cm.
"""

import dataclasses

import numpy as np

from faceedit_jax.morphable import distance_field as field

# Kinds of skin vertices and triangles.
SKIN, UPPER_RIM, LOWER_RIM, UPPER_LIP, LOWER_LIP, UPPER_BAG, LOWER_BAG = range(
  7
)

EYE_SLIT = (10.0, 33.0)  # degrees of azimuth
MOUTH_SLIT = 15.5
EYE_HALF_WIDTH = 1.74
NECK_ROWS = 9
NECK_BOTTOM = -23.0

# fmt: off
_ELEVATIONS = (
  90, 85, 78, 71, 64, 57, 51, 45, 40, 35.5, 31.5, 28, 25, 22.4, 20, 17.8,
  15.7, 13.7, 11.8, 10, 8.3, 6.7, 5.2, 3.8, 2.4, 1.2, 0, 0, -1.2, -2.4, -3.7,
  -5.2, -6.8, -8.4, -10, -11.6, -13.2, -14.8, -16.3, -17.7, -19, -20.3, -21.5,
  -22.7, -23.9, -25.1, -26.3, -27.5, -28.8, -30.1, -31.4, -32.6, -33.7, -34.7,
  -35.6, -36.4, -37, -37, -37.7, -38.5, -39.4, -40.4, -41.5, -42.7, -44, -45.5,
  -47.2, -49, -51, -53.2, -55.5, -58, -61, -64.5,
)
# fmt: on
_LIGHT_DROPS = (85, 71, 57, 45)  # rows left out of the light mesh

# Rows of the mouth bag behind each lip: depth and distance from the gap.
_BAG_DEPTH = (-0.35, -0.9, -2.6, -5.0)
_BAG_RISE = (0.0, 0.25, 1.1, 0.6)


@dataclasses.dataclass(frozen=True, eq=False)
class SkinGrid:
  """Skin with rims and mouth bag; index arrays refer to `vertices`.

  `uv_grid` names, for every triangle corner, the (island, row, column) that a
  texture layout turns into coordinates.
  """

  vertices: np.ndarray  # (n, 3) cm
  faces: np.ndarray  # (f, 3)
  face_kind: np.ndarray  # (f,)
  kind: np.ndarray  # (n,)
  row: np.ndarray  # (n,) row of the vertex, or of the edge it hangs on
  parent: np.ndarray  # (n,) edge vertex of rims and bag, else itself
  grid: np.ndarray  # (rows, columns) vertex index
  azimuths: np.ndarray  # (columns,) degrees
  elevations: np.ndarray  # (rows,) degrees; 0 in the neck rows
  eye_row: int
  mouth_row: int
  islands: tuple[tuple[str, np.ndarray], ...]  # name -> (r, c) vertex index
  face_island: np.ndarray  # (f,) index into `islands`
  face_cells: np.ndarray  # (f, 3, 2) row and column inside the island


def _angles(detail: str) -> tuple[np.ndarray, np.ndarray]:
  steps = ((15.5, 8), (33, 8), (47, 6), (90, 7), (180, 8))
  rows = np.array(_ELEVATIONS, float)
  if detail == "light":
    steps = (*steps[:-1], (180, 4))
    rows = rows[~np.isin(rows, _LIGHT_DROPS)]
  elif detail != "full":
    raise ValueError(
      f'head template: detail={detail!r} is unknown, use "full" or "light".'
    )
  half, start = [np.zeros(1)], 0.0
  for end, count in steps:
    half.append(np.linspace(start, end, count + 1)[1:])
    start = end
  half = np.concatenate(half)
  columns = np.concatenate([-half[:0:-1], half[:-1]])
  return np.concatenate([rows, np.zeros(NECK_ROWS)]), columns


def slit_columns(azimuths: np.ndarray, side: int) -> np.ndarray:
  """Columns of the slit of one eye (side +1 left, -1 right), ascending."""
  a = azimuths * side
  return np.where((a >= EYE_SLIT[0]) & (a <= EYE_SLIT[1] + 0.01))[0]


def mouth_columns(azimuths: np.ndarray) -> np.ndarray:
  """Columns of the slit of the mouth, ascending."""
  return np.where(np.abs(azimuths) <= MOUTH_SLIT + 0.01)[0]


def mouth_line(x: np.ndarray) -> np.ndarray:
  """Height of the closed mouth at x, cm; formula of the slit's own curve."""
  t = np.clip(np.abs(x) / field.MOUTH_HALF_WIDTH, 0.0, 1.0)
  bow = 0.10 * np.cos(1.5 * np.pi * t) * (1.0 - t)
  return field.MOUTH_Y - 0.02 + bow + 0.10 * t * t


def eye_edges(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Heights of the upper and lower lid edge along the slit, t in 0..1."""
  s = np.clip(4.0 * t * (1.0 - t), 0.0, 1.0)
  base = -0.08 + 0.22 * (t - 0.4)
  upper = base + 0.80 * s**0.62 * (1.0 + 0.16 * (0.5 - t))
  lower = base - 0.54 * s**0.75 * (1.0 - 0.25 * (0.5 - t))
  return upper, lower


def _directions(theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
  return np.stack(
    [
      np.cos(phi) * np.sin(theta),
      np.sin(phi),
      np.cos(phi) * np.cos(theta),
    ],
    -1,
  )


class _Rays:
  """Origins and directions of the grid, warped so that slits fall on edges."""

  def __init__(self, elevations: np.ndarray, azimuths: np.ndarray):
    rows, columns = len(elevations), len(azimuths)
    self.elevations, self.azimuths = elevations, azimuths
    self.eye_row = int(np.where(elevations == 0)[0][0])
    self.mouth_row = int(np.where(elevations == -37)[0][0])
    phi = np.repeat(elevations[:, None], columns, 1)
    # Without this flattening rows cross at the nape.
    back = 0.5 * field.smoothstep(70, 150, np.abs(azimuths))
    phi = np.where(phi < -37, -37 + (phi + 37) * (1 - back), phi)
    self.phi = np.deg2rad(phi)
    self.theta = np.deg2rad(np.repeat(azimuths[None], rows, 0))
    self.origin = np.zeros((rows, columns, 3))
    self.neck = slice(rows - NECK_ROWS, rows)
    u = (np.arange(NECK_ROWS)[:, None] + 1.0) / NECK_ROWS
    self.origin[self.neck, :, 1] = NECK_BOTTOM * u**0.9
    self.origin[self.neck, :, 2] = -2.5 * u
    last = self.phi[rows - NECK_ROWS - 1]
    self.phi[self.neck] = last * (1 - u) ** 0.9

  def fit_eye(self, side: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Warps the rows round one eye; returns (row, columns, exact points)."""
    columns = slit_columns(self.azimuths, side)
    a = np.abs(self.azimuths[columns])
    t = (a - a.min()) / np.ptp(a)
    x = field.EYE[0] - EYE_HALF_WIDTH + 2 * EYE_HALF_WIDTH * t
    outside = np.abs(
      self.azimuths
      - np.clip(
        self.azimuths,
        self.azimuths[columns].min(),
        self.azimuths[columns].max(),
      )
    )
    sideways = 1 - field.smoothstep(0, 9, outside)
    index = np.arange(len(self.elevations))
    fixed = []
    for row, y, reach, mine in zip(
      (self.eye_row, self.eye_row + 1),
      eye_edges(t),
      (17, 13),
      (index <= self.eye_row, index > self.eye_row),
      strict=True,
    ):
      square = (
        (field.EYE_RADIUS + 0.10) ** 2
        - (x - field.EYE[0]) ** 2
        - (y - field.EYE[1]) ** 2
      )
      z = field.EYE[2] + np.sqrt(np.maximum(square, 0.55))
      theta = np.arctan2(side * x, z) - np.deg2rad(self.azimuths[columns])
      phi = np.arctan2(y, np.hypot(x, z))
      at = self.azimuths[columns]
      weight = 1 - field.smoothstep(0, reach, np.abs(self.elevations))
      weight = np.where(mine, weight, 0.0)
      weight[self.neck] = 0.0
      spread = weight[:, None] * sideways
      self.theta += spread * np.interp(self.azimuths, at, theta)
      self.phi += spread * np.interp(self.azimuths, at, phi)
      fixed.append((row, columns, np.stack([side * x, y, z], -1)))
    return fixed

  def fit_mouth(self, rounds: int = 4) -> None:
    """Moves rows and columns until the mouth row lies on the mouth line."""
    columns = mouth_columns(self.azimuths)
    at, row = self.azimuths[columns], self.mouth_row
    x = field.MOUTH_HALF_WIDTH * at / MOUTH_SLIT
    y = mouth_line(x)
    beyond = np.maximum(np.abs(self.azimuths) - MOUTH_SLIT, 0)
    sideways = 1 - field.smoothstep(0, 20, beyond)
    weight = 1 - field.smoothstep(0, 12, np.abs(self.elevations + 37))
    weight[self.neck] = 0.0
    spread = weight[:, None] * sideways
    for _ in range(rounds):
      p = field.shoot(
        self.origin[row, columns],
        _directions(self.theta[row, columns], self.phi[row, columns]),
      )
      phi = np.arctan2(y, np.hypot(p[:, 0], p[:, 2])) - self.phi[row, columns]
      theta = np.arctan2(x, p[:, 2]) - self.theta[row, columns]
      self.phi += spread * np.interp(self.azimuths, at, phi)
      self.theta += spread * np.interp(self.azimuths, at, theta)

  def points(self) -> np.ndarray:
    return field.shoot(self.origin, _directions(self.theta, self.phi))


def _smooth(points: np.ndarray, rays: _Rays, passes: int = 2) -> np.ndarray:
  """Half itself and an eighth of each neighbour; slits keep their place."""
  rows = len(points)
  a = np.abs(rays.azimuths)
  free = {rays.eye_row: (a <= 9) | (a >= 34), rays.mouth_row: a >= 16.5}
  for _ in range(passes):
    above, below = np.roll(points, 1, 0), np.roll(points, -1, 0)
    # The neighbours of a doubled row lie beyond its twin; forgetting to smooth
    # these rows outside the slit leaves a seam round the whole head.
    for row in free:
      above[row + 1], below[row] = points[row - 1], points[row + 2]
    sides = np.roll(points, 1, 1) + np.roll(points, -1, 1)
    smoothed = 0.5 * points + 0.125 * (above + below + sides)
    keep = np.zeros(points.shape[:2], bool)
    keep[[0, 1, rows - 1]] = True
    for row, open_columns in free.items():
      keep[[row, row + 1]] = ~open_columns
    points = np.where(keep[..., None], points, smoothed)
  return points


def lattice(shape: tuple[int, int], upwards: bool = False) -> np.ndarray:
  """Corner cells of the triangles of a rows x columns lattice.

  Args:
    shape: rows (downwards) and columns (to the right, seen from outside).
    upwards: whether the rows run upwards instead.

  Returns:
    (f, 3, 2) row and column of each corner, counter-clockwise from outside.
  """
  rows, columns = shape
  j, i = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
  corner = lambda dj, di: np.stack([j + dj, i + di], -1)  # noqa: E731
  four = (corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1))
  a, b, c, d = four[::-1] if upwards else four
  tri = np.stack([np.stack([a, b, c], -2), np.stack([a, c, d], -2)], -3)
  return tri.reshape(-1, 3, 2)


def build_skin(detail: str = "full") -> SkinGrid:
  """Shoots the rays and joins skin, lid rims and mouth bag into one mesh.

  Args:
    detail: "full", or "light" with fewer rows on the crown and fewer columns
      behind the ears.

  Returns:
    The mesh; about 6,100 vertices when full.
  """
  elevations, azimuths = _angles(detail)
  rays = _Rays(elevations, azimuths)
  fixed = [entry for side in (1, -1) for entry in rays.fit_eye(side)]
  rays.fit_mouth()
  points = rays.points()
  for row, columns, exact in fixed:
    points[row, columns] = exact
  points = _smooth(points, rays)
  eye, mouth = rays.eye_row, rays.mouth_row
  eyes = [slit_columns(azimuths, side) for side in (1, -1)]
  lips = mouth_columns(azimuths)

  # Vertex ids: one pole, then row by row; twins outside the slits are shared.
  own = np.ones(points.shape[:2], bool)
  own[0] = False
  own[[eye + 1, mouth + 1]] = False
  for columns in eyes:
    own[eye + 1, columns[1:-1]] = True
  own[mouth + 1, lips[1:-1]] = True
  grid = np.cumsum(own).reshape(own.shape)  # the pole takes number 0
  grid[0] = 0
  for row in (eye, mouth):
    grid[row + 1] = np.where(own[row + 1], grid[row + 1], grid[row])
  vertices = [points[0].mean(0, keepdims=True), points[own]]
  count = int(own.sum()) + 1
  row_of = np.zeros(count, int)
  np.maximum.at(row_of, grid[own], np.nonzero(own)[0])
  kinds, rows = [np.zeros(count, int)], [row_of]
  parents = [np.arange(count)]

  looped = np.concatenate([grid, grid[:, :1]], 1)
  cells = lattice(looped.shape)
  top = cells[:, :, 0].min(1)
  cells = cells[(top != eye) & (top != mouth)]
  islands = [("skin", looped)]
  pieces = [(0, cells, np.zeros(len(cells), int))]

  def append(new: np.ndarray, kind: int, parent: np.ndarray) -> np.ndarray:
    nonlocal count
    ids = np.arange(count, count + len(new))
    count += len(new)
    vertices.append(new)
    kinds.append(np.full(len(new), kind))
    rows.append(row_of[parent])
    parents.append(parent)
    return ids

  for columns, side in zip(eyes, "lr", strict=True):
    centre = field.EYE * np.array([1 if side == "l" else -1, 1, 1])
    for row, kind in ((eye, UPPER_RIM), (eye + 1, LOWER_RIM)):
      edge = grid[row, columns]
      out = points[row, columns] - centre
      out /= np.linalg.norm(out, axis=1, keepdims=True)
      rim = append(centre + out * (field.EYE_RADIUS - 0.12), kind, edge)
      name = "upper" if kind == UPPER_RIM else "lower"
      islands.append((f"rim_{name}_{side}", np.stack([edge, rim])))
      band = lattice((2, len(columns)), upwards=kind == LOWER_RIM)
      pieces.append((len(islands) - 1, band, np.full(len(band), kind)))

  bag, bag_kind = {}, {}
  for row, sign in ((mouth, 1), (mouth + 1, -1)):
    edge = grid[row, lips]
    lines = [edge]
    for depth, (dz, dy) in enumerate(zip(_BAG_DEPTH, _BAG_RISE, strict=True)):
      p = points[row, lips].copy()
      p[:, 1] += sign * dy * (1 - 0.6 * (p[:, 0] / field.MOUTH_HALF_WIDTH) ** 2)
      p[:, 2] += dz
      p[:, 0] *= 1 - 0.06 * depth
      kind = (UPPER_LIP if sign > 0 else LOWER_LIP) + (2 if depth else 0)
      lines.append(append(p, kind, edge))
    bag[sign] = lines
    first = UPPER_LIP if sign > 0 else LOWER_LIP
    bag_kind[sign] = np.array([first] + [first + 2] * 3)
  island = np.stack(bag[1] + bag[-1][::-1])
  islands.append(("bag", island))
  # One lattice from the upper lip over the back wall to the lower lip; the
  # wall closes the bag, so that nothing behind it shines through.
  band = lattice(island.shape)
  band_kind = np.concatenate([bag_kind[1], [UPPER_BAG], bag_kind[-1][::-1]])
  kinds_of = band_kind[band[:, :, 0].min(1)]
  last = len(island) - 1
  sides = []
  for depth in range(len(bag[1]) - 1):
    for column, order in ((0, 1), (len(lips) - 1, -1)):
      four = [(depth, column), (last - depth, column)]
      four += [(last - depth - 1, column), (depth + 1, column)]
      a, b, c, d = four[::order]
      sides += [(a, b, c), (a, c, d)]
  band = np.concatenate([band, np.array(sides)])
  kinds_of = np.concatenate([kinds_of, np.full(len(sides), UPPER_BAG)])
  pieces.append((len(islands) - 1, band, kinds_of))

  face_island = np.concatenate(
    [np.full(len(c), island_id) for island_id, c, _ in pieces]
  )
  face_cells = np.concatenate([c for _, c, _ in pieces])
  face_kind = np.concatenate([k for _, _, k in pieces])
  faces = np.concatenate(
    [islands[k][1][c[..., 0], c[..., 1]] for k, c, _ in pieces]
  )
  good = (
    (faces[:, 0] != faces[:, 1])
    & (faces[:, 1] != faces[:, 2])
    & (faces[:, 2] != faces[:, 0])
  )
  return SkinGrid(
    vertices=np.concatenate(vertices),
    faces=faces[good],
    face_kind=face_kind[good],
    kind=np.concatenate(kinds),
    row=np.concatenate(rows),
    parent=np.concatenate(parents),
    grid=grid,
    azimuths=azimuths,
    elevations=elevations,
    eye_row=eye,
    mouth_row=mouth,
    islands=tuple(islands),
    face_island=face_island[good],
    face_cells=face_cells[good],
  )
