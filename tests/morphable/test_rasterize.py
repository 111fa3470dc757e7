"""The tile-pair rasteriser against brute force and PyTorch3D."""

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.morphable.rasterize import (
  interpolate,
  rasterize,
  rasterize_brute_force,
)


def soup(seed, count, size, low=-10, high=60):
  """Random overlapping triangles, some off the screen."""
  rng = np.random.default_rng(seed)
  centre = rng.uniform(low, high, (count, 1, 3))
  corners = centre + rng.normal(size=(count, 3, 3)) * size
  faces = np.arange(3 * count).reshape(-1, 3)
  return (
    jnp.asarray(corners.reshape(-1, 3), jnp.float32),
    jnp.asarray(faces, jnp.int32),
  )


@pytest.mark.parametrize("tile", [4, 8])
def test_ids_equal_brute_force(tile):
  # One shape for all sizes of triangle, so that one program serves them all.
  for seed, size in enumerate((30, 6, 1.5, 200)):
    xyz, faces = soup(seed, 200, size)
    got = rasterize(xyz, faces, 37, 51, capacity=64, tile=tile)
    wanted = rasterize_brute_force(xyz, faces, 37, 51)
    np.testing.assert_array_equal(got.ids, wanted.ids)
    assert (got.ids >= 0).any()
    np.testing.assert_allclose(got.barycentrics, wanted.barycentrics, atol=5e-5)


def test_result_does_not_depend_on_the_round_size():
  xyz, faces = soup(3, 200, 8)
  many = rasterize(xyz, faces, 37, 51, capacity=64, tile=8)
  one = rasterize(xyz, faces, 37, 51, capacity=8192, tile=8)
  assert int(many.pairs) == int(one.pairs) > 64
  np.testing.assert_array_equal(many.ids, one.ids)


def test_equal_depths_go_to_the_lowest_number():
  xyz, faces = soup(5, 1, 30, 20, 30)
  faces = jnp.concatenate([faces] * 5)
  got = rasterize(xyz, faces, 40, 40, capacity=8)
  assert set(np.unique(got.ids)) == {-1, 0}


def test_batches_agree():
  xyz, faces = soup(7, 120, 8)
  batch = jnp.stack([xyz, xyz + 3.0])
  kwargs = dict(height=32, width=32, capacity=128)
  mapped = rasterize(batch, faces, batching="map", **kwargs)
  vmapped = rasterize(batch, faces, batching="vmap", **kwargs)
  np.testing.assert_array_equal(mapped.ids, vmapped.ids)
  np.testing.assert_array_equal(mapped.pairs, vmapped.pairs)
  alone = rasterize(batch[1], faces, **kwargs)
  np.testing.assert_array_equal(mapped.ids[1], alone.ids)


def test_shared_edges_leave_no_pinholes():
  """A fan of thin triangles covers its square completely."""
  angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
  ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1) * 60
  xyz = np.concatenate([[[0, 0, 0]], ring]) + [20.3, 19.7, 1]
  ids = np.arange(90)
  faces = np.stack([0 * ids, 1 + ids, 1 + (ids + 1) % 90], -1)
  got = rasterize(
    jnp.asarray(xyz, jnp.float32), jnp.asarray(faces, jnp.int32), 40, 40
  )
  assert (got.ids >= 0).all()


def test_triangles_that_miss_every_pixel_make_no_pairs():
  xyz, _ = soup(0, 1, 1)
  xyz = jnp.array(
    [[3.6, 3.6, 0], [4.4, 3.6, 0], [3.6, 4.4, 0]]  # between four centres
    + [[5.5, 5.5, 0], [6.5, 6.5, 0], [7.5, 7.5, 0]]  # no area
    + [[jnp.nan, 1, 0], [9, 1, 0], [1, 9, 0]],
    jnp.float32,
  )
  faces = jnp.arange(9).reshape(3, 3)
  got = rasterize(xyz, faces, 16, 16)
  assert int(got.pairs) == 0
  assert (got.ids == -1).all()


def test_culling_keeps_triangles_that_face_the_camera():
  # Counter-clockwise with y up; the screen's y points down.
  xyz = jnp.array([[2, 14, 0], [14, 14, 0], [2, 2, 0]], jnp.float32)
  front = jnp.array([[0, 1, 2]])
  assert (rasterize(xyz, front, 16, 16, cull=True).ids == 0).any()
  back = front[:, ::-1]
  assert not (rasterize(xyz, back, 16, 16, cull=True).ids == 0).any()
  assert (rasterize(xyz, back, 16, 16).ids == 0).any()


def test_interpolation_reproduces_linear_fields():
  xyz, faces = soup(11, 60, 12)
  got = rasterize(xyz, faces, 33, 47)
  values = interpolate(xyz, faces, got.ids, got.barycentrics)
  hit = np.asarray(got.ids) >= 0
  y, x = np.mgrid[:33, :47] + 0.5
  np.testing.assert_allclose(values[..., 0][hit], x[hit], atol=5e-3)
  np.testing.assert_allclose(values[..., 1][hit], y[hit], atol=5e-3)
  assert (np.asarray(values)[~hit] == 0).all()


def test_bad_arguments():
  xyz, faces = soup(0, 2, 4)
  with pytest.raises(ValueError, match="batching='both'"):
    rasterize(xyz, faces, 8, 8, batching="both")
  with pytest.raises(ValueError, match=r"wanted \(v, 3\)"):
    rasterize(xyz[:, :2], faces, 8, 8)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["tri", "mesh"])
def test_ids_match_pytorch3d(shared, name):
  data = np.load(shared / "fixtures" / "deca__rasterizer_raw.npz")
  if name == "tri":
    corners = data["in/tri"].reshape(-1, 3)
    faces = np.arange(len(corners)).reshape(-1, 3)
  else:
    corners, faces = data["in/mesh_v"], data["in/mesh_f"]
  screen = corners * [20, 20, 1] + [20, 20, 0]
  got = rasterize(
    jnp.asarray(screen, jnp.float32), jnp.asarray(faces, jnp.int32), 40, 40
  )
  wanted = data[f"out/p3d_{name}/pix_to_face"][0, ..., 0]
  robust = data[f"out/std_{name}/robust"][0]
  assert robust.mean() > 0.5
  np.testing.assert_array_equal(np.asarray(got.ids)[robust], wanted[robust])
  np.testing.assert_allclose(
    np.asarray(got.barycentrics)[robust & (wanted >= 0)],
    data[f"out/p3d_{name}/bary"][0, ..., 0, :][robust & (wanted >= 0)],
    atol=1e-4,
  )
