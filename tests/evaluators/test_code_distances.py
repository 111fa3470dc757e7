"""Distances between face codes, in their units."""

import jax.numpy as jnp
import numpy as np

from faceedit_jax.evaluators import code_distances
from faceedit_jax.faces import face_reader


def codes_of(level):
  """Codes of faces turned, opened and lit by one number each (b,)."""
  level, count = jnp.asarray(level, jnp.float32), len(level)
  return {
    "pose": jnp.zeros((count, 6)).at[:, 1].set(level),
    "expression": jnp.zeros((count, 4)) + level[:, None],
    "light": jnp.zeros((count, 9, 3)) + level[:, None, None],
  }


def test_distances_are_zero_for_equal_codes():
  codes = codes_of(np.random.default_rng(0).normal(size=3))
  for values in code_distances.distances(codes, codes).values():
    np.testing.assert_allclose(values, 0, atol=0.05)


def test_distances_are_in_their_units():
  codes = codes_of(np.zeros(2))
  other = {**codes, "pose": codes["pose"].at[:, 1].add(np.pi / 6)}
  other["light"] = codes["light"] + 0.25
  other["expression"] = codes["expression"] + 0.5
  found = code_distances.distances(codes, other)
  np.testing.assert_allclose(found["pose"], 30, atol=0.1)  # degrees
  np.testing.assert_allclose(found["light"], 0.25, atol=1e-5)
  # Four coefficients moved by a half, three jaw angles not at all.
  np.testing.assert_allclose(found["expression"], 0.5 * 4 / 7, atol=1e-5)


def test_expression_in_millimetres_of_the_face():
  """An open jaw counts, a turned head does not."""
  model = face_reader.morphable_maker(texture=16)()["params"]
  codes = {
    "pose": jnp.zeros((2, 6)),
    "expression": jnp.zeros((2, model.n_expression)),
    "light": jnp.zeros((2, 9, 3)),
  }
  turned = codes | {"pose": codes["pose"].at[:, 1].set(0.5)}
  found = code_distances.distances(codes, turned, model)
  np.testing.assert_allclose(found["expression_mm"], 0, atol=1e-3)
  opened = codes | {"pose": codes["pose"].at[1, 3].set(0.3)}
  found = code_distances.distances(codes, opened, model)["expression_mm"]
  assert found[0] < 1e-3
  assert 1 < found[1] < 20  # the mean over the head; the chin moves 2-3 cm
  wide = codes | {"expression": codes["expression"].at[1, 0].set(1.0)}
  moved = code_distances.distances(codes, wide, model)["expression_mm"]
  first = model.shapedirs[..., model.n_shape]
  wanted = 1000 * np.linalg.norm(first, axis=-1).mean()
  np.testing.assert_allclose(moved[1], wanted, rtol=0.02)
