"""Muon: momentum made orthogonal, for the kernels of a net.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks";
size of the steps after Liu et al. 2025, arXiv 2502.16982, section 2.2.
"""

import collections

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core.typing import Array, PyTree

# x -> a x + b x^3 + c x^5, which lifts every singular value to about 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
# Root mean square of an update before the learning rate, as Adam's usually
# is: one rate then suits both.
_RMS = 0.2


def is_kernel(path: tuple, leaf: Array) -> bool:
  """Whether a parameter is a kernel, which Muon takes for a matrix."""
  name = jax.tree_util.keystr(path[-1:], simple=True)
  return name == "kernel" and leaf.ndim >= 2


def orthogonalise(tree: PyTree) -> PyTree:
  """Brings the singular values of every leaf near 1.

  optax.contrib.muon iterates on each matrix alone. Here the iteration runs on
  the Gram matrices, those of one size together. On one core an update of the
  default's estimator takes 54 ms instead of 152, of its denoiser (408 kernels)
  171 instead of 337, and compiles in 35 s instead of 81 (side by side with the
  other; the numbers come out the same, see the test).

  Args:
    tree: arrays (..., out) of two dimensions or more; all but the last are
      taken as one.

  Returns:
    The tree with every leaf X = U S V' replaced by about U V'.
  """
  leaves, structure = jax.tree.flatten(tree)
  matrices, of_size = [], collections.defaultdict(list)
  for at, leaf in enumerate(leaves):
    x = leaf.reshape(-1, leaf.shape[-1])
    x = x.T if x.shape[0] < x.shape[1] else x
    matrices.append(x / (jnp.linalg.norm(x) + 1e-8))
    of_size[x.shape[1]].append(at)
  out = [None] * len(leaves)
  for size, group in sorted(of_size.items()):
    gram = jnp.stack([matrices[at].T @ matrices[at] for at in group])
    for at, factor in zip(group, _factors(gram), strict=True):
      x, leaf = matrices[at] @ factor, leaves[at]
      x = x if size == leaf.shape[-1] else x.T
      out[at] = x.reshape(leaf.shape)
  return jax.tree.unflatten(structure, out)


def _factors(gram: Array) -> Array:
  """Q (k, n, n) that makes X Q orthogonal, from X' X (k, n, n)."""
  a, b, c = _COEFFICIENTS
  identity = jnp.eye(gram.shape[-1])

  def improve(_, carry):
    gram, factor = carry
    # A polynomial of the Gram matrix, so all of these commute.
    step = a * identity + b * gram + c * (gram @ gram)
    return step @ gram @ step, factor @ step

  start = (gram, jnp.broadcast_to(identity, gram.shape))
  return jax.lax.fori_loop(0, _ITERATIONS, improve, start)[1]


def scale_by_muon() -> optax.GradientTransformation:
  """Momentum with Nesterov's look ahead, orthogonal, at Adam's usual size."""

  def sized(x):
    rows = x.size // x.shape[-1]
    return x * (_RMS * max(rows, x.shape[-1]) ** 0.5)

  return optax.chain(
    optax.trace(_MOMENTUM, nesterov=True),
    optax.stateless(lambda tree, _: jax.tree.map(sized, orthogonalise(tree))),
  )
