"""What a recipe has to offer for features of pictures to be kept.

Frozen nets say the same of a picture in every epoch. A recipe may have their
features computed once per run, or read features that a prepared data set
stores; one that does neither implements nothing of this.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from faceedit_jax.core.batch import BatchSpec
from faceedit_jax.core.typing import Array, Variables


@runtime_checkable
class CachesFeatures(Protocol):
  """A recipe whose frozen nets' features may be computed before the training.

  Where `feature_spec` is not empty, the trainer gives every picture of the
  data to `compute_features` before the first step, and the examples that reach
  `batch_spec` have these fields beside `image`.
  """

  def feature_spec(self) -> BatchSpec:
    """{field: one picture's array}; empty when every step computes its own."""
    ...

  def compute_features(
    self, frozen: Mapping[str, Variables], image: Array
  ) -> Mapping[str, Array]:
    """The fields of `feature_spec` for pictures (b, h, w, 3) in [-1, 1]."""
    ...


@runtime_checkable
class PreparesFeatures(Protocol):
  """A recipe that reads features which a prepared data set stores."""

  def prepared_nets(self) -> Sequence[str]:
    """Frozen nets that `prepare_features` reads; none: nothing is stored."""
    ...

  def prepare_features(
    self,
    frozen: Mapping[str, Variables],
    image: Array,
    points68: Array | None = None,
  ) -> Mapping[str, Array]:
    """What a prepared data set stores beside each of its pictures.

    Args:
      frozen: those of the frozen nets that `prepared_nets` names.
      image: (b, h, w, 3) in [-1, 1].
      points68: 68 landmarks (b, 68, 2) in unit coordinates, where the data
        have them.

    Returns:
      {field: (b, ...)}; "face" (b,), where there is one, is the logit of
      "there is a face".
    """
    ...


def feature_spec(recipe: Any) -> BatchSpec:
  """Features to compute before a recipe's training; most have none."""
  return recipe.feature_spec() if isinstance(recipe, CachesFeatures) else {}


def prepared_nets(recipe: Any) -> Sequence[str]:
  """Frozen nets whose features a recipe's data set stores; most have none."""
  return recipe.prepared_nets() if isinstance(recipe, PreparesFeatures) else ()
