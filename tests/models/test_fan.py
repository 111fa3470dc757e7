"""Face alignment network: published size, coordinates, masks and points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.models.faces.fan import FAN, with_coordinates
from faceedit_jax.models.faces.landmark_masks import (
  LAYOUTS,
  enlarged,
  face_masks,
  peaks,
)
from tests.models.counts import array, parameters, randomised

MASKS = jax.jit(face_masks)


def test_published_size():
  assert parameters(FAN(), array(1, 256, 256, 3)) == 6_333_603


def test_coordinates():
  got = with_coordinates(jnp.zeros((2, 5, 3, 1)))
  assert got.shape == (2, 5, 3, 4)
  np.testing.assert_array_equal(got[0, :, 0, 1], [-1, -0.5, 0, 0.5, 1])
  np.testing.assert_array_equal(got[1, 2, :, 2], [-1, 0, 1])
  np.testing.assert_allclose(got[0, 0, 0, 3], 1)
  assert got[0, 2, 1, 3] == 0


def test_small_net(rng):
  net = FAN(landmarks=7, width=8, input_size=64)
  x = jnp.asarray(rng.uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
  variables = randomised(net, rng, x)
  out = jax.jit(net.apply)(variables, x)
  assert out.shape == (2, 16, 16, 8) and out.dtype == jnp.float32
  assert len(variables["params"]["hourglass"]) == 1 + 3 * 4 + 1
  with pytest.raises(ValueError, match="input_size is 96; wanted a multiple"):
    jax.eval_shape(FAN(input_size=96).init, jax.random.key(0), x)


def test_enlarged_keeps_the_corners(rng):
  x = jnp.asarray(rng.normal(size=(1, 4, 6, 2)), jnp.float32)
  out = enlarged(x)
  assert out.shape == (1, 16, 24, 2)
  np.testing.assert_allclose(out[:, ::15, ::23], x[:, ::3, ::5], atol=1e-5)
  column = np.interp(np.linspace(0, 3, 16), np.arange(4), x[0, :, 0, 0])
  np.testing.assert_allclose(out[0, :, 0, 0], column, atol=1e-5)


def spot(channel, row, column, side=64, high=0.5, landmarks=98):
  """One bright point."""
  r, c = np.mgrid[:side, :side]
  blob = high * np.exp(-((r - row) ** 2 + (c - column) ** 2) / 4)
  maps = np.zeros((1, side, side, landmarks), np.float32)
  maps[0, ..., channel] = blob
  return jnp.asarray(maps)


@pytest.mark.parametrize(
  ("channel", "rows_up", "masks"),
  [
    (15, 0, (1, 0)),  # chin
    (40, -7, (1, 0)),  # eyebrow: down
    (51, 0, (1, 1)),  # bridge of the nose
    (53, 4, (1, 1)),  # tip
    (57, 8, (1, 1)),  # nostrils
    (65, -8, (1, 1)),  # eyes; a copy 24 rows down, see below
    (79, -8, (1, 0)),  # upper lip
    (85, 8, (1, 0)),  # lower lip
    (92, -2, (1, 0)),  # inner lip
    (97, 0, (1, 1)),  # pupil
    (3, 0, (0, 0)),  # cheek
    (30, 0, (0, 0)),
    (46, 0, (0, 0)),  # ends of an eyebrow and of the lips
    (82, 0, (0, 0)),
  ],
)
def test_masks_of_parts(channel, rows_up, masks):
  found = np.asarray(MASKS(spot(channel, 30, 20)))[0]
  assert found.shape == (256, 256, 2)
  for mask, there in enumerate(masks):
    part = found[..., mask]
    # Normalised: the weak peak is one in the mask.
    assert part.max() == pytest.approx(there, abs=1e-3)
    if there and channel != 65:
      row, column = np.unravel_index(part.argmax(), part.shape)
      assert abs(row - (30 * 255 / 63 - rows_up)) <= 1
      assert abs(column - 20 * 255 / 63) <= 1
  if channel == 65:
    middle = found[:, round(20 * 255 / 63), 0]
    for down in (8, 24):
      assert middle[round(30 * 255 / 63) + down] > 0.9


# WFLW's point for each of iBUG's 68: jaw, eyebrows, nose, eyes, lips.
WFLW = (
  *range(0, 33, 2),
  *range(33, 38),
  *range(42, 47),
  *range(51, 60),
  *(60, 61, 63, 64, 65, 67),
  *(68, 69, 71, 72, 73, 75),
  *range(76, 96),
)


def test_68_points_do_what_the_same_points_of_98_do(rng):
  assert len(WFLW) == 68
  few = jnp.asarray(rng.uniform(0, 1, (2, 16, 16, 68)), jnp.float32) ** 4
  # 98 of which the others see nothing.
  many = jnp.zeros((2, 16, 16, 98)).at[..., jnp.array(WFLW)].set(few)
  masks = jax.jit(face_masks, static_argnums=1)(few, 68)
  np.testing.assert_allclose(masks, MASKS(many), atol=1e-5)
  for layout in LAYOUTS.values():
    # No point is in two parts.
    used = [
      at
      for first, last, *_ in (*layout.parts, layout.eyes)
      for at in range(first, last + 1)
    ]
    assert len(used) == len(set(used))


def test_the_small_mask_of_68_has_eyes_and_nose_alone():
  run = jax.jit(face_masks, static_argnums=1)
  for channel, masks in {
    3: (0, 0),  # cheek
    8: (1, 0),  # chin
    19: (1, 0),  # eyebrow
    29: (1, 1),  # nose
    40: (1, 1),  # eye
    51: (1, 0),  # lips
    63: (1, 0),
    54: (0, 0),  # corner of the lips
  }.items():
    found = run(spot(channel, 9, 5, side=16, landmarks=68), 68)
    np.testing.assert_allclose(found.max((0, 1, 2)), masks, atol=1e-3)


def test_masks_want_known_points():
  with pytest.raises(ValueError, match="no masks of 5 landmarks; wanted 68"):
    face_masks(jnp.zeros((1, 8, 8, 98)), 5)
  with pytest.raises(ValueError, match="got 60 heat-maps, wanted the 68 of iB"):
    face_masks(jnp.zeros((1, 8, 8, 60)), 68)


def test_masks_have_no_gradient_and_want_98():
  slope = jax.jit(jax.grad(lambda h: face_masks(h).sum()))(spot(60, 5, 5, 16))
  assert np.abs(slope).max() == 0
  with pytest.raises(ValueError, match="got 68 heat-maps, wanted the 98"):
    face_masks(jnp.zeros((1, 8, 8, 68)))
  # The boundary's map is not looked at.
  maps = spot(60, 5, 5, 16)
  more = jnp.concatenate([maps, jnp.ones((1, 16, 16, 1))], -1)
  np.testing.assert_array_equal(MASKS(more), MASKS(maps))


def test_peaks_lean_towards_the_higher_neighbour():
  maps = np.zeros((1, 8, 9, 3), np.float32)
  maps[0, 3, 5, 0] = 1
  maps[0, 3, 6, 0] = 0.5  # to the right
  maps[0, 2, 5, 0] = 0.5  # above
  maps[0, 0, 4, 1] = 1  # at the edge: as it is
  maps[0, 1, 4, 1] = 0.5
  maps[0, 4, 4, 2] = 1  # neighbours alike
  got = peaks(jnp.asarray(maps))
  np.testing.assert_allclose(
    got[0], [[5.75, 3.25], [4.5, 0.5], [4.5, 4.5]], atol=1e-6
  )
