"""The tile-pair rasteriser against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.morphable.rasterize import (
  edge_distance,
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


@pytest.mark.parametrize(
  "tile, rule", [(4, "inclusive"), (8, "inclusive"), (8, "strict")]
)
def test_ids_equal_brute_force(tile, rule):
  # One shape for all sizes of triangle, so that one program serves them all.
  for seed, size in enumerate((30, 6, 1.5, 200)):
    xyz, faces = soup(seed, 200, size)
    got = rasterize(xyz, faces, 37, 51, capacity=64, tile=tile, rule=rule)
    wanted = rasterize_brute_force(xyz, faces, 37, 51, rule)
    np.testing.assert_array_equal(got.ids, wanted.ids)
    assert (got.ids >= 0).any()
    np.testing.assert_allclose(got.barycentrics, wanted.barycentrics, atol=5e-5)
    hit = np.asarray(got.ids) >= 0
    np.testing.assert_array_equal(np.isfinite(got.depth), hit)
    # Of a sliver depth is steep: the two programs round it apart.
    np.testing.assert_allclose(got.depth[hit], wanted.depth[hit], atol=5e-2)


# A square of two triangles whose borders lie on pixel centres, then one
# triangle without area, nearest.
SQUARE = [[2.5, 2.5, 5], [10.5, 2.5, 5], [10.5, 10.5, 5], [2.5, 10.5, 5]]
FACES = jnp.array([[0, 1, 2], [0, 2, 3], [4, 5, 5]])


@pytest.mark.parametrize("rule", ["inclusive", "strict", "standard"])
def test_rules_differ_on_borders_and_without_area(rule):
  xyz = jnp.array([*SQUARE, [3.5, 4.5, 1], [5.5, 5.5, 2]], jnp.float32)
  got = np.asarray(rasterize(xyz, FACES, 12, 12, rule=rule).ids)
  covered = np.zeros((12, 12), bool)
  if rule == "strict":
    covered[3:10, 3:10] = ~np.eye(7, dtype=bool)  # the diagonal is a border
  else:
    covered[2:11, 2:11] = True
  if rule == "standard":
    # Open across from the first corner: the right and the lower border.
    covered[:, 10] = covered[10] = False
    np.testing.assert_array_equal(got[4:6, 3:6], 2)
    assert (got == 2).sum() == 6
  np.testing.assert_array_equal(got >= 0, covered)


def test_standard_depth_is_in_perspective():
  xyz = jnp.array([[-4, -4, 2], [20, -4, 8], [-4, 20, 4]], jnp.float32)
  faces = jnp.arange(3)[None]
  for rule in ("strict", "standard"):
    got = rasterize(xyz, faces, 8, 8, rule=rule)
    z = np.array([2.0, 8.0, 4.0])
    weights = np.asarray(got.barycentrics, np.float64)
    wanted = weights @ z if rule == "strict" else 1 / (weights @ (1 / z))
    np.testing.assert_allclose(got.depth, wanted, rtol=1e-5)


def test_layers_are_the_triangles_by_depth():
  xyz, faces = soup(2, 60, 25)
  count = 4
  got = rasterize(xyz, faces, 24, 32, capacity=64, layers=count)
  assert got.ids.shape == (24, 32, count)
  assert got.barycentrics.shape == (24, 32, count, 3)
  # Each triangle alone says where it is and how deep.
  one = lambda face: rasterize_brute_force(xyz, face[None], 24, 32).depth  # noqa: E731
  depth = np.moveaxis(jax.jit(jax.vmap(one))(faces), 0, -1)
  order = np.argsort(depth, -1, kind="stable")[..., :count]
  sorted_depth = np.take_along_axis(depth, order, -1)
  wanted = np.where(np.isfinite(sorted_depth), order, -1)
  assert (wanted[..., -1] >= 0).any() and (wanted[..., -1] < 0).any()
  np.testing.assert_array_equal(got.ids, wanted)
  np.testing.assert_allclose(got.depth, sorted_depth, atol=1e-2)
  first = rasterize(xyz, faces, 24, 32, capacity=64)
  np.testing.assert_array_equal(got.ids[..., 0], first.ids)


def test_centre_moves_the_pixels():
  xyz, faces = soup(6, 100, 9)
  shifted = xyz - jnp.array([0.5, 0.5, 0.0])
  got = rasterize(shifted, faces, 37, 51, centre=0.0)
  wanted = rasterize(xyz, faces, 37, 51)
  same = np.asarray(got.ids) == np.asarray(wanted.ids)
  assert same.mean() > 0.999  # the shift rounds


def test_distance_to_the_border():
  xyz = jnp.array([[0, 0, 1], [8, 0, 1], [0, 8, 1]], jnp.float32)
  faces = jnp.array([[0, 1, 2]])
  ids = rasterize(xyz, faces, 8, 8).ids
  got = jax.jit(edge_distance)(xyz, faces, ids)
  y, x = np.mgrid[:8, :8] + 0.5
  near = np.minimum(np.minimum(x, y), (8 - x - y) / np.sqrt(2))
  wanted = np.where(np.asarray(ids) >= 0, near**2, 0)
  np.testing.assert_allclose(got, wanted, atol=1e-5)


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
  with pytest.raises(ValueError, match="rule='loose'"):
    rasterize(xyz, faces, 8, 8, rule="loose")
  with pytest.raises(ValueError, match=r"wanted \(v, 3\)"):
    rasterize(xyz[:, :2], faces, 8, 8)
