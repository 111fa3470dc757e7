"""Pictures that hold no upright face, for nets that must tell them apart."""

import dataclasses

import numpy as np

from data_pipelines import align
from data_pipelines.transforms import textures
from data_pipelines.transforms.crops import Example, crop, prefixes

_FACE_REGION = 0
# Least and most turn of a head that no longer counts as upright, in degrees.
# Photos are searched in steps of 90: nearer ones must be found.
_TURNED = (70.0, 290.0)
# Largest part of a cut face that is left in the picture, in either direction.
_LEFT_OVER = (0.2, 0.45)

KINDS = ("crop", "turned", "noise", "texture", "cut")


@dataclasses.dataclass(frozen=True)
class Faceless:
  """Takes the face from some examples; adds the field `face`.

  Points are set to 0. What becomes of such a picture is drawn from `kinds`:

    crop: a crop that holds no pixel of the face region; should none of the
      draws do, a corner of the picture.
    turned: the whole head, turned by 70 to 290 degrees.
    noise: noise of random grain and colours.
    texture: the picture itself with its parts mixed up: tiles exchanged, or
      its spectrum with other phases.
    cut: less than half of the face, at the rim of the picture.

  Attributes:
    probability: share of examples that lose their face.
    low: smallest side of the crop, as a share of the picture.
    high: largest side.
    tries: draws of a crop.
    kinds: some of KINDS; each comes as often as it is named.
  """

  probability: float = 0.25
  low: float = 0.15
  high: float = 0.45
  tries: int = 20
  kinds: tuple[str, ...] = ("crop",)

  def __post_init__(self):
    unknown = [kind for kind in self.kinds if kind not in KINDS]
    if unknown or not self.kinds:
      raise ValueError(
        f"kinds is {self.kinds!r}; wanted some of {', '.join(KINDS)}"
      )

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    lost = rng.random() < self.probability
    example = dict(example, face=np.float32(not lost))
    if not lost:
      return example
    # With one kind nothing is drawn: the sets of before stay as they were.
    kind = self.kinds[0]
    if len(self.kinds) > 1:
      kind = self.kinds[rng.integers(len(self.kinds))]
    example = getattr(self, f"_{kind}")(example, rng)
    if "landmarks5" in example:
      example["landmarks5"] = np.zeros((5, 2), np.float32)
    return example

  def _crop(self, example: Example, rng: np.random.Generator) -> Example:
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
    return crop(example, box)

  def _turned(self, example: Example, rng: np.random.Generator) -> Example:
    angle = np.radians(rng.uniform(*_TURNED))
    turn = np.array(
      [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    out = dict(example)
    for prefix in prefixes(example):
      image = example[prefix + "image"]
      middle = np.full(2, image.shape[0] / 2)
      shift = middle - turn @ middle
      matrix = np.concatenate([turn, shift[:, None]], axis=1)
      out[prefix + "image"] = align.warp(image, matrix, image.shape[0])
    return out

  def _noise(self, example: Example, rng: np.random.Generator) -> Example:
    return _painted(example, lambda image: textures.noise(image.shape, rng))

  def _texture(self, example: Example, rng: np.random.Generator) -> Example:
    return _painted(example, lambda image: textures.mixed_up(image, rng))

  def _cut(self, example: Example, rng: np.random.Generator) -> Example:
    points = example.get("landmarks5", align.CANONICAL5)
    low, high = points.min(axis=0), points.max(axis=0)
    # The rim lies where less than half of the five points' box is left.
    axis, before = rng.integers(2), bool(rng.integers(2))
    left = rng.uniform(*_LEFT_OVER) * (high - low)[axis]
    side = rng.uniform(0.7, 1.3)
    corner = points.mean(axis=0) - side * rng.uniform(0.35, 0.65, 2)
    corner[axis] = high[axis] - left if before else low[axis] + left - side
    return crop(example, (*corner, side))


def _painted(example: Example, paint) -> Example:
  """An example whose pictures are painted over."""
  out = dict(example)
  for prefix in prefixes(example):
    out[prefix + "image"] = paint(example[prefix + "image"])
  return out
