"""Where a picture shows 68 landmarks, and which of them are hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.morphable import (
  camera,
  flame,
  model,
  picture_points,
  rasterize,
)
from faceedit_jax.morphable.procedural import procedural_model
from tests.morphable.test_model import generated_arrays

SIZE = 48
CAMERA = jnp.array([[6.0, 0.01, 0.03]])


def codes_of(head, yaw, view=CAMERA):
  codes = {k: jnp.zeros((1, *s)) for k, s in head.code_sizes.items()}
  codes["pose"] = codes["pose"].at[0, 1].set(yaw)
  return codes | {"camera": view}


@pytest.fixture(scope="module")
def head():
  return procedural_model("light", texture_size=64)


@pytest.fixture(scope="module")
def find(head):
  run = jax.jit(
    lambda codes: picture_points.landmarks68_of_codes(head, codes, SIZE)
  )
  return lambda *args: jax.tree.map(np.asarray, run(codes_of(head, *args)))


def test_a_point_is_hidden_by_what_is_nearer():
  vertices = jnp.array(
    [[0.0, 0, 1], [2, 0, 1], [0, 2, 3], [9, 9, 9], [9, 9, 9], [9, 9, 9]]
  )
  faces = jnp.array([[0, 2, 1], [3, 4, 5], [2, 1, 1]])
  # The first triangle's depth is 1 + y.
  points = jnp.array(
    [[0.5, 0.5, 1.49], [0.5, 0.5, 1.497], [1.2, 1.0, 0], [9, 9, 0], [1, 1, 0]]
  )
  got = picture_points.covered(points, vertices, faces)
  # Behind; within the tolerance; beside it; only behind a point; on its rim.
  assert got.tolist() == [True, False, False, False, True]


def test_the_frontal_face_shows_its_points_in_order(head, find):
  found = find(0.0)
  assert found.pixels.shape == (1, 68, 2) and found.visible.shape == (1, 68)
  points = found.pixels[0]
  rest = np.asarray(head.v_template)[np.asarray(head.landmarks68.vertices)]
  # s (x + tx) and -s (y + ty) on [-1, 1].
  wanted = (rest[:, 0, :2] + [0.01, 0.03]) * [6.0, -6.0]
  np.testing.assert_allclose(points, (wanted / 2 + 0.5) * SIZE, atol=1e-3)
  assert found.visible[0, 17:].all()  # all but the far ends of the jaw
  assert found.visible[0, 4:13].all()
  # From image left to image right, from top to bottom.
  for row in (range(17), range(17, 27), range(31, 36), range(48, 55)):
    assert (np.diff(points[list(row), 0]) > 0).all()
  assert (np.diff(points[27:31, 1]) > 0).all()
  assert points[36:42, 0].max() < points[42:48, 0].min()


def test_the_far_side_of_a_turned_head_is_hidden(find):
  left, right = (find(yaw).visible[0] for yaw in (1.2, -1.2))
  # Yaw towards the subject's left turns its right cheek to the camera.
  assert left[:7].all() and not left[10:17].any()
  assert right[10:17].all() and not right[:7].any()
  assert left[36:42].sum() > left[42:48].sum()
  assert right[42:48].sum() > right[36:42].sum()


def test_points_beside_the_picture_are_given_and_hidden(find):
  found = find(0.0, jnp.array([[6.0, 0.17, 0.03]]))
  outside = (found.pixels[0] > SIZE).any(-1)
  assert outside[42:48].all() and not found.visible[0, outside].any()
  assert found.visible[0, 36:40].all()


def test_flame_points_lie_on_their_triangles(rng):
  arrays = generated_arrays()
  faces = np.asarray(arrays["f"])
  ids = rng.integers(0, len(faces), 68)
  weights = rng.dirichlet(np.ones(3), 68).astype(np.float32)
  marks = model.Landmarks(
    jnp.asarray(faces[ids], jnp.int32), jnp.asarray(weights)
  )
  m = flame.from_arrays(arrays, 4, 3, landmarks68=marks)
  vertices = jnp.asarray(rng.normal(size=(2, *m.v_template.shape)), "float32")
  view = jnp.array([[0.4, 0.0, 0.1], [0.3, 0.1, 0.0]])
  size = 512
  found = picture_points.landmarks68(m, vertices, view, size)
  world = (np.asarray(vertices)[:, faces[ids]] * weights[..., None]).sum(2)
  flat = camera.project(jnp.asarray(world), view)
  np.testing.assert_allclose(
    found.pixels, (flat[..., :2] + 1) * size / 2, atol=1e-2
  )
  # A finely drawn picture hides the same points, but for those near an edge.
  screen = camera.to_pixels(camera.project(vertices, view), size, size)
  depth = np.asarray(rasterize.rasterize(screen, m.faces, size, size).depth)
  inside = np.asarray(picture_points.in_picture(found.pixels, size))
  at = np.clip(np.floor(found.pixels).astype(int), 0, size - 1)
  nearest = np.stack(
    [d[p[:, 1], p[:, 0]] for d, p in zip(depth, at, strict=True)]
  )
  drawn = inside & (flat[..., 2] <= nearest + 0.02)
  assert (drawn == np.asarray(found.visible)).mean() > 0.95
  assert found.visible.any() and not found.visible.all()


def test_a_model_without_landmarks_is_refused():
  m = flame.from_arrays(generated_arrays(), 4, 3)
  with pytest.raises(ValueError, match="model with 0 landmarks, wanted 68"):
    picture_points.landmarks68(m, m.v_template[None], CAMERA, SIZE)
