"""Muon against optax's, which orthogonalises one matrix at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from faceedit_jax.core import muon, optim

SHAPES = {
  "tall": (3, 3, 4, 8),  # a convolution: 36 x 8
  "wide": (8, 24),
  "square": (8, 8),
  "column": (5, 1),
}


def kernels(seed):
  keys = jax.random.split(jax.random.key(seed), len(SHAPES))
  return {
    name: {"kernel": jax.random.normal(key, shape)}
    for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)
  }


def test_singular_values_come_near_one():
  # The second has singular values down to a hundredth of the first one's.
  tree = kernels(0)
  tree["wide"]["kernel"] *= jnp.logspace(0, -2, 8)[:, None]
  found = jax.jit(muon.orthogonalise)(tree)
  for name, shape in SHAPES.items():
    matrix = np.asarray(found[name]["kernel"]).reshape(-1, shape[-1])
    assert found[name]["kernel"].shape == shape
    values = np.linalg.svd(matrix, compute_uv=False)
    assert values.min() > 0.2 and values.max() < 1.3, name
  assert not jnp.any(
    muon.orthogonalise({"kernel": jnp.zeros((4, 2))})["kernel"]
  )


def test_steps_match_optax():
  params, rest = kernels(1), {"bias": jnp.arange(3.0)}
  grads = [kernels(seed) for seed in (2, 3, 4)]

  def dimensions(tree):
    return jax.tree.map(
      lambda x: optax.contrib.MuonDimensionNumbers(
        tuple(range(x.ndim - 1)), x.ndim - 1
      ),
      tree,
    )

  # Without memory: the momentum is written out below.
  theirs = optax.contrib.muon(
    0.01,
    beta=0.0,
    nesterov=False,
    consistent_rms=0.2,
    muon_weight_dimension_numbers=dimensions,
  )
  ours = optim.make_tx("muon", 0.01)
  both = params | {"head": rest}
  state, other = theirs.init(params), ours.init(both)
  adam = optim.make_tx("adam", 0.01)
  plain = adam.init(rest)
  memory = jax.tree.map(jnp.zeros_like, params)
  for grad in grads:
    memory = jax.tree.map(lambda m, g: 0.95 * m + g, memory, grad)
    ahead = jax.tree.map(lambda m, g: 0.95 * m + g, memory, grad)
    wanted, state = theirs.update(ahead, state, params)
    slope = {"bias": jnp.ones(3)}
    found, other = ours.update(grad | {"head": slope}, other, both, step=0)
    of_rest, plain = adam.update(slope, plain, rest, step=0)
    head = found.pop("head")
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted
    )
    np.testing.assert_allclose(head["bias"], of_rest["bias"], rtol=1e-6)
