"""Where beard and moustache grow, and how far the shell stands off."""

import jax.numpy as jnp

from data_pipelines.synthetic_heads.noise import fbm, smoothstep

MOUTH_Y = -7.45  # height of the mouth line on the template (cm)


def beard_mask(pos, full, moustache, goatee):
  """Growth 0..1 at template positions.

  Args:
    pos: (..., 3) cm on the template.
    full, moustache, goatee: amounts; anything above 0 counts as present.

  Returns:
    (...) in [0, 1].
  """
  x, y, z = jnp.abs(pos[..., 0]), pos[..., 1], pos[..., 2]
  line = -5.3 + 0.35 * jnp.clip(x - 2.5, 0, 9)
  m = smoothstep(0.5, -0.5, y - line)
  m = m * smoothstep(-13.2, -11.8, y) * smoothstep(0.2, 1.8, z)
  hole = (x / 2.75) ** 2 + ((y - MOUTH_Y + 0.05) / 1.22) ** 2
  m = m * smoothstep(0.85, 1.25, jnp.where(z > 5, hole, 9.0))
  m = m * smoothstep(-4.5, -5.5, y - (x > 3.2) * 9.0)
  m = m * (1 - jnp.exp(-((x / 1.9) ** 4)) * (y > MOUTH_Y) * (z > 5))
  m = m * jnp.where(goatee > 0, jnp.exp(-((x / 2.9) ** 4)) * (z > 5), 1.0)
  m = m * (full > 0)
  lip = jnp.exp(-((x / 2.9) ** 6)) * smoothstep(-5.55, -5.85, y - 0.12 * x)
  lip = lip * smoothstep(MOUTH_Y + 0.62, MOUTH_Y + 0.92, y + 0.16 * x)
  lip = lip * smoothstep(6.0, 8.0, z) * (moustache > 0)
  soul = jnp.exp(-((x / 0.5) ** 2)) * smoothstep(
    MOUTH_Y - 1.1, MOUTH_Y - 1.4, y
  )
  soul = soul * (y > -10) * (z > 7) * (full > 0)
  side = jnp.exp(-(((x - 2.95) / 0.55) ** 2)) * smoothstep(-5.7, -6.3, y)
  side = side * (y > -10) * (z > 6) * (moustache > 0) * (full > 0)
  m = jnp.maximum(jnp.maximum(m, lip * 0.8), jnp.maximum(soul, side * 0.8))
  return jnp.clip(m, 0, 1)


def beard_offset(p, template, position, normal):
  """Displacement (..., 3) cm of the shell from the skin, and the mask (...).

  A thin moustache without a beard gets a fixed depth; edges sink into the
  skin so that they show no saw teeth.
  """
  g = beard_mask(template, p["full"], p["moustache"], p["goatee"])
  depth = jnp.maximum(p["full"], 0.35 * p["moustache"])
  s = template * 1.6
  h = depth * 0.75 * g * (0.7 + 0.6 * fbm(s[..., 0], s[..., 1], s[..., 2]))
  sunk = 0.09 * (1 - smoothstep(0.05, 0.45, g))
  hang = h * g * p["full"] * smoothstep(-8.0, -11.0, position[..., 1])
  down = jnp.stack([0 * hang, -1.1 * hang, 0 * hang], -1)
  return normal * (h - sunk)[..., None] + down, g
