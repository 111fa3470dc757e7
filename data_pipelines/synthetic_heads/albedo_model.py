"""Makes the albedo basis of the synthetic heads, and reads people in it.

Skin, lips, brows, stubble and lipstick of many sampled people are baked onto
the head's texture; their principal components are the directions of the
morphable model's albedo, see `faceedit_jax.morphable.albedo_basis`.
`python -m data_pipelines.synthetic_heads.albedo_model` rebuilds them (about
half a minute).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads import albedo, geometry
from data_pipelines.synthetic_heads.identity import sample_identity
from faceedit_jax.morphable import albedo_basis

_FACTORS = ("skin", "lips", "brows", "eyes", "beard", "hair")
_SEED = 20_000  # of the people behind the basis; no data set uses it


@functools.cache
def _maps(size):
  return {k: jnp.asarray(v) for k, v in geometry.head_texel_maps(size).items()}


def _bare(factors, maps):
  return albedo.head_texels(factors, maps, bare=True)[0]


_bare_jit = jax.jit(_bare)


def bare_albedo(identity, size: int = 128):
  """Linear albedo texture (size, size, 3) without hair, beard and freckles."""
  return _bare_jit({n: getattr(identity, n) for n in _FACTORS}, _maps(size))


def _principal_components(data, components):
  """Directions (components, d) scaled to one standard deviation each.

  A randomised range finder: exact enough after two power iterations and far
  cheaper than the full decomposition.
  """
  rng = np.random.Generator(np.random.Philox(7))
  q = rng.standard_normal((data.shape[0], components + 20)).astype(np.float32)
  for _ in range(3):
    q, _ = np.linalg.qr(data @ (data.T @ q))
  _, s, vt = np.linalg.svd(q.T @ data, full_matrices=False)
  vt, s = vt[:components], s[:components]
  # The largest entry of each direction is positive: no arbitrary signs.
  peak = np.abs(vt).argmax(1)
  sign = np.sign(vt[np.arange(len(vt)), peak])
  return vt * (sign * s / np.sqrt(len(data)))[:, None]


def compute_albedo_basis(
  count: int = 2000, components: int = 50, size: int = 128
) -> tuple[np.ndarray, np.ndarray]:
  """Samples people and decomposes their albedo.

  Args:
    count: number of people.
    components: number of directions.
    size: side of the textures.

  Returns:
    mean (size, size, 3) and basis (components, size, size, 3), linear colour;
    a coefficient of 1 is one standard deviation.
  """
  data = np.empty((count, size * size * 3), np.float32)
  for i in range(count):
    person = sample_identity(_SEED, i)
    data[i] = np.asarray(bare_albedo(person, size)).reshape(-1)
  mean = data.mean(0)
  data -= mean
  basis = _principal_components(data, components)
  shape = (size, size, 3)
  return mean.reshape(shape), basis.reshape(components, *shape)


@functools.cache
def _projector() -> tuple[np.ndarray, np.ndarray]:
  """Mean, and the matrix that gives the best coefficients of a texture."""
  mean, basis = albedo_basis.load_albedo_basis()
  flat = basis.reshape(len(basis), -1)
  gram = flat @ flat.T
  return mean, np.linalg.solve(gram, flat).astype(np.float32)


@jax.jit
def _code(factors, maps, mean, projector):
  texture = _bare(factors, maps)
  return projector @ (texture - mean).reshape(-1)


@functools.cache
def _device_projector():
  return tuple(jnp.asarray(a) for a in _projector())


def albedo_code(identity) -> np.ndarray:
  """Coefficients (50,) of the basis that come nearest to a person's albedo."""
  mean, projector = _device_projector()
  factors = {n: getattr(identity, n) for n in _FACTORS}
  maps = _maps(mean.shape[0])
  return np.asarray(_code(factors, maps, mean, projector))


def world_model():
  """The procedural `Morphable` with this albedo basis."""
  from faceedit_jax.morphable.model import with_albedo
  from faceedit_jax.morphable.procedural import procedural_model

  return with_albedo(procedural_model(), *albedo_basis.load_albedo_basis())


if __name__ == "__main__":
  albedo_basis.save_albedo_basis(*compute_albedo_basis())
