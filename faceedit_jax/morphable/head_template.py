"""The procedural head template: mesh, texture layout, bases and weights.

All arrays are NumPy, lengths in centimetres. `procedural.py` turns them into
a `Morphable` in metres.
"""

import dataclasses
import functools

import numpy as np

from faceedit_jax.morphable import distance_field as field
from faceedit_jax.morphable import head_bases, head_grid, head_parts
from faceedit_jax.morphable.head_grid import SkinGrid

JOINT_NAMES = ("root", "neck", "jaw", "eye_l", "eye_r")
JOINTS = np.array(
  [
    [0, -23, -2.5],
    [0, -12.5, -2],
    [0, -2.6, 1.0],
    field.EYE,
    field.EYE * np.array([-1, 1, 1]),
  ]
)
PARENTS = (-1, 0, 1, 1, 1)

# Rows that the texture layout leaves empty between the lips of a slit.
_SLIT_GAP = 1.5

# name: (left, top, width, height) in the unit square, y down.
_ISLANDS = {
  "skin": (0.008, 0.006, 0.984, 0.786),
  "eye_l": (0.010, 0.810, 0.180, 0.180),
  "eye_r": (0.200, 0.810, 0.180, 0.180),
  "ear_l": (0.390, 0.810, 0.180, 0.180),
  "ear_r": (0.580, 0.810, 0.180, 0.180),
  "tongue": (0.772, 0.810, 0.095, 0.095),
  "bag": (0.880, 0.810, 0.110, 0.095),
  "teeth_upper": (0.772, 0.920, 0.095, 0.028),
  "teeth_lower": (0.772, 0.962, 0.095, 0.028),
  "rim_upper_l": (0.882, 0.922, 0.046, 0.022),
  "rim_lower_l": (0.882, 0.966, 0.046, 0.022),
  "rim_upper_r": (0.942, 0.922, 0.046, 0.022),
  "rim_lower_r": (0.942, 0.966, 0.046, 0.022),
}


@dataclasses.dataclass(frozen=True, eq=False)
class HeadTemplate:
  """Everything the synthetic world needs to know about the base mesh.

  Attributes:
    vertices: (V, 3) cm; the first `n_skin` are skin, rims and mouth bag.
    faces: (F, 3) counter-clockwise seen from outside.
    part: (V,) `head_parts` constant of each vertex.
    kind: (V,) `head_grid` constant of each vertex (SKIN for other parts).
    face_part, face_kind: (F,) the same for triangles.
    row: (V,) grid row of skin vertices and of the edge that rims and the bag
      hang on; -1 for the other parts.
    parent: (n_skin,) edge vertex of rims and bag, the vertex itself elsewhere.
    canonical: (V, 3) coordinates that ignore identity: unit ball for eyes
      (pole forward), (u forward, w up, height) for ears, template cm elsewhere.
    grid: (rows, columns) vertex index of the skin grid.
    azimuths, elevations: degrees of the columns and rows; 0 in neck rows.
    eye_row, mouth_row: upper row of the doubled rows (the lower is next).
    eye_ids: (2, n) vertices of the left and right ball.
    above_mouth, below_mouth: (V,) masks from the slit of the mouth.
    occlusion: (V,) ambient visibility of the template in 0.25..1.
    shape_dirs: (40, V, 3), expression_dirs: (16, V, 3), cm per unit.
    shape_std: (40,) standard deviation of each identity coefficient.
    jaw_weight, neck_weight: (V,) in 0..1.
    uv: (Vt, 2) texture coordinates, v up (OBJ convention).
    uv_faces: (F, 3) indices into uv. uv_vertex: (Vt,) its mesh vertex.
  """

  vertices: np.ndarray
  faces: np.ndarray
  part: np.ndarray
  kind: np.ndarray
  face_part: np.ndarray
  face_kind: np.ndarray
  row: np.ndarray
  parent: np.ndarray
  canonical: np.ndarray
  grid: np.ndarray
  azimuths: np.ndarray
  elevations: np.ndarray
  eye_row: int
  mouth_row: int
  eye_ids: np.ndarray
  above_mouth: np.ndarray
  below_mouth: np.ndarray
  occlusion: np.ndarray
  shape_dirs: np.ndarray
  expression_dirs: np.ndarray
  shape_std: np.ndarray
  jaw_weight: np.ndarray
  neck_weight: np.ndarray
  uv: np.ndarray
  uv_faces: np.ndarray
  uv_vertex: np.ndarray
  n_skin: int
  shape_names: tuple[str, ...] = head_bases.SHAPE_NAMES
  expression_names: tuple[str, ...] = head_bases.EXPRESSION_NAMES

  def eye_columns(self, side: int) -> np.ndarray:
    """Grid columns of the slit of the left (+1) or right (-1) eye."""
    return head_grid.slit_columns(self.azimuths, side)

  def mouth_columns(self) -> np.ndarray:
    """Grid columns of the slit of the mouth, from right to left corner."""
    return head_grid.mouth_columns(self.azimuths)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
  """Area-weighted unit normals (V, 3) of a mesh."""
  corners = vertices[faces]
  normal = np.cross(
    corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
  )
  total = np.stack(
    [
      np.bincount(faces.T.reshape(-1), np.tile(normal[:, k], 3), len(vertices))
      for k in range(3)
    ],
    -1,
  )
  length = np.linalg.norm(total, axis=1, keepdims=True)
  return total / np.maximum(length, 1e-9)


def _place(name: str, chart: np.ndarray) -> np.ndarray:
  left, top, width, height = _ISLANDS[name]
  u = left + width * chart[..., 0]
  v = 1.0 - (top + height * chart[..., 1])
  return np.stack([u, v], -1)


def _skin_chart(name: str, shape: tuple[int, int], skin: SkinGrid):
  """Unit-square chart (rows, columns, 2) of one lattice of the skin."""
  j = np.arange(shape[0], dtype=float)
  i = np.arange(shape[1], dtype=float)
  if name == "skin":
    j += _SLIT_GAP * (j > skin.eye_row) + _SLIT_GAP * (j > skin.mouth_row)
  j, i = np.meshgrid(j / j[-1], i / i[-1], indexing="ij")
  return np.stack([i, j], -1)


def _skin_layout(skin: SkinGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """uv, uv vertex ids and uv faces of the skin with rims and bag."""
  uv, owner, starts, widths, count = [], [], [], [], 0
  for name, lattice in skin.islands:
    uv.append(_place(name, _skin_chart(name, lattice.shape, skin)))
    uv[-1] = uv[-1].reshape(-1, 2)
    owner.append(lattice.reshape(-1))
    starts.append(count)
    widths.append(lattice.shape[1])
    count += lattice.size
  starts, widths = np.array(starts), np.array(widths)
  island = skin.face_island[:, None]
  rows, columns = skin.face_cells[..., 0], skin.face_cells[..., 1]
  uv_faces = starts[island] + rows * widths[island] + columns
  return np.concatenate(uv), np.concatenate(owner), uv_faces


def _occlusion(
  vertices: np.ndarray, faces: np.ndarray, part: np.ndarray, kind: np.ndarray
) -> np.ndarray:
  """How much of the surroundings the template leaves open at each vertex."""
  skin = part == head_parts.SKIN
  points = vertices[skin]
  normals = vertex_normals(vertices, faces)[skin]
  shade = np.zeros(len(points))
  for height, weight in ((0.3, 0.5), (0.8, 0.35), (1.8, 0.25), (3.5, 0.16)):
    distance = field.head_distance(points + normals * height)
    shade += weight * np.clip(height - distance, 0, height) / height
  result = np.ones(len(vertices))
  result[skin] = np.clip(1 - 0.75 * shade, 0.25, 1)
  result[kind >= head_grid.UPPER_BAG] = 0.25
  result[part == head_parts.TONGUE] = 0.6
  teeth = (head_parts.UPPER_TEETH, head_parts.LOWER_TEETH)
  result[np.isin(part, teeth)] = 0.8
  return result


@functools.cache
def build_template(detail: str = "full") -> HeadTemplate:
  """Builds the template; cached per process (under a second).

  Args:
    detail: "full" (7.1 k vertices) or "light" (fewer behind and above).

  Returns:
    The template.
  """
  skin = head_grid.build_skin(detail)
  parts = head_parts.build_parts(detail)
  uv, owner, uv_faces = _skin_layout(skin)
  vertices, canonical = [skin.vertices], [skin.vertices]
  faces, uvs, owners, all_uv_faces = [skin.faces], [uv], [owner], [uv_faces]
  part = [np.full(len(skin.vertices), head_parts.SKIN)]
  face_part = [np.full(len(skin.faces), head_parts.SKIN)]
  count, uv_count, eye_ids = len(skin.vertices), len(uv), []
  for piece in parts:
    size = len(piece.vertices)
    if piece.part == head_parts.EYES:
      eye_ids.append(np.arange(count, count + size))
    vertices.append(piece.vertices)
    canonical.append(piece.canonical)
    faces.append(piece.faces + count)
    uvs.append(_place(piece.name, piece.chart))
    owners.append(np.arange(count, count + size))
    all_uv_faces.append(piece.faces + uv_count)
    part.append(np.full(size, piece.part))
    face_part.append(np.full(len(piece.faces), piece.part))
    count += size
    uv_count += size
  p = np.concatenate(vertices)
  all_faces = np.concatenate(faces)
  all_parts = np.concatenate(part)
  n_skin = len(skin.vertices)
  kind = np.zeros(count, int)
  kind[:n_skin] = skin.kind
  row = np.full(count, -1)
  row[:n_skin] = skin.row
  face_kind = np.zeros(len(all_faces), int)
  face_kind[: len(skin.faces)] = skin.face_kind
  above, below = head_bases.mouth_masks(kind, row, skin.mouth_row)
  masks = {"all": np.ones(count), "upper": above, "lower": below}
  ids = np.stack(eye_ids)
  return HeadTemplate(
    vertices=p,
    faces=all_faces.astype(np.int32),
    part=all_parts,
    kind=kind,
    face_part=np.concatenate(face_part),
    face_kind=face_kind,
    row=row,
    parent=skin.parent,
    canonical=np.concatenate(canonical),
    grid=skin.grid,
    azimuths=skin.azimuths,
    elevations=skin.elevations,
    eye_row=skin.eye_row,
    mouth_row=skin.mouth_row,
    eye_ids=ids,
    above_mouth=above,
    below_mouth=below,
    occlusion=_occlusion(p, all_faces, all_parts, kind),
    shape_dirs=head_bases.identity_directions(p, all_parts, masks, ids),
    expression_dirs=head_bases.expression_directions(p, all_parts, masks, skin),
    shape_std=head_bases.SHAPE_STD,
    jaw_weight=head_bases.jaw_weight(p, all_parts, kind, masks),
    neck_weight=head_bases.neck_weight(p, all_parts),
    uv=np.concatenate(uvs).astype(np.float32),
    uv_faces=np.concatenate(all_uv_faces).astype(np.int32),
    uv_vertex=np.concatenate(owners),
    n_skin=n_skin,
  )
