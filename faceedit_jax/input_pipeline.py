"""From the data section of a stage's config to batches on the devices."""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import UserError, as_user_error

CachedFeatures = Mapping[str, np.ndarray]
Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]

_DEVICE_BATCHES = 2  # wait on the devices ahead of their use


def transform_of(
  recipe: recipe_lib.Recipe, data: Mapping[str, Any]
) -> Transform:
  """What the data section says, narrowed to the fields a recipe reads.

  Args:
    recipe: gives the fields, and the size of its pictures.
    data: the stage's data section; see `data_pipelines.transforms`.

  Returns:
    (example, generator) -> example.
  """
  from data_pipelines import transforms  # noqa: PLC0415

  spec = recipe.batch_spec()
  prepare = transforms.from_config(data, picture_size(recipe), read=tuple(spec))

  def transform(example, rng):
    example = prepare(example, rng)
    missing = sorted(set(spec) - set(example))
    if missing:
      raise UserError(
        f"the data has no {missing}; it has {sorted(example)} (batch_spec of "
        "the recipe, data of the stage)"
      )
    return {
      name: np.asarray(example[name]).astype(field.dtype)
      for name, field in spec.items()
    }

  return transform


def picture_size(recipe: recipe_lib.Recipe) -> int | None:
  """Side of the pictures that a recipe reads; None if it is not one."""
  spec = recipe.batch_spec()
  sizes = {f.shape[0] for name, f in spec.items() if name.endswith("image")}
  return sizes.pop() if len(sizes) == 1 else None


class _WithFeatures:
  """Examples together with their cached features."""

  def __init__(self, source: Any, features: CachedFeatures):
    self._source, self._features = source, features
    for name, rows in features.items():
      if len(rows) != len(source):
        raise UserError(
          f"cached features {name!r} are of {len(rows)} pictures, the data "
          f"has {len(source)}; remove the stage's folder `feature_cache`"
        )

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    rows = {name: rows[index] for name, rows in self._features.items()}
    return {**self._source[index], **rows}

  def __getattr__(self, name: str) -> Any:
    if name == "column":  # not every source has it
      return self._source.column
    raise AttributeError(name)


class _Pairs:
  """Two frames as `source_*` and `query_*` fields of one example."""

  def __init__(self, source: Any, data: Mapping[str, Any], seed: int):
    from data_pipelines import samplers  # noqa: PLC0415

    self._pairs = samplers.PairSource.from_config(source, data, seed, "query_")
    self.endless = self._pairs.endless

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> dict[str, Any]:
    example = self._pairs[index]
    return {
      k if k.startswith("query_") else f"source_{k}": v
      for k, v in example.items()
    }


def open_data(
  data: Mapping[str, Any],
  data_dir: pathlib.Path,
  seed: int,
  split: str,
  features: CachedFeatures | None = None,
) -> Any:
  """Opens the source of a stage.

  Args:
    data: the stage's data section; `sampler` is "single" (the default),
      "pairs" (two frames of one person, or as `samplers.PairSource` is asked
      to by `pair_within` and the like), "balanced" (people equally often),
      "attributes" (the field `attributes` narrowed to `attributes`) or
      "domains" (both sides of `attributes` equally often, with a side to move
      to and `references` pictures of it).
    data_dir: directory of prepared data.
    seed: of the choice of pairs.
    split: "train", "validation" or "test".
    features: {field: one row per picture} to put beside them.

  Returns:
    A source: `len` and `[i]`.

  Raises:
    UserError: one line.
  """
  from data_pipelines import attributes, samplers, sources  # noqa: PLC0415

  with as_user_error("data of the stage"):
    # In a data section "pairs" counts the edits with known outcome.
    spec = {k: v for k, v in data.items() if k not in ("pairs", "balanced")}
    source = sources.open_source(spec, pathlib.Path(data_dir), split)
    if features:
      source = _WithFeatures(source, features)
    sampler = data.get("sampler", "single")
    if sampler == "single":
      return source
    if sampler == "pairs":
      return _Pairs(source, data, seed)
    if sampler == "balanced":
      return samplers.BalancedSource(source)
    if sampler == "attributes":
      return attributes.AttributeColumns(source, data["attributes"])
    if sampler == "domains":
      return attributes.DomainSource(
        source,
        data["attributes"],
        seed,
        data.get("references", 0),
        data.get("keep", 0.5),
      )
  raise UserError(
    f"data.sampler is {sampler!r}, wanted 'single', 'pairs', 'balanced', "
    "'attributes' or 'domains'"
  )


class _Checked:
  """Checks the first batch and drops arrays that the recipe does not read."""

  def __init__(self, loader: Any, spec: batch_lib.BatchSpec, where: str):
    self._loader, self._spec, self._where = loader, spec, where
    self._first = True
    self.position = loader.position

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    batch = next(self._loader)
    self.position += 1
    if self._first:
      with as_user_error():
        batch_lib.check_batch(self._spec, batch, self._where)
      self._first = False
    return {name: batch[name] for name in self._spec}

  def close(self) -> None:
    self._loader.close()


def abstract_batch(
  recipe: recipe_lib.Recipe,
  data: Mapping[str, Any],
  sharding: jax.sharding.Sharding,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and types of what `train_batches` gives.

  Args:
    recipe: gives the fields.
    data: the stage's data section.
    sharding: of the batch axis.

  Returns:
    {field: shape, type and sharding}.
  """
  return {
    name: jax.ShapeDtypeStruct(
      (data["batch_size"], *field.shape), field.dtype, sharding=sharding
    )
    for name, field in recipe.batch_spec().items()
  }


def train_batches(
  recipe: recipe_lib.Recipe,
  data: Mapping[str, Any],
  data_dir: pathlib.Path,
  sharding: jax.sharding.Sharding,
  seed: int,
  start: int,
  where: str,
  features: CachedFeatures | None = None,
) -> Iterator[dict[str, jax.Array]]:
  """Batches on the devices from step `start` on.

  Args:
    recipe: gives the fields and the transform.
    data: the stage's data section.
    data_dir: directory of prepared data.
    sharding: of the batch axis.
    seed: of order and augmentation.
    start: first step to deliver.
    where: name of the data section, for errors.
    features: see `open_data`.

  Returns:
    An iterator with `position` and `close()`.

  Raises:
    UserError: one line.
  """
  from data_pipelines import loader  # noqa: PLC0415

  split = data.get("split", "train")
  source = open_data(data, data_dir, seed, split, features)
  with as_user_error(where):
    batches = loader.make_loader(
      source,
      transform_of(recipe, data),
      batch_size=data["batch_size"],
      seed=seed,
      start_step=start,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      num_threads=data.get("num_threads", 8),
    )
  checked = _Checked(batches, recipe.batch_spec(), where)
  return loader.prefetch_to_device(checked, sharding, _DEVICE_BATCHES)


def preview_batch(
  recipe: recipe_lib.Recipe,
  data: Mapping[str, Any],
  data_dir: pathlib.Path,
  seed: int,
  count: int,
  features: CachedFeatures | None = None,
) -> dict[str, np.ndarray]:
  """A small batch that is the same at every step, host and resume.

  Args:
    recipe: gives the fields and the transform.
    data: the stage's data section.
    data_dir: directory of prepared data.
    seed: of the choice.
    count: examples.
    features: see `open_data`.

  Returns:
    {name: (count, ...)}.
  """
  from data_pipelines import samplers  # noqa: PLC0415

  split = data.get("split", "train")
  source = open_data(data, data_dir, seed, split, features)
  transform = transform_of(recipe, data)
  examples = []
  for i in range(count):
    # Spread over the source: neighbours are often frames of one person.
    index = i * max(1, len(source) // count) % len(source)
    rng = samplers.generator(seed, index)
    examples.append(transform(source[index], rng))
  return {
    name: np.stack([np.asarray(e[name]) for e in examples])
    for name in recipe.batch_spec()
  }
