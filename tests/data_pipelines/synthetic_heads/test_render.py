"""Pictures: deterministic, labelled, and exactly where their codes say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.synthetic_heads import (
  albedo_model,
  factors,
  geometry,
  labels,
  render,
)
from data_pipelines.synthetic_heads.edits import (
  counterfactual,
  face_centre,
)
from data_pipelines.synthetic_heads.examples import (
  EXAMPLE_FIELDS,
  POINTS68_FIELDS,
)
from data_pipelines.synthetic_heads.factors import as_factor
from data_pipelines.synthetic_heads.frames import sample_frame
from data_pipelines.synthetic_heads.identity import sample_identity
from faceedit_jax.morphable import albedo_basis
from faceedit_jax.morphable.render import render_condition

SIZE = 64
CODES = ("shape", "albedo", "expression", "pose", "gaze", "light", "camera")
FACE = ("skin", "nose", "l_brow", "r_brow", "u_lip", "l_lip", "mouth")


@functools.cache
def _draw(index):
  person = sample_identity(0, index)
  return render.render(person, sample_frame(0, index, 0), SIZE)


def _is(example, *names):
  return np.isin(example["labels"], [labels.LABEL[n] for n in names])


def _inside(mask):
  """Pixels of a mask whose eight neighbours belong to it as well."""
  padded = np.pad(mask, 1)
  n = len(mask)
  shifts = [padded[i : i + n, j : j + n] for i in range(3) for j in range(3)]
  return np.all(shifts, 0)


def _plain(index):
  """A person without anything that covers the face."""
  person = sample_identity(0, index)
  return factors.replace(
    person,
    hair=person.hair | as_factor(shown=0.0, painted=0.0),
    hat=person.hat | as_factor(kind=0),
    glasses=person.glasses | as_factor(on=0, sun=0),
    beard=person.beard | as_factor(full=0, moustache=0),
    earrings=as_factor(on=0),
  )


def test_example_has_the_promised_fields():
  e = _draw(3)
  assert set(e) == set(EXAMPLE_FIELDS)
  wanted = {
    "image": ((SIZE, SIZE, 3), np.uint8),
    "regions": ((SIZE, SIZE), np.uint8),
    "labels": ((SIZE, SIZE), np.uint8),
    "shape": ((40,), np.float32),
    "albedo": ((50,), np.float32),
    "expression": ((16,), np.float32),
    "pose": ((6,), np.float32),
    "gaze": ((2,), np.float32),
    "light": ((9, 3), np.float32),
    "camera": ((3,), np.float32),
    "landmarks5": ((5, 2), np.float32),
    "eg3d_camera": ((25,), np.float32),
    "identity": ((), np.int32),
    "frame": ((), np.int32),
    "attributes": ((len(labels.ATTRIBUTE_NAMES),), np.int8),
  }
  got = {k: (np.shape(e[k]), np.asarray(e[k]).dtype) for k in wanted}
  assert got == wanted
  assert isinstance(e["caption"], str)
  np.testing.assert_array_equal(
    e["regions"], labels.region_table()[e["labels"]]
  )


def test_two_runs_give_the_same_bytes():
  person, frame = sample_identity(0, 3), sample_frame(0, 3, 0)
  again = render.render(person, frame, SIZE)
  alone = _draw(3)
  np.testing.assert_array_equal(again["image"], alone["image"])
  both = render.render_batch([(person, frame), (person, frame)], SIZE)
  np.testing.assert_array_equal(both["image"][1], alone["image"])
  assert both["caption"] == [alone["caption"]] * 2


def test_labels_of_a_frontal_person_occur_and_lie_right():
  base = sample_frame(0, 3, 0)
  frame = factors.replace(
    base, pose=np.zeros(3, np.float32), expression=np.zeros(16, np.float32)
  )
  e = render.render(_plain(3), frame, SIZE)
  names = ("nose", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear")
  names += ("u_lip", "l_lip", "neck", "cloth", "skin", "background")
  centre = {}
  for name in names:
    y, x = np.nonzero(_is(e, name))
    assert len(x) >= 1, name
    centre[name] = (x.mean(), y.mean())
  # l_ is the subject's left: right in the picture.
  for name in ("eye", "brow", "ear"):
    assert centre["l_" + name][0] > centre["r_" + name][0] + 5
  assert centre["l_brow"][1] < centre["l_eye"][1] < centre["nose"][1]
  assert centre["nose"][1] < centre["u_lip"][1] < centre["l_lip"][1]
  assert centre["l_lip"][1] < centre["neck"][1] < centre["cloth"][1]


@pytest.mark.parametrize("index", [2, 3])
def test_codes_render_onto_the_picture(index):
  e = render.render(_plain(index), sample_frame(0, index, 0), SIZE)
  codes = {k: jnp.asarray(e[k])[None] for k in CODES}
  alone = jax.jit(
    lambda c: render_condition(albedo_model.world_model(), c, SIZE)
  )(codes)
  mask = np.asarray(alone["mask"][0]) > 0
  face = _is(e, *FACE, "l_eye", "r_eye", "l_ear", "r_ear")
  # Labels are taken half a fine pixel off the centre: the rim may differ.
  assert (mask & face).sum() / face.sum() > 0.98
  # What the model covers beyond the face is neck, or cloth in front of it.
  rest = mask & ~face & ~_is(e, "neck", "cloth")
  assert rest.sum() < 0.02 * mask.sum()
  # The model's albedo and light explain the picture but for occlusion.
  picture = np.asarray(alone["image"][0]) * 127.5 + 127.5
  error = np.abs(picture - e["image"].astype(float))[face].mean()
  assert error < 22


def test_landmarks_lie_on_their_parts():
  e = render.render(_plain(3), sample_frame(0, 3, 0), SIZE)
  eye_r, eye_l, nose, mouth_r, mouth_l = e["landmarks5"] * SIZE

  def near(name, point, reach):
    y, x = np.nonzero(_is(e, name))
    return np.hypot(x + 0.5 - point[0], y + 0.5 - point[1]).min() < reach

  assert near("r_eye", eye_r, 3) and near("l_eye", eye_l, 3)
  assert near("nose", nose, 2)
  assert near("u_lip", mouth_r, 4) and near("u_lip", mouth_l, 4)


def test_68_points_change_nothing_else_and_agree_with_the_five():
  person, frame = sample_identity(0, 3), sample_frame(0, 3, 0)
  more = render.render(person, frame, SIZE, landmarks68=True)
  plain = _draw(3)
  assert set(more) == {*EXAMPLE_FIELDS, *POINTS68_FIELDS}
  for name, value in plain.items():
    np.testing.assert_array_equal(more[name], value)
  points, five = more["landmarks68"], more["landmarks5"]
  assert points.shape == (68, 2) and points.dtype == np.float32
  np.testing.assert_allclose(points[[30, 48, 54]], five[2:], atol=1e-6)
  for eye, middle in ((slice(36, 42), five[0]), (slice(42, 48), five[1])):
    assert np.abs(points[eye].mean(0) - middle).max() * SIZE < 0.5


def test_points_behind_something_are_hidden():
  frame = factors.replace(
    sample_frame(0, 3, 0),
    pose=np.zeros(3, np.float32),
    expression=np.zeros(16, np.float32),
    jaw=np.zeros(3, np.float32),
  )
  bare = _plain(3)
  dark = factors.replace(bare, glasses=bare.glasses | as_factor(on=1, sun=1))
  seen, shaded = (
    render.render(person, frame, SIZE, landmarks68=True)["visible68"] > 0
    for person in (bare, dark)
  )
  assert seen.dtype == bool and seen[17:].all()
  eyes = np.arange(68)[36:48]
  assert not shaded[eyes].any()
  # What the glasses do not reach is seen as before.
  assert shaded[48:].all() and shaded[[30, 33]].all()


def test_background_and_light_leave_everything_else_alone():
  person, other = sample_identity(0, 3), sample_identity(0, 5)
  frame, lit = sample_frame(0, 3, 0), sample_frame(0, 5, 0)
  e = _draw(3)
  swapped, _ = counterfactual(person, frame, background_from=other)
  b = render.render(swapped, frame, SIZE)
  np.testing.assert_array_equal(b["labels"], e["labels"])
  inner = _inside(~_is(e, "background"))
  np.testing.assert_array_equal(b["image"][inner], e["image"][inner])
  assert (
    b["image"][_is(e, "background")] != e["image"][_is(e, "background")]
  ).any()
  _, relit = counterfactual(person, frame, light_from=lit)
  r = render.render(person, relit, SIZE)
  np.testing.assert_array_equal(r["labels"], e["labels"])
  np.testing.assert_array_equal(r["landmarks5"], e["landmarks5"])
  assert (r["image"][inner] != e["image"][inner]).mean() > 0.5


def test_another_hair_leaves_the_middle_of_the_face_alone():
  person, frame = _plain(3), sample_frame(0, 3, 0)
  haired = factors.replace(person, hair=sample_identity(0, 9))
  a, b = (render.render(p, frame, SIZE) for p in (person, haired))
  assert _is(b, "hair").sum() > 100 and not _is(a, "hair").any()
  inner = _is(a, "nose", "u_lip", "l_lip") & _is(b, "nose", "u_lip", "l_lip")
  assert inner.sum() > 30
  difference = np.abs(a["image"].astype(int) - b["image"].astype(int))[inner]
  # Hair shades the face a little through the occlusion; no colour changes.
  assert difference.max() <= 6
  for name in ("shape", "albedo", "light", "camera", "expression", "pose"):
    np.testing.assert_array_equal(a[name], b[name])


def test_counterfactual_keeps_the_face_in_its_place():
  person = sample_identity(0, 3)
  frame, query = sample_frame(0, 3, 0), sample_frame(0, 5, 0)
  _, edited = counterfactual(
    person, frame, pose_from=query, expression_from=query
  )

  def place(f):
    return f.camera[0] * (face_centre(person, f)[:2] + f.camera[1:])

  np.testing.assert_allclose(place(edited), place(frame), atol=1e-5)
  np.testing.assert_array_equal(edited.pose, query.pose)
  np.testing.assert_array_equal(
    edited.light["harmonics"], frame.light["harmonics"]
  )
  _, free = counterfactual(person, frame, pose_from=query, camera="query")
  np.testing.assert_array_equal(free.camera, query.camera)
  with pytest.raises(ValueError, match="query"):
    counterfactual(person, frame, camera="query")


def test_albedo_codes_reproduce_unseen_skin():
  mean, basis = albedo_basis.load_albedo_basis()
  assert basis.shape == (50, 128, 128, 3)
  error = spread = 0.0
  for index in range(4):
    person = sample_identity(77, index)
    truth = np.asarray(albedo_model.bare_albedo(person))
    code = albedo_model.albedo_code(person)
    built = mean + np.tensordot(code, basis, 1)
    error += ((built - truth) ** 2).mean()
    spread += ((mean - truth) ** 2).mean()
    assert np.abs(code).max() < 8  # whitened
  assert error < 0.05 * spread


def test_atlas_blocks_do_not_overlap_and_corners_stay_inside():
  world = geometry.build_world()
  used = np.zeros((geometry.ATLAS_SIZE,) * 2, int)
  for left, top, width, height in geometry.ATLAS.values():
    used[top : top + height, left : left + width] += 1
  assert used.max() == 1
  assert world.uv.min() >= 0 and world.uv.max() <= 1
  assert world.faces.max() == world.vertices - 1
  assert len(world.faces) == len(world.face_part) == len(world.uv)
