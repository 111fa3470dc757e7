"""Measures of edits whose true outcome exists, and what is read in pictures.

PSNR and SSIM reward blur: a mean of all outcomes beats a sharp one that is a
pixel off. So two measures stand beside them that blur cannot please: the
sharpness of each region, and the Frechet distance between edits and true
pictures in the features of our own scoring nets, which is no FID.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.evaluators import code_distances, common
from faceedit_jax.faces import slot_regions as regions_lib
from faceedit_jax.metrics import frechet
from faceedit_jax.metrics import image as image_metrics
from faceedit_jax.metrics.regions import region_error, region_gradient

TRUTH = "truth"
_GRADIENT = "gradient_"  # kept until the truth's mean is known


class Seen(NamedTuple):
  """What nets read in pictures."""

  codes: Mapping[str, Any]  # face codes
  person: Any  # (b, d) unit identity vectors
  features: Any  # (b, hidden) what the codes are read from


class FaceReading:
  """What the nets that only evaluate read in pictures.

  Args:
    reader: reads with them.
    nets: {net: variables}, or None where they are not trained yet.
    model: the 3D face whose vertices an expression moves, or None.
  """

  def __init__(self, reader, nets, model):
    self.nets, self._model = nets, model

    def look(nets, picture):
      codes = reader.codes(nets, picture)
      person = reader.embed(nets, picture, codes["landmarks5"])
      return Seen(codes, person, reader.features(nets, picture))

    self._look = jax.jit(look)

  def look(self, picture) -> Seen:
    """Reads pictures (b, h, w, 3) in [-1, 1]."""
    return self._look(self.nets, picture)

  def distances(self, a, b) -> dict[str, np.ndarray]:
    """Distance (b,) of each factor of two sets of codes."""
    found = code_distances.distances(a, b, self._model)
    return {name: np.asarray(values) for name, values in found.items()}


class FeatureSets:
  """Frechet distances between sets of pictures and the true pictures."""

  def __init__(self):
    self._states: dict[tuple[str, str], frechet.FeatureState] = {}

  def add(self, method: str, net: str, features) -> None:
    """Takes in features (b, d) of a batch."""
    features = np.asarray(features)
    start = frechet.FeatureState.empty(features.shape[1])
    key = method, net
    self._states[key] = self._states.get(key, start).add(features)

  def scores(self) -> dict[str, float]:
    """{"method/frechet_NET"} of every method but the truth itself."""
    found = {}
    for (method, net), state in self._states.items():
      truth = self._states[TRUTH, net]
      # A covariance needs two.
      if method != TRUTH and min(state.count, truth.count) > 1:
        value = max(frechet.distance(state, truth), 0.0)
        found[f"{method}/frechet_{net}"] = value
    return found

  def note(self) -> str:
    """What the distances are, for the table; "" where there are none."""
    told = [
      f"{net} ({state.mean.size} features)"
      for (method, net), state in self._states.items()
      if method == TRUTH
    ]
    if not told:
      return ""
    count = next(iter(self._states.values())).count
    return (
      f"frechet_*: squared Frechet distance to {count} true pictures in the "
      f"features of our own scoring nets, {' and '.join(told)}; no FID, and "
      "not comparable with one"
    )


class TruthMeasures:
  """Compares pictures with the true ones, batch by batch.

  Args:
    reading: what nets read in them.
  """

  def __init__(self, reading: FaceReading):
    self._reading = reading
    self._values: dict[str, list] = {}
    self._sets = FeatureSets()

  def add(
    self,
    pictures: Mapping[str, np.ndarray],
    truth: np.ndarray,
    regions: np.ndarray,
  ) -> dict[str, Seen]:
    """Takes in the pictures of each method.

    Args:
      pictures: {method: (b, h, w, 3) in [-1, 1]}.
      truth: the true outcomes, likewise.
      regions: their regions (b, h, w).

    Returns:
      What nets read in the pictures, by method, and in the truth, as TRUTH;
      nothing where there are no nets.
    """
    seen: dict[str, Seen] = {}
    of_truth = image_metrics.to_unit(jnp.asarray(truth))
    face = jnp.asarray(regions == 0, jnp.float32)
    for method, picture in {**pictures, TRUTH: truth}.items():
      unit = image_metrics.to_unit(jnp.asarray(picture))
      found: dict[str, np.ndarray] = {}
      if method != TRUTH:
        found["psnr"] = image_metrics.psnr(unit, of_truth)
        found["psnr_face"] = image_metrics.psnr(unit, of_truth, mask=face)
        found["ssim"] = image_metrics.ssim(unit, of_truth)
        errors = by_region(region_error, unit, of_truth, regions=regions)
        for at, region in enumerate(regions_lib.REGIONS):
          found[f"error_{region}"] = errors[:, at]
      slopes = by_region(region_gradient, unit, regions=regions)
      for at, region in enumerate(regions_lib.REGIONS):
        found[f"{_GRADIENT}{region}"] = slopes[:, at]
      for name, values in found.items():
        kept = self._values.setdefault(f"{method}/{name}", [])
        kept.append(np.asarray(values))
      if self._reading.nets is not None:
        seen[method] = self._reading.look(picture)
        self._sets.add(method, "estimator", seen[method].features)
        self._sets.add(method, "identity", seen[method].person)
    return seen

  def scores(self) -> dict[str, float]:
    """{"method/metric": value}, sharpness as a part of the truth's."""
    means = {name: common.mean(rows) for name, rows in self._values.items()}
    found = {}
    for name, value in means.items():
      method, metric = name.split("/")
      if not metric.startswith(_GRADIENT):
        found[name] = value
      elif method != TRUTH:
        region = metric.removeprefix(_GRADIENT)
        true = means[f"{TRUTH}/{metric}"]
        # Where the truth is flat nothing can be as sharp as it.
        share = value / true if true > 0 else float("nan")
        found[f"{method}/sharpness_{region}"] = share
    return found | self._sets.scores()

  def note(self) -> str:
    return self._sets.note()


def by_region(measure, *pictures, regions) -> np.ndarray:
  """A measure (b, 4) in each region; NaN where there is no such region.

  Args:
    measure: one of `metrics.regions`.
    *pictures: unit pictures that it compares.
    regions: labels (b, h, w).
  """
  values, pixels = measure(
    *(jnp.asarray(p) for p in pictures),
    jnp.asarray(regions),
    len(regions_lib.REGIONS),
  )
  values = np.array(values)
  values[np.asarray(pixels) == 0] = np.nan
  return values
