"""What an evaluator is, what it is built from and what it is run with."""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.typing import Array, Variables


@dataclasses.dataclass(frozen=True)
class Setup:
  """What the program knows when it builds an evaluator.

  Attributes:
    recipe: the recipe of the stage that is evaluated.
    nets: {net: architecture} of the config.
    data: the stage's own data section.
    image_size: side of the pictures in pixels.
    dtype: compute dtype of the nets.
    where: the evaluator's section, for errors
      ("config.stage.gan.evaluators.attributes").
  """

  recipe: Any
  nets: Mapping[str, Any]
  data: Mapping[str, Any]
  image_size: int
  dtype: Any
  where: str


@dataclasses.dataclass(frozen=True)
class EvalContext:
  """What one evaluation is given.

  Attributes:
    recipe: the recipe of the stage.
    variables: {net: variables} of its trained nets.
    frozen: {net: variables} of its frozen nets.
    data_dir: directory of prepared data.
    out_dir: where the report goes.
    log: prints a line.
    eval_nets: {net: variables} of the nets that only evaluate; None while one
      of them is not trained. What needs them is then left out.
    quick: asks for a short look, as at the end of training.
    stage_dir: directory of the stage, for what is found out about it; None
      where nothing may be kept there.
  """

  recipe: Any
  variables: Mapping[str, Variables]
  frozen: Mapping[str, Variables]
  data_dir: pathlib.Path
  out_dir: pathlib.Path
  log: Callable[[str], None]
  eval_nets: Mapping[str, Variables] | None = None
  quick: bool = False
  stage_dir: pathlib.Path | None = None


class Evaluator(abc.ABC):
  """Measures what `recipe.edit`, or a net of the recipe, does.

  Concrete evaluators are frozen dataclasses. Their fields are the keys of
  their section of the config, and what `from_config` adds from the setup.
  """

  @classmethod
  @abc.abstractmethod
  def from_config(cls, section: Mapping[str, Any], setup: Setup) -> "Evaluator":
    """Builds the evaluator from its section, without `kind`.

    Raises:
      UserError: one line for a key or a value that is wrong.
    """

  def eval_nets(self) -> Mapping[str, recipe_lib.WeightSource]:
    """{net: where it comes from} of nets that only evaluate."""
    return {}

  def init_eval_nets(self, rng: Array) -> Mapping[str, Variables]:
    """{net: variables} with the structure of those nets."""
    del rng
    return {}

  @abc.abstractmethod
  def run(self, ctx: EvalContext) -> Mapping[str, float]:
    """Writes a report to `ctx.out_dir`; returns {metric: value}."""
