"""The registry of evaluators: a new one is one file and one line here."""

from collections.abc import Mapping
from typing import Any

from faceedit_jax.core import registry
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.evaluators.evaluator import EvalContext, Evaluator, Setup
from faceedit_jax.evaluators.report import overview

__all__ = ["EvalContext", "Evaluator", "Setup", "build", "load", "overview"]

# {kind in configs: "module:Class"}; imported when first asked for.
REGISTRY: dict[str, str] = {
  "counterfactual": (
    "faceedit_jax.evaluators.counterfactual:CounterfactualEvaluator"
  ),
  "single_factor": (
    "faceedit_jax.evaluators.single_factor:SingleFactorEvaluator"
  ),
  "slot_naming": "faceedit_jax.evaluators.slot_naming:SlotNaming",
  "reenactment": "faceedit_jax.evaluators.reenactment:ReenactmentEvaluator",
  "attributes": "faceedit_jax.evaluators.attributes:AttributeEvaluator",
  "attribute_accuracy": (
    "faceedit_jax.evaluators.attribute_accuracy:AttributeAccuracy"
  ),
  "landmark_error": "faceedit_jax.evaluators.landmark_error:LandmarkError",
}


def load(kind: str) -> type[Evaluator]:
  """Finds an evaluator's class: `kind` is in REGISTRY, or "module:Class".

  Raises:
    UserError: one line with the nearest name.
  """
  return registry.load(kind, REGISTRY, "evaluator")


def build(section: Mapping[str, Any], setup: Setup) -> Evaluator:
  """Builds the evaluator that a section of a config describes.

  Args:
    section: `stage.X.evaluators.NAME`: `kind`, and the options of that kind.
    setup: what else the evaluator is built from.

  Returns:
    The evaluator.

  Raises:
    UserError: one line for an unknown kind, or what the kind refuses.
  """
  section = dict(section)
  kind = section.pop("kind", None)
  if not isinstance(kind, str):
    raise UserError(
      f"{setup.where}.kind is {kind!r}, wanted one of {', '.join(REGISTRY)}"
    )
  try:
    cls = load(kind)
  except UserError as error:
    raise UserError(f"{setup.where}.kind: {error}") from error
  with as_user_error(setup.where):
    return cls.from_config(section, setup)
