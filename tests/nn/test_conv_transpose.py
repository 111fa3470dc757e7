"""The transposed convolution equals Linen's, and torch's by hand."""

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


@pytest.mark.parametrize("kernel,stride", [(3, 1), (3, 2), (5, 2), (5, 3)])
def test_trailing_equals_torch(kernel, stride):
  """Every pixel paints the kernel; kernel // 2 is cut off above and left."""
  x = jax.random.normal(jax.random.key(0), (1, 3, 4, 2))
  net = layers.ConvTranspose(5, kernel, stride, trailing=True, bias=False)
  variables = net.init(jax.random.key(1), x)
  weight = np.asarray(variables["params"]["kernel"])[::-1, ::-1]
  height, width = 3 * stride, 4 * stride
  canvas = np.zeros((height + kernel, width + kernel, 5))
  for i in range(3):
    for j in range(4):
      rows = slice(i * stride, i * stride + kernel)
      columns = slice(j * stride, j * stride + kernel)
      canvas[rows, columns] += np.einsum("hwio,i->hwo", weight, x[0, i, j])
  cut = kernel // 2
  wanted = canvas[cut : cut + height, cut : cut + width]
  np.testing.assert_allclose(net.apply(variables, x)[0], wanted, atol=1e-5)
