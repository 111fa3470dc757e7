"""Noise: in range, the same in NumPy and JAX, continuous."""

import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads import noise


def test_numpy_and_jax_agree():
  rng = np.random.default_rng(0)
  x, y, z = (rng.uniform(-50, 50, (3, 500))).astype(np.float32)
  for name, args in (
    ("noise1", (x,)),
    ("noise2", (x, y)),
    ("noise3", (x, y, z)),
    ("fbm", (x, y, z)),
  ):
    f = getattr(noise, name)
    ours, theirs = f(*args), f(*map(jnp.asarray, args))
    np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=name)
    assert ours.min() >= 0 and ours.max() <= 1
    assert ours.std() > 0.1


def test_noise_is_continuous_and_not_constant_along_lattice_lines():
  x = np.linspace(-3, 3, 6001).astype(np.float32)
  assert np.abs(np.diff(noise.noise1(x))).max() < 3e-3
  lattice = noise.hash_unit(np.arange(-1000, 1000))
  assert abs(lattice.mean() - 0.5) < 0.03
  assert abs(np.corrcoef(lattice[1:], lattice[:-1])[0, 1]) < 0.1


def test_smoothstep_rises_and_falls():
  x = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
  np.testing.assert_allclose(noise.smoothstep(0, 1, x), [0, 0, 0.5, 1, 1])
  np.testing.assert_allclose(noise.smoothstep(1, 0, x), [1, 1, 0.5, 0, 0])
