"""Attention by blocks of queries, for CPUs.

The U-Net of DiffFAE Sec. 4.2 attends over all pixels of a latent; the order of
work and the slope are those of Dao et al. 2022 (FlashAttention).
"""

import functools

import einops
import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, typechecked

# The maps of so many queries stay in the cache of a core, forward and backward.
_BLOCK = 128
# Maps with no more numbers than this stay there whole.
_WHOLE = 2**20

_product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)


def _turned(x: Array) -> Array:
  return x.swapaxes(-1, -2)


def _heads(x: Array) -> Array:
  return einops.rearrange(x, "b k h d -> (b h) k d")


def _cut(x: Array, keys: int) -> Array:
  """(b, q, h, d) as (blocks, b * h, block, d), with zeros behind the last."""
  b, queries, heads, _ = x.shape
  size = queries if b * heads * queries * keys <= _WHOLE else _BLOCK
  x = jnp.pad(x, ((0, 0), (0, -queries % size), (0, 0), (0, 0)))
  return einops.rearrange(x, "b (s q) h d -> s (b h) q d", q=size)


def _joined(x: Array, q: Array) -> Array:
  """The blocks of queries `q` as (b, q, h, d), without the zeros behind."""
  x = einops.rearrange(x, "s (b h) q d -> b (s q) h d", b=q.shape[0])
  return x[:, : q.shape[1]]


def _forward(q, k, v):
  """Attention (b, q, h, e), and what its slope needs."""
  keys, values = _turned(_heads(k)), _heads(v)

  def block(_, queries):
    logits = _product(queries, keys)
    most = logits.max(-1, keepdims=True)
    weights = jnp.exp(logits - most)
    total = weights.sum(-1, keepdims=True)
    out = _product(weights.astype(v.dtype), values) / total
    return None, (out.astype(v.dtype), most + jnp.log(total))

  queries = _cut(q * q.shape[-1] ** -0.5, k.shape[1])
  _, (out, total) = jax.lax.scan(block, None, queries)
  out = _joined(out, q)
  return out, (q, k, v, out, total)


def _backward(kept, slope):
  q, k, v, out, total = kept
  count, scale = k.shape[1], q.shape[-1] ** -0.5
  # The sum over keys of map times slope, as one over features, which are fewer
  # (appendix B.2 there).
  common = (slope * out).astype(jnp.float32).sum(-1, keepdims=True)
  blocks = (
    _cut(q * scale, count),
    _cut(slope, count),
    _cut(common, count),
    total,
  )
  keys, values = _heads(k), _heads(v)
  turned_keys, turned_values = _turned(keys), _turned(values)

  def block(sums, now):
    by_key, by_value = sums
    queries, slope, common, total = now
    maps = jnp.exp(_product(queries, turned_keys) - total)
    by_logit = maps * (_product(slope, turned_values) - common)
    by_logit = by_logit.astype(q.dtype)
    maps = maps.astype(v.dtype)
    # With keys last: turning the maps would take longer than the product.
    by_key += _product(_turned(queries), by_logit)
    by_value += _product(_turned(slope), maps)
    return (by_key, by_value), _product(by_logit, keys).astype(q.dtype)

  sums = (
    jnp.zeros(turned_keys.shape, jnp.float32),
    jnp.zeros(turned_values.shape, jnp.float32),
  )
  sums, by_query = jax.lax.scan(block, sums, blocks)

  def whole(x, like):
    x = einops.rearrange(x, "(b h) d k -> b k h d", b=like.shape[0])
    return x.astype(like.dtype)

  return _joined(by_query, q) * scale, whole(sums[0], k), whole(sums[1], v)


@jax.custom_vjp
def _attention(q, k, v):
  return _forward(q, k, v)[0]


_attention.defvjp(_forward, _backward)


@typechecked
def blocked_attention(
  q: Float[Array, "b q h d"],
  k: Float[Array, "b k h d"],
  v: Float[Array, "b k h e"],
) -> Float[Array, "b q h e"]:
  """`jax.nn.dot_product_attention`, faster on CPUs and in less memory.

  No more than one block of the maps is there at a time, and none is kept for
  the slope.

  Args:
    q: (b, q, h, d) queries.
    k: (b, k, h, d) keys.
    v: (b, k, h, e) values.

  Returns:
    (b, q, h, e), with the type of `v`.

  Source: algorithms 1 and 4 of FlashAttention (Dao et al. 2022), with all keys
  in one block.
  """
  return _attention(q, k, v)
