"""Glasses, hats and earrings in the rest pose, with fixed vertex counts."""

import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads.noise import lerp, smoothstep

HAT_ROWS, HAT_COLUMNS = 18, 65  # the last column repeats the first
BRIM_ROWS, BRIM_COLUMNS = 6, 24
LOOP, SIDES, TEMPLE, BRIDGE = 28, 6, 12, 9
SPHERE_ROWS, SPHERE_COLUMNS = 8, 11
BUN_ROWS, BUN_COLUMNS = 14, 23
_DEG = np.float32(np.pi / 180)


def unit_sphere(rows, columns):
  """Points (rows, columns, 3) of a sphere about z; last column = first."""
  a = np.linspace(0, 2 * np.pi, columns)[None]
  b = np.linspace(0, np.pi, rows)[:, None]
  x, y = np.sin(b) * np.cos(a), np.sin(b) * np.sin(a)
  return np.stack([x, y, np.cos(b) + 0 * a], -1).astype(np.float32)


def tube(path, radius, closed=False):
  """Sweeps a hexagon along a path (n, 3): (n, SIDES, 3)."""
  if closed:
    t = jnp.roll(path, -1, 0) - jnp.roll(path, 1, 0)
  else:
    t = jnp.gradient(path, axis=0)
  t = t / (jnp.linalg.norm(t, axis=1, keepdims=True) + 1e-9)
  steep = jnp.abs(t[:, 2]).mean() >= 0.7
  up = jnp.where(steep, jnp.array([0.0, 1, 0]), jnp.array([0.0, 0, 1]))
  b = jnp.cross(t, up)
  b = b / (jnp.linalg.norm(b, axis=1, keepdims=True) + 1e-9)
  c = jnp.cross(b, t)
  a = np.linspace(0, 2 * np.pi, SIDES, endpoint=False, dtype=np.float32)
  ring = np.cos(a)[None, :, None] * b[:, None]
  ring = ring + np.sin(a)[None, :, None] * c[:, None]
  return path[:, None] + radius * ring


def glasses(p, eyes, bridge):
  """Frame, lenses, temples and bridge piece.

  Args:
    p: glasses factor.
    eyes: centres of the left and right eyeball (2, 3) cm.
    bridge: point of the nose between the eyes (3,) cm.

  Returns:
    dict of vertex arrays: loops (2, LOOP, SIDES, 3), lenses (2, LOOP + 1, 3),
    temples (2, TEMPLE, SIDES, 3), bridge (BRIDGE, SIDES, 3).
  """
  eye = eyes[0]
  front = jnp.maximum(bridge[2] - 0.1, eye[2] + 1.95) + 0.35
  cx = jnp.abs(eye[0]) + 0.12
  a = np.linspace(0, 2 * np.pi, LOOP, endpoint=False, dtype=np.float32)
  ca, sa = np.cos(a), np.sin(a)

  def size(v):
    return np.maximum(np.abs(v), 1e-4)

  px = np.sign(ca) * size(ca) ** p["exponent"] * p["width"]
  sag = 1 - 0.12 * np.where(sa < 0, np.abs(ca), 0)
  py = np.sign(sa) * size(sa) ** p["exponent"] * p["height"] * sag
  t = np.linspace(0, 1, TEMPLE, dtype=np.float32)[:, None]
  out = {"loops": [], "lenses": [], "temples": []}
  for side in (1.0, -1.0):
    x = side * cx + px
    z = front - 0.045 * (jnp.abs(x) - 2) ** 2
    loop = jnp.stack([x, eye[1] - 0.25 + py, z], -1)
    out["loops"].append(tube(loop, p["tube"], True))
    middle = loop.mean(0) + jnp.array([0.0, 0, 0.05])
    out["lenses"].append(jnp.concatenate([middle[None], loop]))
    p0 = loop[0 if side > 0 else LOOP // 2] + jnp.array([0, 0.35, 0])
    p1 = jnp.stack([side * jnp.maximum(jnp.abs(p0[0]) + 0.35, 7.15), 0.35, 5.2])
    p2 = jnp.array([side * 7.35, 0.3, 0.2])
    p3 = jnp.array([side * 7.1, -1.2, -1.5])
    path = jnp.where(
      t < 0.3,
      lerp(p0, p1, t / 0.3),
      jnp.where(
        t < 0.8, lerp(p1, p2, (t - 0.3) / 0.5), lerp(p2, p3, (t - 0.8) / 0.2)
      ),
    )
    out["temples"].append(tube(path, p["tube"] * 0.9))
  out = {k: jnp.stack(v) for k, v in out.items()}
  t = np.linspace(-1, 1, BRIDGE, dtype=np.float32)
  path = jnp.stack(
    [
      t * (cx - p["width"] + 0.05),
      eye[1] + 0.15 + 0.25 * (1 - t * t),
      front + 0.1 * (1 - t * t),
    ],
    -1,
  )
  out["bridge"] = tube(path, p["tube"])
  return out


def hat(p, head_radius):
  """Beanie (kind 1) or cap (kind 2): shell and brim.

  Returns:
    shell (HAT_ROWS, HAT_COLUMNS, 3), brim (BRIM_ROWS, BRIM_COLUMNS, 3); cm.
  """
  beanie = p["kind"] < 1.5
  theta = jnp.linspace(-180.0, 180.0, HAT_COLUMNS)[None]
  theta = theta.at[:, -1].set(-180.0) + jnp.zeros((HAT_ROWS, 1))
  t = jnp.linspace(0.0, 1.0, HAT_ROWS)[:, None] + 0 * theta
  a = jnp.abs(theta)
  edge = jnp.where(
    beanie,
    lerp(27.0, 4.0, smoothstep(20.0, 110.0, a)),
    lerp(33.0, 12.0, smoothstep(30.0, 130.0, a)),
  )
  cuff = t > 0.72
  phi = lerp(89.0, edge, jnp.maximum(t, 1e-6) ** 0.9)
  knit = 1.5 + 0.9 * smoothstep(40.0, 85.0, phi)
  knit = knit + (0.45 + 0.08 * jnp.sin(theta * _DEG * 48)) * cuff
  h = jnp.where(beanie, knit, 1.2 + 0.5 * smoothstep(50.0, 80.0, phi))
  h = h.at[-1].set(0.15)
  r = head_radius(theta, phi) + h
  flat = r * jnp.cos(phi * _DEG)
  shell = jnp.stack(
    [
      flat * jnp.sin(theta * _DEG),
      r * jnp.sin(phi * _DEG),
      flat * jnp.cos(theta * _DEG),
    ],
    -1,
  )
  shell = shell.at[0].set(shell[0, :-1].mean(0))
  aa = np.linspace(-62, 62, BRIM_COLUMNS, dtype=np.float32)
  columns = (aa + 180) / 360 * (HAT_COLUMNS - 1)
  low = np.floor(columns).astype(int)
  f = (columns - low)[:, None].astype(np.float32)
  root = lerp(shell[-2, low], shell[-2, low + 1], f)
  reach = 6.2 * np.clip(np.cos(aa * 1.3 * _DEG), 0.05, None) ** 0.6
  out = np.stack(
    [np.sin(aa * _DEG) * 0.35, -0.22 + 0 * aa, np.cos(aa * _DEG)], -1
  )
  r = np.linspace(0, 1, BRIM_ROWS, dtype=np.float32)[:, None, None]
  brim = root[None] + r * (out * reach[:, None])[None]
  brim = brim.at[..., 1].add(-0.018 * brim[..., 0] ** 2 * r[..., 0])
  return shell, brim


def earrings(ears):
  """Two spheres under the lobes of the ear vertices (2, n, 3)."""
  ball = unit_sphere(SPHERE_ROWS, SPHERE_COLUMNS) * 0.42
  lobe = ears[jnp.arange(2), jnp.argmin(ears[..., 1], 1)]
  at = lobe + jnp.array([0.0, -0.45, 0.1])
  return at[:, None, None] + ball[None]


def bun():
  """Knot on the back of the crown: positions, tangents (rows, columns, 3)."""
  s = unit_sphere(BUN_ROWS, BUN_COLUMNS)
  k = 1 + 0.05 * np.sin(s[..., 0] * 9 + s[..., 1] * 7)
  pos = s * k[..., None] * np.array([3.3, 2.7, 3.0]) + np.array([0, 11.6, -5.5])
  t = np.cross(s, np.array([0, 0.5, 0.8]))
  t = t / (np.linalg.norm(t, axis=-1, keepdims=True) + 1e-6)
  return pos.astype(np.float32), t.astype(np.float32)
