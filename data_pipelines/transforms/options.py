"""A data section's part `transforms`, and what is made of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.transforms.compose import Compose
from data_pipelines.transforms.face_crop import FaceCrop
from data_pipelines.transforms.faceless import Faceless
from data_pipelines.transforms.fields import Drop, select
from data_pipelines.transforms.flip import Flip
from data_pipelines.transforms.photometric import Photometric
from data_pipelines.transforms.pixels import ToFloat
from data_pipelines.transforms.random_crop import RandomCrop
from data_pipelines.transforms.resize import Resize
from data_pipelines.transforms.resized_crop import ResizedCrop
from data_pipelines.transforms.tokenize_text import Tokenize

# Transforms that change pictures at random, in the order in which they come.
RANDOM = {
  "faceless": Faceless,
  "jitter": RandomCrop,
  "random_crop": RandomCrop,
  "resized_crop": ResizedCrop,
  "flip": Flip,
  "photometric": Photometric,
}


@dataclasses.dataclass(frozen=True)
class Options:
  """What happens to an example; None leaves a transform out.

  Of those that change a share of the pictures the share alone will do:
  `flip=0.5`.

  Attributes:
    faceless: see `Faceless`.
    jitter: a `RandomCrop` for every picture, beside the rare wide one.
    random_crop: see `RandomCrop`.
    resized_crop: see `ResizedCrop`.
    flip: see `Flip`.
    photometric: see `Photometric`.
    face_crop: see `FaceCrop`; without it pictures are resized.
    tokenize: see `Tokenize`.
    fields: what to keep: names, or {name in the batch: name in the example}.
  """

  faceless: Faceless | float | None = None
  jitter: RandomCrop | float | None = None
  random_crop: RandomCrop | float | None = None
  resized_crop: ResizedCrop | float | None = None
  flip: Flip | float | None = None
  photometric: Photometric | float | None = None
  face_crop: FaceCrop | None = None
  tokenize: Tokenize | None = None
  fields: tuple[str, ...] | Mapping[str, str] | None = None

  def changes(self) -> tuple[str, ...]:
    """Names of the transforms that show a picture other than it is."""
    return tuple(
      name for name in (*RANDOM, "face_crop") if getattr(self, name) is not None
    )


def make(
  options: Options,
  size: int | None = None,
  fields: Mapping[str, str] | Sequence[str] | None = None,
  read: Sequence[str] | None = None,
) -> Compose:
  """Builds the transform that options describe.

  The order is fixed: faceless, jitter, random_crop, resized_crop, flip,
  photometric, face_crop or resize, tokenize, to float, select.

  Args:
    options: what is switched on.
    size: side of the pictures in the batch; None leaves them.
    fields: what to keep, if `options` do not say; usually the batch's fields.
    read: fields of the batch, where others may be lost on the way.

  Returns:
    (example, generator) -> example.

  Raises:
    ValueError: a face crop without a size.
  """
  steps: list[Any] = []
  fields = options.fields or fields
  for name, transform in RANDOM.items():
    value = getattr(options, name)
    if isinstance(value, int | float):  # the share alone
      value = transform(probability=value)
    if value is not None:
      steps.append(value)
    if name == "faceless" and read is not None:  # it reads the regions
      renamed = fields.values() if isinstance(fields, Mapping) else ()
      steps.append(Drop((*read, *renamed)))
  if options.face_crop is not None:
    crop = options.face_crop
    side = size if crop.size is None else crop.size
    if side is None:
      raise ValueError("face_crop needs a size in pixels")
    steps.append(dataclasses.replace(crop, size=side))
  elif size is not None:
    steps.append(Resize(size))
  if options.tokenize is not None:
    steps.append(options.tokenize.transform())
  steps.append(ToFloat())
  if fields:
    steps.append(select(fields))
  return Compose(tuple(steps))
