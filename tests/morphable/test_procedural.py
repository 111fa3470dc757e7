"""The procedural head: geometry, interface and landmarks."""

import numpy as np
import pytest

from faceedit_jax.morphable import distance_field as field
from faceedit_jax.morphable import head_grid, head_parts, head_template
from faceedit_jax.morphable.procedural import (
  joint_regressor,
  procedural_model,
  skinning_weights,
  template,
)
from faceedit_jax.morphable.procedural_albedo import template_texels


@pytest.fixture(scope="module")
def head():
  return template()


def test_extremes_are_those_of_an_adult_head(head):
  skin = head.vertices[head.kind == head_grid.SKIN]
  skin = skin[skin[:, 1] > -11]
  assert skin[:, 1].max() == pytest.approx(11.5, abs=0.1)
  assert skin[:, 2].min() == pytest.approx(-9.6, abs=0.3)
  tip = skin[skin[:, 2].argmax()]
  np.testing.assert_allclose(tip, [0, -4.0, 11.6], atol=0.15)


def test_skin_lies_on_the_distance_field(head):
  crown = head.grid[2:20].reshape(-1)
  distance = field.head_distance(head.vertices[crown])
  # Smoothing moves coarse rows inwards by their sagitta.
  assert np.abs(distance).max() < 0.2 and np.abs(distance).mean() < 0.06


def test_surface_is_consistently_oriented(head):
  """Each directed edge occurs once: neighbours agree on what is outside."""
  faces = head.faces[head.face_part == head_parts.SKIN].astype(np.int64)
  edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
  key = edges[:, 0] * len(head.vertices) + edges[:, 1]
  assert len(np.unique(key)) == len(key)
  normals = head_template.vertex_normals(head.vertices, head.faces)
  crown = head.grid[5:15].reshape(-1)
  assert ((normals[crown] * head.vertices[crown]).sum(1) > 0).all()


def test_mouth_bag_is_closed(head):
  """Edges of the mouth with one triangle are those of no hole at all."""
  faces = head.faces[head.face_kind >= head_grid.UPPER_LIP].astype(np.int64)
  edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
  edges = np.sort(edges, 1)
  _, index, count = np.unique(
    edges[:, 0] * len(head.vertices) + edges[:, 1],
    return_index=True,
    return_counts=True,
  )
  open_edges = edges[index[count == 1]]
  assert (head.kind[open_edges] == head_grid.SKIN).all()


def test_identity_and_expression_names(head):
  assert len(head.shape_names) == len(head.shape_dirs) == 40
  assert len(head.expression_names) == len(head.expression_dirs) == 16
  assert np.abs(head.shape_dirs).max((1, 2)).min() > 0.1
  assert np.abs(head.expression_dirs).max((1, 2)).min() > 0.2


def test_blink_closes_the_slit(head):
  blink = head.expression_dirs[head.expression_names.index("blink_L")]
  columns = head.eye_columns(1)[1:-1]
  top, bottom = head.grid[head.eye_row], head.grid[head.eye_row + 1]
  gap = head.vertices[top[columns], 1] - head.vertices[bottom[columns], 1]
  after = head.vertices + blink
  closed = after[top[columns], 1] - after[bottom[columns], 1]
  assert gap.max() > 1.0
  assert np.abs(closed).max() < 1e-6


def test_balls_stay_round_under_every_identity(head):
  for delta in head.shape_dirs:
    for ids in head.eye_ids:
      moved = head.vertices[ids] + 2 * delta[ids]
      radius = np.linalg.norm(moved - moved.mean(0), axis=1)
      assert np.ptp(radius) < 0.07


def test_regressor_gives_the_joints_and_weights_sum_to_one(head):
  joints = joint_regressor(head) @ head.vertices
  np.testing.assert_allclose(joints, head_template.JOINTS, atol=1e-9)
  weights = skinning_weights(head)
  np.testing.assert_allclose(weights.sum(1), 1)
  assert weights.min() >= 0


def test_texture_layout_has_no_overlap_and_stays_in_the_square(head):
  assert head.uv.min() >= 0 and head.uv.max() <= 1
  np.testing.assert_array_equal(head.uv_vertex[head.uv_faces], head.faces)
  tri = head.uv[head.uv_faces].astype(float)
  ab, ac = tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0]
  area = 0.5 * (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0])
  inside = template_texels("full", 256).inside.mean()
  # Were islands to overlap, the triangles would cover more than the texels.
  assert np.abs(area).sum() == pytest.approx(inside, abs=0.01)


def test_baked_positions_match_vertices(head):
  texels = template_texels("full", 256)
  baked = texels.bake(head.vertices, head.faces)
  column, row = 37, 30
  vertex = head.grid[row, column]
  u, v = head.uv[head.uv_vertex == vertex][0]
  got = baked[int((1 - v) * 256), int(u * 256)]
  np.testing.assert_allclose(got, head.vertices[vertex], atol=0.25)


def test_light_mesh_is_lighter_and_keeps_the_face(head):
  light = template("light")
  assert len(light.faces) < 0.86 * len(head.faces)
  slit = light.vertices[light.grid[light.eye_row, light.eye_columns(1)]]
  full = head.vertices[head.grid[head.eye_row, head.eye_columns(1)]]
  np.testing.assert_allclose(slit, full, atol=1e-9)
  with pytest.raises(ValueError, match="detail='coarse'"):
    template("coarse")


def test_landmarks_are_symmetric_and_in_order():
  model = procedural_model(texture_size=64)
  points = np.asarray(model.v_template)[
    np.asarray(model.landmarks68.vertices)[:, 0]
  ]
  pairs = ((0, 16), (4, 12), (17, 26), (21, 22), (31, 35), (36, 45), (48, 54))
  for left, right in pairs:
    assert points[left, 0] < 0 < points[right, 0]
    np.testing.assert_allclose(
      points[left] * [-1, 1, 1], points[right], atol=3e-3
    )
  assert points[8, 1] < points[57, 1] < points[51, 1] < points[33, 1]
