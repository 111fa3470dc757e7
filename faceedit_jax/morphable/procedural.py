"""The procedural head as a `Morphable`, in metres, with landmarks and skin.

It needs no download and no licence; FLAME and ICT-FaceKit load into the same
class.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.morphable import distance_field as field
from faceedit_jax.morphable import head_grid, head_parts, head_template
from faceedit_jax.morphable.head_template import HeadTemplate, build_template
from faceedit_jax.morphable.model import Landmarks, Morphable
from faceedit_jax.morphable.procedural_albedo import default_albedo

CM = 0.01  # metres

# The head takes 90/70/90 % of pitch, yaw and roll at the neck.
HEAD_SHARE = np.array([[0.1, 0.3, 0.1], [0.9, 0.7, 0.9]], np.float32)
LID_CLEARANCE = 0.07  # cm

# Template points (x, y) of landmarks on the skin, image-left half first.
_BROW = ((4.9, 1.75), (4.1, 2.3), (3.2, 2.45), (2.2, 2.25), (1.3, 1.85))
_JAW = (
  ((7.0, -1.0, 2.5), (6.7, -3.0, 3.5), (6.4, -5.0, 4.3), (6.0, -6.9, 4.6))
  + ((5.1, -8.5, 4.6), (4.1, -9.8, 5.0), (2.9, -10.8, 5.8), (1.5, -11.4, 6.8))
  + ((0.0, -11.6, 7.2),)
)
_NOSE = ((0, -0.2), (0, -1.5), (0, -2.8), (0, -4.0))
_NOSE_BASE = ((1.2, -4.9), (0.6, -5.15), (0, -5.3))
_LIP_TOP = ((1.7, 0.55), (0.7, 0.95), (0.0, 0.85))
_LIP_BOTTOM = ((1.7, -0.75), (0.85, -1.0), (0.0, -1.08))


def template(detail: str = "full") -> HeadTemplate:
  """The cached template (NumPy, cm); see `HeadTemplate`."""
  return build_template(detail)


def _mirrored(points, centre_last: bool) -> np.ndarray:
  """Points from image left to image right; the last lies on the midline."""
  left = np.array(points, float)
  left[:, 0] *= -1
  right = left[::-1].copy()
  right[:, 0] *= -1
  return np.concatenate([left, right[1:] if centre_last else right])


class _Picker:
  """Finds vertices of the front skin by their template position."""

  def __init__(self, t: HeadTemplate):
    outside = (t.kind[: t.n_skin] == head_grid.SKIN) & (t.row[: t.n_skin] > 0)
    normal = head_template.vertex_normals(t.vertices, t.faces)[: t.n_skin]
    self.ids = np.where(outside)[0]
    self.points = t.vertices[self.ids]
    self.front = normal[self.ids, 2] > 0.1

  def front_at(self, xy: np.ndarray) -> list[int]:
    points = np.where(self.front[:, None], self.points[:, :2], np.inf)
    distance = ((points[None] - xy[:, None]) ** 2).sum(-1)
    return self.ids[distance.argmin(1)].tolist()

  def nearest(self, points: np.ndarray) -> list[int]:
    distance = ((self.points[None] - points[:, None]) ** 2).sum(-1)
    return self.ids[distance.argmin(1)].tolist()


def _landmarks(t: HeadTemplate) -> tuple[Landmarks, Landmarks]:
  pick = _Picker(t)
  upper, lower = t.grid[t.eye_row], t.grid[t.eye_row + 1]

  def eye(side: int) -> tuple[list[int], np.ndarray]:
    columns = t.eye_columns(side)  # image left to image right
    n = len(columns) - 1
    a, b = round(n / 3), round(2 * n / 3)
    ring = [upper[columns[0]], upper[columns[a]], upper[columns[b]]]
    ring += [upper[columns[n]], lower[columns[b]], lower[columns[a]]]
    middle = columns[n // 2]
    centre = [ring[0], ring[3], upper[middle], lower[middle]]
    return [int(v) for v in ring], np.array(centre)

  right_ring, right_centre = eye(-1)
  left_ring, left_centre = eye(1)
  lips = t.mouth_columns()
  n = len(lips) - 1
  mouth = head_grid.mouth_line
  corner_r, corner_l = (int(t.grid[t.mouth_row, lips[k]]) for k in (0, n))

  def border(points) -> list[int]:
    xy = _mirrored(points, centre_last=True)
    xy[:, 1] += mouth(xy[:, 0])
    return pick.front_at(xy)

  inner = [n // 4, n // 2, n - n // 4]
  top = [int(t.grid[t.mouth_row, lips[k]]) for k in inner]
  bottom = [int(t.grid[t.mouth_row + 1, lips[k]]) for k in inner]
  jaw = _mirrored(_JAW, centre_last=True)
  brows = _mirrored(_BROW, centre_last=False)
  nose = pick.front_at(np.array(_NOSE, float))
  points = pick.nearest(jaw)
  points += pick.front_at(brows)
  points += nose + pick.front_at(_mirrored(_NOSE_BASE, centre_last=True))
  points += right_ring + left_ring
  points += [corner_r, *border(_LIP_TOP), corner_l]
  points += border(_LIP_BOTTOM)[::-1]
  points += [corner_r, *top, corner_l, *bottom[::-1]]
  all68 = Landmarks(
    vertices=jnp.asarray(points, jnp.int32)[:, None],
    weights=jnp.ones((68, 1), jnp.float32),
  )
  single = lambda v: [v, v, v, v]  # noqa: E731
  five = Landmarks(
    vertices=jnp.asarray(
      [
        right_centre.tolist(),
        left_centre.tolist(),
        single(nose[-1]),
        single(corner_r),
        single(corner_l),
      ],
      jnp.int32,
    ),
    weights=jnp.full((5, 4), 0.25, jnp.float32),
  )
  return five, all68


def ring_weights(points: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Smallest change of a plain mean that puts it on the target."""
  system = np.concatenate([points.T, np.ones((1, len(points)))])
  mean = np.full(len(points), 1.0 / len(points))
  wanted = np.append(target, 1.0) - system @ mean
  return mean + np.linalg.lstsq(system, wanted, rcond=None)[0]


def joint_regressor(t: HeadTemplate) -> np.ndarray:
  """(5, V) rows that give the template's joints exactly.

  Each row is a mean over a fixed ring of vertices, minimally corrected, so
  that joints follow the identity.
  """
  p = t.vertices
  skin = (t.part == head_parts.SKIN) & (t.kind == head_grid.SKIN)
  neck = skin & (np.abs(p[:, 1] + 12.5) < 1.5) & (p[:, 2] < 3.5)
  hinge = skin & (np.abs(p[:, 1] + 2.6) < 1.5) & (np.abs(p[:, 2] - 1) < 1.5)
  rings = [t.grid[-1], np.where(neck)[0], np.where(hinge)[0], *t.eye_ids]
  regressor = np.zeros((5, len(p)))
  for row, ring, joint in zip(
    regressor, rings, head_template.JOINTS, strict=True
  ):
    row[ring] = ring_weights(p[ring], joint)
  return regressor


def skinning_weights(t: HeadTemplate) -> np.ndarray:
  """(V, 5) weights; the jaw and the eyes hang on the neck."""
  weights = np.zeros((len(t.vertices), 5))
  weights[:, 0] = 1 - t.neck_weight
  weights[:, 1] = t.neck_weight * (1 - t.jaw_weight)
  weights[:, 2] = t.neck_weight * t.jaw_weight
  for eye, ids in enumerate(t.eye_ids):
    weights[ids] = 0
    weights[ids, 3 + eye] = 1
  return weights


def _lids(t: HeadTemplate) -> np.ndarray:
  """(2, n) skin vertices close enough to a ball to sink into it."""
  skin = np.where((t.part == head_parts.SKIN) & (t.kind == head_grid.SKIN))[0]
  near = []
  for side in (1, -1):
    centre = field.EYE * np.array([side, 1, 1])
    distance = np.linalg.norm(t.vertices[skin] - centre, axis=1)
    near.append(skin[distance < field.EYE_RADIUS + 1.2])
  size = max(map(len, near))
  # Padding repeats a vertex; setting it twice to one value is harmless.
  return np.stack([np.pad(n, (0, size - len(n)), mode="edge") for n in near])


@functools.cache
def procedural_model(
  detail: str = "full", texture_size: int = 128
) -> Morphable:
  """The procedural head with a plain skin albedo.

  Args:
    detail: "full" or "light" mesh.
    texture_size: side of the albedo textures in texels.

  Returns:
    The model in metres: 40 identity and 16 expression directions, two albedo
    directions (melanin, blood) until `with_albedo` brings a better basis.
  """
  # The result is kept, so it must hold arrays also when first asked for while
  # JAX traces.
  with jax.ensure_compile_time_eval():
    return _build_model(detail, texture_size)


def _build_model(detail: str, texture_size: int) -> Morphable:
  t = build_template(detail)
  f32 = lambda a: jnp.asarray(a, jnp.float32)  # noqa: E731
  i32 = lambda a: jnp.asarray(a, jnp.int32)  # noqa: E731
  directions = np.concatenate([t.shape_dirs, t.expression_dirs])
  five, all68 = _landmarks(t)
  mean, basis = default_albedo(t, texture_size)
  count = len(t.vertices)
  return Morphable(
    v_template=f32(t.vertices * CM),
    shapedirs=f32(np.moveaxis(directions, 0, -1) * CM),
    posedirs=jnp.zeros((36, count * 3), jnp.float32),
    j_regressor=f32(joint_regressor(t)),
    weights=f32(skinning_weights(t)),
    faces=i32(t.faces),
    uv=f32(t.uv),
    uv_faces=i32(t.uv_faces),
    albedo_mean=f32(mean),
    albedo_basis=f32(basis),
    landmarks5=five,
    landmarks68=all68,
    head_share=f32(HEAD_SHARE),
    lid_vertices=i32(_lids(t)),
    ball_vertices=i32(t.eye_ids[:, 0]),
    lid_clearance=LID_CLEARANCE * CM,
    parents=head_template.PARENTS,
    n_shape=len(t.shape_names),
    log_albedo=True,
  )
