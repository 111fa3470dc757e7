"""Colour, gloss and labels of skin, lips, brows, eyes, teeth and ears.

Everything is a formula of the template position (cm) and is evaluated once per
identity on the texels of the head. Colours mix in optical density: melanin and
blood are exponents, so dark and fair skin need no separate palettes.
"""

import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads.beard import MOUTH_Y, beard_mask
from data_pipelines.synthetic_heads.hair import hairline
from data_pipelines.synthetic_heads.labels import LABEL
from data_pipelines.synthetic_heads.noise import (
  fbm,
  lerp,
  noise1,
  noise2,
  noise3,
  smoothstep,
)

SKIN, EYE, UPPER_TEETH, EAR, TONGUE, LOWER_TEETH = 0, 1, 2, 3, 4, 5
# Kinds of skin: lid rims, the wet part of the lips, the mouth bag behind.
PLAIN, UPPER_RIM, LOWER_RIM, UPPER_LIP, LOWER_LIP, UPPER_BAG, LOWER_BAG = range(
  7
)
_BASE = np.array([0.09, 0.27, 0.48], np.float32)
_MELANIN = np.array([1.0, 1.26, 1.52], np.float32)
_BLOOD = np.array([0.03, 0.38, 0.32], np.float32)
_LIP_BLOOD = np.array([0.12, 0.62, 0.50], np.float32)
_DEG = np.float32(np.pi / 180)


def skin_rgb(melanin, blood):
  """Linear RGB of skin; melanin and blood (...)."""
  m, b = jnp.asarray(melanin)[..., None], jnp.asarray(blood)[..., None]
  return jnp.exp(-_BASE - m * _MELANIN - b * _BLOOD)


def _gauss(d, width):
  return jnp.exp(-((d / width) ** 2))


def _skin(p, c, part, freckles):
  """Mottled skin with blushes, freckles and wrinkles."""
  x, y, z = c[..., 0], c[..., 1], c[..., 2]
  ax = jnp.abs(x)
  red = p["cheek"] * _gauss(ax - 4.2, 1.7) * _gauss(y + 4.1, 1.4) * (z > 2)
  red += 0.35 * _gauss(x, 1.3) * _gauss(y + 4.2, 0.9) * (z > 9)
  red += 0.12 * _gauss(y + 10.3, 1.2) * _gauss(x, 2.0) * (z > 5)
  red += 0.6 * (part == EAR)
  mel = p["melanin"] + 0.12 * (fbm(x * 1.3 + 7, y * 1.3, z * 1.3) - 0.45)
  socket = _gauss(ax - 3.2, 1.7) * _gauss(y + 0.1, 1.1) * (z > 5)
  mel += 0.16 * socket * (1 + 0.8 * p["age"])
  if freckles:
    band = jnp.exp(-((ax / 5) ** 4) - ((y + 3) / 2.2) ** 2)
    spots = smoothstep(0.64, 0.74, noise3(x * 6.5, y * 6.5, z * 6.5))
    mel += 0.55 * p["freckles"] * spots * band
  skin = skin_rgb(mel, p["blood"] * 0.7 + red * 0.9)
  lines = jnp.zeros_like(x)
  for y0 in (4.2, 5.4, 6.6):
    wave = 0.15 * jnp.cos(x * 0.8) + 0.12 * noise1(x * 0.7 + y0 * 9)
    lines += _gauss(y - y0 - wave, 0.13) * jnp.exp(-((x / 3.6) ** 4))
  d = -4.6 - y
  fold = jnp.abs((ax - 1.75) - d * 0.42 - 0.05 * d**2)
  fold_span = smoothstep(-4.2, -5.0, y) * smoothstep(-8.6, -7.4, y)
  lines += 1.5 * _gauss(fold, 0.17) * fold_span
  for q in (-0.5, 0.0, 0.5):
    span = smoothstep(4.95, 5.3, ax) * smoothstep(6.9, 6.0, ax)
    lines += 0.8 * _gauss(y - 0.1 - (ax - 5.2) * q, 0.11) * span
  under = _gauss(y + 1.25 - 0.12 * (ax - 3.2) ** 2, 0.14)
  lines += 0.8 * under * jnp.exp(-(((ax - 3.2) / 1.3) ** 4))
  lines = lines * (z > 3)
  skin = skin * (1 - jnp.clip(0.38 * p["wrinkles"] * lines, 0, 0.5))[..., None]
  crease = _gauss(y - (1.05 - 0.16 * (ax - 3.1) ** 2), 0.12)
  crease = crease * jnp.exp(-(((ax - 3.2) / 1.5) ** 6)) * (z > 6)
  nostril = _gauss(ax - 0.58, 0.34) * _gauss(y + 4.98, 0.2) * (z > 8.8)
  ring = jnp.sqrt((ax - 1.15) ** 2 + ((y + 4.35) / 0.85) ** 2 + 1e-9)
  wing = _gauss(ring - 0.72, 0.13) * (ax > 1.25) * (z > 8)
  dark = (1 - 0.35 * crease) * (1 - 0.8 * nostril) * (1 - 0.22 * wing)
  return skin * dark[..., None]


def _lip_masks(c, kind):
  """Cover of the upper and the lower lip, and height of the mouth line."""
  x, y, z = c[..., 0], c[..., 1], c[..., 2]
  ax = jnp.abs(x)
  u = jnp.clip(ax / 2.55, 0, 1)
  line = MOUTH_Y - 0.02 + 0.10 * jnp.cos(u * np.pi * 1.5) * (1 - u)
  line = line + 0.10 * u**2
  bow = jnp.clip(1 - u**2.3, 1e-6, 1) ** 0.85
  top = line + 0.98 * bow * (1 - 0.13 * _gauss(x, 0.3))
  low = jnp.clip(1 - (ax / 2.4) ** 2.3, 1e-6, 1) ** 0.85
  bottom = line - 1.08 * low
  there = (z > 7) * (ax < 2.55)
  upper = smoothstep(-0.07, 0.07, top - y) * smoothstep(-0.06, 0.0, y - line)
  lower = smoothstep(-0.07, 0.07, y - bottom) * smoothstep(0.0, 0.06, line - y)
  upper = jnp.where(kind == UPPER_LIP, 1.0, upper * there)
  lower = jnp.where(kind == LOWER_LIP, 1.0, lower * there)
  return upper, lower, line


def _brow_mask(p, c):
  """Cover of the brows 0..1 and their hair pattern."""
  x, y, z = c[..., 0], c[..., 1], c[..., 2]
  ax = jnp.abs(x)
  t = jnp.clip((ax - 1.15) / (3.75 + p["length"]), 0, 1)
  middle = 1.88 + p["arch"] * jnp.sin(np.pi * jnp.maximum(t, 1e-6) ** 1.25)
  middle = middle + 0.27 * t - 0.8 * jnp.clip(t - 0.74, 0, 1)
  half = 0.33 * p["thickness"] * jnp.clip(t * 7, 1e-6, 1) ** 0.7
  half = half * (1 - 0.85 * t**3)
  hairs = noise2(x * 5.5 - y * 4.5 * jnp.sign(x) + 31, y * 2.2)
  edge = half - jnp.abs(y - middle) + 0.16 * (hairs - 0.5)
  mask = smoothstep(-0.12, 0.10, edge)
  mask = mask * smoothstep(1.0, 1.3, ax + 0.12 * hairs)
  mask = mask * smoothstep(5.15 + p["length"], 4.8 + p["length"], ax)
  return mask * (z > 5), hairs


def _eyeball(p, n):
  """Iris, pupil and sclera at directions n (..., 3) on the unit ball."""
  r = jnp.sqrt(n[..., 0] ** 2 + n[..., 1] ** 2 + 1e-9)
  rim = p["radius"]
  angle = jnp.arctan2(n[..., 1], n[..., 0] + 1e-9)
  iris = p["colour"] * 1.25 * (0.65 + 0.75 * noise1(angle * 14 + 50))[..., None]
  iris = iris * (0.7 + 0.8 * smoothstep(rim * 0.35, rim * 0.95, r))[..., None]
  iris = iris * (1 + 0.7 * jnp.clip(-n[..., 1] / rim, -1, 1))[..., None]
  white = np.array([0.80, 0.77, 0.74], np.float32)
  white = white * (1 - 0.22 * smoothstep(0.5, 1.0, r))[..., None]
  eye = lerp(iris, white, smoothstep(rim - 0.05, rim + 0.05, r)[..., None])
  eye = eye * (1 - 0.55 * _gauss(r - rim, 0.07))[..., None]
  eye = lerp(0.008, eye, smoothstep(0.30, 0.35, r)[..., None])
  return jnp.where((n[..., 2] > 0)[..., None], eye, white)


def head_texels(identity, maps, bare=False):
  """Textures of the head.

  Args:
    identity: factors by name (skin, lips, brows, eyes, beard, hair).
    maps: static texel maps: position (t, t, 3) cm on the template, canon
      (t, t, 3) own coordinates of eyes and ears, part, kind (t, t) int, lash
      (t, t) 0..1 along the edge of the lids.
    bare: leave out what a smooth linear albedo model cannot hold (freckles,
      scalp hair): the albedo basis is made of these.

  Returns:
    colour (t, t, 3) linear RGB, gloss strength (t, t), gloss exponent (t, t),
    label (t, t) int of the 19 classes.
  """
  c, part, kind = maps["position"], maps["part"], maps["kind"]
  canon = maps["canon"]
  x, y, z = c[..., 0], c[..., 1], c[..., 2]
  ax = jnp.abs(x)
  skin_p, lip_p, hair = identity["skin"], identity["lips"], identity["hair"]
  brow_p, beard_p = identity["brows"], identity["beard"]
  base = skin_rgb(skin_p["melanin"], skin_p["blood"] * 0.7)
  skin = _skin(skin_p, c, part, freckles=not bare)
  upper, lower, line = _lip_masks(c, kind)
  lips = jnp.maximum(upper, lower)
  natural = jnp.exp(
    -_BASE
    - skin_p["melanin"] * 0.8 * _MELANIN
    - (skin_p["blood"] * 0.5 + 0.95) * _LIP_BLOOD
  )
  lip_rgb = lerp(natural, lip_p["colour"], lip_p["lipstick"])
  rgb = lerp(
    skin,
    lip_rgb * (1 - 0.12 * jnp.sin(x * 9) ** 2)[..., None],
    (lips * 0.9)[..., None],
  )
  parting = _gauss(y - line, 0.09) * (ax < 2.75) * (z > 7) * (kind == PLAIN)
  rgb = rgb * (1 - 0.6 * parting)[..., None]
  brow, hairs = _brow_mask(brow_p, c)
  brow_rgb = jnp.minimum(brow_p["colour"], base * 0.42)
  brow_rgb = brow_rgb * (0.7 + 0.6 * hairs)[..., None]
  rgb = lerp(rgb, brow_rgb, (brow * brow_p["cover"])[..., None])
  grown = beard_mask(c, 1.0, 1.0, 0.0) * beard_p["stubble"] * 0.8
  grown = grown * (0.7 + 0.5 * noise3(x * 6, y * 6, z * 6))
  stubble = base * 0.16 + 0.15 * beard_p["colour"]
  rgb = lerp(rgb, stubble, grown[..., None])
  theta = jnp.arctan2(x, z) / _DEG
  phi = jnp.arctan2(y, jnp.sqrt(x * x + z * z)) / _DEG
  above = phi - hairline(theta, hair["hairline"])
  if not bare:
    haired = hair["shown"]
    scalp = smoothstep(-1.0, 3.0, above - 1) * 0.85 * haired
    rgb = lerp(rgb, hair["colour"] * 0.8, scalp[..., None])
    rest = smoothstep(-2.0, 5.0, above) * 0.16 * (1 - haired)
    rgb = lerp(rgb, base * 0.6, rest[..., None])
    shadow = jnp.clip(1 - jnp.abs(above + 2.5) / 5, 0, 1) * haired
    rgb = rgb * (1 - 0.35 * shadow)[..., None]

  def pick(where, value, other):
    return jnp.where(where[..., None], value, other)

  lash = lerp(skin * 0.25, np.array([0.012, 0.01, 0.01], np.float32), 0.85)
  rgb = pick(kind == UPPER_RIM, lash, rgb)
  rgb = pick(kind == LOWER_RIM, skin * np.array([0.8, 0.5, 0.45]), rgb)
  bag = kind >= UPPER_BAG
  rgb = pick(bag, np.array([0.10, 0.012, 0.012], np.float32), rgb)
  edge = jnp.clip(maps["lash"] * 1.6 - 0.75, 0, 1)
  rgb = rgb * (1 - (0.35 + 0.6 * lip_p["liner"]) * edge)[..., None]
  nose_gloss = 0.09 * _gauss(x, 1.6) * (z > 6)
  gloss = 0.07 + nose_gloss + 0.22 * lips * (1 + lip_p["lipstick"])
  power = 14 + 25 * lips

  L = LABEL
  is_skin, mine = part == SKIN, x > 0
  label = jnp.full(x.shape, L["skin"], jnp.int32)
  nose = (z > 8.2) & (y < 0.6) & (y > -5.35)
  nose &= ax < 1.05 + 0.75 * smoothstep(-2.2, -4.4, y)
  label = jnp.where(nose, L["nose"], label)

  def side(name):
    return jnp.where(mine, L["l_" + name], L["r_" + name])

  label = jnp.where(brow > 0.45, side("brow"), label)
  label = jnp.where(upper > 0.5, L["u_lip"], label)
  label = jnp.where(lower > 0.5, L["l_lip"], label)
  label = jnp.where(bag, L["mouth"], label)
  neck = (y < -11.8 + 0.52 * jnp.clip(8 - z, 0, 9)) & (z < 7.4)
  neck = (neck | (y < -12.4)) & (kind == PLAIN)
  neck |= (z < -1) & (y < -4)
  label = jnp.where(neck, L["neck"], label)
  cropped = (above > 2) & (hair["painted"] > 0)
  label = jnp.where(cropped, L["hair"], label)

  eye = part == EYE
  rgb = pick(eye, _eyeball(identity["eyes"], canon), rgb)
  gloss, power = jnp.where(eye, 0.25, gloss), jnp.where(eye, 60.0, power)
  label = jnp.where(eye, side("eye"), label)
  teeth = (part == UPPER_TEETH) | (part == LOWER_TEETH)
  gap = jnp.abs(((x / 0.82 + 0.5) % 1) - 0.5) > 0.44
  enamel = np.array([0.78, 0.74, 0.66], np.float32)
  rgb = pick(teeth, enamel * (1 - 0.35 * gap)[..., None], rgb)
  gloss = jnp.where(teeth, 0.3, gloss)
  tongue = part == TONGUE
  rgb = pick(tongue, np.array([0.42, 0.12, 0.11], np.float32), rgb)
  label = jnp.where(teeth | tongue, L["mouth"], label)
  ear = part == EAR
  hollow = 0.42 + 0.62 * smoothstep(-0.55, 0.55, canon[..., 2])
  rgb = pick(ear, skin * hollow[..., None], rgb)
  gloss = jnp.where(ear, 0.07, gloss)
  label = jnp.where(ear, side("ear"), label)
  label = jnp.where(is_skin | eye | ear | teeth | tongue, label, 0)
  return rgb, gloss, power, label
