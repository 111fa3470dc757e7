"""Counting parameters, and cheap variables for tests."""

import math

import jax
import jax.numpy as jnp


def parameters(net, *args, **kwargs) -> int:
  """Number of trainable parameters of `net`, by abstract evaluation."""
  return size(shapes(net, *args, **kwargs)["params"])


def shapes(net, *args, **kwargs):
  """Abstract variables of `net`."""
  return jax.eval_shape(net.init, jax.random.key(0), *args, **kwargs)


def size(tree) -> int:
  """Number of array elements of a tree."""
  return sum(math.prod(x.shape) for x in jax.tree_util.tree_leaves(tree))


def array(*shape: int, dtype="float32"):
  """An abstract array."""
  return jax.ShapeDtypeStruct(shape, dtype)


def randomised(net, rng, *args, **kwargs):
  """Variables drawn with NumPy: quick, and without layers that are zero.

  Running variances, the only ones that must be positive, are made so.
  """

  def draw(path, x):
    value = rng.normal(size=x.shape) * 0.2
    if path[-1].key == "var":
      value = 1 + abs(value)
    return jnp.asarray(value, x.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes(net, *args, **kwargs))
