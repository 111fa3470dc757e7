"""What evaluators ask of a recipe beside `core.recipe.Recipe`.

No evaluator imports a recipe: whatever has these members can be evaluated.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from faceedit_jax.core.errors import UserError
from faceedit_jax.core.typing import Array, Variables
from faceedit_jax.faces import attribute_reader, face_nets


class Edits(Protocol):
  """Edits pictures."""

  def edit(
    self,
    variables: Mapping[str, Variables],
    frozen: Mapping[str, Variables],
    inputs: Mapping[str, Array],
    rng: Array,
    **options: Any,
  ) -> Mapping[str, Array]:
    """{"image": (b, h, w, 3) in [-1, 1], ...}."""
    ...


class EditsFaces(Edits, Protocol):
  """Edits pose, expression and light; `face` holds the nets that read them."""

  face: face_nets.FaceNets


class EditsLatents(EditsFaces, Protocol):
  """Edits the latents of a first stage, which bounds what an edit can reach."""

  def encode(self, frozen: Mapping[str, Variables], image: Array) -> Array:
    """Latents of pictures (b, h, w, 3) in [-1, 1]."""
    ...

  def decode(self, frozen: Mapping[str, Variables], latent: Array) -> Array:
    """Pictures of latents."""
    ...


class FindsPoints(EditsFaces, Protocol):
  """Finds five points of faces, too."""

  def find_points(
    self,
    variables: Mapping[str, Variables],
    frozen: Mapping[str, Variables],
    image: Array,
  ) -> tuple[Array, Array]:
    """Points (b, 5, 2) in unit coordinates and face logits (b,)."""
    ...


class EditsAttributes(Edits, Protocol):
  """Its `edit` takes `attribute`, "+NAME" or "-NAME" of `attributes`, and
  `has`, whether the pictures have it."""

  attributes: Sequence[str]


class HasSlots(Protocol):
  """Divides pictures among slots, whose meaning nobody has told it."""

  def slot_masks(
    self, variables: Mapping[str, Variables], image: Array
  ) -> Array:
    """Masks (b, h, w, k) of pictures (b, s, s, 3) in [-1, 1]."""
    ...


class ReadsAttributes(Protocol):
  """Trains a classifier, the net `classifier`, of `attributes`."""

  attributes: Sequence[str]
  image_size: int
  reader: attribute_reader.AttributeReader

  def batch_spec(self) -> Mapping[str, Any]:
    """The fields that it reads."""
    ...


class FindsLandmarks(Protocol):
  """Finds 68 points of faces."""

  image_size: int

  def batch_spec(self) -> Mapping[str, Any]:
    """The fields that it reads: pictures and true points."""
    ...

  def find_landmarks(
    self, variables: Mapping[str, Variables], image: Array
  ) -> Array:
    """Points (b, 68, 2) in unit coordinates of pictures (b, h, w, 3)."""
    ...


def check(recipe: Any, protocol: type, where: str) -> None:
  """Refuses a recipe that lacks what an evaluator needs.

  Args:
    recipe: of the stage.
    protocol: one of this file.
    where: the evaluator's section of the config.

  Raises:
    UserError: one line with what is missing.
  """
  wanted: list[str] = []
  for part in protocol.__mro__:
    if part.__module__ == __name__:
      wanted += getattr(part, "__annotations__", {})
      wanted += [name for name in vars(part) if not name.startswith("_")]
  missing = sorted({name for name in wanted if not hasattr(recipe, name)})
  if missing:
    raise UserError(
      f"{where} cannot evaluate a {type(recipe).__name__}, which has no "
      f"{', '.join(missing)}; remove it, or give it another kind"
    )
