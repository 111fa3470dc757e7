"""The face cut out by its points."""

import dataclasses

import numpy as np

from data_pipelines import align
from data_pipelines.transforms.crops import (
  NEAREST,
  POINTS,
  SMOOTH,
  Example,
  prefixes,
)

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


@dataclasses.dataclass(frozen=True)
class FaceCrop:
  """Cuts the face out by its points, upright; points are moved with it.

  Camera codes do not describe such a crop and are dropped.

  Attributes:
    size: side of the crop in pixels; None is the size of the batch's pictures.
    template: five points in unit coordinates, ((x, y), ...); where they land.
    jitter: standard deviation of a random error of the points, in units of
      the picture, so that nets learn to live with a detector's mistakes.
  """

  size: int | None = None
  template: tuple[tuple[float, float], ...] = tuple(
    map(tuple, ARCFACE5.tolist())
  )
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
      for name in POINTS:
        if prefix + name in example:
          points = example[prefix + name].astype(np.float64) * image.shape[0]
          moved = align.transform_points(matrix, points) / self.size
          out[prefix + name] = moved.astype(np.float32)
      out.pop(prefix + "camera", None)
      out.pop(prefix + "eg3d_camera", None)
    return out
