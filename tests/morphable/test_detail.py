"""Displacement in texture space: normals, rendering, files."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from faceedit_jax.morphable import detail, flame, mesh, render, shading

SIZE = 32  # of the texture


def sheet_arrays(n=9):
  """A flat sheet in z = 0 of n x n points, its layout the unit square."""
  y, x = np.mgrid[0 : 1 : n * 1j, 0 : 1 : n * 1j]
  points = np.stack([x - 0.5, 0.5 - y, 0 * x], -1).reshape(-1, 3) * 0.2
  uv = np.stack([x, 1 - y], -1).reshape(-1, 2)
  faces = mesh.grid_faces(n, n, 0, 0)
  count = len(points)
  return {
    "v_template": points,
    "shapedirs": np.zeros((count, 3, 301)),
    "posedirs": np.zeros((count, 3, 36)),
    "J_regressor": np.full((5, count), 1 / count),
    "weights": np.eye(5)[np.zeros(count, int)],
    "kintree_table": np.array([[-1, 0, 1, 1, 1], range(5)]),
    "f": faces,
  }, uv


@pytest.fixture(scope="module")
def sheet():
  arrays, uv = sheet_arrays()
  grey = np.full((SIZE, SIZE, 3), 0.5), np.zeros((0, SIZE, SIZE, 3))
  return flame.from_arrays(
    arrays, 1, 1, uv=uv, uv_faces=arrays["f"], albedo=grey
  )


def space_of(sheet, mask=None, fixed=None, **options):
  ones = np.ones((SIZE, SIZE))
  mask = ones if mask is None else mask
  fixed = 0 * ones if fixed is None else fixed
  return detail.detail_space(sheet, mask, fixed, **options)


def ramp(step):
  """Displacement (1, t, t, 1) that rises by `step` per texel to the right."""
  row = jnp.arange(SIZE) * step
  return jnp.broadcast_to(row[None, None, :, None], (1, SIZE, SIZE, 1))


def inner(x):
  """Texels inside the margins of the dense mesh."""
  return np.asarray(x)[..., 6:-6, 4:-4, :]


def test_unwrapped_points_lie_at_their_texels(sheet):
  got = detail.unwrap(space_of(sheet), sheet.faces, sheet.v_template[None])[0]
  centres = (np.arange(SIZE) + 0.5) / SIZE
  x = np.broadcast_to((centres - 0.5) * 0.2, (SIZE, SIZE))
  np.testing.assert_allclose(got[..., 0], x, atol=1e-6)
  np.testing.assert_allclose(got[..., 1], -x.T, atol=1e-6)


def test_normals_of_a_slope(sheet):
  texel, step = 0.2 / SIZE, 0.003
  wanted = np.array([-step, 0, texel]) / np.hypot(step, texel)
  points = sheet.v_template[None]
  normals = lambda **k: detail.detail_normals(  # noqa: E731
    space_of(sheet, **k), sheet.faces, points, ramp(step)
  )
  np.testing.assert_allclose(
    inner(normals()), np.broadcast_to(wanted, inner(normals()).shape), atol=1e-4
  )
  # The fixed displacement counts in full, whatever the mask.
  zero = np.zeros((SIZE, SIZE))
  fixed = np.asarray(ramp(step))[0, ..., 0]
  got = normals(mask=zero, fixed=fixed, blend=False)
  np.testing.assert_allclose(inner(got), inner(normals()), atol=1e-4)
  # Where the mask is 0, the blend keeps the smooth normal.
  got = normals(mask=zero, fixed=fixed)
  np.testing.assert_allclose(inner(got)[..., 2], 1, atol=1e-5)
  half = inner(normals(mask=zero + 0.5))
  slope = np.array([-step / 2, 0, texel]) / np.hypot(step / 2, texel)
  mean = (slope + [0, 0, 1]) / 2
  np.testing.assert_allclose(half, np.broadcast_to(mean, half.shape), atol=1e-4)


def codes_of(sheet, light):
  codes = {k: jnp.zeros((1, *s)) for k, s in sheet.code_sizes.items()}
  return codes | {
    "camera": jnp.array([[8.0, 0.0, 0.0]]),
    "light": jnp.asarray(light, jnp.float32)[None],
  }


def test_condition_is_lit_by_the_detail(sheet):
  """Light from the right leaves a sheet dark until it slopes towards it."""
  light = shading.directional_light((1.0, 0.0, 0.0), np.full(3, 1.0))
  codes = codes_of(sheet, light)
  draw = jax.jit(render.render_condition, static_argnames=("size", "tone_map"))
  options = dict(size=24, tone_map=False, detail=space_of(sheet))
  step, texel = -0.003, 0.2 / SIZE
  flat = draw(sheet, codes, displacement=ramp(0.0), **options)["image"]
  plain = draw(sheet, codes, size=24, tone_map=False)["image"]
  centre = np.s_[0, 9:15, 9:15]
  np.testing.assert_allclose(flat[centre], plain[centre], atol=1e-5)
  sloped = draw(sheet, codes, displacement=ramp(step), **options)["image"]
  normal = jnp.array([-step, 0, texel]) / np.hypot(step, texel)
  shade = shading.shade(normal, codes["light"][0])
  np.testing.assert_allclose(
    sloped[centre], np.broadcast_to(2 * 0.5 * shade - 1, (6, 6, 3)), atol=1e-4
  )
  assert (np.asarray(sloped[centre]) > flat[centre] + 0.2).all()
  # What is no face stays black, and the tone curve is that of the mesh.
  assert (np.asarray(sloped)[0, 0] == -1).all()
  toned = draw(
    sheet, codes, size=24, detail=options["detail"], displacement=ramp(0.0)
  )["image"]
  wanted = draw(sheet, codes, size=24)["image"]
  np.testing.assert_allclose(toned[centre], wanted[centre], atol=1e-5)


def test_albedo_of_another_size_is_resized(sheet):
  small = sheet.replace(
    albedo_mean=jnp.full((8, 8, 3), 0.5), albedo_basis=jnp.zeros((0, 8, 8, 3))
  )
  light = shading.ambient_light([0.5] * 3, [0.5] * 3)
  options = dict(
    size=16, tone_map=False, detail=space_of(sheet), displacement=ramp(0.001)
  )
  codes = codes_of(sheet, light)
  draw = jax.jit(render.render_condition, static_argnames=("size", "tone_map"))
  image = draw(small, codes, **options)["image"]
  np.testing.assert_allclose(image[0, 6:10, 6:10], -0.5, atol=1e-5)


def test_detail_needs_both(sheet):
  codes = codes_of(sheet, np.zeros((9, 3)))
  with pytest.raises(ValueError, match="got displacement alone"):
    render.render_condition(sheet, codes, 16, displacement=ramp(0.0))
  with pytest.raises(ValueError, match="got detail alone"):
    render.render_condition(sheet, codes, 16, detail=space_of(sheet))


def test_files(sheet, tmp_path):
  mask = np.zeros((2 * SIZE, 2 * SIZE, 3), np.uint8)
  mask[: SIZE // 2, :, 0] = 255
  mask[..., 1] = 77  # only red counts
  fixed = np.linspace(-1e-3, 1e-3, SIZE * SIZE).reshape(SIZE, SIZE)
  PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
  np.save(tmp_path / "fixed.npy", fixed)
  paths = tmp_path / "mask.png", tmp_path / "fixed.npy"
  got = detail.load_detail_space(sheet, *paths)
  assert got.mask.shape == (SIZE, SIZE) and got.blend
  np.testing.assert_array_equal(got.mask[: SIZE // 4], 1)
  np.testing.assert_array_equal(got.mask[SIZE // 4 :], 0)
  np.testing.assert_allclose(got.fixed, fixed, atol=1e-9)
  with pytest.raises(ValueError, match="none.npy"):
    detail.load_detail_space(sheet, paths[0], tmp_path / "none.npy")
  (tmp_path / "text.png").write_text("no picture")
  with pytest.raises(ValueError, match="text.png"):
    detail.load_detail_space(sheet, tmp_path / "text.png", paths[1])
  np.save(tmp_path / "flat.npy", np.zeros(5))
  with pytest.raises(ValueError, match=r"flat.npy holds \(5,\)"):
    detail.load_detail_space(sheet, paths[0], tmp_path / "flat.npy")


def test_layouts_that_do_not_fit(sheet):
  with pytest.raises(ValueError, match=r"mask \(4, 4\).*\(4, 5\)"):
    detail.detail_space(sheet, np.zeros((4, 4)), np.zeros((4, 5)))
  bare = flame.from_arrays(sheet_arrays()[0], 1, 1)
  with pytest.raises(ValueError, match="with its texture layout"):
    detail.detail_space(bare, np.zeros((4, 4)), np.zeros((4, 4)))
