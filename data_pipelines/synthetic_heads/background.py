"""Five kinds of muted backgrounds, drawn at any size."""

import jax.numpy as jnp

from data_pipelines.synthetic_heads.noise import fbm, lerp, smoothstep


def _palette(p):
  """Two thirds of each colour give way to its grey: loud ones look cheap."""
  u = p["palette"]
  gray = u.mean(1, keepdims=True)
  return ((u * 0.33 + gray * 0.67) * 0.75 + 0.03) ** 1.7


def background(p, size):
  """Linear RGB picture (size, size, 3) of a background factor."""
  y, x = jnp.mgrid[0:size, 0:size].astype(jnp.float32) / size
  pal, places, kind = _palette(p), p["places"], p["kind"]
  a = p["angle"]
  g = jnp.cos(a) * (x - 0.5) + jnp.sin(a) * (y - 0.5) + 0.5
  gradient = lerp(pal[0], pal[1], jnp.clip(g, 0, 1)[..., None])
  discs = boxes = gradient
  for i in range(9):
    px, py, pw, ph = places[i]
    colour = pal[2 + i % 5]
    d = jnp.hypot(x - px, y - py) / (0.06 + 0.16 * pw)
    discs = lerp(discs, colour, (0.7 * smoothstep(1.2, 0.65, d))[..., None])
    if i < 7:
      dx = (0.04 + 0.15 * pw) - jnp.abs(x - px)
      dy = (0.1 + 0.5 * ph) - jnp.abs(y - py)
      inside = smoothstep(-0.05, 0.05, dx) * smoothstep(-0.05, 0.05, dy)
      boxes = lerp(boxes, colour, inside[..., None])
  n = fbm(x * 4 + p["seed"], y * 4, 0 * x)
  clouds = lerp(pal[0], pal[1], smoothstep(0.25, 0.75, n)[..., None])
  wisps = smoothstep(0.6, 0.8, fbm(x * 7 + 3 + p["seed"], y * 7, 0 * x))
  clouds = lerp(clouds, pal[2] * 1.4, wisps[..., None])
  fall = jnp.maximum(1.5 - 1.3 * jnp.hypot(x - 0.5, y - 0.4), 0.15)
  studio = pal[0] * fall[..., None]
  out = gradient
  for k, v in ((1, discs), (2, boxes), (3, clouds), (4, studio)):
    out = jnp.where(jnp.abs(kind - k) < 0.5, v, out)
  return out
