"""The transposed convolution equals Linen's, parameters included."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from faceedit_jax.nn import layers


@pytest.mark.parametrize("kernel,stride", [(3, 1), (3, 2), (5, 2), (2, 3)])
def test_equals_linen(kernel, stride):
  x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
  ours = layers.ConvTranspose(6, kernel, stride)
  theirs = nn.ConvTranspose(6, (kernel, kernel), (stride, stride))
  variables = ours.init(jax.random.key(1), x)
  assert jax.tree.map(np.shape, variables) == jax.tree.map(
    np.shape, theirs.init(jax.random.key(1), x)
  )
  a, b = ours.apply(variables, x), theirs.apply(variables, x)
  assert a.shape == b.shape == (2, 4 * stride, 5 * stride, 6)
  np.testing.assert_allclose(a, b, atol=1e-5)
