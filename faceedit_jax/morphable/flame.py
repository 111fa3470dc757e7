"""FLAME as a `Morphable`.

FLAME is licensed by its authors; the files come from the user.
"""

import pathlib

import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, typechecked
from faceedit_jax.morphable import flame_files, flame_landmarks, obj
from faceedit_jax.morphable.model import Landmarks, Morphable

_IDENTITY_COLUMNS = 300  # of shapedirs; expression columns follow


def _no_landmarks() -> Landmarks:
  return Landmarks(jnp.zeros((0, 1), jnp.int32), jnp.zeros((0, 1)))


def from_arrays(
  arrays: dict[str, np.ndarray],
  n_shape: int = 100,
  n_expression: int = 50,
  uv: np.ndarray | None = None,
  uv_faces: np.ndarray | None = None,
  albedo: tuple[np.ndarray, np.ndarray] | None = None,
  landmarks68: Landmarks | None = None,
  landmarks5: Landmarks | None = None,
) -> Morphable:
  """A `Morphable` from the fields of a FLAME file.

  Args:
    arrays: fields by FLAME's names, as `flame_files.read_model` gives them.
    n_shape: identity components to keep.
    n_expression: expression components to keep.
    uv: (Vt, 2) texture coordinates, v up; zeros when absent.
    uv_faces: (F, 3) indices into uv.
    albedo: mean and basis; flat grey without directions when absent.
    landmarks68: needed to re-centre edited poses.
    landmarks5: of the 68 unless given.

  Raises:
    ValueError: if the file has fewer components than asked for.
  """
  directions = np.asarray(arrays["shapedirs"], np.float32)
  identity = directions[..., :_IDENTITY_COLUMNS][..., :n_shape]
  expression = directions[..., _IDENTITY_COLUMNS:][..., :n_expression]
  got = (identity.shape[-1], expression.shape[-1])
  if got != (n_shape, n_expression):
    raise ValueError(
      f"FLAME: got {got} identity and expression components, wanted "
      f"{(n_shape, n_expression)}; lower n_shape or n_expression."
    )
  f32 = lambda a: jnp.asarray(np.asarray(a), jnp.float32)  # noqa: E731
  count = len(arrays["v_template"])
  faces = np.asarray(arrays["f"]).astype(np.int32)
  parents = np.asarray(arrays["kintree_table"])[0].astype(np.int64)
  posedirs = np.asarray(arrays["posedirs"]).reshape(count * 3, -1).T
  if albedo is None:
    albedo = (np.full((4, 4, 3), 0.6), np.zeros((0, 4, 4, 3)))
  if landmarks5 is None:
    landmarks5 = (
      flame_landmarks.five_of_68(landmarks68)
      if landmarks68 is not None
      else _no_landmarks()
    )
  if uv is None or uv_faces is None:
    uv, uv_faces = np.zeros((count, 2)), faces
  return Morphable(
    v_template=f32(arrays["v_template"]),
    shapedirs=f32(np.concatenate([identity, expression], -1)),
    posedirs=f32(posedirs),
    j_regressor=f32(arrays["J_regressor"]),
    weights=f32(arrays["weights"]),
    faces=jnp.asarray(faces),
    uv=f32(uv),
    uv_faces=jnp.asarray(np.asarray(uv_faces).astype(np.int32)),
    albedo_mean=f32(albedo[0]),
    albedo_basis=f32(albedo[1]),
    landmarks5=landmarks5,
    landmarks68=landmarks68 or _no_landmarks(),
    head_share=f32([[1, 1, 1], [0, 0, 0]]),
    lid_vertices=jnp.zeros((2, 0), jnp.int32),
    ball_vertices=jnp.zeros(2, jnp.int32),
    parents=(-1, *(int(p) for p in parents[1:])),
    n_shape=n_shape,
  )


def load_flame(
  path: str | pathlib.Path,
  albedo_path: str | pathlib.Path | None = None,
  landmark_path: str | pathlib.Path | None = None,
  n_shape: int = 100,
  n_expression: int = 50,
  n_albedo: int = 50,
  template_path: str | pathlib.Path | None = None,
) -> Morphable:
  """Loads FLAME from its authors' files.

  Args:
    path: `generic_model.pkl`, or what `faceedit_jax.convert flame` makes of it;
      so too the other files.
    albedo_path: `FLAME_texture.npz` or `FLAME_albedo_from_BFM.npz`; the former
      also brings the texture layout (`vt`, `ft`).
    landmark_path: DECA's `landmark_embedding.npy`.
    n_shape: identity components.
    n_expression: expression components.
    n_albedo: albedo components.
    template_path: mesh with the texture layout (DECA's head_template.obj),
      for an albedo file without one.

  Returns:
    The model; all of the head rotation sits at the root, as in DECA.
  """
  arrays = flame_files.read_model(path)
  layout: dict[str, np.ndarray] = {}
  albedo = points = five = None
  if albedo_path is not None:
    found = flame_files.read_albedo(albedo_path, n_albedo)
    albedo = found["mean"], found["basis"]
    layout = {k: found[k] for k in ("uv", "uv_faces") if k in found}
  if template_path is not None:
    uv, uv_faces, faces = obj.read_layout(template_path)
    if not np.array_equal(faces, arrays["f"]):
      raise ValueError(
        f"mesh {template_path} has other triangles than {path}; wanted the "
        "template of the same head"
      )
    layout = {"uv": uv, "uv_faces": uv_faces}
  if landmark_path is not None:
    found = flame_files.read_landmarks(landmark_path)
    for name in (n for n in found if n.endswith("faces_idx")):
      low, high = found[name].min(), found[name].max()
      if not 0 <= low <= high < len(arrays["f"]):
        raise ValueError(
          f"landmark file {landmark_path}: {name} names triangles {low} to "
          f"{high}, {path} has {len(arrays['f'])}; wanted files of one head"
        )
    points = flame_landmarks.barycentric_landmarks(
      arrays["f"],
      found["full_lmk_faces_idx"],
      found["full_lmk_bary_coords"],
    )
    if len(found) == len(flame_files.LANDMARKS):
      # DECA keeps an edited head in place by its landmarks2d.
      frontal = flame_landmarks.embedding(arrays["f"], found).frontal
      five = flame_landmarks.five_of_68(frontal)
  if layout and len(layout["uv_faces"]) != len(arrays["f"]):
    raise ValueError(
      f"albedo file {albedo_path} lays out {len(layout['uv_faces'])} "
      f"triangles, {path} has {len(arrays['f'])}; wanted files of the same head"
    )
  return from_arrays(
    arrays,
    n_shape,
    n_expression,
    albedo=albedo,
    landmarks68=points,
    landmarks5=five,
    **layout,
  )


@typechecked
def joint_pose(
  pose: Float[Array, "b 6"],
  neck: Float[Array, "b 3"] | None = None,
  eyes: Float[Array, "b 6"] | None = None,
) -> Float[Array, "b 15"]:
  """Axis-angles of FLAME's five joints for `model.skin`.

  Args:
    pose: root (3) and jaw (3), radians.
    neck: neck, at rest unless given, as in DECA.
    eyes: left (3) and right eye (3), at rest unless given.
  """
  batch = pose.shape[0]
  neck = jnp.zeros((batch, 3)) if neck is None else neck
  eyes = jnp.zeros((batch, 6)) if eyes is None else eyes
  return jnp.concatenate([pose[:, :3], neck, pose[:, 3:], eyes], -1)
