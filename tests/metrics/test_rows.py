"""Measures of single pictures: no row knows its neighbours or its device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from faceedit_jax.metrics import identity, image, reenactment
from faceedit_jax.models.perception.lpips import LPIPS
from tests.models.counts import randomised

ROWS = 8


def pictures(rng, side):
  a = rng.uniform(size=(ROWS, side, side, 3))
  b = a + 0.2 * rng.normal(size=a.shape)
  return [jnp.asarray(x, jnp.float32) for x in (a, b)]


def vectors(rng, size):
  return [jnp.asarray(rng.normal(size=(ROWS, size)), jnp.float32) for _ in "ab"]


def codes(rng):
  sizes = {"pose": (6,), "expression": (5,), "light": (9, 3)}
  return [
    {
      name: jnp.asarray(0.3 * rng.normal(size=(ROWS, *size)), jnp.float32)
      for name, size in sizes.items()
    }
    for _ in "ab"
  ]


def lpips(rng):
  net = LPIPS("alex", 2)
  a, b = pictures(rng, 64)
  variables = randomised(net, rng, a, b)
  return (lambda a, b: net.apply(variables, a, b)), (a, b)


CASES = {
  "lpips": lpips,
  "ms_ssim": lambda rng: (
    lambda a, b: image.ms_ssim(a, b, 3, 1.0),
    pictures(rng, 40),
  ),
  "ssim": lambda rng: (image.ssim, pictures(rng, 16)),
  "psnr": lambda rng: (image.psnr, pictures(rng, 8)),
  "csim": lambda rng: (identity.cosine_similarity, vectors(rng, 32)),
  "coefficients": lambda rng: (
    reenactment.coefficient_distances,
    vectors(rng, 257),
  ),
  "codes": lambda rng: (reenactment.code_distances, codes(rng)),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_stand_alone(name, rng):
  """Shared out over 8 devices, or three of the rows alone: the same values."""
  measure, (a, b) = CASES[name](rng)
  measure = jax.jit(measure)
  whole = measure(a, b)
  assert all(np.std(v) > 1e-4 for v in jax.tree.leaves(whole))
  mesh = jax.make_mesh(
    (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  rows = NamedSharding(mesh, PartitionSpec("data"))
  spread = measure(*jax.device_put((a, b), rows))
  some = measure(*jax.tree.map(lambda x: x[2:5], (a, b)))
  for other, rows in ((spread, slice(None)), (some, slice(2, 5))):
    jax.tree.map(
      lambda x, y, rows=rows: np.testing.assert_allclose(
        x[rows], y, atol=2e-5, rtol=1e-5
      ),
      whole,
      other,
    )
