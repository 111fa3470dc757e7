"""Distances between two sets of face codes: one per factor, in its unit."""

import functools

import jax
import jax.numpy as jnp

from faceedit_jax.losses import parameters
from faceedit_jax.morphable import model as model_lib


@jax.jit
def distances(a, b, model=None):
  """Distance (b,) of each edited factor between two sets of face codes.

  Args:
    a, b: face codes.
    model: the 3D face, or None.

  Returns:
    "pose": angle between the head rotations in degrees; "expression": mean
    absolute difference of expression coefficients and jaw (rad); "light":
    mean absolute difference of the 27 light coefficients. With a 3D face also
    "expression_mm": mean distance of the vertices of its mean head, once with
    the one expression and jaw and once with the other, in millimetres. There
    a coefficient counts by what it moves.
  """
  angle = parameters.rotation_distance(a["pose"][:, :3], b["pose"][:, :3])
  face = [
    jnp.concatenate([c["expression"], c["pose"][:, 3:]], axis=-1)
    for c in (a, b)
  ]
  found = {
    "pose": jnp.degrees(angle),
    "expression": jnp.abs(face[0] - face[1]).mean(-1),
    "light": jnp.abs(a["light"] - b["light"]).mean((1, 2)),
  }
  if model is not None:
    heads = [_expressive_head(model, codes) for codes in (a, b)]
    apart = jnp.linalg.norm(heads[0] - heads[1], axis=-1)
    found["expression_mm"] = 1000 * apart.mean(-1)
  return found


def _expressive_head(model, codes):
  """Vertices (b, v, 3) of the mean head with the codes' expression and jaw."""
  pose = codes["pose"].at[:, :3].set(0.0)
  zero = functools.partial(jnp.zeros, dtype=pose.dtype)
  points, _ = model_lib.vertices(
    model,
    zero((len(pose), model.n_shape)),
    codes["expression"],
    pose,
    zero((len(pose), 2)),
  )
  return points
