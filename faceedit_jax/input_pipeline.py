"""From the data section of a stage's config to batches on the devices."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import options
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import UserError, as_user_error

CachedFeatures = Mapping[str, np.ndarray]
Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]

_DEVICE_BATCHES = 2  # wait on the devices ahead of their use


@dataclasses.dataclass(frozen=True)
class Data:
  """A stage's data section, each part with one reader.

  Attributes:
    source: which examples there are; options of a kind of
      `data_pipelines.sources`.
    sampler: which of them go together; of `data_pipelines.samplers`.
    transforms: what happens to each; `data_pipelines.transforms.Options`.
    loader: how they become batches; `data_pipelines.loader.Options`.
  """

  source: Any
  sampler: Any
  transforms: Any
  loader: Any


def build_data(
  section: Mapping[str, Any],
  where: str,
  image_size: int | None = None,
  attributes: Sequence[str] | None = None,
) -> Data:
  """Builds a data section's typed options.

  Args:
    section: {source: {kind, ...}, sampler: {kind, ...}, transforms: {...},
      loader: {batch_size, ...}}; the sampler is "single" where none is named.
    where: the section's place in the config, for errors.
    image_size: side of the pictures where `source` does not say.
    attributes: names where a sampler of attributes does not say: the recipe's.

  Returns:
    The options.

  Raises:
    UserError: one line for an unknown or missing part, kind or key.
  """
  from data_pipelines import (  # noqa: PLC0415
    loader,
    samplers,
    transforms,
  )

  # First of all the parts, so that a misspelt one gets its nearest name.
  parts = options.build(_Parts, section, where)
  return Data(
    source=build_source(parts.source, f"{where}.source", image_size),
    sampler=options.build_kind(
      samplers.KINDS,
      parts.sampler,
      f"{where}.sampler",
      default="single",
      **({} if attributes is None else dict(attributes=attributes)),
    ),
    transforms=options.build(
      transforms.Options, parts.transforms, f"{where}.transforms"
    ),
    loader=options.build(loader.Options, parts.loader, f"{where}.loader"),
  )


def build_source(
  section: Mapping[str, Any], where: str, image_size: int | None = None
) -> Any:
  """Builds the typed options of a source; arguments as of `build_data`."""
  from data_pipelines import sources  # noqa: PLC0415

  return options.build_kind(sources.KINDS, section, where, size=image_size)


def check_source(
  section: Mapping[str, Any], where: str, image_size: int | None = None
) -> None:
  """Checks the data of an evaluator, which reads its part `source` alone.

  Raises:
    UserError: one line for an unknown or missing part, kind or key.
  """
  source = options.build(_Source, section, where).source
  build_source(source, f"{where}.source", image_size)


@dataclasses.dataclass(frozen=True)
class _Source:
  """The data of an evaluator as they are in the config."""

  source: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class _Parts:
  """The parts of a data section as they are in the config."""

  source: Mapping[str, Any]
  loader: Mapping[str, Any]
  sampler: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  transforms: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def transform_of(recipe: recipe_lib.Recipe, data: Data) -> Transform:
  """What the data section says, narrowed to the fields a recipe reads.

  Args:
    recipe: gives the fields, and the size of its pictures.
    data: the stage's data section.

  Returns:
    (example, generator) -> example.
  """
  from data_pipelines import transforms  # noqa: PLC0415

  spec = recipe.batch_spec()
  prepare = transforms.make(
    data.transforms, picture_size(recipe), read=tuple(spec)
  )

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


def open_data(
  data: Data,
  data_dir: pathlib.Path,
  seed: int,
  features: CachedFeatures | None = None,
) -> Any:
  """Opens the examples of a stage.

  Args:
    data: the stage's data section.
    data_dir: directory of prepared data.
    seed: of what the sampler draws.
    features: {field: one row per picture} to put beside them.

  Returns:
    A source: `len` and `[i]`.

  Raises:
    UserError: one line.
  """
  from data_pipelines import samplers  # noqa: PLC0415

  with as_user_error("data of the stage"):
    source = data.source.open(data_dir)
    if data.loader.limit:
      source = samplers.TakeSource(source, data.loader.limit)
    if features:
      source = _WithFeatures(source, features)
    return data.sampler.sample(source, seed)


def check_pictures(data: Data, data_dir: pathlib.Path) -> None:
  """Looks at the pictures of a stage that reads a folder as it is.

  Args:
    data: the stage's data section.
    data_dir: directory of prepared data.

  Raises:
    UserError: one line: some cannot be read.
  """
  check = getattr(data.source, "check", None)
  if check is not None:
    with as_user_error("data of the stage"):
      check(data_dir)


class _Checked:
  """Checks the first batch and drops arrays that the recipe does not read."""

  def __init__(self, loader: Any, spec: batch_lib.BatchSpec, where: str):
    self._loader, self._spec, self._where = loader, spec, where
    self._first = True
    self.position = loader.position

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    with as_user_error(self._where):  # of the threads that read
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
  data: Data,
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
      (data.loader.batch_size, *field.shape), field.dtype, sharding=sharding
    )
    for name, field in recipe.batch_spec().items()
  }


def train_batches(
  recipe: recipe_lib.Recipe,
  data: Data,
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

  source = open_data(data, data_dir, seed, features)
  with as_user_error(where):
    batches = loader.make_loader(
      source,
      transform_of(recipe, data),
      batch_size=data.loader.batch_size,
      seed=seed,
      start_step=start,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      num_threads=data.loader.num_threads,
    )
  checked = _Checked(batches, recipe.batch_spec(), where)
  return loader.prefetch_to_device(checked, sharding, _DEVICE_BATCHES)


def preview_batch(
  recipe: recipe_lib.Recipe,
  data: Data,
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

  source = open_data(data, data_dir, seed, features)
  transform = transform_of(recipe, data)
  examples = []
  for i in range(count):
    # Spread over the source: neighbours are often frames of one person.
    index = i * max(1, len(source) // count) % len(source)
    rng = samplers.generator(seed, index)
    with as_user_error("data of the stage"):
      examples.append(transform(source[index], rng))
  return {
    name: np.stack([np.asarray(e[name]) for e in examples])
    for name in recipe.batch_spec()
  }
