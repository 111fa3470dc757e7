"""What the arrays of a batch must be, and the checks of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core import rng as rng_lib

# Rounding in resizing and normalising may leave a range by this much.
_RANGE_SLACK = 1e-3


@dataclasses.dataclass(frozen=True)
class Field:
  """One array of a batch.

  Attributes:
    shape: shape without the batch axis.
    dtype: name of its dtype.
    range: inclusive (lowest, highest) value, or None for any.
  """

  shape: tuple[int, ...]
  dtype: str = "float32"
  range: tuple[float, float] | None = None


BatchSpec = Mapping[str, Field]


def check_batch(
  spec: BatchSpec, batch: Mapping[str, Any], where: str
) -> dict[str, Any]:
  """Checks that a batch is what the recipe asked for.

  Args:
    spec: the recipe's fields.
    batch: {name: array (b, *shape)}; NumPy arrays have their range checked too.
    where: where the batch comes from, for the error ("stage.ldm.data").

  Returns:
    The batch without the arrays that the recipe does not read.

  Raises:
    ValueError: a field is missing, has another shape, dtype or range, or the
      fields disagree about the batch size.
  """
  missing = [name for name in spec if name not in batch]
  if missing:
    raise ValueError(
      f"{where}: batch lacks {', '.join(missing)}; it has "
      f"{', '.join(sorted(batch))} (Recipe.batch_spec)"
    )
  size = None
  for name, field in spec.items():
    value = batch[name]
    shape, dtype = tuple(np.shape(value)), jnp.dtype(value.dtype)
    if shape[1:] != tuple(field.shape) or not shape:
      wanted = ", ".join(["b", *map(str, field.shape)])
      raise ValueError(f"{where}: {name} has shape {shape}, wanted ({wanted})")
    if dtype != jnp.dtype(field.dtype):
      raise ValueError(f"{where}: {name} is {dtype}, wanted {field.dtype}")
    size = shape[0] if size is None else size
    if shape[0] != size:
      raise ValueError(
        f"{where}: {name} holds {shape[0]} examples, {next(iter(spec))} holds "
        f"{size}"
      )
    _check_range(field, value, f"{where}: {name}")
  return {name: batch[name] for name in spec}


def _check_range(field: Field, value: Any, what: str) -> None:
  """Raises if a NumPy array leaves its range or holds a NaN."""
  if field.range is None or not isinstance(value, np.ndarray) or not value.size:
    return
  low, high = field.range
  least, most = float(value.min()), float(value.max())
  # Written so that NaN fails too.
  if not (least >= low - _RANGE_SLACK and most <= high + _RANGE_SLACK):
    raise ValueError(
      f"{what} spans [{least:.4g}, {most:.4g}], wanted [{low:g}, {high:g}]"
    )


def abstract_batch(spec: BatchSpec, n: int) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and dtypes of a batch of `n`, for tracing without data."""
  return {
    name: jax.ShapeDtypeStruct((n, *field.shape), jnp.dtype(field.dtype))
    for name, field in spec.items()
  }


def example_batch(spec: BatchSpec, n: int, seed: int) -> dict[str, np.ndarray]:
  """A random batch of `n` within the fields' ranges, for tests and compiling.

  Args:
    spec: the recipe's fields.
    n: batch size.
    seed: the same seed gives the same arrays.

  Returns:
    {name: array (n, *shape)}. Floats without a range are normal, whole numbers
    without a range are 0 or 1 (uint8: 0 to 255).
  """
  batch = {}
  for name, field in spec.items():
    draw = np.random.default_rng([seed, rng_lib.name_hash(name)])
    shape, dtype = (n, *field.shape), jnp.dtype(field.dtype)
    if jnp.issubdtype(dtype, jnp.floating):
      if field.range is None:
        value = draw.standard_normal(shape)
      else:
        value = draw.uniform(*field.range, shape)
    else:
      low, high = field.range or (0, 255 if dtype == np.uint8 else 1)
      value = draw.integers(int(low), int(high), shape, endpoint=True)
    batch[name] = np.asarray(value).astype(dtype)
  return batch
