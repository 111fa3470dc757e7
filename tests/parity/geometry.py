"""Runners of the face model cases: skinning, landmarks, albedo, rotations."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.morphable import camera as cameras
from faceedit_jax.morphable import (
  flame,
  flame_files,
  flame_landmarks,
  mesh,
  model,
  rotations,
  shading,
)
from tests.parity.harness import Case, nchw, runner
from tests.parity.options import Options


def expect_ellipsoid(config: Options, points: int) -> None:
  """Reads of how many rings and meridians a recorded mesh is."""
  rings, meridians = config["nlat"], config["nlon"]
  if rings * meridians + 2 != points:
    raise NotImplementedError(
      f"options 'nlat' {rings} and 'nlon' {meridians} give no mesh of {points} "
      "points"
    )
  config.without_effect("mseed", "seed")


def fields(case: Case, group: str) -> dict[str, np.ndarray]:
  """The inputs `in/<group>/<name>` by name."""
  head = f"in/{group}/"
  return {
    k.removeprefix(head): v
    for k, v in case.arrays.items()
    if k.startswith(head)
  }


@runner("deca/flame")
def flame_model(case: Case) -> dict:
  config, arrays, state = case.config, fields(case, "file"), case.state()
  expect_ellipsoid(config, len(arrays["v_template"]))
  found = flame_landmarks.embedding(arrays["f"], fields(case, "lmk"))
  head = flame.from_arrays(
    arrays, config["n_shape"], config["n_exp"], landmarks68=found.full
  )
  coefficients = jnp.concatenate([case["shape"], case["exp"]], -1)
  pose = case["pose"]
  batch = len(pose)
  config.expect(batch=batch)
  neck = jnp.tile(state["neck_pose"], (batch, 1))
  own_eyes = jnp.tile(state["eye_pose"], (batch, 1))

  @jax.jit
  def run(eyes):
    joint_pose = flame.joint_pose(pose, neck, eyes)
    points, joints = model.skin(head, coefficients, joint_pose)
    return {
      "full_pose": joint_pose,
      "vertices": points,
      "joints": joints,
      "landmarks2d": flame_landmarks.landmarks2d(
        found, head.faces, points, joint_pose
      ),
      "landmarks3d": model.landmarks(head.landmarks68, points),
      "row": flame_landmarks.contour_row(joint_pose),
    }

  out, given = run(own_eyes), run(case["eye_pose"])
  row = out.pop("row")
  return out | {
    "vertices_eye": given["vertices"],
    "landmarks2d_eye": given["landmarks2d"],
    "dyn_idx": found.contour.face_ids[row],
    "dyn_bary": found.contour.weights[row],
    "rot": rotations.rotation_matrix(out["full_pose"].reshape(-1, 3)),
    # FLAME.seletec_3d68 is the full embedding once more.
    "sel3d68": out["landmarks3d"],
  }


@runner("deca/flame_tex")
def flame_albedo(case: Case) -> dict:
  code, out = case["code"], {}
  for kind in case.info["state_groups"]:
    state, side = case.state(kind), case.config["ts"]
    mean = state["texture_mean"].reshape(side, side, 3)
    basis = state["texture_basis"].reshape(side, side, 3, -1)
    if kind == "flame":  # the file holds 0..255
      content = {"mean": mean * 255, "tex_dir": basis * 255}
    else:
      content = {
        "MU": mean.reshape(1, -1),
        "PC": basis.reshape(-1, code[0].size),
      }
    with tempfile.TemporaryDirectory() as folder:
      path = Path(folder) / "albedo.npz"
      np.savez(path, **content)
      found = flame_files.read_albedo(path, case.config["n_tex"])
    albedo = found["mean"], found["basis"]
    head = flame.from_arrays(_no_head(), 1, 1, albedo=albedo)
    out[kind] = nchw(model.albedo(head, code))
  return out


def _no_head() -> dict[str, np.ndarray]:
  """The fields of a FLAME file of one triangle."""
  return {
    "v_template": np.eye(3),
    "shapedirs": np.zeros((3, 3, 301)),
    "posedirs": np.zeros((3, 3, 36)),
    "J_regressor": np.zeros((5, 3)),
    "weights": np.zeros((3, 5)),
    "kintree_table": np.array([[-1, 0, 1, 1, 1], range(5)]),
    "f": np.arange(3)[None],
  }


@runner("deca/math")
def maths(case: Case) -> dict:
  recorded = case.outputs()
  turns = rotations.rotation_matrix(case["aa"])
  points, faces = case["V"], case["F"].astype(jnp.int32)
  expect_ellipsoid(case.config, points.shape[1])
  case.config.expect(n=len(turns))
  normals = [
    mesh.vertex_normals(p[None], f, eps=1e-6)[0]
    for p, f in zip(points, faces, strict=True)
  ]
  at = [mesh.corners(p[None], f)[0] for p, f in zip(points, faces, strict=True)]
  euler = rotations.euler_matrix(jnp.deg2rad(case["euler"]))
  angles = rotations.euler_matrix(jnp.deg2rad(case["angles"]), "zyx")
  shade = jax.vmap(shading.shade)(case.image("normals"), case["sh"])
  # The first rotations, of angle 0 and about, were not recorded.
  plain = len(recorded["axis2matrix"])
  return {
    "rodrigues": turns,
    "yaw": rotations.yaw(turns),
    "vertex_normals": np.stack(normals),
    "face_vertices": np.stack(at),
    # Ours looks along -z and has y down; theirs is turned by the caller.
    "orth": cameras.project(points, case["cam"]) * jnp.array([1.0, -1.0, -1.0]),
    "sh_const": shading.SH_CONSTANTS,
    "sh_shading": nchw(shade),
    # The official function lets the numbers of a batch run into each other:
    # it stacks (9, b) and reads that as (b, 9).
    "angle2matrix": angles.reshape(-1, 9).T.reshape(-1, 3, 3),
    "euler2axis": rotations.axis_angle(euler),
    "euler2matrix": euler,
    "axis2matrix": turns[-plain:],
    "dense_faces": mesh.grid_faces(*_grid(recorded["dense_faces"])),
  }


def _grid(faces: np.ndarray) -> tuple[int, int]:
  """Sides of the grid that triangles with margins 2 and 5 belong to."""
  width = (int(faces.min()) - 2) // 5  # the first point is (5, 2)
  return len(faces) // 2 // (width - 5) + 11, width
