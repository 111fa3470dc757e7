"""How far an edit is from the picture that gave pose, expression and light.

APD, AED and ALD of DiffFAE Sec. 5.1: mean absolute differences between
coefficients that a network reads in two pictures. The paper takes APD and AED
from DPE, DPE from PIRender, and none of them ships the code; the form here is
the one of PIRender's and Next3D's published code. Mean or sum, absolute or
squared, and the network all change the scale, so a value says little without
its formula.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, typechecked
from faceedit_jax.models.faces import deep3d
from faceedit_jax.morphable.rotations import rotation_matrix

# What stands beside the numbers.
FORMULAS = {
  "APD": "mean |difference| of 3 Euler angles, radians",
  "AED": "mean |difference| of 64 expression coefficients",
  "ALD": "mean |difference| of 27 light coefficients (inferred: no paper "
  "defines it)",
}
CODE_FORMULAS = FORMULAS | {
  "AED": "mean |difference| of expression codes and the jaw's 3 angles",
}


@typechecked
def pose_distance(
  a: Float[Array, "b 3"], b: Float[Array, "b 3"]
) -> Float[Array, "b"]:
  """Average pose distance (APD): mean over k of |a_k - b_k|.

  Args:
    a: three Euler angles in radians ("angle" of Deep3DFaceRecon, 224:227).
    b: as `a`. Angles are plain numbers here, as in the published code: a turn
      past half a circle counts the long way round.
  """
  return jnp.abs(a - b).mean(-1)


@typechecked
def expression_distance(
  a: Float[Array, "b n"], b: Float[Array, "b n"]
) -> Float[Array, "b"]:
  """Average expression distance (AED): mean over k of |a_k - b_k|.

  Args:
    a: expression coefficients; the published 64 are "exp" of Deep3DFaceRecon
      (80:144), in standard deviations of the Basel model's expressions.
    b: as `a`.
  """
  return jnp.abs(a - b).mean(-1)


@typechecked
def light_distance(
  a: Float[Array, "b n"], b: Float[Array, "b n"]
) -> Float[Array, "b"]:
  """Average light distance (ALD): mean over k of |a_k - b_k|.

  Inferred: DiffFAE cites DPE for it, which has no such measure. Taken as the
  others are.

  Args:
    a: spherical-harmonic light coefficients; "gamma" of Deep3DFaceRecon
      (227:254) has 27.
    b: as `a`.
  """
  return jnp.abs(a - b).mean(-1)


@jax.jit
@typechecked
def coefficient_distances(
  a: Float[Array, "b 257"], b: Float[Array, "b 257"]
) -> dict[str, Float[Array, "b"]]:
  """APD, AED and ALD of Deep3DFaceRecon coefficients, by name."""
  a, b = deep3d.split(a), deep3d.split(b)
  return {
    "APD": pose_distance(a["angle"], b["angle"]),
    "AED": expression_distance(a["exp"], b["exp"]),
    "ALD": light_distance(a["gamma"], b["gamma"]),
  }


@jax.jit
def code_distances(
  a: Mapping[str, Array], b: Mapping[str, Array]
) -> dict[str, Float[Array, "b"]]:
  """The same three measures on face codes of DECA's layout.

  Cheap, and without the Basel model, but on another scale: never to be
  compared with `coefficient_distances`. With DECA as the estimator they are
  called APD-DECA, AED-DECA and ALD-DECA.

  Args:
    a: "pose" (b, 6) axis-angles of head and jaw, "expression" (b, n), "light"
      (b, 9, 3).
    b: as `a`.

  Returns:
    "APD" over the Euler angles of the head, each the short way round, "AED"
    over the expression coefficients and the three numbers of the jaw, which
    FLAME keeps apart from them, "ALD" over 27 light coefficients.
  """

  def parts(codes):
    face = [codes["expression"], codes["pose"][:, 3:]]
    return (
      euler_angles(rotation_matrix(codes["pose"][:, :3])),
      jnp.concatenate(face, axis=-1),
      codes["light"].reshape(len(codes["light"]), -1),
    )

  (angles_a, face_a, light_a), (angles_b, face_b, light_b) = parts(a), parts(b)
  turns = jnp.round((angles_a - angles_b) / (2 * jnp.pi))
  return {
    "APD": pose_distance(angles_a, angles_b + 2 * jnp.pi * turns),
    "AED": expression_distance(face_a, face_b),
    "ALD": light_distance(light_a, light_b),
  }


@typechecked
def euler_angles(rotation: Float[Array, "b 3 3"]) -> Float[Array, "b 3"]:
  """Angles (x, y, z) in radians with rotation = Rz Ry Rx."""
  x = jnp.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
  flat = jnp.hypot(rotation[:, 2, 1], rotation[:, 2, 2])
  y = jnp.arctan2(-rotation[:, 2, 0], flat)
  z = jnp.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
  return jnp.stack([x, y, z], axis=-1)
