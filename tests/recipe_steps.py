"""One training step of every recipe, with XLA's options chosen.

Used by tests/test_step_soundness.py and tests/benchmarks/arithmetic.py.
"""

import contextlib
from typing import Any, NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax import stages
from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import step as step_lib

CONFIGS = ("configs/difffae.py", "configs/l2m_gan.py")
# XLA's CPU compiler hands some products and sums to YNNPACK, unless:
NO_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": ""}
# What runs once is compiled fast instead of well.
_ONCE = {"xla_backend_optimization_level": 0}


class Difference(NamedTuple):
  """How far two steps are from each other.

  Attributes:
    loss: relative difference of the losses, the largest of all phases.
    gradient: length of the difference of a group's gradients, as a part of
      theirs, the largest of all groups.
  """

  loss: float
  gradient: float


def every_recipe() -> list[tuple[str, str]]:
  """(config, stage) of the default's stages, each recipe of a config once."""
  found = {}
  for path in CONFIGS:
    config = config_lib.load(path)
    for stage in (*config.stages, *config.eval_stages):
      name = config.stage[stage].recipe.name
      # The identity net is trained alike in both configs.
      if not any(name == known for _, known in found):
        found[path, name] = stage
  return [(path, stage) for (path, _), stage in found.items()]


class StepOf:
  """The step of a stage at its default shapes, with its inputs.

  Args:
    path: config.
    stage: of it.
    smooth: whether rectifiers are SiLU. The gradient of a rectifier jumps where
      its input crosses zero: one unit whose input is zero up to rounding falls
      on either side, and the gradient of the estimator changes by .5 to 1.4 %
      then (measured; docs/arithmetic.md). A smooth function leaves rounding.
  """

  def __init__(self, path: str, stage: str, smooth: bool = False):
    self._activation = _smooth_relu if smooth else contextlib.nullcontext
    config = config_lib.load(path)
    built = stages.make_stage(config, stage, workdir="unused")
    recipe = built.recipe
    # The highest step at which a phase begins: all that last are due.
    first = max(phase.start for phase in recipe.phases())
    self.due = step_lib.due_phases(recipe.phases(), first)

    def init():
      state = step_lib.init_state(recipe, jax.random.key(0))
      frozen = recipe.init_frozen(jax.random.key(1))
      return state.replace(step=jnp.asarray(first, jnp.int32)), frozen

    self.state, self.frozen = jax.jit(init, compiler_options=_ONCE)()
    self.batch = batch_lib.example_batch(
      recipe.batch_spec(), built.data.loader.batch_size, 0
    )
    self._step = step_lib.make_step(recipe)

  def compile(self, options: dict[str, Any] | None = None):
    """The compiled step, for `run`.

    Raises:
      jax.errors.JaxRuntimeError: XLA does not know one of the options.
    """
    step = jax.jit(self._step, static_argnames="due", compiler_options=options)
    with self._activation():
      lowered = step.lower(self.state, self.frozen, self.batch, due=self.due)
    return lowered.compile()

  def run(self, compiled):
    """One step: metrics, and the gradients as the optimisers hold them."""
    state, metrics, _ = compiled(self.state, self.frozen, self.batch)
    return jax.device_get((metrics, _first_moments(state.opt)))


def _smooth_relu():
  return mock.patch.object(nn, "relu", nn.silu)


def _first_moments(opt):
  """{group: means of gradients}; after one step a part of the gradient.

  Adam's first update is about the sign of each gradient, whatever its size;
  these are as smooth as the gradients.
  """
  return {
    group: [
      leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(state)
      # Adam's and Muon's names of it.
      if {".mu", ".trace"} & {str(key) for key in path}
    ]
    for group, state in opt.items()
  }


def compare(one, other) -> Difference:
  """How far `other` is from `one`, both from `StepOf.run`."""
  (metrics, grads), (metrics_b, grads_b) = one, other
  losses = [name for name in metrics if name.endswith("/loss")]
  assert losses and all(grads.values())
  return Difference(
    loss=max(relative(metrics[name], metrics_b[name]) for name in losses),
    gradient=max(_distance(grads[g], grads_b[g]) for g in grads),
  )


def relative(a, b) -> float:
  """Largest difference, as a part of the largest value of `a`."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  return float(np.abs(a - b).max() / np.abs(a).max())


def _distance(a, b) -> float:
  """Length of the difference of two trees, as a part of the length of `a`."""
  a, b = (
    np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(t)])
    for t in (a, b)
  )
  return float(np.linalg.norm(a - b) / np.linalg.norm(a))
