"""What an edit takes and gives: the protocol between methods and commands.

A recipe that edits declares its inputs; the command line, the Python editor,
lists of edits and exports read these declarations and know no method. A recipe
that trains a net for later stages does not implement the protocol.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from faceedit_jax.core.batch import Field
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.core.typing import Array, Variables

Kind = Literal["photo", "label_map", "sketch", "text", "camera", "number"]
KINDS: tuple[str, ...] = get_args(Kind)
# Kinds that are read from picture files.
PICTURES = ("photo", "label_map", "sketch")
SOURCE = "source"  # the photo that is edited, in recipes that edit photos
CAMERA_NUMBERS = 25  # EG3D: camera to world 4 x 4, then intrinsics 3 x 3

# Text to token ids, int (length,). It runs outside the compiled function, so
# another text compiles nothing anew. A ValueError says what is wrong with it.
Tokenizer = Callable[[str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class EditInput:
  """One input of an edit.

  Kinds, and the arrays (b, ...) that `Editable.edit` gets of them:
    photo: a picture of a face, aligned; float32 (b, s, s, 3) in [-1, 1].
    label_map: class of each pixel, never interpolated; uint8 (b, s, s).
    sketch: a gray drawing; float32 (b, s, s, 1) in [-1, 1].
    text: token ids; int32 (b, length).
    camera: float32 (b, 25), see CAMERA_NUMBERS.
    number: float32 (b,).

  Attributes:
    field: its name: key of `inputs`, option of the command line, column of a
      list.
    kind: one of KINDS.
    required: whether an edit cannot do without it.
    size: side of a picture in pixels; the run's image size when None.
    frame_of: label maps and sketches: the photo that they were drawn on. One
      of that photo's own size is cut along with it; any other one is taken to
      show the aligned square already, as all do where this is "".
    default: input that is read in place of this one where it is not given.
    classes: label maps: number of classes, 2 to 256.
    tokenizer: texts: makes their tokens.
    length: texts: number of tokens.
  """

  field: str
  kind: Kind
  required: bool = False
  size: int | None = None
  frame_of: str = ""
  default: str = ""
  classes: int = 0
  tokenizer: Tokenizer | None = None
  length: int = 0

  def __post_init__(self):
    where = f"edit input {self.field!r}"
    if self.kind not in KINDS:
      raise ValueError(
        f"{where}: kind is {self.kind!r}, wanted one of {', '.join(KINDS)}"
      )
    if self.kind == "label_map" and not 2 <= self.classes <= 256:
      raise ValueError(f"{where}: classes is {self.classes}, wanted 2 to 256")
    if self.kind == "text" and (self.tokenizer is None or self.length < 1):
      raise ValueError(f"{where}: a text needs a tokenizer and its length")
    if self.frame_of and self.kind not in ("label_map", "sketch"):
      raise ValueError(f"{where}: frame_of is for label maps and sketches")

  def spec(self, image_size: int) -> Field:
    """Shape, dtype and range of one example.

    Args:
      image_size: side of the run's pictures in pixels.
    """
    side = self.size or image_size
    match self.kind:
      case "photo":
        return Field((side, side, 3), "float32", (-1.0, 1.0))
      case "label_map":
        return Field((side, side), "uint8", (0, self.classes - 1))
      case "sketch":
        return Field((side, side, 1), "float32", (-1.0, 1.0))
      case "text":
        return Field((self.length,), "int32")
      case "camera":
        return Field((CAMERA_NUMBERS,), "float32")
      case _:
        return Field((), "float32")


@runtime_checkable
class Editable(Protocol):
  """A recipe that edits.

  Attributes:
    edit_inputs: what an edit takes.
    inference_options: keys of the recipe's section in the config that training
      does not read: a trained stage may be used, and trained further, with
      other values.
    traced_options: options of `edit` that are numbers, or lists of them, and
      may be traced: another value compiles nothing anew.
    alignment: how faces lie in its photos, one of `align.TEMPLATES`.
    keeps_frame: whether the output "image" shows the square that the photo
      "source" was cut to, at any resolution, so that it can be pasted back.
  """

  edit_inputs: Sequence[EditInput]
  inference_options: Sequence[str]
  traced_options: Sequence[str]
  alignment: str
  keeps_frame: bool

  def edit(
    self,
    variables: Mapping[str, Variables],
    frozen: Mapping[str, Variables],
    inputs: Mapping[str, Array],
    rng: Array,
    **options: Any,
  ) -> Mapping[str, Array]:
    """The inference path.

    Args:
      variables: {net: variables} of the trained nets.
      frozen: {net: variables} of the frozen nets, but for `loss_nets`.
      inputs: {field: array} of the given `edit_inputs`; "row" (b,) int32, where
        it is there, names each example's noise.
      rng: key of the noise.
      **options: settings that are no data; a recipe lists its own as
        keyword-only arguments with defaults.

    Returns:
      {"image": (b, h, w, 3) in [-1, 1], ...}; the size is the recipe's choice.
      "strip" (b, h, n w, 3) is n pictures side by side, one for each value of
      an option that lists several. "mask" (b, h, w) in [0, 1] limits pasting.
    """
    ...


@runtime_checkable
class PaintsOutputs(Protocol):
  """A recipe that knows how to show outputs which are no pictures."""

  def paint(
    self, variables: Mapping[str, Variables], outputs: Mapping[str, Array]
  ) -> Mapping[str, Array]:
    """{name: pictures (b, h, w, 3) in [-1, 1]} of some outputs of an edit."""
    ...


@runtime_checkable
class FindsFacePoints(Protocol):
  """A recipe with a net that finds faces, so that photos can be aligned."""

  def find_points(
    self,
    variables: Mapping[str, Variables],
    frozen: Mapping[str, Variables],
    image: Array,
  ) -> tuple[Array, Array]:
    """Five points of the face in each square.

    Args:
      variables, frozen: as for `Editable.edit`.
      image: (b, s, s, 3) in [-1, 1].

    Returns:
      Points (b, 5, 2) in unit coordinates, in the order of `align.CANONICAL5`,
      and the logit (b,) of "there is a face".
    """
    ...


@runtime_checkable
class ChecksEdits(Protocol):
  """A recipe whose trained nets cannot do every edit that it declares."""

  def check_edit(
    self, variables: Mapping[str, Variables], inputs: Collection[str]
  ) -> None:
    """Refuses an edit before it is compiled.

    Args:
      variables: as for `Editable.edit`.
      inputs: names of the inputs that are given.

    Raises:
      ValueError: one line: what is missing, and what to do.
    """
    ...


def check_edit(
  recipe: Any, variables: Mapping[str, Variables], inputs: Collection[str]
) -> None:
  """Asks a recipe that `ChecksEdits`; others can do what they declare.

  Raises:
    UserError: its line.
  """
  if isinstance(recipe, ChecksEdits):
    with as_user_error():
      recipe.check_edit(variables, inputs)


def editable(recipe: Any) -> Editable:
  """The recipe, if it edits.

  Raises:
    UserError: one line: it trains a net that others stand on, or lacks a
      declaration.
  """
  if isinstance(recipe, Editable):
    return recipe
  name = type(recipe).__name__
  if hasattr(recipe, "edit"):
    wanted = (*Editable.__annotations__, "edit")
    lacking = [part for part in wanted if not hasattr(recipe, part)]
    raise UserError(
      f"{name} has an edit but lacks {', '.join(lacking)} "
      "(faceedit_jax.core.editing.Editable)"
    )
  raise UserError(
    f"{name} trains a net that others stand on and edits nothing; choose a "
    "stage that edits (--stage)"
  )


def inference_options(recipe: Any) -> tuple[str, ...]:
  """Keys of a recipe's section in the config that training does not read."""
  if isinstance(recipe, Editable):
    return tuple(recipe.inference_options)
  return ()
