"""The fixed mesh of a whole picture: parts, triangles, texture atlas, texels.

Every identity has the same vertices and triangles; parts that are absent
collapse into one point. So one compiled renderer draws everybody. Units cm.
"""

import dataclasses
import functools

import jax
import numpy as np

from data_pipelines.synthetic_heads import accessories as acc
from data_pipelines.synthetic_heads import beard, clothes, hair
from faceedit_jax.morphable import head_template, procedural_albedo

# Parts of the picture beyond those of the head template (0..5).
HAIR, HAT, FRAME, LENS, BEARD, EARRING, TORSO, COLLAR = range(6, 14)

# Atlas of the textures: name: (left, top, width, height) in 1/512.
ATLAS = {
  "base": (0, 0, 256, 256),
  "beard": (256, 0, 256, 192),
  "bun": (256, 192, 128, 64),
  "frame": (384, 192, 8, 8),
  "lens": (400, 192, 8, 8),
  "earring": (416, 192, 8, 8),
  "brim": (432, 192, 8, 8),
  "hair": (0, 256, 512, 64),
  "torso": (0, 320, 512, 128),
  "collar": (0, 448, 512, 32),
  "hat": (0, 480, 512, 32),
}
ATLAS_SIZE = 512


@dataclasses.dataclass(frozen=True, eq=False)
class World:
  """Topology shared by all identities.

  Attributes:
    head: the head template.
    vertices: number of all vertices; the first are the head's.
    spans: part name -> slice of vertices.
    face_spans: part name -> slice of triangles.
    faces: (F, 3) triangles with every part present.
    face_part: (F,) part of each triangle; uv: (F, 3, 2) atlas coordinates of
      its corners, 0..1, v down.
    parent: (V,) head vertex whose expression a vertex follows, or -1.
    beard_ids: (B,) head vertices under the beard.
  """

  head: head_template.HeadTemplate
  vertices: int
  spans: dict
  face_spans: dict
  faces: np.ndarray
  face_part: np.ndarray
  uv: np.ndarray
  parent: np.ndarray
  beard_ids: np.ndarray


def _grid(rows, columns, wrap=False):
  """Triangles of a lattice; `wrap` joins the last column to the first."""
  i, j = np.meshgrid(
    np.arange(rows - 1), np.arange(columns - (not wrap)), indexing="ij"
  )
  right = (j + 1) % columns
  a, b = i * columns + j, i * columns + right
  c, d = b + columns, a + columns
  quads = [(a, d, c), (a, c, b)]
  return np.stack([np.stack(t, -1) for t in quads], 2).reshape(-1, 3)


def _lattice_uv(rows, columns, u=None, v=None):
  u = np.linspace(0, 1, columns) if u is None else u
  v = np.linspace(0, 1, rows) if v is None else v
  u, v = np.meshgrid(u, v)
  return np.stack([u, v], -1).reshape(-1, 2)


def place(name, uv):
  """Atlas coordinates 0..1 of block coordinates 0..1 (..., 2), v down.

  Half a texel of margin keeps bilinear look-ups inside the block.
  """
  left, top, width, height = ATLAS[name]
  inset = 0.5
  x = left + inset + uv[..., 0] * (width - 2 * inset)
  y = top + inset + uv[..., 1] * (height - 2 * inset)
  return np.stack([x, y], -1) / ATLAS_SIZE


def _base_uv(uv):
  """Atlas coordinates of the template's own layout (v up)."""
  left, top, width, height = ATLAS["base"]
  x, y = left + uv[..., 0] * width, top + (1 - uv[..., 1]) * height
  return np.stack([x, y], -1) / ATLAS_SIZE


class _Builder:
  def __init__(self, head):
    self.count, self.total = 0, 0
    self.spans, self.face_spans = {}, {}
    self.faces, self.parts, self.uv, self.parents = [], [], [], []
    self.head = head

  def add(self, name, vertices, faces, part, corner_uv, parent=None):
    n, f = vertices, len(faces)
    self.spans[name] = slice(self.count, self.count + n)
    self.face_spans[name] = slice(self.total, self.total + f)
    self.faces.append(np.asarray(faces) + self.count)
    self.parts.append(np.broadcast_to(part, (f,)))
    self.uv.append(np.broadcast_to(corner_uv, (f, 3, 2)))
    self.parents.append(np.full(n, -1) if parent is None else parent)
    self.count, self.total = self.count + n, self.total + f

  def lattice(self, name, rows, columns, part, block=None, u=None, wrap=False):
    faces = _grid(rows, columns, wrap)
    if block is None:
      block = name
    uv = place(block, _lattice_uv(rows, columns, u))
    self.add(name, rows * columns, faces, part, uv[faces])


def _beard_region(head):
  """Head vertices and triangles the fullest beard can cover."""
  with jax.ensure_compile_time_eval():  # may be reached while tracing
    mask = np.asarray(beard.beard_mask(head.vertices, 1.0, 1.0, 0.0))
  plain = (head.part == 0) & (head.kind == 0)
  mask = np.where(plain, mask, 0)
  keep = (mask[head.faces] > 0.02).any(1) & plain[head.faces].all(1)
  keep &= head.face_kind == 0
  ids = np.unique(head.faces[keep])
  number = np.full(len(head.vertices), -1)
  number[ids] = np.arange(len(ids))
  return ids, number[head.faces[keep]], keep


def beard_window(head):
  """Part of the head's texture that holds the beard: left, top, right,
  bottom in 0..1, v down."""
  _, _, keep = _beard_region(head)
  uv = head.uv[head.uv_faces[keep]]
  u, v = uv[..., 0], 1 - uv[..., 1]
  return u.min(), v.min(), u.max(), v.max()


@functools.cache
def build_world() -> World:
  """Builds the topology; cached per process."""
  head = head_template.build_template()
  b = _Builder(head)
  n = len(head.vertices)
  b.add(
    "head",
    n,
    head.faces,
    head.face_part,
    _base_uv(head.uv[head.uv_faces]),
    np.arange(n),
  )
  ids, faces, keep = _beard_region(head)
  left, top, right, bottom = beard_window(head)
  uv = head.uv[head.uv_faces[keep]]
  u = (uv[..., 0] - left) / (right - left)
  v = (1 - uv[..., 1] - top) / (bottom - top)
  b.add(
    "beard", len(ids), faces, BEARD, place("beard", np.stack([u, v], -1)), ids
  )
  b.lattice("hair", hair.ROWS, hair.COLUMNS, HAIR)
  b.lattice("bun", acc.BUN_ROWS, acc.BUN_COLUMNS, HAIR)
  b.lattice("hat", acc.HAT_ROWS, acc.HAT_COLUMNS, HAT)
  b.lattice("brim", acc.BRIM_ROWS, acc.BRIM_COLUMNS, HAT)
  for side in "lr":
    closed = np.concatenate(
      [_grid(acc.LOOP, acc.SIDES, True), _loop_end(acc.LOOP, acc.SIDES)]
    )
    middle = place("frame", np.array([0.5, 0.5]))
    b.add("loop_" + side, acc.LOOP * acc.SIDES, closed, FRAME, middle)
  for side in "lr":
    rim = np.arange(acc.LOOP)
    fan = np.stack([0 * rim, 1 + rim, 1 + (rim + 1) % acc.LOOP], -1)
    middle = place("lens", np.array([0.5, 0.5]))
    b.add("lens_" + side, acc.LOOP + 1, fan, LENS, middle)
  middle = place("frame", np.array([0.5, 0.5]))
  for side in "lr":
    faces = _grid(acc.TEMPLE, acc.SIDES, True)
    b.add("temple_" + side, acc.TEMPLE * acc.SIDES, faces, FRAME, middle)
  faces = _grid(acc.BRIDGE, acc.SIDES, True)
  b.add("bridge", acc.BRIDGE * acc.SIDES, faces, FRAME, middle)
  for side in "lr":
    b.lattice(
      "earring_" + side,
      acc.SPHERE_ROWS,
      acc.SPHERE_COLUMNS,
      EARRING,
      block="earring",
    )
  angles = np.linspace(-np.pi, np.pi, clothes.TORSO_COLUMNS)
  u = clothes.angle_to_u(angles)
  b.lattice("torso", clothes.TORSO_ROWS, clothes.TORSO_COLUMNS, TORSO, u=u)
  angles = np.linspace(-np.pi, np.pi, clothes.COLLAR_COLUMNS)
  u = clothes.angle_to_u(angles)
  b.lattice("collar", clothes.COLLAR_ROWS, clothes.COLLAR_COLUMNS, COLLAR, u=u)
  return World(
    head=head,
    vertices=b.count,
    spans=b.spans,
    face_spans=b.face_spans,
    faces=np.concatenate(b.faces).astype(np.int32),
    face_part=np.concatenate(b.parts).astype(np.int32),
    uv=np.concatenate(b.uv).astype(np.float32),
    parent=np.concatenate(b.parents).astype(np.int32),
    beard_ids=ids,
  )


def _loop_end(rows, sides):
  """Quads that close a tube into a ring."""
  i = np.arange(sides)
  j = (i + 1) % sides
  last = (rows - 1) * sides
  first = np.stack([last + i, i, j], -1)
  return np.concatenate([first, np.stack([last + i, j, last + j], -1)])


@functools.cache
def head_texel_maps(size: int = 256) -> dict[str, np.ndarray]:
  """What the texels of the head's texture lie on; cached per process.

  Args:
    size: side of the texture.

  Returns:
    position, canon (size, size, 3), lash (size, size) float32; part, kind
    (size, size) int32. Texels outside the islands repeat the nearest one.
  """
  head = head_template.build_template()
  texels = procedural_albedo.template_texels("full", size)
  mix = lambda values: texels.bake(values, head.faces)  # noqa: E731
  lash = np.zeros((len(head.vertices), 1))
  wide = np.abs(head.azimuths)
  edge = head.grid[head.eye_row, (wide > 9) & (wide < 34)]
  lash[edge] = 1.0
  return {
    "position": mix(head.vertices).astype(np.float32),
    "canon": mix(head.canonical).astype(np.float32),
    "lash": mix(lash)[..., 0].astype(np.float32),
    "part": head.face_part[texels.face].astype(np.int32),
    "kind": head.face_kind[texels.face].astype(np.int32),
  }


def vertex_faces(faces: np.ndarray, count: int, most: int = 8) -> np.ndarray:
  """Triangles round each vertex (count, most); filled up with len(faces).

  The crown, where many meridians meet, keeps an even choice of them.
  """
  order = np.argsort(faces.reshape(-1), kind="stable")
  owner = faces.reshape(-1)[order]
  starts = np.searchsorted(owner, np.arange(count))
  ends = np.searchsorted(owner, np.arange(count), side="right")
  table = np.full((count, most), len(faces))
  for v in range(count):
    mine = order[starts[v] : ends[v]] // 3
    if len(mine) > most:
      mine = mine[np.linspace(0, len(mine) - 1, most).astype(int)]
    table[v, : len(mine)] = mine
  return table.astype(np.int32)
