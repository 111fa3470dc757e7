"""Draws the frame factors: pose, jaw, expression, gaze, light, camera."""

import numpy as np

from data_pipelines.synthetic_heads.factors import Frame, as_factor
from data_pipelines.synthetic_heads.streams import Stream
from faceedit_jax.morphable.head_bases import EXPRESSION_NAMES

# Squared constants of the real harmonics times the Lambert factors of their
# band, over the constants in the (9, 3) interface: what one lamp adds.
_REAL = np.array(
  [0.282095] + [0.488603] * 3 + [1.092548] * 3 + [0.546274, 0.315392]
)
_LAMBERT = np.array([1.0] + [2 / 3] * 3 + [0.25] * 5)
_STORED = np.array(
  [0.28209479] + [1.02332671] * 3 + [0.85808553] * 3 + [0.42904277, 0.24770796]
)
_REDDEN = np.array([1.0] + [0.93] * 3 + [0.93 * 0.85] * 5)
SKY = np.array([0.98, 1.0, 1.03]) * 1.25
GROUND = np.array([1.07, 1.0, 0.9]) * 0.65
_DEG = np.pi / 180
INDEPENDENT = (  # name, probability, size
  ("brow_raise_L", 0.20, 1.0),
  ("brow_raise_R", 0.20, 1.0),
  ("brow_furrow", 0.15, 0.7),
  ("brow_inner_up", 0.15, 0.8),
  ("nose_wrinkle", 0.10, 0.8),
  ("cheek_puff", 0.06, 0.9),
  ("lip_press", 0.08, 0.8),
  ("mouth_side", 0.12, 0.8),
  ("stretch", 0.10, 0.6),
  ("frown", 0.05, 0.4),
)


def direction(azimuth, elevation):
  """Unit vector towards a lamp; degrees, azimuth 0 in front, + to the right
  of the picture."""
  a, e = azimuth * _DEG, elevation * _DEG
  return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])


def make_light(lamps, sky, ground):
  """Light factor of directed lamps and a two-tone ambient.

  Args:
    lamps: up to three (direction (3,), linear RGB (3,)); the first is the key.
    sky, ground: linear RGB from above and below.

  Returns:
    directions (3, 3), colours (3, 3), harmonics (9, 3): irradiance over pi is
    the sum of harmonics x constants x polynomials of the normal.
  """
  d, c, h = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((9, 3))
  d[:, 2] = 1.0
  for i, (towards, colour) in enumerate(lamps):
    x, y, z = np.asarray(towards, np.float64) / np.linalg.norm(towards)
    p = np.array(
      [1, x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1]
    )
    gain = np.pi * _LAMBERT * _REAL**2 / _STORED
    d[i], c[i] = (x, y, z), colour
    h += (gain * p)[:, None] * np.asarray(colour, np.float64)[None]
  sky, ground = np.asarray(sky), np.asarray(ground)
  h[0] += (sky + ground) / 2 / _STORED[0]
  h[2] += (sky - ground) / 2 / _STORED[2]
  h[:, 0] *= _REDDEN
  return as_factor(directions=d, colours=c, harmonics=h)


def make_camera(height, right=0.0, down=0.0):
  """Weak perspective camera of a picture that is `height` cm high.

  Args:
    height: cm of the world that fill the picture.
    right, down: shift of the head, in parts of the picture.
  """
  s = 200.0 / height
  return np.array([s, 2 * right / s, 0.002 + (0.11 - 2 * down) / s]).astype(
    np.float32
  )


def rotation_vector(pitch, yaw, roll):
  """Axis-angle (3,) of yaw after pitch after roll; radians."""
  half = np.array([pitch, yaw, roll]) / 2
  (cx, cy, cz), (sx, sy, sz) = np.cos(half), np.sin(half)
  w = cy * cx * cz + sy * sx * sz
  v = np.array(
    [
      cy * sx * cz + sy * cx * sz,
      sy * cx * cz - cy * sx * sz,
      cy * cx * sz - sy * sx * cz,
    ]
  )
  n = np.sqrt((v * v).sum())
  angle = 2 * np.arctan2(n, w)
  return (v * (angle / n if n > 1e-12 else 2.0)).astype(np.float32)


def expression_vector(**values):
  """Expression coefficients (16,) by name; a faint smile unless told."""
  e = dict.fromkeys(EXPRESSION_NAMES, 0.0) | {"smile": 0.12} | values
  return np.array([e[n] for n in EXPRESSION_NAMES]).astype(np.float32)


def smile_blink(smile):
  """How far a smile closes the eyes."""
  return 0.2 * max(0.0, smile - 0.3)


def draw_expression(s, wants):
  """A mood with its extras from a stream.

  Args:
    s: the stream.
    wants: may fix `Smiling` (a number in [0, 1), below one half for a smile
      that shows), `Narrow_Eyes` and `Mouth_Slightly_Open` (true or false).

  Returns:
    The expression (16,) and the angle of the jaw in degrees.
  """
  e = dict.fromkeys(EXPRESSION_NAMES, 0.0)
  e["smile"], jaw = 0.12, 0.0
  r, opened = s.random(), s.chance(0.55)
  r = wants.get("Smiling", r)
  size = s.uniform(0, 1)
  if r < 0.5:
    # Asked for, a smile is a clear one: faint ones can hardly be told at 64 px.
    # The recipe of the world draws from the whole side, from 0.4 on.
    least = 0.7 if "Smiling" in wants else 0.4
    e["smile"] = least + (1.2 - least) * size
    jaw = s.uniform(0, 10) * opened
    e["upper_lip_raise"] = 0.3 * (jaw > 3) * s.random()
  elif r < 0.58:
    e["frown"], e["brow_furrow"] = 0.3 + 0.6 * size, s.random()
  elif r < 0.70:
    jaw = s.uniform(5, 17)
    e["brow_raise_L"] = e["brow_raise_R"] = 0.2 + 0.9 * size
  elif r < 0.77:
    e["pucker"] = 0.4 + 0.6 * size
  for name, p, k in INDEPENDENT:
    hit, amount, side = s.chance(p), s.uniform(0.2, 1) * k, s.chance(0.5)
    if hit:
      e[name] += -amount if name == "mouth_side" and side else amount
  blink = min(max(s.normal(0.08, 0.15), -0.15), 0.6)
  if s.chance(0.06):
    blink = 1.0
  blink += smile_blink(e["smile"])
  u = s.random()
  if "Narrow_Eyes" in wants:
    narrow = wants["Narrow_Eyes"]
    blink = 0.37 + 0.35 * u if narrow else min(blink, 0.33)
  e["blink_L"] = e["blink_R"] = blink
  u = s.random()
  if "Mouth_Slightly_Open" in wants:
    jaw = 4.5 + 7 * u if wants["Mouth_Slightly_Open"] else min(jaw, 3.5)
  return expression_vector(**e), jaw


def _light(s):
  azimuth, elevation = s.uniform(-75, 75), s.uniform(5, 60)
  warm = np.array([1, 0.92, 0.82]) * s.uniform(0.95, 1.06)
  tint = warm if s.chance(0.6) else np.array([0.92, 0.96, 1.02])
  lamps = [(direction(azimuth, elevation), tint * s.uniform(0.7, 1.1))]
  fill, side, strength = s.chance(0.6), s.uniform(30, 110), s.uniform(0.1, 0.35)
  if fill:
    a = (-side if azimuth > 0 else side) * _DEG
    colour = np.array([0.88, 0.95, 1.06]) * strength
    lamps.append((np.array([np.sin(a), 0.25, np.cos(a)]), colour))
  rim, left, strength = s.chance(0.35), s.chance(0.5), s.uniform(0.4, 0.9)
  if rim:
    towards = np.array([-0.8 if left else 0.8, 0.35, -0.6])
    lamps.append((towards, np.ones(3) * strength))
  ambient = s.uniform(0.16, 0.36)
  return make_light(lamps, SKY * ambient, GROUND * ambient)


def sample_frame(
  seed: int, identity_index: int, frame_index: int, balance=()
) -> Frame:
  """Draws one frame of one person.

  Args:
    seed: seed of the world.
    identity_index, frame_index: which person, and which picture of them.
    balance: CelebA names to bring between 20 % and 80 %; of the frame these
      are Smiling, Mouth_Slightly_Open and Narrow_Eyes.

  Returns:
    A Frame; a pure function of the arguments on every machine.
  """
  key = (int(seed), int(identity_index), int(frame_index))

  def stream(name):
    return Stream(*key, "frame", name)

  wants = {
    n: stream("balance/" + n).chance(0.5)
    for n in ("Mouth_Slightly_Open", "Narrow_Eyes")
    if n in balance
  }
  if "Smiling" in balance:
    u = stream("balance/Smiling").random()
    wants["Smiling"] = u
  s = stream("pose")
  pose = rotation_vector(
    min(max(s.normal(0, 9), -22), 22) * _DEG,
    min(max(s.normal(0, 24), -60), 60) * _DEG,
    s.normal(0, 5) * _DEG,
  )
  expression, jaw = draw_expression(stream("expression"), wants)
  s = stream("gaze")
  gaze = np.array(
    [s.normal(0, 5) * _DEG, min(max(s.normal(0, 9), -20), 20) * _DEG]
  )
  s = stream("camera")
  return Frame(
    seed=key[0],
    identity_index=key[1],
    index=key[2],
    pose=pose,
    jaw=np.array([jaw * _DEG, 0, 0]).astype(np.float32),
    expression=expression,
    gaze=gaze.astype(np.float32),
    light=_light(stream("light")),
    camera=make_camera(
      s.uniform(29.5, 33.5), s.uniform(-0.02, 0.02), s.uniform(-0.02, 0.02)
    ),
  )
