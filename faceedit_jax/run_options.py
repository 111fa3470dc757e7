"""Typed options of a run and of its stages: the config's top, and each stage.

The sections inside a stage (`recipe`, `data`, `evaluators`) and those of `nets`
are read by the parts that they are for.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from faceedit_jax.core import options


@dataclasses.dataclass(frozen=True)
class MeshOptions:
  """How the devices are laid out; one of the two may be -1, for the rest.

  Attributes:
    data: devices that share out the batch.
    fsdp: devices that share out the parameters as well.
  """

  data: int = -1
  fsdp: int = 1


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """The top of a config.

  Attributes:
    name: of the config.
    nets: {net: fields of its module}.
    stages: names of the stages, in the order of training.
    stage: {name: section}, see `StageOptions`.
    image_size: side of the pictures in pixels.
    eval_stages: stages of nets that only evaluate.
    seed: where a stage has none of its own.
    data_dir: directory of prepared data.
    tensorboard: whether metrics and previews go to TensorBoard too.
    mesh: see `MeshOptions`.
    compute_dtype: of the nets; "auto" is bfloat16 but on CPUs.
  """

  nets: Mapping[str, Mapping[str, Any]]
  stages: tuple[str, ...]
  stage: Mapping[str, Mapping[str, Any]]
  image_size: int
  name: str = ""
  eval_stages: tuple[str, ...] = ()
  seed: int = 0
  data_dir: str = "data"
  tensorboard: bool = True
  mesh: MeshOptions = MeshOptions()
  compute_dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"

  def __post_init__(self):
    if self.image_size < 1:
      raise ValueError(f"image_size is {self.image_size}, wanted 1 or more")


@dataclasses.dataclass(frozen=True)
class StageOptions:
  """One stage of a config.

  Attributes:
    recipe: name of the recipe and its options.
    data: what the stage learns from.
    steps: of training in all; 0 for a stage that hands nets on.
    accumulate: parts that a batch is worked off in.
    log_every: steps between two rows of metrics; 0 for none.
    preview_every: steps between two previews; 0 for none.
    preview_count: pictures of a preview.
    checkpoint_every: steps between two checkpoints; 0 for the last one alone.
    max_to_keep: newest checkpoints that are kept.
    keep_period: every multiple of so many steps is kept for good.
    evaluate: whether the stage is evaluated at its end.
    evaluators: {name: section}: how the trained stage is evaluated, see
      `evaluators.build`.
    seed: of parameters, noise and data order; the run's where there is none.
    image_size: side of the pictures, where it is not the run's.
  """

  recipe: Mapping[str, Any]
  data: Mapping[str, Any]
  steps: int
  accumulate: int = 1
  log_every: int = 100
  preview_every: int = 0
  preview_count: int = 8
  checkpoint_every: int = 1000
  max_to_keep: int = 3
  keep_period: int | None = None
  evaluate: bool = True
  evaluators: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )
  seed: int | None = None
  image_size: int | None = None

  def __post_init__(self):
    least = dict(accumulate=1, preview_count=1, max_to_keep=1, steps=0)
    least |= dict(log_every=0, preview_every=0, checkpoint_every=0)
    least |= {k: 1 for k in ("keep_period", "image_size") if getattr(self, k)}
    for name, bound in least.items():
      if getattr(self, name) < bound:
        raise ValueError(
          f"{name} is {getattr(self, name)}, wanted {bound} or more"
        )
    if "name" not in self.recipe:
      raise ValueError("recipe lacks the key 'name'")


def read(config: Mapping[str, Any]) -> RunOptions:
  """The top of a config.

  Raises:
    UserError: one line for a key that is unknown, missing or of another type.
  """
  plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
  return options.build(RunOptions, plain, "config")


def read_stage(section: Mapping[str, Any], name: str) -> StageOptions:
  """The section of the stage `name`.

  Raises:
    UserError: as of `read`.
  """
  return options.build(StageOptions, section, f"config.stage.{name}")
