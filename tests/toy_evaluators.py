"""A small evaluator: the pattern for new ones, and the trainer's tests."""

import dataclasses

import numpy as np

from faceedit_jax import evaluators
from faceedit_jax.core import options


@dataclasses.dataclass(frozen=True)
class ReconstructionError(evaluators.Evaluator):
  """How far grey pictures come back from what they are.

  Attributes:
    level: of the pictures, in [-1, 1].
    size: of their side.
  """

  level: float = 0.0
  size: int = 8

  @classmethod
  def from_config(cls, section, setup):
    return options.build(cls, section, setup.where)

  def run(self, ctx):
    image = np.full((2, self.size, self.size, 3), self.level, np.float32)
    made = ctx.recipe.reconstruct(ctx.variables, image)
    ctx.log("one batch done")
    return {"l1": float(abs(np.asarray(made) - image).mean())}
