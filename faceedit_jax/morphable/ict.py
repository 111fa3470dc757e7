"""Reads ICT-FaceKit (MIT licence) as a `Morphable`.

ICT-FaceKit has no skeleton: joints and skinning weights are taken from the
procedural head, by nearest position once the landmarks of both coincide.
"""

import pathlib

import jax.numpy as jnp
import numpy as np

from faceedit_jax.morphable import head_template, procedural
from faceedit_jax.morphable.flame_landmarks import five_of_68
from faceedit_jax.morphable.model import Landmarks, Morphable

_REGRESSOR_VERTICES = 400
_SKIN_COLOUR = (0.45, 0.30, 0.22)


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Index of the nearest of `others` for each point."""
  result = np.zeros(len(points), int)
  square = (others**2).sum(1)
  for start in range(0, len(points), 1024):
    block = points[start : start + 1024]
    result[start : start + 1024] = (square - 2 * block @ others.T).argmin(1)
  return result


def _fit(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
  """Scale and shift (no rotation) that bring source points to the target."""
  a, b = source - source.mean(0), target - target.mean(0)
  scale = float(np.sqrt((b * b).sum() / (a * a).sum()))
  return scale, target.mean(0) - scale * source.mean(0)


def load_ict(
  folder: str | pathlib.Path,
  name: str = "ict_head_eyes.npz",
  n_shape: int = 100,
) -> Morphable:
  """Loads a converted ICT-FaceKit mesh.

  Args:
    folder: folder with the npz: vertices, identity, expression, faces, uv,
      uv_faces (cm) and landmarks68 (vertex ids).
    name: file in the folder.
    n_shape: identity directions to keep.

  Returns:
    The model in metres, moved so that its face lies where the procedural
    head's does. The 57 expressions stay as they are, jawOpen among them; the
    jaw joint turns the mesh as well. No pose correctives; a flat mean albedo.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file has fewer identity directions than asked for.
  """
  path = pathlib.Path(folder) / name
  if not path.is_file():
    raise FileNotFoundError(
      f"ICT-FaceKit file {path} does not exist; give the folder that holds it."
    )
  with np.load(path, allow_pickle=False) as data:
    arrays = {key: data[key] for key in data}
  vertices = arrays["vertices"].astype(np.float64)
  identity = arrays["identity"].astype(np.float32)
  if n_shape > len(identity):
    raise ValueError(
      f"ICT-FaceKit {path}: got {len(identity)} identity directions, wanted "
      f"{n_shape}; lower n_shape."
    )
  directions = np.concatenate(
    [identity[:n_shape], arrays["expression"].astype(np.float32)]
  )
  template = procedural.template()
  ours = procedural.procedural_model().landmarks68
  ours = template.vertices[np.asarray(ours.vertices)[:, 0]]
  theirs = vertices[arrays["landmarks68"]]
  # The contour lies elsewhere on every face; the inner points fit.
  scale, shift = _fit(theirs[17:], ours[17:])
  nearest = _nearest(vertices * scale + shift, template.vertices)
  weights = procedural.skinning_weights(template)[nearest]
  joints = (head_template.JOINTS - shift) / scale
  for eye in (3, 4):
    ball = vertices[weights[:, eye] > 0.5]
    if len(ball):
      joints[eye] = (ball.min(0) + ball.max(0)) / 2
  regressor = np.zeros((5, len(vertices)))
  for row, joint in zip(regressor, joints, strict=True):
    distance = ((vertices - joint) ** 2).sum(1)
    ring = np.argsort(distance)[:_REGRESSOR_VERTICES]
    row[ring] = procedural.ring_weights(vertices[ring], joint)
  # Where the face lies in space follows the procedural head; its size stays.
  move = ours[17:].mean(0) - theirs[17:].mean(0)
  # Rows of the regressor sum to one, so joints move along.
  points = Landmarks(
    jnp.asarray(arrays["landmarks68"], jnp.int32)[:, None],
    jnp.ones((68, 1), jnp.float32),
  )
  f32 = lambda a: jnp.asarray(a, jnp.float32)  # noqa: E731
  return Morphable(
    v_template=f32((vertices + move) * procedural.CM),
    shapedirs=f32(np.moveaxis(directions, 0, -1) * procedural.CM),
    posedirs=jnp.zeros((36, vertices.size), jnp.float32),
    j_regressor=f32(regressor),
    weights=f32(weights),
    faces=jnp.asarray(arrays["faces"], jnp.int32),
    uv=f32(arrays["uv"]),
    uv_faces=jnp.asarray(arrays["uv_faces"], jnp.int32),
    albedo_mean=f32(np.broadcast_to(_SKIN_COLOUR, (4, 4, 3))),
    albedo_basis=jnp.zeros((0, 4, 4, 3), jnp.float32),
    landmarks5=five_of_68(points),
    landmarks68=points,
    head_share=f32(procedural.HEAD_SHARE),
    lid_vertices=jnp.zeros((2, 0), jnp.int32),
    ball_vertices=jnp.zeros(2, jnp.int32),
    n_shape=n_shape,
  )
