"""What evaluators of edits share: edits in batches, means over pictures."""

import functools
import inspect
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines import sources
from faceedit_jax.core import options
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import evaluator as evaluator_lib
from faceedit_jax.evaluators import needs
from faceedit_jax.faces import face_reader

BATCH = 16
# Pairs of a short look, as at the end of training.
QUICK_PAIRS = 32
# Pictures that give what is edited.
QUERIES = ("pose_from", "expression_from", "light_from")
# Seed of the sampling noise of every evaluation.
NOISE_SEED = 2026


def open_source(
  data: Mapping[str, Any],
  image_size: int,
  data_dir: str | pathlib.Path,
  split: str,
) -> Any:
  """The examples of a split, all of them.

  Args:
    data: a data section, of which the part `source` is read.
    image_size: side of the pictures where `source` does not say.
    data_dir: directory of prepared data.
    split: which of the set's.

  Raises:
    UserError: one line for an unknown or missing kind or key.
  """
  if "source" not in data:
    raise UserError("data of the evaluator lacks the part 'source'")
  source = options.build_kind(
    sources.KINDS, data["source"], "data.source", size=image_size
  )
  return source.open(data_dir, split)


class Editor:
  """`recipe.edit`, always on full batches so that it compiles once."""

  def __init__(self, recipe, variables, frozen, **options: Any):
    self._variables, self._frozen = variables, frozen
    self._rng = jax.random.key(NOISE_SEED)
    self._edit = jax.jit(functools.partial(recipe.edit, **options))

  def __call__(self, inputs: Mapping[str, np.ndarray], first: int) -> dict:
    """Edits at most BATCH pictures; `first` names the first one's noise."""
    count = inputs["source"].shape[0]
    inputs = {name: full(value) for name, value in inputs.items()}
    inputs["row"] = first + np.arange(BATCH)
    result = self._edit(self._variables, self._frozen, inputs, self._rng)
    return {k: np.asarray(v)[:count] for k, v in result.items()}


def check_steps(steps: Sequence[int], setup: evaluator_lib.Setup) -> None:
  """Refuses numbers of sampling steps that cannot be.

  Args:
    steps: of an evaluator.
    setup: of it.

  Raises:
    UserError: one line.
  """
  wrong = [n for n in steps if n < 1]
  if wrong:
    raise UserError(
      f"{setup.where}: {wrong[0]} sampling steps, wanted 1 or more"
    )
  known = inspect.signature(setup.recipe.edit).parameters
  if steps and "steps" not in known:
    raise UserError(
      f"{setup.where}: {type(setup.recipe).__name__} takes no number of "
      "sampling steps; leave it out"
    )


def full(array: np.ndarray) -> np.ndarray:
  """An array of BATCH rows; the last one fills it up."""
  missing = BATCH - len(array)
  return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def mean(parts: Sequence[np.ndarray]) -> float:
  """Mean over all pictures that have a value; NaN if none has."""
  values = np.concatenate(parts)
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else float("nan")


def face_reader_of(recipe: needs.EditsFaces) -> face_reader.FaceReader:
  """Who reads faces in an evaluation: no measure asks for wrinkles."""
  return recipe.face.reader.replace(detail_encoder=None, detail_decoder=None)
