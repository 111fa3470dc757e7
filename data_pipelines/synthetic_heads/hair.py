"""The hair: one thick shell of crown meridians, with locks, strands and bun.

Meridians run from the crown to the hairline; long styles let the last part of
each fall straight down. Angles in degrees, lengths in cm, +x the subject's
left, y up, z forward.
"""

import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads.noise import (
  fbm,
  lerp,
  noise1,
  noise2,
  noise3,
  smoothstep,
)

ROWS, COLUMNS = 30, 105  # the last column repeats the first
LINE_ANGLE = np.array(
  [0, 18, 33, 46, 58, 66, 73, 80, 86, 93, 108, 118, 135, 180], np.float32
)
LINE_HEIGHT = np.array(
  [41, 41, 40, 34, 20, 9, -2, -9, -6, 4, 2, -14, -30, -38], np.float32
)
_DEG = np.float32(np.pi / 180)
FALL = 0.62  # part of the meridian of long hair that lies on the head


def hairline(theta, offset):
  """Elevation of the hairline at azimuth `theta`; degrees."""
  line = jnp.interp(jnp.abs(theta), LINE_ANGLE, LINE_HEIGHT)
  return line + offset * jnp.exp(-((theta / 45) ** 2))


def under_hat(p, covered):
  """Flattens the style where a hat sits on it; `covered` is 0 or 1."""
  keep = 1.0 - covered
  return dict(
    p,
    top=jnp.where(covered > 0, jnp.minimum(p["top"], 0.5), p["top"]),
    side=jnp.where(covered > 0, jnp.minimum(p["side"], 1.1), p["side"]),
    back=jnp.where(covered > 0, jnp.minimum(p["back"], 1.2), p["back"]),
    curl=jnp.where(covered > 0, jnp.minimum(p["curl"], 0.3), p["curl"]),
    quiff=p["quiff"] * keep,
    bangs=p["bangs"] * keep,
    groove=p["groove"] * keep,
    bun=p["bun"] * keep,
  )


def strand_coordinates(p, theta, t):
  """(across, along) strand coordinates at azimuth `theta`, meridian part t."""
  long = p["length"] > 0
  parted = long & (p["bangs"] <= 0)
  nb = jnp.where(long, FALL, 1.0)
  swept = jnp.where(long, 0.0, p["sweep"] * t * 3)
  diagonal = (
    jnp.sign(theta - p["part"] * 40)
    * 2.6
    * jnp.sin(jnp.clip(t / nb, 0, 1) * np.pi / 2)
    * jnp.exp(-((theta / 75) ** 2))
  )
  u = theta * _DEG * 9 + swept - jnp.where(parted, diagonal, 0.0)
  return u, t * 20 + 0 * theta


def _meridian_ends(p, theta):
  """Elevation at which each meridian leaves the head, and the fall (cm)."""
  a, seed = jnp.abs(theta), p["seed"]
  end = (
    hairline(theta, p["hairline"])
    + (noise1(theta * 0.35 + seed) - 0.5) * 3
    + (noise1(theta * 0.9 + seed * 2) - 0.5) * 2.5
  )
  fringe = (
    16
    + (noise1(theta * 0.45 + seed * 3) - 0.5) * 7
    + p["bang_sweep"] * jnp.sin(theta * 2 * _DEG)
  )
  width = (1 - smoothstep(44.0, 60.0, a)) * p["bangs"]
  end = lerp(end, fringe, width)
  long, start = p["length"] > 0, p["start"]
  parting = jnp.arcsin(jnp.clip(p["part"] * 0.75, -0.6, 0.6)) / _DEG
  curtain = lerp(
    43.0,
    17.0,
    smoothstep(3.0, jnp.maximum(start - 8, 20.0), jnp.abs(theta - parting)),
  )
  open_front = long & (p["bangs"] <= 0)
  end = jnp.where(open_front, jnp.minimum(end, curtain), end)
  fall = p["length"] * smoothstep(start, start + 9, a)
  fall = fall * (1 + 0.10 * (noise1(theta * 0.25 + seed) - 0.5))
  layered = p["front_layer"] * p["length"] * 0.5
  fall = fall - layered * (1 - smoothstep(start, start + 60, a)) * (fall > 0)
  fall = jnp.maximum(fall, 0.0)
  lifted = lerp(end, jnp.maximum(end, 0.0), smoothstep(start - 12, start, a))
  long_end = jnp.where(a > 70, 0.0, jnp.where(a > start, lifted, end))
  return jnp.where(long, long_end, end), fall


def _thickness(p, theta, phi, t, tt, fall):
  """Distance of the shell from the head (cm)."""
  a = jnp.abs(theta)
  back = lerp(
    1.0,
    p["back"] / jnp.maximum(p["side"], 0.1),
    smoothstep(70.0, 140.0, a) * (1 - smoothstep(30.0, 70.0, phi)),
  )
  h = lerp(p["side"], p["top"], smoothstep(8.0, 60.0, phi)) * back
  h = h + p["quiff"] * jnp.exp(-((theta / 42) ** 2) - ((phi - 52) / 15) ** 2)
  sideways = jnp.sin(theta * _DEG) * jnp.cos(phi * _DEG) * 9
  groove = jnp.exp(-(((sideways - p["part"] * 9) / 0.7) ** 2))
  front = jnp.cos(theta * _DEG) > -0.2
  h = h - p["groove"] * groove * smoothstep(35.0, 50.0, phi) * front
  long, start = p["length"] > 0, p["start"]
  e = jnp.where(long, jnp.where(fall > 0.5, 0.0, tt), t)
  short_cut = (p["quiff"] <= 0.4) & (p["bangs"] <= 0)
  power = jnp.where(short_cut, 3.2, 5.0)
  h = h * jnp.sqrt(jnp.clip(1 - jnp.maximum(e, 1e-6) ** power, 0, 1))
  edge = lerp(0.55, 1.0, jnp.sqrt(smoothstep(start - 6, start + 25, a)))
  return h * jnp.where(long & (a > start - 6), edge, 1.0)


def hair_shell(p, head_radius):
  """Hair surface in the rest pose.

  Args:
    p: hair factor; scalars.
    head_radius: function (azimuth, elevation) in degrees -> radius in cm of
      this identity's bare head.

  Returns:
    positions (ROWS, COLUMNS, 3) cm, tangents (ROWS, COLUMNS, 3), occlusion
    (ROWS, COLUMNS).
  """
  theta = jnp.linspace(-180.0, 180.0, COLUMNS)[None] + jnp.zeros((ROWS, 1))
  wrapped = theta.at[:, -1].set(-180.0)  # the seam must close
  t = jnp.linspace(0.0, 1.0, ROWS)[:, None] + 0 * theta
  theta = wrapped
  long = p["length"] > 0
  end, fall = _meridian_ends(p, theta)
  nb = jnp.where(long, FALL, 1.0)
  tt = jnp.clip(t / nb, 0, 1)
  phi = lerp(89.0, end, jnp.maximum(tt, 1e-6) ** 0.9)
  drop = jnp.clip((t - nb) / jnp.maximum(1 - nb, 1e-3), 0, 1) * fall
  drop = jnp.where(long, drop, 0.0)
  h = _thickness(p, theta, phi, t, tt, fall)
  q = theta / 360 * p["locks"] + p["sweep"] * t
  q = q + 0.35 * jnp.sin(t * 6 + p["seed"])
  ridge = 1 - jnp.abs(2 * noise1(q + 50) - 1)
  ridge = ridge + 0.5 * (1 - jnp.abs(2 * noise1(q * 2.7 + 9) - 1))
  radius = head_radius(theta, phi) + h
  sin, cos = jnp.sin(theta * _DEG), jnp.cos(theta * _DEG)
  x = radius * jnp.cos(phi * _DEG) * sin
  y = radius * jnp.sin(phi * _DEG)
  z = radius * jnp.cos(phi * _DEG) * cos
  u = drop / jnp.maximum(p["length"], 1e-3)
  flare = p["flare"] * jnp.maximum(u, 1e-6) ** 1.5
  flare = flare - 1.2 * p["pinch"] * jnp.sin(np.pi * jnp.clip(u, 0, 1))
  swing = p["wave"] * (drop > 0)
  swing = swing * jnp.sin(
    u * 2 * np.pi * p["wave_count"] + 3 * noise1(q) + p["seed"]
  )
  flare = jnp.where(long, flare, 0.0)
  x = x + flare * sin + swing * jnp.abs(cos) * 0.6
  z = z + flare * cos * 0.8 + swing * sin * 0.5
  z = z - jnp.where(long & (cos > 0), 1.5 * u * cos, 0.0)
  y = y - drop
  pos = jnp.stack([x, y, z], -1)
  out = pos - jnp.array([0.0, 1.5, -1.0])
  out = out * jnp.stack(
    [1 + 0 * drop, jnp.where(drop > 0, 0.0, 1.0), 1 + 0 * drop], -1
  )
  out = out / (jnp.linalg.norm(out, axis=-1, keepdims=True) + 1e-6)
  amount = p["lock"] * jnp.clip(h / 0.8, 0, 1) * jnp.minimum(1, t * 5)
  pos = pos + out * (amount * (ridge - 0.7))[..., None]
  thick = jnp.clip(h / 0.6, 0, 1)
  s = pos * p["curl_scale"]
  puff = fbm(s[..., 0], s[..., 1], s[..., 2]) - 0.45
  pos = pos + out * (p["curl"] * 2.2 * puff * thick)[..., None]
  s = pos * p["curl_scale"] * 1.3
  curl = noise3(s[..., 0] + 5, s[..., 1], s[..., 2]) - 0.5
  pos = pos.at[..., 1].add(p["curl"] * 0.8 * curl * thick)
  pos = pos.at[0].set(pos[0, :-1].mean(0))
  pos = pos.at[:, -1].set(pos[:, 0])
  tangent = jnp.gradient(pos, axis=0)
  tangent = tangent / (jnp.linalg.norm(tangent, axis=-1, keepdims=True) + 1e-9)
  tip_long = jnp.where(t < 0.5, 1.0, 1 - 0.45 * smoothstep(0.6, 1.0, t))
  tip = jnp.where(long, tip_long, 1 - 0.3 * smoothstep(0.7, 1.0, t))
  return pos, tangent, tip


def strands(p, theta, t, pos):
  """Strand pattern of a patch of hair texels.

  Args:
    p: hair factor.
    theta, t: azimuth in degrees and meridian part, same shape.
    pos: rest position of the texel (..., 3) cm, for curls.

  Returns:
    colour (..., 3) linear, bump (...), strand brightness (...).
  """
  u, v = strand_coordinates(p, theta, t)
  seed, curly = p["seed"], p["curl"] > 0
  x, y, z = pos[..., 0], pos[..., 1], pos[..., 2]
  broad = noise2(u * 3.2 + seed, v * 0.22)
  fine = noise2(u * 9 + 5, v * 0.4)
  curl = fbm(x * 2, y * 2, z * 2)
  broad = jnp.where(curly, 0.35 * broad + 0.65 * curl, broad)
  fine = jnp.where(curly, 0.5 * fine + 0.5 * noise3(x * 3, y * 3, z * 3), fine)
  colour = p["colour"] * (0.55 + 0.6 * broad + 0.4 * fine)[..., None]
  roots = lerp(0.75, 1.1, smoothstep(0.0, 12.0, v))
  colour = colour * jnp.where(p["roots"] > 0, roots, 1.0)[..., None]
  dark = jnp.array([0.077, 0.045, 0.028])
  streak = p["streaks"] * 0.6 * smoothstep(0.55, 0.75, noise1(u * 2.3))
  colour = lerp(colour, dark, streak[..., None])
  d1 = noise2((u + 0.06) * 3.2 + seed, v * 0.22) - noise2(
    (u - 0.06) * 3.2 + seed, v * 0.22
  )
  d2 = noise2((u + 0.03) * 9 + 5, v * 0.4) - noise2((u - 0.03) * 9 + 5, v * 0.4)
  return colour, 1.1 * d1 + 0.6 * d2, broad
