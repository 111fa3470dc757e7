"""Lights a rasterised head: harmonics, occlusion, gloss, hair, eyes, tone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads import geometry
from data_pipelines.synthetic_heads.albedo import EYE
from data_pipelines.synthetic_heads.labels import LABEL
from data_pipelines.synthetic_heads.noise import smoothstep
from faceedit_jax.morphable import shading

BEHIND = -14.0  # depth of the background for the occlusion (cm)
_SKIN_CLASSES = ("skin", "nose", "l_ear", "r_ear", "neck", "u_lip", "l_lip")
IS_SKIN = np.isin(np.arange(19), [LABEL[n] for n in _SKIN_CLASSES])


@functools.cache
def blur_matrix(size: int, sigma: float) -> np.ndarray:
  """(size, size) Gaussian blur along one axis, mirrored at the borders."""
  i = np.arange(size)
  weights = np.zeros((size, size))
  for shift in (i, -1 - i, 2 * size - 1 - i):
    weights += np.exp(-0.5 * ((i[:, None] - shift[None]) / sigma) ** 2)
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def depth_occlusion(depth):
  """How much nearer surroundings shade each pixel, 0..1.

  Args:
    depth: (size, size) cm, larger = nearer.
  """
  occlusion, size = jnp.zeros_like(depth), depth.shape[0]
  clipped = jnp.clip(depth, -14, 14)
  for sigma, gain, amount in ((0.012, 0.35, 0.32), (0.035, 0.16, 0.40)):
    blur = blur_matrix(size, size * sigma)
    wide = blur @ clipped @ blur.T
    occlusion += amount * jnp.clip((wide - depth) * gain, 0, 1)
  return occlusion


def sample_texture(texture, uv):
  """Bilinear look-up (..., C) of a square texture at uv 0..1, v down."""
  size = texture.shape[0]
  p = jnp.clip(uv * size - 0.5, 0, size - 1.001)
  low = jnp.floor(p).astype(jnp.int32)
  f = p - low
  flat = texture.reshape(size * size, -1)
  index = low[..., 1] * size + low[..., 0]
  fx, fy = f[..., :1], f[..., 1:]
  top = flat[index] * (1 - fx) + flat[index + 1] * fx
  bottom = flat[index + size] * (1 - fx) + flat[index + size + 1] * fx
  return top * (1 - fy) + bottom * fy


def sample_labels(labels, uv):
  """Nearest label at uv."""
  size = labels.shape[0]
  p = jnp.clip((uv * size).astype(jnp.int32), 0, size - 1)
  return labels.reshape(-1)[p[..., 1] * size + p[..., 0]].astype(jnp.int32)


def _unit(v):
  return v / (jnp.linalg.norm(v, axis=-1, keepdims=True) + 1e-9)


def facing(normal):
  """Turns normals to the viewer; grazing ones onto the silhouette.

  Smooth normals dip behind the silhouette by a little; flipping these would
  leave specks of wrong light along it.
  """
  z = normal[..., 2:]
  grazing = jnp.concatenate([normal[..., :2], jnp.maximum(z, 0.0)], -1)
  return _unit(jnp.where(z < -0.25, -normal, grazing))


@jax.jit
def shade(bundle, light, buffers):
  """Linear colour and labels of a picture.

  Args:
    bundle: the baked identity.
    light: light factor.
    buffers: from the rasteriser: hit (s, s), part (s, s), uv (s, s, 2),
      normal, tangent (s, s, 3), occlusion, depth (s, s).

  Returns:
    colour (s, s, 3) linear, labels (s, s) int32, albedo (s, s, 3), normal
    (s, s, 3).
  """
  hit, part = buffers["hit"], buffers["part"]
  texel = sample_texture(bundle.texture, buffers["uv"])
  texel = jax.lax.optimization_barrier(texel)
  label = jnp.where(hit, sample_labels(bundle.labels, buffers["uv"]), 0)
  albedo, gloss, power = texel[..., :3], texel[..., 3], texel[..., 4] * 64
  bump, strand, kind = texel[..., 5], texel[..., 6], texel[..., 7]
  hairy = (kind > 0.25) & (part >= geometry.HAIR)
  tangent = _unit(buffers["tangent"])
  normal = facing(buffers["normal"])
  side = _unit(jnp.cross(normal, tangent))
  bumped = _unit(normal - side * bump[..., None])
  normal = jnp.where(hairy[..., None], bumped, normal)
  depth = jnp.where(hit, buffers["depth"], BEHIND)
  open_ = 1 - depth_occlusion(depth)
  normal, open_ = jax.lax.optimization_barrier((normal, open_))
  visible = buffers["occlusion"] * open_
  harmonics = light["harmonics"]
  irradiance = shading.sh_basis(normal) @ harmonics
  irradiance = jnp.maximum(irradiance, 0.03)
  is_skin = jnp.asarray(IS_SKIN)[label]
  log_visible = jnp.log(jnp.maximum(visible, 1e-4))[..., None]
  tint = jnp.where(is_skin[..., None], np.float32([0.75, 1.05, 1.15]), 1.0)
  colour = albedo * irradiance * jnp.exp(log_visible * tint)
  fresnel = (1 - jnp.clip(normal[..., 2], 0, 1)) ** 3 * 0.06 * visible
  fresnel = fresnel * jnp.where(hairy, 0.6, 1.0) * jnp.where(is_skin, 1.0, 0.7)
  ambient = jnp.clip(harmonics[0] * 0.28, 0, None)
  colour = colour + fresnel[..., None] * ambient
  hair_tint = jnp.where(
    (kind > 0.75)[..., None], bundle.beard_colour, bundle.hair_colour
  )
  hair_tint = 0.10 + 0.9 * jnp.sqrt(hair_tint)
  hair_gain = jnp.where(kind > 0.75, 0.2, jnp.where(bundle.curly, 0.35, 0.8))
  lifted = _unit(tangent + normal * 0.25)
  second = tangent - normal * 0.12
  for i in range(3):
    towards, lamp = light["directions"][i], light["colours"][i]
    half = _unit(towards + np.float32([0, 0, 1]))
    cosine = normal @ towards
    spec = jnp.clip(normal @ half, 1e-6, 1)
    spec = gloss * jnp.exp(power * jnp.log(spec)) * (cosine > 0) * 1.1
    along = jnp.clip(1 - (lifted @ half) ** 2, 1e-6, 1)
    along = jnp.exp(28 * jnp.log(along)) * 0.30 * (0.4 + 0.9 * strand)
    across = jnp.clip(1 - (second @ half) ** 2, 1e-6, 1)
    across = jnp.exp(10 * jnp.log(across)) * 0.14
    shine = (along + across) * jnp.clip(cosine * 0.7 + 0.3, 0, 1) * hair_gain
    shine = jnp.where(hairy[..., None], shine[..., None] * hair_tint, 0.0)
    colour = colour + (spec[..., None] + shine) * visible[..., None] * lamp
  key = light["directions"][0] * np.float32([0.7, 0.7, 1])
  half = _unit(key + np.float32([0, 0, 1]))
  catch = smoothstep(0.978, 0.988, jnp.clip(normal @ half, 0, 1)) * 0.9
  colour = colour + jnp.where(part == EYE, catch, 0.0)[..., None]
  return colour, label, albedo, normal


def downsample(picture, factor):
  """Means of factor x factor pixels."""
  s = picture.shape[0] // factor
  return picture.reshape(s, factor, s, factor, -1).mean((1, 3))


def to_bytes(picture):
  """uint8 of a picture in [0, 1]."""
  return (jnp.clip(picture, 0, 1) * 255 + 0.5).astype(jnp.uint8)
