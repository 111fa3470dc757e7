"""Factors: pure functions of seed and index, independent, balanced."""

import dataclasses
import hashlib
import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.synthetic_heads import labels
from data_pipelines.synthetic_heads.factors import (
  FRAME_FACTORS,
  IDENTITY_FACTORS,
  replace,
)
from data_pipelines.synthetic_heads.frames import (
  make_light,
  rotation_vector,
  sample_frame,
)
from data_pipelines.synthetic_heads.identity import sample_identity
from data_pipelines.synthetic_heads.streams import Stream
from faceedit_jax.morphable import rotations, shading
from faceedit_jax.morphable.head_bases import EXPRESSION_NAMES


def _digest(factors, names):
  h = hashlib.sha256()
  for name in names:
    value = getattr(factors, name)
    items = value.items() if isinstance(value, dict) else [("", value)]
    for key, array in sorted(items):
      h.update(f"{name}/{key}".encode())
      h.update(np.ascontiguousarray(array).tobytes())
  return h.hexdigest()[:16]


def test_factors_equal_their_recorded_hashes():
  # Another machine, another NumPy, another process: the same people. When the
  # world changes on purpose, raise factors.VERSION and record anew.
  people = [_digest(sample_identity(3, i), IDENTITY_FACTORS) for i in (0, 7)]
  frames = [_digest(sample_frame(3, 7, k), FRAME_FACTORS) for k in (0, 2)]
  assert people == RECORDED_PEOPLE
  assert frames == RECORDED_FRAMES


RECORDED_PEOPLE = ["911908917a40d3f1", "b05764e7ea58959c"]
RECORDED_FRAMES = ["15e8037c57e4fecc", "2c9bc4d051657c2f"]


def test_raw_numbers_are_uniform_and_normal():
  s = Stream(0, "test")
  uniform = s.array(20_000)
  assert abs(uniform.mean() - 0.5) < 0.01
  assert abs(uniform.var() - 1 / 12) < 0.002
  normal = np.array([s.normal(1.0, 2.0) for _ in range(5000)])
  assert abs(normal.mean() - 1.0) < 0.1
  assert abs(normal.std() - 2.0) < 0.1
  assert Stream(0, "a").random() != Stream(0, "b").random()
  assert Stream(1, 23, "a").random() != Stream(12, 3, "a").random()


def test_balancing_one_factor_leaves_the_others_alone():
  plain, balanced = (
    sample_identity(0, 4),
    sample_identity(0, 4, ("Eyeglasses",)),
  )
  for name in IDENTITY_FACTORS:
    if name != "glasses":
      a, b = getattr(plain, name), getattr(balanced, name)
      np.testing.assert_equal(a, b)
  plain, balanced = sample_frame(0, 4, 1), sample_frame(0, 4, 1, ("Smiling",))
  for name in ("pose", "gaze", "light", "camera"):
    np.testing.assert_equal(getattr(plain, name), getattr(balanced, name))


def test_balanced_smiles_are_clear_ones():
  at = EXPRESSION_NAMES.index("smile")

  def least(balance):
    frames = [sample_frame(0, i, 0, balance) for i in range(80)]
    return min(
      f.expression[at] for f in frames if f.expression[at] > labels.LEAST_SMILE
    )

  assert least(()) < 0.6
  assert least(("Smiling",)) >= 0.7


def test_replace_swaps_only_what_is_named():
  a, b = sample_identity(0, 1), sample_identity(0, 2)
  c = replace(a, hair=b)
  assert c.hair is b.hair
  for field in dataclasses.fields(a):
    if field.name != "hair":
      assert getattr(c, field.name) is getattr(a, field.name)
  f, g = sample_frame(0, 1, 0), sample_frame(0, 2, 0)
  h = replace(f, expression=g)
  assert h.jaw is g.jaw and h.gaze is g.gaze and h.pose is f.pose
  assert replace(f, expression=g, jaw=f).jaw is f.jaw
  with pytest.raises(ValueError, match="no factor of Identity"):
    replace(a, pose=b)


BALANCE = (
  "Smiling",
  "Mouth_Slightly_Open",
  "Eyeglasses",
  "Bangs",
  "Wearing_Hat",
  "Bald",
  "Black_Hair",
  "Blond_Hair",
  "Male",
  "Young",
  "Mustache",
  "Big_Nose",
)


def test_balanced_attributes_lie_between_a_fifth_and_four_fifths():
  has = [
    labels.attributes(
      sample_identity(1, i, BALANCE), sample_frame(1, i, 0, BALANCE)
    )
    for i in range(400)
  ]
  shares = {n: np.mean([h[n] for h in has]) for n in BALANCE}
  # 2.2 standard deviations of a share of 400.
  assert all(0.2 - 0.045 < s < 0.8 + 0.045 for s in shares.values()), shares


def test_light_harmonics_equal_the_lamps_they_stand_for():
  towards, colour = np.array([0.3, 0.5, 0.8]), np.array([0.9, 0.8, 0.7])
  light = make_light([(towards, colour)], np.zeros(3), np.zeros(3))
  wanted = shading.directional_light(towards, colour)
  wanted[1:, 0] *= 0.93  # the reddened bands of skin
  wanted[4:, 0] *= 0.85
  np.testing.assert_allclose(light["harmonics"], wanted, rtol=2e-5, atol=1e-6)
  light = make_light([], np.ones(3), np.full(3, 0.5))
  wanted = shading.ambient_light(np.ones(3), np.full(3, 0.5))
  wanted[1:, 0] *= 0.93
  np.testing.assert_allclose(light["harmonics"], wanted, rtol=2e-5, atol=1e-6)


def test_rotation_vector_composes_yaw_pitch_roll():
  pitch, yaw, roll = 0.2, -0.7, 0.1
  cos, sin = np.cos, np.sin
  x = [[1, 0, 0], [0, cos(pitch), -sin(pitch)], [0, sin(pitch), cos(pitch)]]
  y = [[cos(yaw), 0, sin(yaw)], [0, 1, 0], [-sin(yaw), 0, cos(yaw)]]
  z = [[cos(roll), -sin(roll), 0], [sin(roll), cos(roll), 0], [0, 0, 1]]
  got = rotations.rotation_matrix(
    jnp.asarray(rotation_vector(pitch, yaw, roll))
  )
  np.testing.assert_allclose(got, np.array(y) @ x @ z, atol=1e-5)


def test_captions_name_what_attributes_say():
  for i in range(30):
    person, frame = sample_identity(2, i), sample_frame(2, i, 0)
    has, text = labels.attributes(person, frame), labels.caption(person, frame)
    assert ("glasses" in text) == has["Eyeglasses"]
    assert ("woman" in text) == (not has["Male"])
    assert ("smiling" in text) == has["Smiling"]
    assert ("bald" in text) == (person.hair["shown"] == 0)


def test_regions_cover_all_classes():
  table = labels.region_table()
  assert table.shape == (19,) and set(table) == {0, 1, 2, 3}
  assert table[labels.LABEL["neck"]] == 2
  assert labels.region_table(neck_is_face=True)[labels.LABEL["neck"]] == 0


def test_package_names_lead_to_functions_not_files():
  import data_pipelines.synthetic_heads as world

  for _ in range(2):  # importing a file must not hide the function
    for name in world.__all__:
      assert not inspect.ismodule(getattr(world, name)), name
