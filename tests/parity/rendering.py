"""Runners of the rasteriser and renderer cases."""

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.morphable import camera as cameras
from faceedit_jax.morphable import detail, flame, mesh, render, shading
from faceedit_jax.morphable.rasterize import (
  edge_distance,
  interpolate,
  rasterize,
)
from tests.parity.geometry import expect_ellipsoid
from tests.parity.harness import Case, nchw, runner
from tests.parity.options import Options

# What our rasteriser has to do to draw as the two that the cases are from.
STANDARD = {"rule": "standard", "centre": 0.0}
PYTORCH3D = {"rule": "strict"}


def standard_screen(points, size: int):
  """Points on the official kernel's screen, in its order of operations.

  Pixels are counted from the centre of the first, and depth is scaled too.
  What the kernel covers near silhouettes hangs on the last bit.
  """
  points = np.asarray(points)  # NumPy does each operation by itself
  xy = -points[..., :2] * size / 2 + size / 2
  xy = -1 + (2 * (size - 1 - xy) + 1) / size
  xy, z = xy * size / 2 + size / 2, points[..., 2:] * size / 2
  return jnp.asarray(np.concatenate([xy, z], -1))


@runner("deca/rasterizer_raw")
def raw(case: Case) -> dict:
  soup, size = case["tri"], case.config["size"]
  case.config.expect(n=len(soup))
  rings, meridians, _ = case.config["mesh"]  # and its seed
  expect_ellipsoid(
    Options({"nlat": rings, "nlon": meridians}), len(case["mesh_v"])
  )
  faces = np.arange(soup.shape[0] * 3, dtype=np.int32).reshape(-1, 3)
  out = _raw(case, "tri", soup.reshape(-1, 3), jnp.asarray(faces), size)
  faces = case["mesh_f"].astype(jnp.int32)
  return out | _raw(case, "mesh", case["mesh_v"], faces, size)


def _raw(case: Case, name: str, points, faces, size: int) -> dict:
  recorded = case.outputs()
  screen = cameras.to_pixels(points[None], size, size)[0]

  def attributes(raster):
    """Coordinates and coverage at the nearest triangle, channels first."""
    values = jnp.concatenate([points, jnp.ones_like(points[:, :1])], -1)
    return jnp.moveaxis(interpolate(values, faces, *raster), -1, 0)

  theirs = standard_screen(points, size)
  found = rasterize(theirs, faces, size, size, **STANDARD)
  standard = {
    "screen": mesh.corners(theirs[None], faces)[0],
    "tri": found.ids,
    "bary": found.barycentrics,
    "depth": jnp.where(found.ids >= 0, found.depth, 1e6),
    "attr": attributes(found[:2]),
  }
  layers = recorded[f"p3d_{name}/pix_to_face"].shape[-1]
  found = rasterize(screen, faces, size, size, layers=layers, **PYTORCH3D)
  hit = found.ids >= 0
  # Theirs is signed, in units of half the picture, and -1 where nothing is.
  distance = -edge_distance(screen, faces, found.ids) * (2 / size) ** 2
  pytorch3d = {
    "pix_to_face": found.ids,
    "bary": jnp.where(hit[..., None], found.barycentrics, -1.0),
    "zbuf": jnp.where(hit, found.depth, -1.0),
    "dists": jnp.where(hit, distance, -1.0),
    "attr": attributes((found.ids[..., 0], found.barycentrics[..., 0, :])),
  }
  out = {f"std_{name}/{k}": v for k, v in standard.items()}
  out |= {f"p3d_{name}/{k}": v for k, v in pytorch3d.items()}
  return {k: np.asarray(v)[None] for k, v in out.items()}


@runner("deca/render_standard", "deca/render_pytorch3d")
def renderer(case: Case) -> dict:
  standard = case.name.startswith("deca/render_standard")
  options = STANDARD if standard else PYTORCH3D
  size = case.config["size"]
  head = _head(case)
  points, projected = case["verts"], case["trans_verts"]
  expect_ellipsoid(case.config, points.shape[1])
  case.config.expect(batch=len(points), uv=case["albedo"].shape[-1])
  # The official renderer moves the head away from the camera.
  away = projected + jnp.array([0.0, 0.0, 10.0])
  shown = points, projected
  if standard:
    screen = standard_screen(away, size) * jnp.array([1.0, 1.0, 2 / size])
    # Its attributes are those of the first head of a batch for all.
    first = lambda x: jnp.broadcast_to(x[:1], x.shape)  # noqa: E731
    shown = first(points), first(projected)
  else:
    screen = cameras.to_pixels(away, size, size)
  raster = rasterize(screen, head.faces, size, size, **options)
  found = render.fill_buffers(
    head,
    shown[0],
    cameras.to_pixels(shown[1], size, size),
    case.image("albedo"),
    raster,
  )
  normals, mask = found["normals"], found["mask"][..., None]
  lamps = case["lights"]
  light = {
    "sh": jax.vmap(shading.shade)(normals, case["sh"]),
    "point": jax.vmap(shading.near_lamps)(normals, found["positions"], lamps),
    "directional": jax.vmap(shading.distant_lamps)(normals, lamps),
  }
  out = {f"{k}/images": nchw(found["albedo"] * v) for k, v in light.items()}
  across, up = found["uv"][..., :1], found["uv"][..., 1:]
  grid = jnp.concatenate([2 * across - 1, 1 - 2 * up], -1)
  turned = render.screen_normals(screen, head.faces, size)
  front = (found["facing"] > 0.05).astype(jnp.float32)
  out |= {
    "sh/albedo_images": nchw(found["albedo"]),
    "sh/alpha_images": nchw(mask),
    "sh/pos_mask": nchw(front[..., None]),
    "sh/shading_images": nchw(light["sh"]),
    "sh/grid": grid,
    "sh/normals": mesh.vertex_normals(points, head.faces),
    "sh/normal_images": nchw(normals),
    "sh/transformed_normals": turned,
  }
  out["shape_images"] = nchw((render.shape_overlay(found) + 1) / 2)
  space = detail.detail_space(
    head, case["uv_mask"][0, 0], case["fixed_dis"], rule=options["rule"]
  )
  out |= {
    "uv_verts": nchw(detail.unwrap(space, head.faces, shown[0])),
    "uv_trans": nchw(detail.unwrap(space, head.faces, shown[1])),
    "uv_detail_normals": nchw(
      detail.detail_normals(space, head.faces, shown[0], case.image("uv_z"))
    ),
  }
  return out


def _head(case: Case):
  """A face model that is the case's mesh."""
  count = case["mesh/V"].shape[0]
  return flame.from_arrays(
    {
      "v_template": case["mesh/V"],
      "shapedirs": np.zeros((count, 3, 301)),
      "posedirs": np.zeros((count, 3, 36)),
      "J_regressor": np.zeros((5, count)),
      "weights": np.zeros((count, 5)),
      "kintree_table": np.array([[-1, 0, 1, 1, 1], range(5)]),
      "f": case["mesh/F"],
    },
    1,
    1,
    uv=case["mesh/UV"],
    uv_faces=case["mesh/FUV"],
  )
