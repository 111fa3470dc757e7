"""A linear 3D face model with FLAME's interface and its skinning.

DiffFAE, section 4.1 (physical condition), uses FLAME through DECA; here any
model with the same arrays takes its place.
"""

import flax.struct
import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Int, typechecked
from faceedit_jax.morphable.rotations import rotation_matrix

_HIGH = jax.lax.Precision.HIGHEST  # geometry does not survive bfloat16


@flax.struct.dataclass
class Landmarks:
  """Landmarks as weighted means of vertices.

  Attributes:
    vertices: (L, K) vertex indices.
    weights: (L, K) weights that sum to 1 in each row.
  """

  vertices: Int[Array, "l k"]
  weights: Float[Array, "l k"]


@flax.struct.dataclass
class Morphable:
  """The arrays of a face model, in metres; joints root, neck, jaw, eyes.

  Attributes:
    v_template: (V, 3) mean shape.
    shapedirs: (V, 3, n_shape + n_expression) linear directions.
    posedirs: (36, V * 3) pose correctives, 9 rows per joint but the root.
    j_regressor: (5, V) joints from vertices.
    weights: (V, 5) skinning weights.
    faces: (F, 3) triangles.
    uv: (Vt, 2) texture coordinates, v up; uv_faces: (F, 3) indices into uv.
    albedo_mean: (T, T, 3); albedo_basis: (Na, T, T, 3), linear colour, or its
      logarithm when `log_albedo`.
    landmarks5: image-left eye, image-right eye, nose tip, image-left and
      image-right mouth corner, seen from the front.
    landmarks68: the 68 points in the usual (iBUG) order.
    head_share: (2, 3) share of the head rotation that root and neck take,
      per component of the axis-angle vector.
    lid_vertices: (2, n) skin kept outside each eyeball; n = 0 switches it off.
    ball_vertices: (2,) one vertex on each ball, which gives its radius.
    lid_clearance: distance kept between ball and lid, metres.
    parents: parent of each joint, -1 for the root.
    n_shape: number of identity directions.
    log_albedo: whether mean and basis are logarithms.
  """

  v_template: Float[Array, "v 3"]
  shapedirs: Float[Array, "v 3 n"]
  posedirs: Float[Array, "36 v3"]
  j_regressor: Float[Array, "5 v"]
  weights: Float[Array, "v 5"]
  faces: Int[Array, "f 3"]
  uv: Float[Array, "vt 2"]
  uv_faces: Int[Array, "f 3"]
  albedo_mean: Float[Array, "t t 3"]
  albedo_basis: Float[Array, "na t t 3"]
  landmarks5: Landmarks
  landmarks68: Landmarks
  head_share: Float[Array, "2 3"]
  lid_vertices: Int[Array, "2 m"]
  ball_vertices: Int[Array, "2"]
  lid_clearance: float = flax.struct.field(pytree_node=False, default=0.0)
  parents: tuple[int, ...] = flax.struct.field(
    pytree_node=False, default=(-1, 0, 1, 1, 1)
  )
  n_shape: int = flax.struct.field(pytree_node=False, default=0)
  log_albedo: bool = flax.struct.field(pytree_node=False, default=False)

  @property
  def n_expression(self) -> int:
    return self.shapedirs.shape[-1] - self.n_shape

  @property
  def n_albedo(self) -> int:
    return self.albedo_basis.shape[0]

  @property
  def code_sizes(self) -> dict[str, tuple[int, ...]]:
    """Shape of every code of one picture, by name."""
    return {
      "shape": (self.n_shape,),
      "albedo": (self.n_albedo,),
      "expression": (self.n_expression,),
      "pose": (6,),
      "gaze": (2,),
      "light": (9, 3),
      "camera": (3,),
    }


@typechecked
def full_pose(
  model: Morphable, pose: Float[Array, "b 6"], gaze: Float[Array, "b 2"]
) -> Float[Array, "b 15"]:
  """Axis-angles of the five joints.

  Args:
    model: gives the split of the head rotation over root and neck.
    pose: head rotation (3) and jaw rotation (3), axis-angle, radians.
    gaze: pitch (down positive) and yaw (towards +x positive), radians.

  Returns:
    (b, 15) root, neck, jaw, left eye, right eye.
  """
  head, jaw = pose[:, :3], pose[:, 3:]
  eye = jnp.concatenate([gaze, jnp.zeros_like(gaze[:, :1])], -1)
  root, neck = head * model.head_share[0], head * model.head_share[1]
  return jnp.concatenate([root, neck, jaw, eye, eye], -1)


@typechecked
def head_rotation(
  model: Morphable, pose: Float[Array, "b 6"]
) -> Float[Array, "b 3 3"]:
  """Rotation of the head itself: root times neck."""
  root = rotation_matrix(pose[:, :3] * model.head_share[0])
  neck = rotation_matrix(pose[:, :3] * model.head_share[1])
  return jnp.matmul(root, neck, precision=_HIGH)


@typechecked
def skin(
  model: Morphable,
  coefficients: Float[Array, "b n"],
  joint_pose: Float[Array, "b 15"],
) -> tuple[Float[Array, "b v 3"], Float[Array, "b 5 3"]]:
  """Linear blend skinning exactly as FLAME's (lbs.py of FLAME_PyTorch).

  Args:
    model: the face model.
    coefficients: identity then expression coefficients.
    joint_pose: axis-angle of each joint, radians.

  Returns:
    Posed vertices and joints, metres.
  """
  batch = coefficients.shape[0]
  einsum = lambda *a: jnp.einsum(*a, precision=_HIGH)  # noqa: E731
  offsets = einsum("bn,vcn->bvc", coefficients, model.shapedirs)
  shaped = model.v_template + offsets
  joints = einsum("jv,bvc->bjc", model.j_regressor, shaped)
  rotations = rotation_matrix(joint_pose.reshape(batch, 5, 3))
  bends = (rotations[:, 1:] - jnp.eye(3)).reshape(batch, 36)
  corrected = shaped + jnp.matmul(
    bends, model.posedirs, precision=_HIGH
  ).reshape(shaped.shape)
  turns, places = [rotations[:, 0]], [joints[:, 0]]
  for j, parent in enumerate(model.parents[1:], start=1):
    arm = joints[:, j] - joints[:, parent]
    places.append(einsum("bij,bj->bi", turns[parent], arm) + places[parent])
    turns.append(jnp.matmul(turns[parent], rotations[:, j], precision=_HIGH))
  turn, place = jnp.stack(turns, 1), jnp.stack(places, 1)
  shift = place - einsum("bjik,bjk->bji", turn, joints)
  blended = einsum("vj,bjik->bvik", model.weights, turn)
  moved = einsum("bvik,bvk->bvi", blended, corrected)
  return moved + einsum("vj,bji->bvi", model.weights, shift), place


def _keep_lids_outside(
  model: Morphable, vertices: Array, joints: Array
) -> Array:
  """Pushes lid skin that sank into an eyeball back onto its surface.

  Linear directions cannot keep skin on a sphere under every identity, gaze
  and blink.
  """
  if model.lid_vertices.shape[1] == 0:
    return vertices
  for eye in (0, 1):
    ids, centre = model.lid_vertices[eye], joints[:, 3 + eye, None]
    ball = vertices[:, model.ball_vertices[eye], None]
    radius = jnp.linalg.norm(ball - centre, axis=-1, keepdims=True)
    radius = radius + model.lid_clearance
    out = vertices[:, ids] - centre
    length = jnp.linalg.norm(out, axis=-1, keepdims=True)
    lifted = centre + out * jnp.maximum(1.0, radius / jnp.maximum(length, 1e-6))
    vertices = vertices.at[:, ids].set(lifted)
  return vertices


@typechecked
def vertices(
  model: Morphable,
  shape: Float[Array, "b ns"],
  expression: Float[Array, "b ne"],
  pose: Float[Array, "b 6"],
  gaze: Float[Array, "b 2"],
) -> tuple[Float[Array, "b v 3"], Float[Array, "b 5 3"]]:
  """Posed vertices of a batch of codes.

  Args:
    model: the face model.
    shape: identity coefficients.
    expression: expression coefficients.
    pose: head (3) and jaw (3) axis-angle, radians.
    gaze: pitch and yaw of both eyes, radians.

  Returns:
    Vertices and joints, metres, x to the subject's left, y up, z forward.

  Raises:
    ValueError: if the codes do not have the model's sizes.
  """
  got = (shape.shape[-1], expression.shape[-1])
  wanted = (model.n_shape, model.n_expression)
  if got != wanted:
    raise ValueError(
      f"morphable: codes have {got} shape and expression coefficients, the "
      f"model wants {wanted}; take the sizes from `model.code_sizes`."
    )
  coefficients = jnp.concatenate([shape, expression], -1)
  posed, joints = skin(model, coefficients, full_pose(model, pose, gaze))
  return _keep_lids_outside(model, posed, joints), joints


@typechecked
def landmarks(
  points: Landmarks, vertices: Float[Array, "b v 3"]
) -> Float[Array, "b l 3"]:
  """Positions of landmarks on posed vertices."""
  return jnp.einsum(
    "blkc,lk->blc",
    vertices[:, points.vertices],
    points.weights,
    precision=_HIGH,
  )


@typechecked
def albedo(
  model: Morphable, code: Float[Array, "b na"]
) -> Float[Array, "b t t 3"]:
  """Albedo textures (linear colour) of a batch of codes.

  Not clipped, as in DECA; a log model is positive by construction.
  """
  offset = jnp.einsum("ba,atuc->btuc", code, model.albedo_basis)
  texture = model.albedo_mean + offset
  return jnp.exp(texture) if model.log_albedo else texture


def visible_effect(model: Morphable) -> dict[str, Array]:
  """How much one unit of each coefficient changes the face.

  The root mean square of each direction: of "shape" and "expression" over the
  vertices (metres), of "albedo" over the texels (linear colour or its
  logarithm). Only comparable within a code. After the weighted parameter
  distance cost of 3DDFA (Zhu et al. 2016), which measures the change on each
  picture anew.

  Returns:
    {"shape": (n_shape,), "expression": (n_expression,), "albedo": (na,)}.
  """
  moved = jnp.sqrt(jnp.square(model.shapedirs).mean((0, 1)))
  painted = jnp.sqrt(jnp.square(model.albedo_basis).mean((1, 2, 3)))
  return {
    "shape": moved[: model.n_shape],
    "expression": moved[model.n_shape :],
    "albedo": painted,
  }


def with_albedo(
  model: Morphable,
  mean: Float[Array, "t t 3"],
  basis: Float[Array, "na t t 3"],
  log: bool = False,
) -> Morphable:
  """The same model with another albedo basis.

  Args:
    model: the face model.
    mean: mean texture.
    basis: directions; a coefficient of 1 adds one direction.
    log: whether both are logarithms of linear colour.

  Raises:
    ValueError: if mean and basis do not have the same texture size.
  """
  mean, basis = jnp.asarray(mean), jnp.asarray(basis)
  square = mean.ndim == 3 and mean.shape[0] == mean.shape[1]
  if not square or basis.shape[1:] != mean.shape:
    raise ValueError(
      f"morphable: albedo mean {mean.shape} and basis {basis.shape} do not "
      "match; wanted (t, t, 3) and (na, t, t, 3)."
    )
  return model.replace(albedo_mean=mean, albedo_basis=basis, log_albedo=log)
