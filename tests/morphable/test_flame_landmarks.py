"""FLAME's landmarks: contour by yaw, embedding, joint poses."""

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.morphable import flame, flame_landmarks, model
from tests.morphable.test_model import generated_arrays


def fields(rng, n_faces):
  points = {"static": (51,), "dynamic": (79, 17), "full": (68,)}
  out = {}
  for name, shape in points.items():
    out[f"{name}_lmk_faces_idx"] = rng.integers(0, n_faces, shape)
    weights = rng.dirichlet(np.ones(3), shape).astype(np.float32)
    out[f"{name}_lmk_bary_coords"] = weights
  return out


@pytest.mark.parametrize(
  "degrees, row",
  [(0, 0), (12.6, 13), (39, 39), (80, 39), (-1, 40), (-39, 78), (-80, 78)],
)
def test_contour_rows(degrees, row):
  angle = np.deg2rad(degrees)
  # Root and neck turn the head together.
  pose = jnp.zeros((2, 15)).at[0, 1].set(angle)
  pose = pose.at[1, 1].set(0.25 * angle).at[1, 4].set(0.75 * angle)
  got = flame_landmarks.contour_row(pose)
  np.testing.assert_array_equal(got, row)


def test_landmarks_of_a_picture(rng):
  arrays = generated_arrays()
  given = fields(rng, len(arrays["f"]))
  points = flame_landmarks.embedding(arrays["f"], given)
  m = flame.from_arrays(arrays, 4, 3, landmarks68=points.full)
  pose = flame.joint_pose(jnp.array([[0.1, 0.4, 0.0, 0.2, 0.0, 0.0]] * 2))
  pose = pose.at[1, 1].set(-0.4)
  posed, _ = model.skin(
    m, jnp.asarray(rng.normal(size=(2, 7)), "float32"), pose
  )
  got = flame_landmarks.landmarks2d(points, m.faces, posed, pose)
  corners = np.asarray(posed)[:, np.asarray(m.faces)]
  for k, row in enumerate(flame_landmarks.contour_row(pose)):
    for part, at in (("static", np.s_[17:]), ("dynamic", np.s_[:17])):
      index = given[f"{part}_lmk_faces_idx"]
      weights = given[f"{part}_lmk_bary_coords"]
      if part == "dynamic":
        index, weights = index[row], weights[row]
      wanted = (corners[k, index] * weights[..., None]).sum(1)
      np.testing.assert_allclose(got[k, at], wanted, atol=1e-6)
  frontal = model.landmarks(points.frontal, posed)
  full = model.landmarks(points.full, posed)
  np.testing.assert_allclose(frontal[:, :17], full[:, :17], atol=1e-6)
  np.testing.assert_allclose(frontal[:, 17:], got[:, 17:], atol=1e-6)


def test_missing_fields(rng):
  given = fields(rng, 3)
  del given["static_lmk_faces_idx"]
  with pytest.raises(ValueError, match=r"lacks \['static_lmk_faces_idx'\]"):
    flame_landmarks.embedding(np.zeros((3, 3), int), given)


def test_joint_pose_order():
  pose, neck, eyes = jnp.arange(6.0), jnp.arange(6.0, 9), jnp.arange(9.0, 15)
  got = flame.joint_pose(pose[None], neck[None], eyes[None])[0]
  wanted = [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11, 12, 13, 14]
  np.testing.assert_array_equal(got, wanted)
  rest = flame.joint_pose(pose[None])[0]
  np.testing.assert_array_equal(rest[3:6], 0)
  np.testing.assert_array_equal(rest[9:], 0)


def test_five_points_are_those_of_the_picture(rng, tmp_path):
  """A file with all fields gives the face centre by its 51 points."""
  arrays = generated_arrays()
  np.savez(tmp_path / "marks.npz", **(given := fields(rng, len(arrays["f"]))))
  np.savez(tmp_path / "model.npz", **arrays)
  options = {"n_shape": 3, "n_expression": 2}
  m = flame.load_flame(
    tmp_path / "model.npz", landmark_path=tmp_path / "marks.npz", **options
  )
  points = flame_landmarks.embedding(arrays["f"], given)
  static = model.landmarks(points.static, m.v_template[None])[0]
  five = model.landmarks(m.landmarks5, m.v_template[None])[0]
  np.testing.assert_allclose(five[0], static[19:25].mean(0), atol=1e-6)
  np.testing.assert_allclose(five[3], static[31], atol=1e-6)
