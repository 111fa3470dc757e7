"""What happens to one example between the source and the batch.

A transform is a function (example, generator) -> example. All randomness
comes from the generator, which the loader seeds by (seed, global index).
Points, camera and regions follow whatever is done to the picture. Of codes that
cannot follow, no field is left: a mirrored or stretched picture has none of the
shape, pose and light that a morphable model could give it exactly.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from data_pipelines import align
from data_pipelines.crops import (
  NEAREST,
  SMOOTH,
  mirror,
  prefixes,
  stretch,
  window,
)

Example = dict[str, Any]

_FACE_REGION = 0

# Where face recognition nets of the ArcFace family expect the five points, in
# unit coordinates of their 112 x 112 input (Deng et al. 2019, reference code:
# deepinsight/insightface).
ARCFACE5 = (
  np.asarray(
    [
      (38.2946, 51.6963),
      (73.5318, 51.5014),
      (56.0252, 71.7366),
      (41.5493, 92.3655),
      (70.7299, 92.2041),
    ],
    np.float32,
  )
  / 112.0
)


def to_float(image: np.ndarray) -> np.ndarray:
  """uint8 0..255 -> float32 [-1, 1]."""
  return image.astype(np.float32) / 127.5 - 1.0


def to_uint8(image: np.ndarray) -> np.ndarray:
  """float [-1, 1] -> uint8 0..255, rounded and clipped."""
  scaled = (np.asarray(image, np.float32) + 1.0) * 127.5
  return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Compose:
  """One transform after the other, with one generator."""

  transforms: tuple

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    for transform in self.transforms:
      example = transform(example, rng)
    return example


@dataclasses.dataclass(frozen=True)
class RandomCrop:
  """A random loose window, and the points, camera and labels with it.

  Attributes:
    low: smallest side of the window, as a share of the picture.
    high: largest side; above 1 the face gets smaller.
    shift: largest shift of the window's centre, as a share of its side.
    probability: share of examples that are cropped.
  """

  low: float = 0.7
  high: float = 1.1
  shift: float = 0.1
  probability: float = 1.0

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if rng.random() >= self.probability:
      return example
    for prefix in prefixes(example):
      side = rng.uniform(self.low, self.high)
      x, y = 0.5 + rng.uniform(-self.shift, self.shift, 2) * side - side / 2
      example = window(example, (x, y, side), prefix)
    return example


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
  """Some windows of any proportions, stretched to the whole picture.

  As torchvision's RandomResizedCrop; cameras do not describe such a window and
  are dropped, of every example alike.

  Attributes:
    probability: share of examples that are cropped.
    scale: smallest and largest area of the window, as a share of the picture.
    ratio: smallest and largest width over height.
  """

  probability: float = 0.5
  scale: tuple[float, float] = (0.8, 1.0)
  ratio: tuple[float, float] = (0.9, 1.1)

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    for prefix in prefixes(example):
      on, box = rng.random() < self.probability, self._box(rng)
      box = box if on else (0.0, 0.0, 1.0, 1.0)
      example = stretch(example, box, prefix)
    return example

  def _box(self, rng: np.random.Generator) -> tuple[float, ...]:
    low, high = np.log(self.ratio)
    for _ in range(10):
      area = rng.uniform(*self.scale)
      ratio = np.exp(rng.uniform(low, high))
      width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
      if width <= 1 and height <= 1:
        x, y = rng.random(2) * (1 - width, 1 - height)
        return x, y, width, height
    return 0.0, 0.0, 1.0, 1.0


@dataclasses.dataclass(frozen=True)
class Flip:
  """Mirrors some pictures, and the points and labels with them.

  Codes have no exact mirror image and are dropped, of every example alike.

  Attributes:
    probability: share of examples that are mirrored.
  """

  probability: float = 0.5

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    for prefix in prefixes(example):
      example = mirror(example, prefix, bool(rng.random() < self.probability))
    return example


@dataclasses.dataclass(frozen=True)
class Faceless:
  """Turns some examples into windows without a face; adds the field `face`.

  The window is drawn until no pixel of the face region lies in it; should
  none of the draws do, a corner of the picture is taken. Points are set to 0.

  Attributes:
    probability: share of examples that lose their face.
    low: smallest side of the window, as a share of the picture.
    high: largest side.
  """

  probability: float = 0.25
  low: float = 0.15
  high: float = 0.45
  tries: int = 20

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    lost = rng.random() < self.probability
    example = dict(example, face=np.float32(not lost))
    if not lost:
      return example
    regions = example.get("regions")
    box = (0.0, 0.0, self.low)
    if regions is not None:
      face = regions == _FACE_REGION
      size = face.shape[0]
      for _ in range(self.tries):
        side = rng.uniform(self.low, self.high)
        x, y = rng.uniform(0.0, 1.0 - side, 2)
        rows = slice(int(y * size), int(np.ceil((y + side) * size)))
        columns = slice(int(x * size), int(np.ceil((x + side) * size)))
        if not face[rows, columns].any():
          box = (x, y, side)
          break
    example = window(example, box)
    if "landmarks5" in example:
      example["landmarks5"] = np.zeros((5, 2), np.float32)
    return example


@dataclasses.dataclass(frozen=True)
class Photometric:
  """What a stranger's camera does to a picture; nothing else changes.

  Contrast, colour cast, grey, blur and noise. Points and codes stay as they
  are; mind that the light is then read against the cast.

  Attributes:
    probability: share of examples that are changed.
    cast: largest change of a colour channel's gain.
    contrast: largest change of the contrast.
    noise: largest standard deviation of noise, in grey levels.
    grey: share of the changed examples that lose their colour.
    blur: share of the changed examples that lose their detail.
  """

  probability: float = 0.5
  cast: float = 0.12
  contrast: float = 0.2
  noise: float = 8.0
  grey: float = 0.05
  blur: float = 0.3

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    out = dict(example)
    for prefix in prefixes(example):
      # All draws are made in any case, so that one never shifts another.
      on, grey, blur = rng.random(3) < (self.probability, self.grey, self.blur)
      gain = 1 + rng.uniform(-1, 1, 3) * self.cast
      contrast = 1 + rng.uniform(-1, 1) * self.contrast
      radius, level = rng.uniform(0.3, 1.2), rng.uniform(0, self.noise)
      if not on:
        continue
      image = example[prefix + "image"]
      if blur:
        filtered = Image.fromarray(image).filter(
          ImageFilter.GaussianBlur(radius * image.shape[0] / 64)
        )
        image = np.asarray(filtered)
      value = image.astype(np.float32)
      value = (value - 127.5) * contrast * gain + 127.5
      if grey:
        value = value.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
      value = value + rng.normal(0, level, value.shape)
      out[prefix + "image"] = np.clip(np.round(value), 0, 255).astype(np.uint8)
    return out


@dataclasses.dataclass(frozen=True)
class FaceCrop:
  """Cuts the face out by its points, upright; points are moved with it.

  Camera codes do not describe such a crop and are dropped.

  Attributes:
    size: side of the crop in pixels.
    template: five points in unit coordinates, ((x, y), ...); where they land.
    jitter: standard deviation of a random error of the points, in units of
      the picture, so that nets learn to live with a detector's mistakes.
  """

  size: int
  template: tuple = tuple(map(tuple, ARCFACE5.tolist()))
  jitter: float = 0.0

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    out = dict(example)
    for prefix in prefixes(example):
      image = example[prefix + "image"]
      points = example[prefix + "landmarks5"].astype(np.float64)
      points = points * image.shape[0]
      noise = rng.normal(size=points.shape) * self.jitter * image.shape[0]
      template = np.asarray(self.template, np.float64) * self.size
      matrix = align.similarity(points + noise, template)
      for names, method in ((SMOOTH, "smooth"), (NEAREST, "nearest")):
        for name in names:
          if prefix + name in example:
            value = example[prefix + name]
            out[prefix + name] = align.warp(value, matrix, self.size, method)
      moved = align.transform_points(matrix, points) / self.size
      out[prefix + "landmarks5"] = moved.astype(np.float32)
      out.pop(prefix + "camera", None)
      out.pop(prefix + "eg3d_camera", None)
    return out


@dataclasses.dataclass(frozen=True)
class Resize:
  """Brings all pictures to one size: averaged down, bicubic up."""

  size: int

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    del rng
    out = dict(example)
    for name, value in example.items():
      if isinstance(value, str) or np.ndim(value) < 2:
        continue
      square = (self.size, self.size)
      if value.shape[:2] == square or value.dtype != np.uint8:
        continue
      picture = Image.fromarray(value)
      if name.endswith(NEAREST):
        method = Image.Resampling.NEAREST
      elif name.endswith(SMOOTH):
        shrinks = self.size < value.shape[0]
        method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
      else:
        continue
      out[name] = np.array(picture.resize(square, method))
    return out


@dataclasses.dataclass(frozen=True)
class ToFloat:
  """Pictures from uint8 to float32 [-1, 1]; labels stay integers (int32)."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    del rng
    out = dict(example)
    for name, value in example.items():
      if isinstance(value, str):
        continue
      value = np.asarray(value)
      if name.endswith(SMOOTH) and value.dtype == np.uint8:
        out[name] = to_float(value)
      elif value.dtype in (np.uint8, np.int8, np.int64):
        out[name] = value.astype(np.int32)
    return out


@dataclasses.dataclass(frozen=True)
class Select:
  """Keeps and renames fields.

  Attributes:
    fields: ((name in the batch, name in the example), ...).
  """

  fields: tuple

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    del rng
    missing = [old for _, old in self.fields if old not in example]
    if missing:
      raise KeyError(
        f"examples have no field {missing}; they have {sorted(example)}; "
        "change `fields` of the stage's data"
      )
    return {new: example[old] for new, old in self.fields}


@dataclasses.dataclass(frozen=True)
class Drop:
  """Drops maps on the picture's grid that no batch holds, so that none is cut.

  Attributes:
    kept: fields that stay.
  """

  kept: tuple[str, ...]

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    del rng
    return {
      name: value
      for name, value in example.items()
      if name in self.kept or not name.endswith(NEAREST)
    }


def select(fields: Mapping[str, str] | Sequence[str]) -> Select:
  """`Select` from {new: old} or a list of names to keep."""
  if isinstance(fields, Mapping):
    return Select(tuple(fields.items()))
  return Select(tuple((name, name) for name in fields))


# Entries of a data section that change pictures at random.
RANDOM = {
  "faceless": Faceless,
  "jitter": RandomCrop,
  "random_crop": RandomCrop,
  "resized_crop": ResizedCrop,
  "flip": Flip,
  "photometric": Photometric,
}


def from_config(
  data: Mapping[str, Any],
  size: int | None = None,
  fields: Mapping[str, str] | Sequence[str] | None = None,
  read: Sequence[str] | None = None,
) -> Compose:
  """Builds the transform a stage's `data` section describes.

  The order is fixed: faceless, jitter, random_crop, resized_crop, flip,
  photometric, face_crop, resize, to float, select.

  Args:
    data: may hold `faceless`, `jitter` (a RandomCrop for every picture, beside
      the rare wide one), `random_crop`, `resized_crop`, `flip`, `photometric`
      and `face_crop` (each a mapping of that transform's attributes, `{}` for
      the defaults; of those that change a share of the pictures the share alone
      will do: `flip=0.5`), and `fields`.
    size: side of the pictures in the batch; None leaves them.
    fields: what to keep, if `data` does not say; usually the batch's fields.
    read: fields of the batch, where others may be lost on the way.

  Returns:
    The transform.
  """
  steps: list = []
  fields = data.get("fields") or fields
  for name in RANDOM:
    if data.get(name) is not None:
      options = data[name]
      if isinstance(options, int | float):  # the share alone
        options = {"probability": options}
      steps.append(RANDOM[name](**dict(options)))
    if name == "faceless" and read is not None:  # it reads the regions
      renamed = fields.values() if isinstance(fields, Mapping) else ()
      steps.append(Drop((*read, *renamed)))
  if data.get("face_crop") is not None:
    options = dict(data["face_crop"])
    if options.get("size") is None:
      if size is None:
        raise ValueError("face_crop needs a size in pixels")
      options["size"] = size
    steps.append(FaceCrop(**options))
  elif size is not None:
    steps.append(Resize(size))
  steps.append(ToFloat())
  if fields:
    steps.append(select(fields))
  return Compose(tuple(steps))
