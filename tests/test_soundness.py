"""Compiled products and sums are right, whatever version of JAX is installed.

On CPUs jaxlib 0.10.2 computes some products wrong, without an error (jax issue
39103). Compiled float32 programs of that kind are compared with NumPy in
float64: small products over many rows, with their sums and gradients, at sizes
around those at which work is split between threads. This file imports nothing
of faceedit_jax, so that `pytest --noconftest` says what is wrong with a version
as it is, without the flag that the package gives to some (docs/arithmetic.md).
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROWS = (16383, 16384, 16385, 32767, 32768, 32769, 40001, 65537)
# Sums of few float32 products; the wrong results are off by 1e-3 to 1.
TOLERANCE = 1e-5

_DRAW = np.random.default_rng(0)
MATRIX = _DRAW.standard_normal((3, 3)).astype(np.float32)
JOINTS = _DRAW.standard_normal((4, 3, 4)).astype(np.float32)


def draw(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def softmax(x, axis=-1):
  x = np.exp(x - x.max(axis, keepdims=True))
  return x / x.sum(axis, keepdims=True)


def check(function, reference, *inputs):
  """The compiled function agrees with NumPy in float64."""
  got = np.asarray(jax.jit(function)(*inputs), np.float64)
  wanted = reference(*(np.asarray(x, np.float64) for x in inputs))
  error = np.abs(got - wanted).max() / np.abs(wanted).max()
  assert error < TOLERANCE, f"off by {error:.3g} of the largest value"


def squared_product(rows):
  return jax.vmap(lambda row: jnp.sum((MATRIX @ row) ** 2))(rows)


# name: (function of rows, the same in NumPy)
OF_ROWS = {
  "product of a matrix and each row, squared, summed": (
    squared_product,
    lambda x: ((x @ MATRIX.T) ** 2).sum(-1),
  ),
  "gradient of that": (
    jax.grad(lambda x: squared_product(x).sum()),
    lambda x: 2 * (x @ MATRIX.T) @ MATRIX,
  ),
  "value times gradient of that": (
    lambda x: (
      squared_product(x)[:, None]
      * jax.grad(lambda y: squared_product(y).sum())(x)
    ),
    lambda x: (
      ((x @ MATRIX.T) ** 2).sum(-1, keepdims=True)
      * (2 * (x @ MATRIX.T) @ MATRIX)
    ),
  ),
  "matmul, squared, summed over features": (
    lambda x: jnp.sum((x @ MATRIX) ** 2, -1),
    lambda x: ((x @ MATRIX) ** 2).sum(-1),
  ),
  "matmul, squared, mean over rows": (
    lambda x: jnp.mean((x @ MATRIX) ** 2, 0),
    lambda x: ((x @ MATRIX) ** 2).mean(0),
  ),
  "matmul, squared, summed": (
    lambda x: jnp.sum((x @ MATRIX) ** 2),
    lambda x: ((x @ MATRIX) ** 2).sum(),
  ),
  "quadratic form": (
    lambda x: jnp.einsum("ni,ij,nj->n", x, MATRIX, x),
    lambda x: np.einsum("ni,ij,nj->n", x, MATRIX, x),
  ),
  "length": (
    lambda x: jnp.sqrt(jnp.sum(x * x, -1)),
    lambda x: np.sqrt((x * x).sum(-1)),
  ),
  "product with the next row": (
    lambda x: jnp.sum(x * jnp.roll(x, 1, 0), -1),
    lambda x: (x * np.roll(x, 1, 0)).sum(-1),
  ),
  "cross product, squared, summed": (
    lambda x: jnp.sum(jnp.cross(x, jnp.roll(x, 1, 0)) ** 2, -1),
    lambda x: (np.cross(x, np.roll(x, 1, 0)) ** 2).sum(-1),
  ),
  "softmax of a product": (
    lambda x: jax.nn.softmax(x @ MATRIX),
    lambda x: softmax(x @ MATRIX),
  ),
  "mean weighted by the softmax of a product": (
    lambda x: jnp.sum(jax.nn.softmax(x @ MATRIX) * x, -1),
    lambda x: (softmax(x @ MATRIX) * x).sum(-1),
  ),
}


@pytest.mark.parametrize("rows", ROWS)
def test_sums_of_products_of_rows(rows):
  x, wrong = draw(rows, 3), {}
  for name, (function, reference) in OF_ROWS.items():
    try:
      check(function, reference, x)
    except AssertionError as e:
      wrong[name] = str(e).splitlines()[0]
  assert not wrong


@pytest.mark.parametrize("rows", [5461, 10923, 16385, 32769])
def test_a_matrix_for_each_row(rows):
  matrices, x = draw(rows, 3, 3), draw(rows, 3, seed=1)
  weights = draw(rows, 4, seed=2)

  def reference(m, x):
    return (np.einsum("nij,nj->ni", m, x) ** 2).sum(-1)

  check(jax.vmap(lambda m, x: jnp.sum((m @ x) ** 2)), reference, matrices, x)
  check(
    lambda m, x: jnp.sum(jnp.einsum("nij,nj->ni", m, x) ** 2, -1),
    reference,
    matrices,
    x,
  )
  # Skinning: each point moves by a weighted mean of the joints' matrices.
  check(
    lambda w, x: (
      jnp.einsum("vj,jkl,vl->vk", w, JOINTS[..., :3], x)
      + jnp.einsum("vj,jk->vk", w, JOINTS[..., 3])
    ),
    lambda w, x: (
      np.einsum("vj,jkl,vl->vk", w, JOINTS[..., :3], x)
      + np.einsum("vj,jk->vk", w, JOINTS[..., 3])
    ),
    weights,
    x,
  )


# Batch, queries, keys, features.
ATTENTION = [(2, 7, 1024, 64), (3, 4, 4097, 32), (1, 257, 255, 33)]


@pytest.mark.parametrize("sizes", ATTENTION)
@pytest.mark.parametrize("over", ["keys", "queries"])
def test_attention(sizes, over):
  """Over the keys as usual; over the queries as in slot attention."""
  batch, queries, keys, features = sizes
  axis = -1 if over == "keys" else -2
  q = draw(batch, queries, features)
  k, v = (draw(batch, keys, features, seed=s) for s in (1, 2))
  out = draw(batch, queries, features, seed=3)

  def attend(q, k, v):
    logits = jnp.einsum("bqd,bkd->bqk", q, k) / features**0.5
    weights = jax.nn.softmax(logits, axis)
    weights = weights / jnp.sum(weights, -1, keepdims=True)
    return jnp.einsum("bqk,bkd->bqd", weights, v)

  def weights_of(q, k):
    weights = softmax(np.einsum("bqd,bkd->bqk", q, k) / features**0.5, axis)
    return weights / weights.sum(-1, keepdims=True)

  check(attend, lambda q, k, v: weights_of(q, k) @ v, q, k, v)

  def slope(direction, q, k, v):
    """Of <attend, out> along a direction of the queries."""
    grad = jax.grad(lambda q: jnp.sum(attend(q, k, v) * out))(q)
    return jnp.sum(grad * direction)

  def reference(direction, q, k, v):
    step = 1e-6
    high, low = (
      (weights_of(q + s * direction, k) @ v * out).sum() for s in (step, -step)
    )
    return (high - low) / (2 * step)

  # One direction, the gradient's own, so that nothing cancels.
  direction = jax.grad(lambda q: jnp.sum(attend(q, k, v) * out))(q)
  check(slope, reference, np.asarray(direction), q, k, v)
  check(
    lambda q, k, v: jax.grad(lambda v: jnp.sum(attend(q, k, v) * out))(v),
    lambda q, k, v: weights_of(q, k).swapaxes(1, 2) @ out,
    q,
    k,
    v,
  )


# Programs that end the process in some versions (jax issues 39257, 40412).
CRASHES = {
  "many axes, then log": "jax.jit(lambda a, b: jnp.log(jnp.maximum(jnp.sum("
  "a[..., None, None, None, None, None] * b, axis=2), 1e-9)))("
  "jnp.ones((10, 4, 6)), jnp.ones((10, 4, 6, 9, 9, 9, 9, 9)))",
  "an axis of one": "jax.jit(lambda a, b: jnp.sum(a * b, axis=3))("
  "jnp.ones((3, 1, 2, 2, 8, 8, 8)), jnp.ones((3, 1, 2, 2, 8, 8, 8)))",
}


@pytest.mark.parametrize("program", CRASHES.values(), ids=CRASHES)
def test_sums_over_many_axes_do_not_crash(program):
  code = f"import jax, jax.numpy as jnp; ({program}).block_until_ready()"
  # One device, and nothing read from the cache of compiled programs.
  env = {
    k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")
  }
  flags = [
    flag
    for flag in os.environ.get("XLA_FLAGS", "").split()
    if "device_count" not in flag
  ]
  env |= {
    "XLA_FLAGS": " ".join(flags),
    "JAX_ENABLE_COMPILATION_CACHE": "false",
  }
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, env=env
  )
  assert done.returncode == 0, done.stderr[-500:]
