"""Compares edits with pictures of the true outcome.

On synthetic heads the picture that an edit should give exists: the source's
person drawn with the query's pose, expression and light. DiffFAE section 5
can only compare with the query; this table also holds the baselines, the
reconstruction that the first stage gives of the truth, and what nets read that
condition no edit.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core import options
from faceedit_jax.evaluators import (
  code_distances,
  common,
  eval_nets,
  needs,
  report,
  slot_measures,
)
from faceedit_jax.evaluators import evaluator as evaluator_lib
from faceedit_jax.faces import face_reader
from faceedit_jax.faces import slot_regions as regions_lib
from faceedit_jax.metrics import image as image_metrics
from faceedit_jax.metrics.regions import region_error

SWAPS = ("hair", "clothes", "background")
# Rows of the table, the edit first.
METHODS = (
  "edit",
  "copy_source",
  "copy_query",
  "pasted_rendering",
  "reconstruction",
)


@dataclasses.dataclass(frozen=True)
class CounterfactualEvaluator(evaluator_lib.Evaluator):
  """Runs `recipe.edit` on fixed pairs and measures it against the truth.

  Attributes:
    data: names the set whose splits "pairs" and "swaps" hold examples with
      the fields `source_*`, `query_*`, `truth_*`; swaps also `hair_truth_*`
      and so on. By default the stage's own.
    reader: reads codes and identities with the evaluation nets.
    code_shapes: shapes of the codes.
    image_size: side of the pictures in pixels.
    pairs: how many pairs to measure.
    swaps: how many swaps to measure.
  """

  data: Mapping[str, Any]
  reader: face_reader.FaceReader
  code_shapes: Mapping[str, tuple[int, ...]]
  image_size: int
  pairs: int = 256
  swaps: int = 64

  @classmethod
  def from_config(cls, section, setup):
    needs.check(setup.recipe, needs.EditsLatents, setup.where)
    return options.build(
      cls,
      {**section, "data": section.get("data") or setup.data},
      setup.where,
      reader=common.face_reader_of(setup.recipe),
      code_shapes=setup.recipe.face.code_shapes,
      image_size=setup.image_size,
    )

  def eval_nets(self):
    """Where the nets come from; none of them conditions an edit."""
    return eval_nets.sources()

  def init_eval_nets(self, rng):
    """Structure of the nets."""
    return eval_nets.init(self.reader, self.code_shapes, self.image_size, rng)

  def open(self, split: str, data_dir):
    """The examples of a split."""
    return common.open_source(self.data, self.image_size, data_dir, split)

  def run(self, ctx) -> dict[str, float]:
    """Measures the edits; writes the report, sheets "edits" and "swaps".

    A quick run leaves out the swaps.

    Returns:
      {metric: value}, named `method/metric`.
    """
    source = self.open("pairs", ctx.data_dir)
    count = min(common.QUICK_PAIRS if ctx.quick else self.pairs, len(source))
    run = _Run(ctx, self.reader)
    sums: dict[str, list] = {}
    rows, slots, errors = [], slot_measures.SlotMeasures(), []
    for first in range(0, count, common.BATCH):
      batch = _batch(source, range(first, min(first + common.BATCH, count)))
      pictures, result = run.pair(batch, first)
      for name, values in run.measure(batch, pictures).items():
        sums.setdefault(name, []).append(values)
      if ctx.eval_nets is not None:
        errors.append(run.eval_net_error(batch))
      if "slots" in result:
        slots.add(result["slots"], batch)
      rows.append((batch, pictures, result))
      ctx.log(f"{min(first + common.BATCH, count)}/{count} pairs")
    scores = {name: common.mean(values) for name, values in sums.items()}
    for values in errors[:1]:
      for name in values:
        every = np.concatenate([r[name] for r in errors])
        scores[f"eval_net_error/{name}"] = float(every.mean())
    sheets = {"edits": _pair_sheet(rows)}
    if not ctx.quick:
      found, swap_rows = self._swaps(ctx, run, slots)
      scores |= found
      if swap_rows:
        sheets["swaps"] = _swap_sheet(swap_rows)
    table = table_of(scores, camera="source", count=count)
    report.Report(scores, table, sheets).write(ctx.out_dir, ctx.log)
    return scores

  def _swaps(self, ctx, run, slots):
    """Swaps of hair, clothes and background; slot IoU on the pairs.

    Returns:
      Scores, and the rows of the sheet; neither for a recipe without slots.
    """
    source = self.open("swaps", ctx.data_dir)
    count = min(self.swaps, len(source))
    changes: dict[str, list] = {}
    rows, naming = [], []
    for first in range(0, count, common.BATCH):
      batch = _batch(source, range(first, min(first + common.BATCH, count)))
      plain, swapped = run.swap(batch, first)
      if "slots" not in plain:
        return {}, []
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
      ctx.log(f"{min(first + common.BATCH, count)}/{count} swaps")
    scores = slots.scores(naming)
    for name, values in changes.items():
      every = np.concatenate(values)
      for at, region in enumerate(regions_lib.REGIONS):
        scores[f"{name}_in_{region}"] = common.mean([every[:, at]])
    return scores, rows


class _Run:
  """Jitted pieces of an evaluation."""

  def __init__(self, ctx, reader):
    recipe: needs.EditsLatents = ctx.recipe
    self._frozen, self._nets = ctx.frozen, ctx.eval_nets
    # The truth is drawn with the source's camera, so the edit is too.
    self.edit = common.Editor(
      recipe, ctx.variables, ctx.frozen, camera_from="source"
    )
    self._reconstruct = jax.jit(
      lambda frozen, x: recipe.decode(frozen, recipe.encode(frozen, x))
    )
    self._codes = jax.jit(reader.codes)
    self._embed = jax.jit(reader.embed)

  def pair(self, batch, first):
    """Pictures of every method, and the edit's other outputs."""
    source, query = batch["source_image"], batch["query_image"]
    inputs = {"source": source, **{name: query for name in common.QUERIES}}
    result = self.edit(inputs, first)
    rendering = result["rendering"]
    head = result["head"][..., None] > 0.5
    pictures = {
      "edit": result["image"],
      "copy_source": source,
      "copy_query": query,
      "pasted_rendering": np.where(head, rendering, source),
      "reconstruction": np.asarray(
        self._reconstruct(self._frozen, batch["truth_image"])
      ),
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

  def measure(self, batch, pictures):
    """{method/metric: (b,)}."""
    truth = image_metrics.to_unit(jnp.asarray(batch["truth_image"]))
    face = jnp.asarray(batch["truth_regions"] == 0, jnp.float32)
    out: dict[str, np.ndarray] = {}
    if self._nets is not None:
      of_truth = self._codes(self._nets, batch["truth_image"])
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
      if self._nets is None:
        continue
      codes = self._codes(self._nets, picture)
      for name, values in self._distances(codes, of_truth).items():
        out[f"{method}/{name}"] = np.asarray(values)
      cosine = (self._identity(picture) * who).sum(-1)
      out[f"{method}/identity"] = np.asarray(cosine)
    if self._nets is not None:
      # What a perfect edit would get.
      cosine = (self._identity(batch["truth_image"]) * who).sum(-1)
      out["eval_net_error/identity_of_truth"] = np.asarray(cosine)
    return out

  def _identity(self, picture):
    codes = self._codes(self._nets, picture)
    return self._embed(self._nets, picture, codes["landmarks5"])

  def eval_net_error(self, batch):
    """Distance between what the nets read in the truth and its true codes."""
    read = self._codes(self._nets, batch["truth_image"])
    true = {
      name: jnp.asarray(batch[f"truth_{name}"])
      for name in ("pose", "expression", "light", "gaze")
    }
    return {k: np.asarray(v) for k, v in self._distances(read, true).items()}

  def _distances(self, a, b):
    morphable = self._frozen.get("morphable")
    return code_distances.distances(a, b, morphable and morphable["params"])


def swap_regions(source, truth, own: int):
  """Labels (b, h, w) by which a swap of region `own` is measured.

  The region itself is where either picture has it, for a shorter haircut
  uncovers what was behind; pixels that change between other regions belong
  to none (-1).
  """
  same = np.where(source == truth, source, -1)
  return np.where((source == own) | (truth == own), own, same)


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


def _pair_sheet(rows):
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
  return report.grid(columns, 12)


def _swap_sheet(rows):
  """source | donor | unchanged edit | hair | clothes | background swapped."""
  batch, plain, swapped = rows[0]
  columns = [batch["source_image"], batch["query_image"], plain["image"]]
  columns += [swapped[name] for name in SWAPS]
  return report.grid(columns, 10)


def table_of(
  scores: Mapping[str, float], camera: str, count: int
) -> report.Table:
  """The scores as a table: one row per method, everything else below."""
  metrics: list[str] = []
  for name in scores:
    method, metric = name.split("/")
    if method in METHODS and metric not in metrics:
      metrics.append(metric)
  rows = [
    (
      (method,),
      {
        m: scores[f"{method}/{m}"] for m in metrics if f"{method}/{m}" in scores
      },
    )
    for method in METHODS
  ]
  notes = [
    f"{name:<40}{value:.4f}"
    for name, value in scores.items()
    if name.split("/")[0] not in METHODS
  ]
  return report.Table(
    f"{count} pairs, camera from the {camera}",
    [report.Column(metric, metric) for metric in metrics],
    rows,
    ("method",),
    notes,
  )
