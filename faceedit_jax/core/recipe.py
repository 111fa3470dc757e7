"""What a method tells the trainer: its nets, optimisers and phases.

A recipe is a value. It builds no state of its own, and everything that changes
while training is in the state or a function of the step.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import optax
from flax import struct

from faceedit_jax.core import rng as rng_lib
from faceedit_jax.core.batch import BatchSpec
from faceedit_jax.core.typing import Array, Params, PyTree, Variables


@struct.dataclass
class Aux:
  """What a loss returns beside its value.

  Attributes:
    metrics: {term: scalar}, logged as `phase/term`.
    stats: {net: {collection: tree}}; what is left out stays as it was.
    images: {name: (b, h, w, 3) in [-1, 1]}.
  """

  metrics: Mapping[str, Any] = struct.field(default_factory=dict)
  stats: Mapping[str, PyTree] = struct.field(default_factory=dict)
  images: Mapping[str, Any] = struct.field(default_factory=dict)


@struct.dataclass
class Ctx:
  """What a loss may read beside the parameters.

  Attributes:
    batch: {name: array}.
    frozen: {net: variables} of the pretrained nets.
    stats: {net: {collection: tree}}, as earlier phases of this step left it.
    ema: {EMA name: {net: tree}} at the start of the step.
    step: () int32.
    rng: root key; use `key`.
  """

  batch: Mapping[str, Any]
  frozen: Mapping[str, Variables]
  stats: Mapping[str, PyTree]
  ema: Mapping[str, Mapping[str, PyTree]]
  step: Any
  rng: Any

  def key(self, name: str) -> Array:
    """The key of stream `name` at this step.

    Two phases that ask for one name get one key: name streams "d/noise" and
    "g/noise" where they must differ.
    """
    return rng_lib.key(self.rng, self.step, name)


LossFn = Callable[[Params, Ctx], tuple[Any, Aux]]


@dataclasses.dataclass(frozen=True)
class Group:
  """Nets that one optimiser updates together.

  Attributes:
    nets: names of nets; every net is in exactly one group.
    tx: their optimiser.
  """

  nets: tuple[str, ...]
  tx: optax.GradientTransformation


@dataclasses.dataclass(frozen=True)
class Phase:
  """One gradient and one update of some groups.

  Attributes:
    name: prefix of its metrics.
    groups: groups that it updates; all other nets get no gradient.
    loss: (params, ctx) -> (scalar, Aux).
    every: runs at steps divisible by this. A lazy regulariser also multiplies
      its loss by it; see `optim.lazy` for the optimiser's side.
    start: first step at which it may run.
    stop: first step at which it no longer runs; None for never.
  """

  name: str
  groups: tuple[str, ...]
  loss: LossFn
  every: int = 1
  start: int = 0
  stop: int | None = None

  def __post_init__(self):
    if self.every < 1 or self.start < 0:
      raise ValueError(
        f"phase {self.name!r}: every={self.every}, start={self.start}; wanted "
        "every >= 1 and start >= 0"
      )
    if self.stop is not None and self.stop <= self.start:
      raise ValueError(
        f"phase {self.name!r}: start={self.start}, stop={self.stop}; wanted "
        "stop > start"
      )


@dataclasses.dataclass(frozen=True)
class Ema:
  """A running average of some nets' parameters.

  Attributes:
    nets: names of nets.
    decay: number in [0, 1), or a function of the step.
  """

  nets: tuple[str, ...]
  decay: float | Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class WeightSource:
  """Where a pretrained part comes from: an earlier stage, or a path.

  Attributes:
    stage: name of the stage whose checkpoint holds the net.
    net: its name there; "" for the same name.
    ema: name of the average to take; "" for the raw parameters.
    path: checkpoint or weight file outside this workdir, in place of `stage`.
    collections: which of a trained net's collections to take ("params");
      the others start afresh. Empty: all of them.
  """

  stage: str = ""
  net: str = ""
  ema: str = "ema"
  path: str = ""
  collections: tuple[str, ...] = ()

  def __post_init__(self):
    if self.stage and self.path:
      raise ValueError(
        f"WeightSource: got stage={self.stage!r} and path={self.path!r}, "
        "wanted one of them (Recipe.frozen, Recipe.init_from)"
      )


class Recipe(abc.ABC):
  """One method, or one of the nets that methods stand on.

  Concrete recipes are frozen dataclasses with a class method
  `from_config(nets, options, image_size, dtype)`, which is the last reader of
  the config; its `options` are an instance of `Options`. One that edits is
  `core.editing.Editable` as well.

  Attributes:
    Options: frozen dataclass of the stage's section `recipe`, without `name`.
  """

  Options: ClassVar[type]

  @abc.abstractmethod
  def init(self, rng: Array) -> Mapping[str, Variables]:
    """{net: {"params": tree, collection: tree}}; pure, runs under jit."""

  @abc.abstractmethod
  def groups(self) -> Mapping[str, Group]:
    """{group: Group}: who is optimised by what."""

  @abc.abstractmethod
  def phases(self) -> Sequence[Phase]:
    """What happens in a step, in order."""

  @abc.abstractmethod
  def batch_spec(self) -> BatchSpec:
    """The arrays that the data must supply."""

  def ema(self) -> Mapping[str, Ema]:
    """{name: Ema}: the averages to keep."""
    return {}

  def frozen(self) -> Mapping[str, WeightSource]:
    """{net: where it comes from} of nets that are read and never trained."""
    return {}

  def init_frozen(self, rng: Array) -> Mapping[str, Variables]:
    """{net: variables} with the structure of the frozen nets.

    Loaded weights are checked against it; tests run on its random values.
    """
    del rng
    return {}

  def init_unsourced(self, rng: Array) -> Mapping[str, Variables]:
    """{net: variables} of the frozen nets that `frozen` does not list.

    They keep these values. By default drawn with all of `init_frozen`; a recipe
    that can draw them alone says how, and loads faster.
    """
    sources = self.frozen()
    made = self.init_frozen(rng)
    return {net: made[net] for net in made if net not in sources}

  def loss_nets(self) -> Sequence[str]:
    """Names of the frozen nets that only losses read: edits do without."""
    return ()

  def init_from(self) -> Mapping[str, WeightSource]:
    """{net: where it starts from} of trained nets with a pretrained start."""
    return {}

  def notes(self) -> Sequence[str]:
    """Lines that a fresh training says first: what its start lacks."""
    return ()

  def preview(
    self,
    variables: Mapping[str, Variables],
    frozen: Mapping[str, Variables],
    batch: Mapping[str, Array],
    rng: Array,
  ) -> Mapping[str, Array]:
    """{name: pictures (n, h, w, 3) in [-1, 1]} to look at while training."""
    del variables, frozen, batch, rng
    return {}


def at(value: Any, step: Any) -> Any:
  """A loss weight at a step: `value(step)` for a schedule, else `value`."""
  return value(step) if callable(value) else value
