"""The state of a training run, and the view of it that inference sees."""

from collections.abc import Mapping

from flax import struct

from faceedit_jax.core.typing import Array, Int, Key, PyTree, Variables


@struct.dataclass
class TrainState:
  """Everything that changes while a stage trains; nothing else does.

  Attributes:
    step: () int32, number of finished steps.
    params: {net: tree}; all of it is trainable.
    stats: {net: {collection: tree}}: batch statistics, spectral vectors,
      codebook counts and the like.
    opt: {group: optimiser state}.
    ema: {EMA name: {net: tree}}; an EMA may cover some nets only.
    rng: () root key; it is only ever folded in, so it stays what it was.
  """

  step: Int[Array, ""]
  params: Mapping[str, PyTree]
  stats: Mapping[str, PyTree]
  opt: Mapping[str, PyTree]
  ema: Mapping[str, Mapping[str, PyTree]]
  rng: Key[Array, ""]


def view(state: TrainState, ema: str | None = None) -> dict[str, Variables]:
  """The nets as evaluators, `edit` and export see them.

  Args:
    state: a training state.
    ema: name of the average to read; None reads the raw parameters.

  Returns:
    {net: {"params": tree, collection: tree, ...}}. Averaged parameters go with
    the current statistics, and nets that the average leaves out come with
    their raw parameters.

  Raises:
    ValueError: the state holds no average of that name.
  """
  averaged: Mapping[str, PyTree] = {}
  if ema is not None:
    if ema not in state.ema:
      raise ValueError(
        f"the state has no EMA {ema!r}; it has {sorted(state.ema) or 'none'} "
        "(Recipe.ema)"
      )
    averaged = state.ema[ema]
  return {
    net: {"params": averaged.get(net, params), **state.stats.get(net, {})}
    for net, params in state.params.items()
  }
