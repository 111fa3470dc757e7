"""Torso, collars and the cloth on them."""

import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads.noise import fbm, lerp, smoothstep

TORSO_COLUMNS, COLLAR_ROWS, COLLAR_COLUMNS = 73, 9, 49
RINGS = np.array(  # half width, half depth, y, z (cm)
  [
    (3.4, 3.4, -12.6, -1.7),
    (4.7, 4.7, -13.5, -1.9),
    (6.7, 6.3, -14.7, -2.0),
    (11, 8.1, -16.2, -2.0),
    (14.5, 9.2, -17.4, -2.0),
    (17.6, 9.9, -19.0, -2.0),
    (19.6, 10.4, -21.5, -2.0),
    (20.3, 10.8, -25, -2.0),
    (20.5, 11, -32, -2.0),
    (20.5, 11, -44, -2.0),
  ],
  np.float32,
)
TORSO_ROWS = len(RINGS)
FRONT_SHARE = 0.6  # texels gather at the front of the body


def angle_to_u(angle):
  """Texture coordinate 0..1 of an angle in [-pi, pi], denser in front."""
  return 0.5 + (angle + FRONT_SHARE * np.sin(angle)) / (2 * np.pi)


def torso(p):
  """Neck and shoulders (TORSO_ROWS, TORSO_COLUMNS, 3) cm."""
  a = np.linspace(-np.pi, np.pi, TORSO_COLUMNS).astype(np.float32)
  a[-1] = a[0]
  k = np.arange(TORSO_ROWS)[:, None]
  wide = RINGS[:, :1] * jnp.where(k > 2, p["width"], 1.0)
  x = np.sign(np.sin(a)) * np.abs(np.sin(a)) ** 0.9 * wide
  z = (
    RINGS[:, 3:] + np.sign(np.cos(a)) * np.abs(np.cos(a)) ** 0.9 * RINGS[:, 1:2]
  )
  drop = 1.6 * np.maximum(np.cos(a), 0) ** 2 * np.where(k > 0, 1, 0.6)
  y = RINGS[:, 2:3] - drop * np.exp(-0.12 * k)
  return jnp.stack([x, y.astype(np.float32), z.astype(np.float32)], -1)


def _ring(w, d, y, z, dip):
  a = np.linspace(-np.pi, np.pi, COLLAR_COLUMNS)
  down = dip * np.clip(np.cos(a), 0, None) ** 2
  return np.stack([np.sin(a) * w, y - down, z + np.cos(a) * d], -1)


def _collars():
  """Collar rings per kind of clothes (5, COLLAR_ROWS, COLLAR_COLUMNS, 3)."""
  base = _ring(6.6, 6.2, -14.2, -1.9, 1.7)
  b = np.linspace(0, 2 * np.pi, COLLAR_ROWS)
  centre = np.array([0, -14.2, -1.9])
  out = (base - centre) * np.array([1, 0, 1])
  out = out / np.linalg.norm(out, axis=-1, keepdims=True)
  crew = (
    base[None]
    + 0.4 * np.cos(b)[:, None, None] * out[None]
    + 0.4 * np.sin(b)[:, None, None] * np.array([0.0, 1, 0])
  )
  turtle = [
    _ring(6.3, 6.2, -14.8, -1.9, 1.0),
    _ring(5.9, 5.9, -13.6, -1.8, 0.8),
    _ring(5.75, 5.85, -12.4, -1.7, 0.8),
    _ring(5.8, 5.9, -11.4, -1.6, 0.9),
    _ring(5.3, 5.4, -11.4, -1.6, 0.9),
  ]
  shirt = [
    _ring(5.8, 5.7, -12.6, -1.9, 2.6),
    _ring(6.1, 6.1, -12.0, -1.9, 2.9),
    _ring(7.1, 7.2, -13.7, -1.9, 4.4),
    _ring(7.5, 7.8, -14.8, -1.9, 5.2),
  ]

  def fill(rings):
    return np.stack(rings + [rings[-1]] * (COLLAR_ROWS - len(rings)))

  none = np.zeros_like(crew)
  return np.stack([crew, none, fill(turtle), fill(shirt), none])


COLLARS = _collars().astype(np.float32)


def collar(p):
  """Collar (COLLAR_ROWS, COLLAR_COLUMNS, 3) cm and whether each quad is there.

  A shirt leaves the throat open; V and scoop necks have no collar.
  """
  kind = p["kind"].astype(jnp.int32)
  a = np.linspace(-np.pi, np.pi, COLLAR_COLUMNS)
  closed = np.ones((5, COLLAR_ROWS - 1, COLLAR_COLUMNS - 1), bool)
  closed[(1, 4),] = False
  closed[2, 4:] = closed[3, 3:] = False
  inner = np.minimum(np.abs(a[:-1]), np.abs(a[1:]))
  closed[3] &= (inner > 0.16)[None]
  return jnp.asarray(COLLARS)[kind], jnp.asarray(closed)[kind]


def bare_skin(p, pos):
  """1 where skin shows through the neckline at rest positions (..., 3)."""
  x, y, z = pos[..., 0], pos[..., 1], pos[..., 2]
  kind, ax = p["kind"], jnp.abs(x)

  def soft(d):
    return jnp.clip(0.5 + d / 0.3, 0, 1)

  vneck = soft(y + 22 - 1.35 * ax) * (z > -2) * (ax < 6.5)
  scoop = soft((1 - ((x / 8) ** 2 + ((y + 14.5) / 6) ** 2)) * 4) * (z > -3)
  shirt = soft(y + 19.5 - 1.6 * ax) * (z > -2) * (ax < 5)
  none = jnp.zeros_like(x)

  def pick(k, v, other):
    return jnp.where(jnp.abs(kind - k) < 0.5, v, other)

  return pick(1, vneck, pick(4, scoop, pick(3, shirt, none)))


def cloth_colour(p, pos, is_collar):
  """Linear RGB (..., 3) of the cloth at rest positions (..., 3) cm."""
  x, y, z = pos[..., 0], pos[..., 1], pos[..., 2]
  weave = 0.92 + 0.16 * fbm(x * 0.5, y * 0.5, z * 0.5)
  plain = p["colour"] * weave[..., None]
  second = p["colour2"] + 0 * plain
  kind = p["pattern"]
  stripe = (jnp.sin(y * 2.4) > 0.25) * 1.0
  plaid = 0.5 * (jnp.sin(x * 1.9) > 0.4) + 0.4 * (jnp.sin(y * 1.9) > 0.4)
  print_ = smoothstep(0.52, 0.6, fbm(x * 0.55, y * 0.55, z * 0.4))
  w = jnp.where(
    kind < 0.5,
    0.0,
    jnp.where(kind < 1.5, stripe, jnp.where(kind < 2.5, plaid, print_)),
  )
  colour = lerp(plain, second, w[..., None])
  shirt = jnp.abs(p["kind"] - 3) < 0.5
  turtle = jnp.abs(p["kind"] - 2) < 0.5
  if is_collar:
    rib = jnp.where(turtle, 1 - 0.25 * (jnp.sin(x * 7) > 0), 1.0)
    return colour * (0.9 * rib)[..., None]
  buttons = jnp.where(shirt, 1 - 0.5 * jnp.exp(-((x / 0.14) ** 2)), 1.0)
  return colour * buttons[..., None]
