"""Skinning, landmarks and albedo against the official FLAME code."""

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.morphable import flame, model, rotations
from faceedit_jax.morphable.procedural import procedural_model


@pytest.fixture(scope="module")
def head():
  return procedural_model(texture_size=64)


def zeros(head, batch=2):
  return {k: jnp.zeros((batch, *s)) for k, s in head.code_sizes.items()}


def posed(head, **changes):
  codes = zeros(head) | changes
  names = ("shape", "expression", "pose", "gaze")
  return model.vertices(head, *(codes[n] for n in names))


def test_zero_codes_give_the_template(head):
  points, joints = posed(head)
  np.testing.assert_allclose(points[0], head.v_template, atol=1e-6)
  np.testing.assert_allclose(joints[1, 1], [0, -0.125, -0.02], atol=1e-6)


def test_head_turns_about_the_neck_and_the_bust_stays(head):
  pose = jnp.zeros((2, 6)).at[:, 1].set(0.5)
  points, _ = posed(head, pose=pose)
  still = np.asarray(head.v_template)
  crown, base = still[:, 1].argmax(), still[:, 1].argmin()
  moved = np.linalg.norm(np.asarray(points[0]) - still, axis=1)
  nose = still[:, 2].argmax()
  assert moved[nose] > 0.05 > moved[base]
  # Yaw towards +x: the nose goes to the subject's left.
  assert points[0, nose, 0] > 0.04
  rotation = model.head_rotation(head, pose)
  expected = rotations.rotation_matrix(pose[:, :3])
  np.testing.assert_allclose(rotation, expected, atol=1e-6)
  assert moved[crown] < 0.08


def test_jaw_opens_downwards_and_leaves_the_brow(head):
  points, _ = posed(head, pose=jnp.zeros((2, 6)).at[:, 3].set(0.25))
  five = model.landmarks(head.landmarks68, points)[0]
  rest = model.landmarks(head.landmarks68, head.v_template[None])[0]
  assert rest[57, 1] - five[57, 1] > 0.01
  np.testing.assert_allclose(five[17:27], rest[17:27], atol=1e-4)


def test_gaze_turns_the_balls_alone(head):
  points, _ = posed(head, gaze=jnp.array([[0.0, 0.3]] * 2))
  change = jnp.linalg.norm(points[0] - head.v_template, axis=1)
  ball = np.asarray(head.weights)[:, 3:].sum(1) > 0.5
  assert change[ball].max() > 3e-3
  assert change[~ball].max() < 1e-4


def test_lids_never_sink_into_the_balls(head):
  rng = np.random.default_rng(0)
  shape = jnp.asarray(rng.normal(size=(2, 40)), jnp.float32)
  points, joints = posed(head, shape=shape, expression=jnp.ones((2, 16)) * 0.3)
  for eye in (0, 1):
    centre = joints[:, 3 + eye, None]
    ball = points[:, head.ball_vertices[eye], None]
    radius = jnp.linalg.norm(ball - centre, axis=-1)
    lids = points[:, head.lid_vertices[eye]]
    distance = jnp.linalg.norm(lids - centre, axis=-1)
    assert (distance >= radius + 0.9 * head.lid_clearance).all()


def test_wrong_code_size_is_one_clear_line(head):
  with pytest.raises(ValueError, match=r"\(39, 16\).*wants \(40, 16\)"):
    posed(head, shape=jnp.zeros((2, 39)))


def test_visible_effect_is_the_rms_of_what_a_coefficient_moves(head):
  effect = model.visible_effect(head)
  assert effect["albedo"].shape == (head.n_albedo,)
  # Neither moves a lid much: skinning adds next to nothing of its own.
  for name, at in (("shape", 4), ("expression", 0)):
    code = zeros(head)[name].at[:, at].set(1.0)
    points, _ = posed(head, **{name: code})
    moved = points[0] - posed(head)[0][0]
    rms = jnp.sqrt(jnp.square(moved).mean())
    np.testing.assert_allclose(effect[name][at], rms, rtol=2e-2)


def test_with_albedo_checks_shapes_and_log(head):
  mean, basis = jnp.zeros((8, 8, 3)), jnp.ones((3, 8, 8, 3))
  changed = model.with_albedo(head, mean, basis, log=True)
  texture = model.albedo(changed, jnp.array([[0.5, 0.25, 0.25]]))
  np.testing.assert_allclose(texture, np.e, rtol=1e-5)
  with pytest.raises(ValueError, match="do not match"):
    model.with_albedo(head, mean, jnp.ones((3, 4, 4, 3)))


def reference_skin(m, coefficients, joint_pose):
  """Textbook skinning with 4 x 4 matrices in float64, one picture."""
  f = lambda a: np.asarray(a, np.float64)  # noqa: E731
  shaped = f(m.v_template) + f(m.shapedirs) @ f(coefficients)
  joints = f(m.j_regressor) @ shaped
  transforms, bends = [], []
  for j, aa in enumerate(f(joint_pose).reshape(5, 3)):
    angle = np.linalg.norm(aa + 1e-8)
    k = np.cross(np.eye(3), aa / angle)
    turn = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    local = np.eye(4)
    local[:3, :3] = turn
    parent = m.parents[j]
    local[:3, 3] = joints[j] - (joints[parent] if j else 0)
    transforms.append(transforms[parent] @ local if j else local)
    if j:
      bends.append((turn - np.eye(3)).reshape(-1))
  shaped = shaped + (np.concatenate(bends) @ f(m.posedirs)).reshape(-1, 3)
  out = np.zeros_like(shaped)
  for j, t in enumerate(transforms):
    moved = (shaped - joints[j]) @ t[:3, :3].T + t[:3, 3]
    out += f(m.weights)[:, j : j + 1] * moved
  return out


def generated_arrays(seed=0, count=40):
  rng = np.random.default_rng(seed)
  weights = rng.uniform(size=(count, 5))
  regressor = rng.uniform(size=(5, count))
  return {
    "v_template": rng.normal(size=(count, 3)) * 0.1,
    "shapedirs": rng.normal(size=(count, 3, 320)) * 0.01,
    "posedirs": rng.normal(size=(count, 3, 36)) * 0.01,
    "J_regressor": regressor / regressor.sum(1, keepdims=True),
    "weights": weights / weights.sum(1, keepdims=True),
    "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)]),
    "f": rng.integers(0, count, (60, 3)).astype(np.uint32),
  }


def test_skinning_matches_a_textbook_version():
  m = flame.from_arrays(generated_arrays(), n_shape=12, n_expression=7)
  rng = np.random.default_rng(1)
  code = rng.normal(size=(2, 19)).astype(np.float32)
  joint_pose = rng.normal(size=(2, 15)).astype(np.float32)
  points, _ = model.skin(m, jnp.asarray(code), jnp.asarray(joint_pose))
  for k in range(2):
    wanted = reference_skin(m, code[k], joint_pose[k])
    np.testing.assert_allclose(points[k], wanted, atol=2e-6)
