"""Condition rendering, texture look-up and camera."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.morphable import camera as cameras
from faceedit_jax.morphable import model, render, rotations, shading
from faceedit_jax.morphable.procedural import procedural_model

SIZE = 48


@pytest.fixture(scope="module")
def head():
  return procedural_model("light", texture_size=64)


@pytest.fixture(scope="module")
def draw():
  return jax.jit(render.render_condition, static_argnames="size")


def codes_of(head, **changes):
  codes = {k: np.zeros((2, *s), np.float32) for k, s in head.code_sizes.items()}
  light = shading.directional_light((0.3, 0.4, 1.0), np.full(3, 0.8))
  light = light + shading.ambient_light(np.full(3, 0.3), np.full(3, 0.2))
  codes["light"][:] = light
  codes["camera"][:] = (2 / 0.32, 0.0, 0.03)
  codes |= changes
  return {k: jnp.asarray(v, jnp.float32) for k, v in codes.items()}


def test_head_on_black(head, draw):
  out = draw(head, codes_of(head), size=SIZE)
  image, mask = np.asarray(out["image"]), np.asarray(out["mask"])
  assert image.shape == (2, SIZE, SIZE, 3) and np.isfinite(image).all()
  assert image.min() == -1 and image.max() <= 1
  assert (image[mask == 0] == -1).all()
  assert (image[mask > 0].max(-1) > -1).all()
  assert 0.2 < mask.mean() < 0.6
  # Skin: more red than blue, and the mouth lies below the eyes.
  face = image[0, SIZE // 3, SIZE // 2]
  assert face[0] > face[1] > face[2]


def test_light_from_the_subjects_left_brightens_the_image_right(head, draw):
  lamp = np.zeros((2, 9, 3), np.float32)
  lamp[0] = shading.directional_light((1, 0, 0.3), np.full(3, 0.9))
  lamp[1] = shading.directional_light((-1, 0, 0.3), np.full(3, 0.9))
  image = np.asarray(draw(head, codes_of(head, light=lamp), size=SIZE)["image"])
  half = SIZE // 2
  assert image[0, :, half:].mean() > image[0, :, :half].mean() + 0.02
  assert image[1, :, half:].mean() < image[1, :, :half].mean() - 0.02


def test_melanin_darkens_and_normals_face_the_camera(head, draw):
  code = np.array([[0.0, 0.0], [2.0, 0.0]])
  out = draw(head, codes_of(head, albedo=code), size=SIZE)
  image, mask = np.asarray(out["image"]), np.asarray(out["mask"]) > 0
  assert image[1][mask[1]].mean() < image[0][mask[0]].mean() - 0.1
  depth = np.asarray(out["normals"])[..., 2]
  assert (depth[mask] > -0.2).mean() > 0.98


def test_recentring_keeps_the_face_in_place(head):
  pose = np.zeros((2, 6))
  pose[:, :3] = [[0.3, 0.6, 0.1], [-0.2, -0.5, 0.0]]
  source, edited = codes_of(head), codes_of(head, pose=pose)
  plain = render.pose_codes(head, edited)
  centred = render.pose_codes(head, edited, source)
  base = render.pose_codes(head, source)
  centre = lambda v: cameras.face_centre(head.landmarks5, v)  # noqa: E731
  np.testing.assert_allclose(centre(centred), centre(base), atol=1e-6)
  assert jnp.abs(centre(plain) - centre(base)).max() > 0.01
  with pytest.raises(ValueError, match="lack.*'gaze'"):
    render.pose_codes(head, {k: v for k, v in source.items() if k != "gaze"})


def test_five_landmarks_project_in_picture_order(head):
  codes = codes_of(head)
  points = render.pose_codes(head, codes)
  five = model.landmarks(head.landmarks5, points)
  unit = cameras.to_unit(cameras.project(five, codes["camera"]))[0]
  assert unit[0, 0] < unit[2, 0] < unit[1, 0]
  assert unit[3, 0] < unit[2, 0] < unit[4, 0]
  assert unit[0, 1] < unit[2, 1] < unit[3, 1]
  assert unit[2, 0] == pytest.approx(0.5, abs=1e-3)


def test_eg3d_camera_of_the_frontal_head():
  frontal = cameras.eg3d_camera(jnp.eye(3)[None])[0]
  wanted = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1]
  np.testing.assert_allclose(frontal[:16], wanted, atol=1e-6)
  np.testing.assert_allclose(
    frontal[16:], [4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1], rtol=1e-6
  )
  # A head turned to its left shows its right side: the camera moves to -x.
  turned = rotations.rotation_matrix(jnp.array([[0.0, 0.5, 0.0]]))
  assert cameras.eg3d_camera(turned)[0, 3] < -1


def test_texture_lookup_is_bilinear_with_zeros_outside():
  texture = jnp.arange(16.0).reshape(4, 4, 1)
  uv = jnp.array([[[0.125, 0.875], [0.25, 0.875], [0.5, 0.5], [1.5, 0.5]]])
  got = render.sample_texture(texture, uv)[0, :, 0]
  np.testing.assert_allclose(got, [0.0, 0.5, 7.5, 0.0], atol=1e-6)


def test_buffers_and_shape_overlay(head, draw):
  codes = codes_of(head, pose=np.tile([0, 0.5, 0, 0, 0, 0], (2, 1)))
  points = render.pose_codes(head, codes)
  texture = model.albedo(head, codes["albedo"])

  @jax.jit
  def run(points, texture):
    found = render.render_buffers(head, points, codes["camera"], texture, SIZE)
    picture = jnp.full((2, SIZE, SIZE, 3), 0.25)
    one = jnp.array([[0.0, 0.0, 2.0, 1.0, 0.5, 0.0]])
    return found, render.shape_overlay(found, picture, lamps=one)

  found, image = jax.tree.map(np.asarray, run(points, texture))
  mask = found["mask"] > 0
  # Positions project to their pixels.
  y, x = np.mgrid[:SIZE, :SIZE] + 0.5
  where = cameras.project(
    jnp.asarray(found["positions"][0][mask[0]])[None], codes["camera"][:1]
  )
  where = cameras.to_pixels(where, SIZE, SIZE)[0]
  np.testing.assert_allclose(where[:, 0], x[mask[0]], atol=0.02)
  np.testing.assert_allclose(where[:, 1], y[mask[0]], atol=0.02)
  # The camera keeps angles: facing it is the normal's own z.
  np.testing.assert_allclose(
    found["facing"], found["normals"][..., 2], atol=1e-4
  )
  assert (found["uv"][mask] >= 0).all() and (found["uv"][mask] <= 1).all()
  front = mask & (found["facing"] > 0)
  shade = found["normals"][front][:, 2:].clip(0, 1)
  wanted = 2 * 180 / 255 * shade * [1.0, 0.5, 0.0] - 1
  np.testing.assert_allclose(image[front], wanted, atol=1e-5)
  np.testing.assert_array_equal(image[~mask], 0.25)


def test_shape_overlay_leaves_out_what_faces_away():
  normals = jnp.array([[[[0.0, 0, 1], [0, 0, -0.1], [0, 0, -0.2]]]])
  buffers = {
    "mask": jnp.ones((1, 1, 3)),
    "facing": normals[..., 2],
    "normals": normals,
  }
  got = render.shape_overlay(buffers)[0, 0, :, 0]
  # Five lamps from the front, four of them at 1 / sqrt(3).
  first = 2 * 180 / 255 * 1.7 * (1 + 4 / np.sqrt(3)) / 5 - 1
  np.testing.assert_allclose(got, [first, -1, -1], atol=1e-5)
  beside = jnp.zeros((1, 1, 3, 3))
  got = render.shape_overlay(buffers, beside, normals[:, :, ::-1])[0, 0, :, 0]
  np.testing.assert_allclose(got, [-1, -1, 0], atol=1e-5)
