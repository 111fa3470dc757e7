"""Scores edits against pictures of the true outcome.

On synthetic heads the picture that an edit should give exists: the source's
person drawn with the query's pose, expression and light. DiffFAE section 5
can only compare with the query; this table also holds the baselines, the
autoencoder's limit, and what scoring nets read that no edit ever saw.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import sources
from data_pipelines.synthetic_heads import labels as labels_lib
from faceedit_jax.core import options as options_lib
from faceedit_jax.evaluators import common as scoring_lib
from faceedit_jax.faces import face_reader
from faceedit_jax.faces import slot_regions as regions_lib
from faceedit_jax.losses import parameters
from faceedit_jax.metrics import image as image_metrics
from faceedit_jax.metrics import segmentation
from faceedit_jax.metrics.regions import region_error
from faceedit_jax.morphable import model as model_lib
from faceedit_jax.nn import layers

SWAPS = ("hair", "clothes", "background")
# Rows of the sheet and of the table, the edit first.
METHODS = ("edit", "copy_source", "copy_query", "pasted_rendering", "limit")


@dataclasses.dataclass(frozen=True)
class CounterfactualEvaluator:
  """Runs `recipe.edit` on fixed pairs and measures it against the truth.

  Attributes:
    data: names the set whose splits "pairs" and "swaps" hold examples with
      the fields `source_*`, `query_*`, `truth_*`; swaps also `hair_truth_*`
      and so on.
    reader: the scoring estimator and identity net.
    code_shapes: shapes of the scoring estimator's codes.
    image_size: side of the pictures in pixels.
    pairs: how many pairs to score.
    swaps: how many swaps to score.
  """

  data: Mapping[str, Any]
  reader: face_reader.FaceReader
  code_shapes: Mapping[str, tuple[int, ...]]
  image_size: int
  pairs: int = 256
  swaps: int = 64

  name = "counterfactual"

  def scoring(self):
    """Where the scoring nets come from; none of them conditions an edit."""
    return scoring_lib.sources()

  def init_scoring(self, rng):
    """Structure of the scoring nets."""
    return scoring_lib.init(self.reader, self.code_shapes, self.image_size, rng)

  def open(self, split: str, data_dir):
    """The examples of a split."""
    return options_lib.build_kind(
      sources.KINDS,
      self.data["source"],
      "evaluation.data.source",
      size=self.image_size,
    ).open(data_dir, split)

  def run(
    self,
    recipe,
    variables,
    frozen,
    data_dir,
    out_dir,
    log,
    scoring=None,
    quick: bool = False,
  ) -> dict[str, float]:
    """Scores the edits; writes table.json, table.txt and the sheets.

    Args:
      recipe: an editing recipe.
      variables: its trained nets.
      frozen: its frozen nets.
      data_dir: directory of prepared data.
      out_dir: where the sheets and tables go.
      log: prints a line.
      scoring: the scoring nets, or None: then what needs them is left out.
      quick: a smaller look at the end of training.

    Returns:
      {metric: value}, named `method/metric`.
    """
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    source = self.open("pairs", data_dir)
    count = min(scoring_lib.QUICK_PAIRS if quick else self.pairs, len(source))
    run = _Run(recipe, variables, frozen, self.reader, scoring)
    sums: dict[str, list] = {}
    rows, slots, reading = [], _Slots(), []
    for first in range(0, count, scoring_lib.BATCH):
      batch = _batch(
        source, range(first, min(first + scoring_lib.BATCH, count))
      )
      pictures, result = run.pair(batch, first)
      for name, values in run.score(batch, pictures).items():
        sums.setdefault(name, []).append(values)
      if scoring is not None:
        reading.append(run.reading_error(batch))
      if "slots" in result:
        slots.add(result["slots"], batch)
      rows.append((batch, pictures, result))
      log(f"{min(first + scoring_lib.BATCH, count)}/{count} pairs")
    scores = {name: scoring_lib.mean(values) for name, values in sums.items()}
    for values in reading[:1]:
      for name in values:
        every = np.concatenate([r[name] for r in reading])
        scores[f"scoring_error/{name}"] = float(every.mean())
    _pair_sheet(rows, out_dir / "edits.png")
    if not quick:
      scores.update(self._swaps(run, data_dir, out_dir, slots, log))
    text = table(scores, camera="source", count=count)
    (out_dir / "table.txt").write_text(text + "\n")
    (out_dir / "table.json").write_text(json.dumps(scores, indent=1))
    log("\n" + text)
    return scores

  def _swaps(self, run, data_dir, out_dir, slots, log):
    """Swaps of hair, clothes and background; slot IoU on the pairs."""
    source = self.open("swaps", data_dir)
    count = min(self.swaps, len(source))
    changes: dict[str, list] = {}
    rows, naming = [], []
    for first in range(0, count, scoring_lib.BATCH):
      batch = _batch(
        source, range(first, min(first + scoring_lib.BATCH, count))
      )
      plain, swapped = run.swap(batch, first)
      if "slots" not in plain:
        return {}
      naming.append((plain["slots"], batch))
      for at, (name, picture) in enumerate(swapped.items(), 1):
        true = batch[f"{name}_truth_image"]
        where = swap_regions(
          batch["source_regions"], batch[f"{name}_truth_regions"], at
        )
        for kind, a, b in (
          ("change", picture, plain["image"]),
          ("true_change", true, batch["source_image"]),
          ("error", picture, true),
        ):
          key = f"swap_{name}/{kind}"
          changes.setdefault(key, []).append(run.regions(a, b, where))
      rows.append((batch, plain, swapped))
      log(f"{min(first + scoring_lib.BATCH, count)}/{count} swaps")
    scores = slots.scores(naming)
    for name, values in changes.items():
      every = np.concatenate(values)
      for at, region in enumerate(regions_lib.REGIONS):
        scores[f"{name}_in_{region}"] = scoring_lib.mean([every[:, at]])
    _swap_sheet(rows, out_dir / "swaps.png")
    return scores


def from_config(options, reader, code_shapes, image_size):
  """Builds it from `recipe.evaluation`: {pairs, swaps, data}."""
  return CounterfactualEvaluator(
    data=options.data.to_dict(),
    reader=reader,
    code_shapes=code_shapes,
    image_size=image_size,
    pairs=options.pairs,
    swaps=options.swaps,
  )


class _Run:
  """Jitted pieces of an evaluation."""

  def __init__(self, recipe, variables, frozen, reader, scoring):
    self._frozen, self._scoring = frozen, scoring
    # The truth is drawn with the source's camera, so the edit is too.
    self.edit = scoring_lib.Editor(
      recipe, variables, frozen, camera_from="source"
    )
    self._limit = jax.jit(
      lambda frozen, x: recipe.decode(frozen, recipe.encode(frozen, x))
    )
    self._codes = jax.jit(reader.codes)
    self._embed = jax.jit(reader.embed)

  def pair(self, batch, first):
    """Pictures of every method, and the edit's other outputs."""
    source, query = batch["source_image"], batch["query_image"]
    inputs = {"source": source, **{name: query for name in scoring_lib.QUERIES}}
    result = self.edit(inputs, first)
    rendering = result["rendering"]
    head = result["head"][..., None] > 0.5
    pictures = {
      "edit": result["image"],
      "copy_source": source,
      "copy_query": query,
      "pasted_rendering": np.where(head, rendering, source),
      "limit": np.asarray(self._limit(self._frozen, batch["truth_image"])),
    }
    return pictures, result

  def swap(self, batch, first):
    """The edit that changes nothing, and each single swap."""
    source, query = batch["source_image"], batch["query_image"]
    plain = self.edit({"source": source}, first)
    swapped = {
      name: self.edit({"source": source, f"{name}_from": query}, first)["image"]
      for name in SWAPS
    }
    return plain, swapped

  def regions(self, a, b, regions):
    """Mean absolute difference in each region (b, 4), on [0, 1]."""
    errors, pixels = region_error(
      image_metrics.to_unit(jnp.asarray(a)),
      image_metrics.to_unit(jnp.asarray(b)),
      jnp.asarray(regions),
      len(regions_lib.REGIONS),
    )
    errors = np.array(errors)
    errors[np.asarray(pixels) == 0] = np.nan
    return errors

  def score(self, batch, pictures):
    """{method/metric: (b,)}."""
    truth = image_metrics.to_unit(jnp.asarray(batch["truth_image"]))
    face = jnp.asarray(batch["truth_regions"] == 0, jnp.float32)
    out: dict[str, np.ndarray] = {}
    if self._scoring is not None:
      of_truth = self._codes(self._scoring, batch["truth_image"])
      who = self._identity(batch["source_image"])
    for method, picture in pictures.items():
      unit = image_metrics.to_unit(jnp.asarray(picture))
      out[f"{method}/psnr"] = np.asarray(image_metrics.psnr(unit, truth))
      out[f"{method}/psnr_face"] = np.asarray(
        image_metrics.psnr(unit, truth, mask=face)
      )
      out[f"{method}/ssim"] = np.asarray(image_metrics.ssim(unit, truth))
      by_region = self.regions(
        picture, batch["truth_image"], batch["truth_regions"]
      )
      for at, region in enumerate(regions_lib.REGIONS):
        out[f"{method}/error_{region}"] = by_region[:, at]
      if self._scoring is None:
        continue
      codes = self._codes(self._scoring, picture)
      for name, values in self._distances(codes, of_truth).items():
        out[f"{method}/{name}"] = np.asarray(values)
      cosine = (self._identity(picture) * who).sum(-1)
      out[f"{method}/identity"] = np.asarray(cosine)
    if self._scoring is not None:
      # What a perfect edit would get.
      cosine = (self._identity(batch["truth_image"]) * who).sum(-1)
      out["scoring_error/identity_of_truth"] = np.asarray(cosine)
    return out

  def _identity(self, picture):
    codes = self._codes(self._scoring, picture)
    return self._embed(self._scoring, picture, codes["landmarks5"])

  def reading_error(self, batch):
    """Distance between the scoring nets' reading of the truth and its codes."""
    read = self._codes(self._scoring, batch["truth_image"])
    true = {
      name: jnp.asarray(batch[f"truth_{name}"])
      for name in ("pose", "expression", "light", "gaze")
    }
    return {k: np.asarray(v) for k, v in self._distances(read, true).items()}

  def _distances(self, a, b):
    morphable = self._frozen.get("morphable")
    return distances(a, b, morphable and morphable["params"])


@jax.jit
def distances(a, b, model=None):
  """Distance (b,) of each edited factor between two sets of face codes.

  Args:
    a, b: face codes.
    model: the 3D face, or None.

  Returns:
    "pose": angle between the head rotations in degrees; "expression": mean
    absolute difference of expression coefficients and jaw (rad); "light":
    mean absolute difference of the 27 light coefficients. With a 3D face also
    "expression_mm": mean distance of the vertices of its mean head, once with
    the one expression and jaw and once with the other, in millimetres. There
    a coefficient counts by what it moves.
  """
  angle = parameters.rotation_distance(a["pose"][:, :3], b["pose"][:, :3])
  face = [
    jnp.concatenate([c["expression"], c["pose"][:, 3:]], axis=-1)
    for c in (a, b)
  ]
  found = {
    "pose": jnp.degrees(angle),
    "expression": jnp.abs(face[0] - face[1]).mean(-1),
    "light": jnp.abs(a["light"] - b["light"]).mean((1, 2)),
  }
  if model is not None:
    heads = [_expressive_head(model, codes) for codes in (a, b)]
    apart = jnp.linalg.norm(heads[0] - heads[1], axis=-1)
    found["expression_mm"] = 1000 * apart.mean(-1)
  return found


def _expressive_head(model, codes):
  """Vertices (b, v, 3) of the mean head with the codes' expression and jaw."""
  pose = codes["pose"].at[:, :3].set(0.0)
  zero = functools.partial(jnp.zeros, dtype=pose.dtype)
  points, _ = model_lib.vertices(
    model,
    zero((len(pose), model.n_shape)),
    codes["expression"],
    pose,
    zero((len(pose), 2)),
  )
  return points


class _Slots:
  """Collects slot masks and true regions of the scored pictures."""

  def __init__(self):
    self._masks, self._batches = [], []

  def add(self, masks, batch):
    self._masks.append(masks)
    self._batches.append(batch)

  def scores(self, naming):
    """mIoU with one assignment that `naming`, other pictures, fixes.

    Labelled sets are scored twice: the neck is clothes in the regions, but
    skin for the 3D face, whose mesh includes it.
    """
    masks = np.concatenate(self._masks)
    out = {
      "slots/variance_between_pictures": float(
        segmentation.between_variance(jnp.asarray(masks))
      )
    }
    kinds = {"slots": _regions}
    if all("source_labels" in batch for batch in self._batches):
      kinds["slots_neck_as_face"] = _neck_as_face
    for kind, read in kinds.items():
      truth = np.concatenate([read(batch) for batch in self._batches])
      named = [(m, read(batch)) for m, batch in naming]
      for name, value in slot_agreement(masks, truth, named).items():
        out[f"{kind}/{name}"] = value
    return out


def _regions(batch):
  return batch["source_regions"]


def _neck_as_face(batch):
  neck = batch["source_labels"] == labels_lib.LABEL["neck"]
  return np.where(neck, 0, batch["source_regions"])


def slot_agreement(masks, regions, naming) -> dict[str, float]:
  """IoU of slot masks and true regions, and of a mask that never moves.

  Args:
    masks: (n, h, w, k).
    regions: (n, H, W), 0..3.
    naming: [(masks, regions)] of other pictures, which fix the region of
      each slot.

  Returns:
    "miou", "miou_constant_mask" and "iou_REGION".
  """
  counts = sum(_hard_confusion(m, r) for m, r in naming)
  assignment = np.asarray(regions_lib.assign(jnp.asarray(counts)))
  iou = region_iou(_hard_confusion(masks, regions), assignment)
  # The best that a mask which never moves can do on these very pictures.
  constant = segmentation.MajorityState.of(regions, len(regions_lib.REGIONS))
  fixed = region_iou(constant.confusion(), np.arange(4))
  out = {
    "miou": float(iou.mean()),
    "miou_constant_mask": float(fixed.mean()),
  }
  for region, value in zip(regions_lib.REGIONS, iou, strict=True):
    out[f"iou_{region}"] = float(value)
  return out


def swap_regions(source, truth, own: int):
  """Labels (b, h, w) by which a swap of region `own` is measured.

  The region itself is where either picture has it, for a shorter haircut
  uncovers what was behind; pixels that change between other regions belong
  to none (-1).
  """
  same = np.where(source == truth, source, -1)
  return np.where((source == own) | (truth == own), own, same)


def region_iou(counts, assignment):
  """IoU (4,) of regions from counts (k, 4) and the region of each slot.

  A region that neither side has counts 0.
  """
  count = len(regions_lib.REGIONS)
  merged = np.zeros((count, count))
  np.add.at(merged, np.asarray(assignment), np.asarray(counts))
  return np.nan_to_num(segmentation.iou(merged))


def _hard_confusion(masks, regions):
  """Pixel counts (k, 4): maps upsampled bilinearly, then argmax."""
  k, (height, width) = masks.shape[-1], regions.shape[1:]
  counts = np.zeros((k, len(regions_lib.REGIONS)))
  for first in range(0, len(masks), 64):
    part = jnp.asarray(masks[first : first + 64])
    hard = layers.resize(part, height, width).argmax(-1)
    true = regions[first : first + 64]
    counts += segmentation.confusion(hard, true, k, counts.shape[1])
  return counts


def _batch(source, indices):
  """Stacks examples: pictures to [-1, 1], the rest as it is."""
  examples = [source[i] for i in indices]
  batch = {}
  for name, value in examples[0].items():
    if isinstance(value, str | bytes):
      continue
    stacked = np.stack([np.asarray(e[name]) for e in examples])
    if name.endswith("image"):
      stacked = stacked.astype(np.float32) / 127.5 - 1
    elif name.endswith("regions"):
      stacked = stacked.astype(np.int32)
    batch[name] = stacked
  return batch


def _pair_sheet(rows, path, count: int = 12):
  """source | query | rendering | edit | truth | difference, one per row."""
  batch, pictures, result = rows[0]
  difference = np.abs(pictures["edit"] - batch["truth_image"]) - 1
  columns = [
    batch["source_image"],
    batch["query_image"],
    result["rendering"],
    pictures["edit"],
    batch["truth_image"],
    difference,
  ]
  scoring_lib.save_sheet(columns, path, count)


def _swap_sheet(rows, path, count: int = 10):
  """source | donor | unchanged edit | hair | clothes | background swapped."""
  batch, plain, swapped = rows[0]
  columns = [batch["source_image"], batch["query_image"], plain["image"]]
  columns += [swapped[name] for name in SWAPS]
  scoring_lib.save_sheet(columns, path, count)


def table(scores: Mapping[str, float], camera: str, count: int) -> str:
  """The scores as text: one row per method, then everything else."""
  metrics: list[str] = []
  for name in scores:
    method, metric = name.split("/")
    if method in METHODS and metric not in metrics:
      metrics.append(metric)
  lines = [f"{count} pairs, camera from the {camera}"]
  head = "".join(f"{m:>17}" for m in metrics)
  lines.append(f"{'method':<17}{head}")
  for method in METHODS:
    values = "".join(
      f"{scores.get(f'{method}/{m}', float('nan')):>17.4f}" for m in metrics
    )
    lines.append(f"{method:<17}{values}")
  for name, value in scores.items():
    if name.split("/")[0] not in METHODS:
      lines.append(f"{name:<40}{value:.4f}")
  return "\n".join(lines)
