"""Attention: its forms agree with one another and with JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.nn import attention, blocked_attention
from faceedit_jax.nn.attention import attend


def results(function, *args):
  """Output and slopes under fixed weights."""

  def run(*args):
    out, back = jax.vjp(function, *args)
    weights = jnp.cos(jnp.arange(out.size)).reshape(out.shape)
    return out, *back(weights.astype(out.dtype))

  return jax.jit(run)(*args)


def inputs(rng, b, queries, keys, heads, features, of_values):
  shapes = (
    (b, queries, heads, features),
    (b, keys, heads, features),
    (b, keys, heads, of_values),
  )
  return [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]


@pytest.mark.parametrize(
  "block, whole",
  # One block; several; a last one that is not full; one longer than all.
  [(128, 2**20), (4, 0), (5, 0), (100, 0)],
)
def test_blocks(rng, monkeypatch, block, whole):
  monkeypatch.setattr(blocked_attention, "_BLOCK", block)
  monkeypatch.setattr(blocked_attention, "_WHOLE", whole)
  q, k, v = inputs(rng, 2, 12, 7, 3, 8, 8)
  q = 3 * q  # far from uniform maps
  ours = results(blocked_attention.blocked_attention, q, k, v)
  theirs = results(jax.nn.dot_product_attention, q, k, v)
  for name, a, b in zip("oqkv", ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5, err_msg=name)


def test_blocks_of_large_numbers(rng):
  q, k, v = inputs(rng, 1, 6, 5, 1, 4, 4)
  ours = results(blocked_attention.blocked_attention, 1e3 * q, k, v)
  for array in ours:
    assert np.isfinite(array).all()


def test_blocks_of_values_of_another_size(rng):
  q, k, v = inputs(rng, 2, 6, 5, 2, 4, 3)
  out = blocked_attention.blocked_attention(q, k, v)
  maps = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2, -1)
  expected = jnp.einsum("bhqk,bkhd->bqhd", maps, v)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_blocks_in_bfloat16(rng):
  arrays = inputs(rng, 2, 300, 40, 2, 8, 8)
  exact = results(jax.nn.dot_product_attention, *arrays)
  halves = [x.astype(jnp.bfloat16) for x in arrays]
  ours = results(blocked_attention.blocked_attention, *halves)
  for a, b in zip(ours, exact, strict=True):
    assert a.dtype == jnp.bfloat16
    scale = float(jnp.abs(b).max())
    np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.02 * scale)


def test_no_more_than_a_block_of_maps_is_there():
  def shapes(function):
    x = jax.ShapeDtypeStruct((1, 1024, 8, 4), jnp.float32)
    program = jax.make_jaxpr(lambda q, k, v: jax.vjp(function, q, k, v)[1](q))(
      x, x, x
    )
    return str(program)

  assert "1024,1024]" in shapes(jax.nn.dot_product_attention)
  ours = shapes(blocked_attention.blocked_attention)
  assert "128,1024]" in ours and "1024,1024]" not in ours


def tokens(rng):
  return [
    jnp.asarray(rng.normal(size=(2, n, 8)), jnp.float32) for n in (5, 3, 3)
  ]


def test_kernels_and_maps(rng):
  q, k, v = tokens(rng)
  plain, maps = attend(q, k, v, 2, True)
  assert maps.shape == (2, 2, 5, 3)
  np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-6)
  np.testing.assert_allclose(
    attend(q, k, v, 2, True, "xla")[0], plain, atol=0, rtol=0
  )

  def programs(kernel):
    return str(jax.make_jaxpr(lambda q: attend(q, k, v, 2, kernel=kernel))(q))

  assert "custom_vjp" in programs("auto")  # tests run on a CPU
  assert "custom_vjp" not in programs("xla")
  expected = results(lambda *x: attend(*x, 2, True)[0], q, k, v)
  for kernel in ("auto", "xla"):
    assert attend(q, k, v, 2, kernel=kernel)[1] is None
    got = results(lambda *x, n=kernel: attend(*x, 2, kernel=n)[0], q, k, v)
    for a, b in zip(got, expected, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)


def test_impossible_kernels(rng, monkeypatch):
  q, k, v = tokens(rng)
  with pytest.raises(ValueError, match="'flash', wanted one of auto, xla, cud"):
    attend(q, k, v, 2, kernel="flash")
  with pytest.raises(
    ValueError, match="needs a GPU; this is a cpu .*attention"
  ):
    attend(q, k, v, 2, kernel="cudnn")
  monkeypatch.setattr(attention.jax, "default_backend", lambda: "gpu")
  with pytest.raises(ValueError, match="this net does in float32"):
    attend(q, k, v, 2, kernel="cudnn")
  q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
  with pytest.raises(ValueError, match="this net's have 4"):
    attend(q, k, v, 2, kernel="cudnn")


def test_cudnn_is_asked_for(rng, monkeypatch):
  asked = []

  def fake(q, k, v, implementation):
    asked.append((q.shape, implementation))
    return jnp.zeros_like(q)

  monkeypatch.setattr(attention.jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(attention.jax.nn, "dot_product_attention", fake)
  q, k, v = (x.astype(jnp.bfloat16) for x in tokens(rng))
  attend(q, k, v, 1, kernel="cudnn")
  attend(q, k, v, 1, kernel="xla")
  attend(q, k, v, 1)
  shape = (2, 5, 1, 8)
  assert asked == [(shape, "cudnn"), (shape, "xla"), (shape, None)]
  # Maps are formed, whatever the kernel.
  assert attend(q, k, v, 1, True, "cudnn")[1] is not None
  assert len(asked) == 3
