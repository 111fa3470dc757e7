"""Turns an identity into arrays of fixed shape: mesh, textures, background.

Baking happens once per identity; all its frames share the result. Everything
is jitted, so it can run on the training device as well.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads import accessories as acc
from data_pipelines.synthetic_heads import (
  albedo,
  beard,
  clothes,
  geometry,
  hair,
)
from data_pipelines.synthetic_heads.factors import Identity
from data_pipelines.synthetic_heads.labels import LABEL
from data_pipelines.synthetic_heads.noise import (
  lerp,
  noise1,
  noise3,
  smoothstep,
)
from faceedit_jax.morphable import procedural

Array = jax.Array
_GLASSES = ("loop_l", "loop_r", "temple_l", "temple_r", "bridge")


@flax.struct.dataclass
class Bundle:
  """One baked identity.

  Attributes:
    rest: (V, 3) cm, all vertices in the rest pose.
    faces: (F, 3); triangles of absent parts are (0, 0, 0).
    weights: (V, 5) skinning weights.
    occlusion: (V,) baked ambient visibility.
    texture: (T, T, 8) colour (3), gloss strength, gloss exponent / 64, hair
      bump, hair strand, hair (1) or beard (2) / 2.
    labels: (T, T) uint8 classes.
    shape: (40,) identity coefficients.
    background: background factor.
    hair_colour: (3,) for the highlight; curly: () 0 or 1.
  """

  rest: Array
  faces: Array
  weights: Array
  occlusion: Array
  texture: Array
  labels: Array
  shape: Array
  background: dict
  hair_colour: Array
  beard_colour: Array
  curly: Array


CHANNELS = 8


def _head_radius(head, shaped):
  """Look-up of the bare head's radius by azimuth and elevation (degrees)."""
  e, m = head.eye_row, head.mouth_row
  neck = len(head.elevations) - 9
  rows = np.r_[1:e, e + 4 : m - 3, m + 3 : neck]
  lift = head.elevations[rows]
  grid = shaped[head.grid[rows]]
  r = jnp.linalg.norm(grid, axis=-1)
  r = jnp.concatenate([r, r[:, :1]], 1)
  angles = np.append(head.azimuths, 180.0)

  def look_up(theta, phi):
    phi = jnp.clip(phi, lift.min(), lift.max())
    j = jnp.clip(jnp.searchsorted(-lift, -phi), 1, len(lift) - 1)
    top, bottom = jnp.asarray(lift)[j - 1], jnp.asarray(lift)[j]
    f = (top - phi) / (top - bottom)
    i = jnp.clip(jnp.searchsorted(angles, theta), 1, len(angles) - 1)
    a = jnp.asarray(angles)
    g = (theta - a[i - 1]) / (a[i] - a[i - 1])
    upper = r[j - 1, i - 1] * (1 - g) + r[j - 1, i] * g
    lower = r[j, i - 1] * (1 - g) + r[j, i] * g
    return upper * (1 - f) + lower * f

  return look_up


def _normals(vertices, faces, around):
  """Area-weighted unit normals; `around` lists the triangles per vertex."""
  a, b, c = (vertices[faces[:, k]] for k in range(3))
  n = jnp.cross(b - a, c - a)
  n = jnp.concatenate([n, jnp.zeros((1, 3), n.dtype)])
  n = n[around].sum(1)
  return n / (jnp.linalg.norm(n, axis=-1, keepdims=True) + 1e-9)


@functools.cache
def _fixed(scale):
  """Arrays all identities share. As arguments they cost no compile time;
  as constants XLA would fold half the baker on them."""
  with jax.ensure_compile_time_eval():
    world = geometry.build_world()
    head = world.head
    arrays = {
      "maps": geometry.head_texel_maps(256 * scale),
      "beard": _beard_positions(scale),
      "bun": acc.bun()[0],
      "directions": head.shape_dirs.astype(np.float32),
      "vertices": head.vertices.astype(np.float32),
      "weights": procedural.skinning_weights(head).astype(np.float32),
      "head_faces": head.faces,
      "around": geometry.vertex_faces(head.faces, len(head.vertices)),
      "faces": world.faces,
    }
    return jax.tree.map(jnp.asarray, arrays)


def _interpolation(n, positions):
  """Matrix (len(positions), n) of linear interpolation on a unit lattice."""
  x = np.clip(np.asarray(positions) * (n - 1), 0, n - 1)
  low = np.minimum(x.astype(int), n - 2)
  m = np.zeros((len(x), n), np.float32)
  m[np.arange(len(x)), low] = 1 - (x - low)
  m[np.arange(len(x)), low + 1] += x - low
  return m


def _texels(name, scale):
  """Block coordinates 0..1 of the texel centres of an atlas block."""
  _, _, width, height = geometry.ATLAS[name]
  width, height = width * scale, height * scale
  # `geometry.place` puts coordinate 0 half an (unscaled) texel inside.
  inset = 0.5 * scale
  u = (np.arange(width) + 0.5 - inset) / (width - 2 * inset)
  v = (np.arange(height) + 0.5 - inset) / (height - 2 * inset)
  return np.clip(u, 0, 1), np.clip(v, 0, 1)


def _spread(lattice, u, v):
  """Lattice (r, c, d) interpolated at all (v, u)."""
  rows = _interpolation(lattice.shape[0], v)
  columns = _interpolation(lattice.shape[1], u)
  return jnp.einsum("hr,rcd,wc->hwd", rows, lattice, columns)


def _block(colour, gloss=0.0, power=18.0, bump=0.0, strand=0.0, hairy=0.0):
  shape = colour.shape[:2]

  def plane(x):
    return jnp.broadcast_to(jnp.asarray(x, jnp.float32), shape)

  extra = (gloss, jnp.asarray(power) / 64, bump, strand, hairy)
  return jnp.concatenate([colour, jnp.stack([plane(x) for x in extra], -1)], -1)


@functools.partial(jax.jit, static_argnames="scale")
def _hair_block(p, shell, scale):
  u, v = _texels("hair", scale)
  theta = jnp.asarray(u * 360 - 180, jnp.float32)[None]
  t = jnp.asarray(v, jnp.float32)[:, None]
  theta, t = jnp.broadcast_arrays(theta, t)
  pos = _spread(shell, u, v)
  colour, bump, strand = hair.strands(p, theta, t, pos)
  return _block(colour, bump=bump, strand=strand, hairy=0.5)


@functools.partial(jax.jit, static_argnames="scale")
def _bun_block(p, lattice, scale):
  u, v = _texels("bun", scale)
  pos = _spread(lattice, u, v)
  theta, t = jnp.meshgrid(
    jnp.asarray(u * 360 - 180, jnp.float32), jnp.asarray(v, jnp.float32)
  )
  colour, bump, strand = hair.strands(p, theta, t, pos)
  return _block(colour, bump=bump, strand=strand, hairy=0.5)


def _beard_positions(scale):
  """Template position (h, w, 3) of the texels of the beard's block."""
  left, top, right, bottom = geometry.beard_window(geometry.build_world().head)
  size = 256 * scale
  maps = geometry.head_texel_maps(size)["position"]
  u, v = _texels("beard", scale)
  x = np.clip((left + u * (right - left)) * size - 0.5, 0, size - 1)
  y = np.clip((top + v * (bottom - top)) * size - 0.5, 0, size - 1)
  return maps[np.round(y).astype(int)][:, np.round(x).astype(int)]


@jax.jit
def _beard_block(identity, c):
  base = albedo.skin_rgb(
    identity["skin"]["melanin"], identity["skin"]["blood"] * 0.7
  )
  x, y, z = c[..., 0], c[..., 1], c[..., 2]
  strand = noise3(x * 3.2, y * 1.4, z * 2)
  own = identity["beard"]["colour"]
  colour = (own + (base * 0.3 - own) * 0.15) * (0.55 + 0.9 * strand)[..., None]
  uu = x * 2.2
  d = noise3(uu * 3.2 + 0.2, y * 0.3, z) - noise3(uu * 3.2 - 0.2, y * 0.3, z)
  return _block(colour, bump=1.1 * d, strand=strand, hairy=1.0)


@jax.jit
def _head_block(identity, maps):
  rgb, gloss, power, label = albedo.head_texels(identity, maps)
  return _block(rgb, gloss, power), label


@functools.partial(jax.jit, static_argnames="scale")
def _cloth_blocks(identity, parts, scale):
  """Torso with its neckline, its labels, and the collar."""
  cloth_p, skin_p = identity["clothes"], identity["skin"]
  skin = albedo.skin_rgb(skin_p["melanin"], skin_p["blood"] * 0.7)
  pos = _spread(parts["torso"], *_torso_columns(scale))
  bare = clothes.bare_skin(cloth_p, pos)
  cloth = clothes.cloth_colour(cloth_p, pos, is_collar=False)
  torso = lerp(cloth, skin * 0.97, bare[..., None])
  label = jnp.where(bare > 0.5, LABEL["neck"], LABEL["cloth"])
  pos = _spread(parts["collar"], *_torso_columns(scale, "collar"))
  collar = clothes.cloth_colour(cloth_p, pos, is_collar=True)
  return _block(torso, gloss=0.02 + 0.08 * bare), label, _block(collar, 0.02)


@functools.partial(jax.jit, static_argnames="scale")
def _assemble(identity, blocks, scale):
  """Atlas (T, T, 8) and labels (T, T) with the plain blocks added."""
  size = geometry.ATLAS_SIZE * scale
  u, v = _texels("hat", scale)
  ribs = jnp.asarray(noise1((u * 2 * np.pi * 48).astype(np.float32)))
  ribs = (0.8 + 0.35 * ribs)[None, :, None] * jnp.ones((len(v), 1, 1))
  hat_colour = identity["hat"]["colour"]

  def flat(colour, name):
    return jnp.broadcast_to(
      jnp.asarray(colour),
      (
        geometry.ATLAS[name][3] * scale,
        geometry.ATLAS[name][2] * scale,
        3,
      ),
    )

  blocks = blocks | {
    "hat": (_block(hat_colour * ribs), LABEL["hat"]),
    "brim": (_block(flat(hat_colour * 0.9, "brim")), LABEL["hat"]),
    "frame": (
      _block(flat(identity["glasses"]["colour"], "frame"), 0.6, 40.0),
      LABEL["eye_g"],
    ),
    "lens": (
      _block(flat(np.float32([0.015, 0.015, 0.02]), "lens"), 0.3, 63.0),
      LABEL["eye_g"],
    ),
    "earring": (
      _block(flat(np.float32([0.75, 0.58, 0.2]), "earring"), 1.2, 30.0),
      LABEL["ear_r"],
    ),
  }
  texture = jnp.zeros((size, size, CHANNELS), jnp.float32)
  labels = jnp.zeros((size, size), jnp.uint8)
  for name, (block, label) in blocks.items():
    left, top, _, _ = (x * scale for x in geometry.ATLAS[name])
    area = (
      slice(top, top + block.shape[0]),
      slice(left, left + block.shape[1]),
    )
    texture = texture.at[area].set(block)
    labels = labels.at[area].set(jnp.asarray(label).astype(jnp.uint8))
  return texture, labels


def _torso_columns(scale, name="torso"):
  """Texel coordinates as positions on the evenly spaced lattice columns."""
  u, v = _texels(name, scale)
  a = np.linspace(-np.pi, np.pi, 721)
  angle = np.interp(u, clothes.angle_to_u(a), a)
  return (angle + np.pi) / (2 * np.pi), v


def _visibility(world, identity):
  """Which triangles are there (F,)."""
  full = identity["beard"]["full"] + identity["beard"]["moustache"]
  on = {
    "beard": full > 0,
    "hair": identity["hair"]["shown"] > 0,
    "bun": (identity["hair"]["bun"] > 0)
    & (identity["hair"]["shown"] > 0)
    & (identity["hat"]["kind"] < 0.5),
    "hat": identity["hat"]["kind"] > 0.5,
    "brim": identity["hat"]["kind"] > 1.5,
  }
  for name in _GLASSES:
    on[name] = identity["glasses"]["on"] > 0
  for side in "lr":
    on["lens_" + side] = identity["glasses"]["sun"] > 0
    on["earring_" + side] = identity["earrings"]["on"] > 0
  pieces = []
  for name, span in world.face_spans.items():
    n = span.stop - span.start
    if name == "collar":
      there = clothes.collar(identity["clothes"])[1].reshape(-1)
      # A lattice lists both triangles of a quad in turn.
      pieces.append(jnp.repeat(there, 2))
    else:
      pieces.append(jnp.broadcast_to(jnp.asarray(on.get(name, True)), (n,)))
  return jnp.concatenate(pieces)


def _geometry(fixed, identity, shape):
  """Rest vertices, skinning weights and occlusion of all parts."""
  world = geometry.build_world()
  head = world.head
  moved = jnp.tensordot(
    shape, fixed["directions"], 1, precision=jax.lax.Precision.HIGHEST
  )
  shaped = fixed["vertices"] + moved
  radius = _head_radius(head, shaped)
  hat_p = identity["hat"]
  covered = (hat_p["kind"] > 0.5).astype(jnp.float32)
  hair_p = hair.under_hat(identity["hair"], covered)
  shell, _, hair_occlusion = hair.hair_shell(hair_p, radius)
  hat_shell, brim = acc.hat(hat_p, radius)
  normal = _normals(shaped, fixed["head_faces"], fixed["around"])
  ids = world.beard_ids
  template = fixed["vertices"][ids]
  offset, _ = beard.beard_offset(
    identity["beard"], template, shaped[ids], normal[ids]
  )
  eyes = shaped[head.eye_ids].mean(1)
  middle = int(np.argmin(np.abs(head.azimuths)))
  glasses = acc.glasses(
    identity["glasses"], eyes, shaped[head.grid[head.eye_row, middle]]
  )
  ears = np.where(head.part == albedo.EAR)[0].reshape(2, -1)
  rings = acc.earrings(shaped[ears])
  torso = clothes.torso(identity["clothes"])
  collar, _ = clothes.collar(identity["clothes"])
  places = {
    "head": shaped,
    "beard": shaped[ids] + offset,
    "hair": shell,
    "bun": fixed["bun"],
    "hat": hat_shell,
    "brim": brim,
    "bridge": glasses["bridge"],
    "torso": torso,
    "collar": collar,
  }
  for k, side in enumerate("lr"):
    places["loop_" + side] = glasses["loops"][k]
    places["lens_" + side] = glasses["lenses"][k]
    places["temple_" + side] = glasses["temples"][k]
    places["earring_" + side] = rings[k]
  flat = {k: jnp.reshape(v, (-1, 3)) for k, v in places.items()}
  rest = jnp.concatenate([flat[name] for name in world.spans])
  own = fixed["weights"]
  follows = smoothstep(-26.0, -9.0, flat["hair"][:, 1])
  depth = jnp.hypot(flat["torso"][:, 0], flat["torso"][:, 2] + 2)
  weights, occlusion = [], []
  for name, span in world.spans.items():
    n = span.stop - span.start
    if name == "head":
      weights.append(own)
      occlusion.append(jnp.asarray(head.occlusion, jnp.float32))
      continue
    if name == "beard":
      weights.append(own[ids])
      occlusion.append(jnp.asarray(head.occlusion[ids], jnp.float32))
      continue
    neck = jnp.ones(n)
    shade = jnp.ones(n)
    if name == "hair":
      neck, shade = follows, hair_occlusion.reshape(-1)
    if name == "torso":
      shade = 0.45 + 0.55 * smoothstep(5.5, 10.0, depth)
    if name in ("torso", "collar"):
      neck = jnp.zeros(n)
    zero = jnp.zeros(n)
    weights.append(jnp.stack([1 - neck, neck, zero, zero, zero], -1))
    occlusion.append(shade)
  parts = {"hair": shell, "hair_p": hair_p, "torso": torso, "collar": collar}
  return rest, jnp.concatenate(weights), jnp.concatenate(occlusion), parts


@jax.jit
def _mesh(fixed, identity, shape):
  world = geometry.build_world()
  rest, weights, occlusion, parts = _geometry(fixed, identity, shape)
  there = _visibility(world, identity)
  faces = jnp.where(there[:, None], fixed["faces"], 0)
  return rest, faces, weights, occlusion, parts


_BAKED = (
  "skin",
  "lips",
  "brows",
  "eyes",
  "beard",
  "hair",
  "glasses",
  "hat",
  "earrings",
  "clothes",
  "background",
)


def factor_arrays(identity: Identity) -> dict:
  """The factors the baker reads, as a tree of float32 arrays."""
  return {name: getattr(identity, name) for name in _BAKED}


def bake(identity: Identity, scale: int = 1) -> Bundle:
  """Bakes one identity.

  Args:
    identity: whom.
    scale: texels per 1/512 of the atlas; 1 suits pictures up to about 160
      pixels, 2 twice that.

  Returns:
    Its Bundle on the default device.
  """
  fixed, factors = _fixed(scale), factor_arrays(identity)
  # Block by block: compiled as one function, XLA's CPU compiler would
  # compute every block again for each step of the assembly.
  rest, faces, weights, occlusion, parts = _mesh(
    fixed, factors, jnp.asarray(identity.shape)
  )
  torso, torso_labels, collar = _cloth_blocks(factors, parts, scale)
  hair_p = parts["hair_p"]
  blocks = {
    "base": _head_block(factors, fixed["maps"]),
    "hair": (_hair_block(hair_p, parts["hair"], scale), LABEL["hair"]),
    "bun": (_bun_block(hair_p, fixed["bun"], scale), LABEL["hair"]),
    "beard": (_beard_block(factors, fixed["beard"]), LABEL["skin"]),
    "torso": (torso, torso_labels),
    "collar": (collar, LABEL["cloth"]),
  }
  texture, labels = _assemble(factors, blocks, scale)
  return Bundle(
    rest=rest,
    faces=faces,
    weights=weights,
    occlusion=occlusion,
    texture=texture,
    labels=labels,
    shape=jnp.asarray(identity.shape),
    background=factors["background"],
    hair_colour=factors["hair"]["colour"],
    beard_colour=factors["beard"]["colour"],
    curly=hair_p["curl"] > 0,
  )
