"""What evaluators of edits share: edits in batches, scoring nets, sheets."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import writers
from faceedit_jax.faces import face_reader
from faceedit_jax.faces import nets as nets_lib

BATCH = 16
# Pairs of a short look, as at the end of training.
QUICK_PAIRS = 32
# Pictures that give what is edited.
QUERIES = ("pose_from", "expression_from", "light_from")
# Seed of the sampling noise of every evaluation.
NOISE_SEED = 2026
NETS = ("estimator", "identity")  # second ones score


class Editor:
  """`recipe.edit`, always on full batches so that it compiles once."""

  def __init__(self, recipe, variables, frozen, **knobs: Any):
    self._variables, self._frozen = variables, frozen
    self._rng = jax.random.key(NOISE_SEED)
    self._edit = jax.jit(functools.partial(recipe.edit, **knobs))

  def __call__(self, inputs: Mapping[str, np.ndarray], first: int) -> dict:
    """Edits at most BATCH pictures; `first` names the first one's noise."""
    count = inputs["source"].shape[0]
    inputs = {name: full(value) for name, value in inputs.items()}
    inputs["row"] = first + np.arange(BATCH)
    result = self._edit(self._variables, self._frozen, inputs, self._rng)
    return {k: np.asarray(v)[:count] for k, v in result.items()}


def full(array: np.ndarray) -> np.ndarray:
  """An array of BATCH rows; the last one fills it up."""
  missing = BATCH - len(array)
  return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def sources(
  nets: Sequence[str] = NETS,
) -> dict[str, recipe_lib.WeightSource]:
  """Where second nets that only score come from: stages `score_NET`."""
  return {
    net: recipe_lib.WeightSource(stage=f"score_{net}", net=net) for net in nets
  }


def init(
  reader: face_reader.FaceReader,
  code_shapes: Mapping[str, tuple[int, ...]],
  image_size: int,
  rng,
  nets: Sequence[str] = NETS,
) -> dict[str, Any]:
  """{net: variables} with the structure of those nets."""
  made = {}
  if "estimator" in nets:
    picture = jnp.zeros((1, image_size, image_size, 3))
    made["estimator"] = nets_lib.init_estimator(
      reader.estimator, code_shapes, rng, picture
    )
  if "identity" in nets:
    crop = jnp.zeros((1,) + (reader.identity_size,) * 2 + (3,))
    made["identity"] = reader.identity.init(rng, crop)
  return made


def mean(parts: Sequence[np.ndarray]) -> float:
  """Mean over all pictures that have a value; NaN if none has."""
  values = np.concatenate(parts)
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else float("nan")


def save_sheet(
  columns: Sequence[np.ndarray], path: pathlib.Path, count: int
) -> None:
  """Columns of pictures (n, h, w, 3) as a sheet, one example per line."""
  shown = min(count, len(columns[0]))
  lines = {f"{i:02d}": np.stack([c[i] for c in columns]) for i in range(shown)}
  Image.fromarray(writers.make_grid(lines)).save(path)
