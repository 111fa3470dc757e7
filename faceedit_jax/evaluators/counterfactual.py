"""Compares edits with pictures of the true outcome.

On synthetic heads the picture that an edit should give exists: the source's
person drawn with the query's pose, expression and light. DiffFAE section 5
can only compare with the query; this table also holds the baselines, the
reconstruction that the first stage gives of the truth, and what nets read that
condition no edit.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core import editing, options
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import (
  common,
  eval_nets,
  needs,
  report,
  slot_measures,
  truth_measures,
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
    steps: numbers of sampling steps that get a row each, beside the edit with
      the stage's own number; not in a quick run.
    steps_pairs: on how many of the pairs, in whole batches.
  """

  data: Mapping[str, Any]
  reader: face_reader.FaceReader
  code_shapes: Mapping[str, tuple[int, ...]]
  image_size: int
  pairs: int = 256
  swaps: int = 64
  steps: tuple[int, ...] = ()
  steps_pairs: int = 64

  @classmethod
  def from_config(cls, section, setup):
    needs.check(setup.recipe, needs.EditsLatents, setup.where)
    made = options.build(
      cls,
      {**section, "data": section.get("data") or setup.data},
      setup.where,
      reader=common.face_reader_of(setup.recipe),
      code_shapes=setup.recipe.face.code_shapes,
      image_size=setup.image_size,
    )
    common.check_steps(made.steps, setup)
    return made

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
    morphable = ctx.frozen.get("morphable")
    reading = truth_measures.FaceReading(
      self.reader, ctx.eval_nets, morphable and morphable["params"]
    )
    run = _Run(ctx, () if ctx.quick else self.steps)
    against = truth_measures.TruthMeasures(reading)
    sums: dict[str, list] = {}
    rows, slots, errors = [], slot_measures.SlotMeasures(), []
    for first in range(0, count, common.BATCH):
      last = min(first + common.BATCH, count)
      batch = make_batch(source, range(first, last))
      pictures, result = run.pair(batch, first)
      measured = pictures
      if first < self.steps_pairs:
        measured = pictures | run.in_steps(batch, first)
      seen = against.add(measured, batch["truth_image"], batch["truth_regions"])
      if seen:
        for name, values in _readings(reading, seen).items():
          sums.setdefault(name, []).append(values)
        errors.append(_eval_net_error(reading, seen, batch))
      if "slots" in result:
        slots.add(result["slots"], batch)
      rows.append((batch, pictures, result))
      ctx.log(f"{last}/{count} pairs")
    scores = against.scores()
    scores |= {name: common.mean(values) for name, values in sums.items()}
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
    notes = [against.note()]
    if not ctx.quick and self.steps:
      of = min(count, -(-self.steps_pairs // common.BATCH) * common.BATCH)
      notes.append(
        f"edit_N_steps: N sampling steps, on the first {of} pairs; their "
        "frechet_* compare with one another, not with those of all pairs"
      )
    table = table_of(scores, "source", count, tuple(filter(None, notes)))
    report.Report(scores, table, sheets).write(ctx.out_dir, ctx.log)
    return scores

  def _swaps(self, ctx, run, slots):
    """Swaps of hair, clothes and background; slot IoU on the pairs.

    Returns:
      Scores, and the rows of the sheet; neither for a recipe without slots.
    """
    try:
      wanted = [f"{name}_from" for name in SWAPS]
      editing.check_edit(ctx.recipe, ctx.variables, wanted)
    except UserError as error:
      ctx.log(f"swaps are left out: {error}")
      return {}, []
    source = self.open("swaps", ctx.data_dir)
    count = min(self.swaps, len(source))
    changes: dict[str, list] = {}
    rows, naming = [], []
    for first in range(0, count, common.BATCH):
      batch = make_batch(source, range(first, min(first + common.BATCH, count)))
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
          changes.setdefault(key, []).append(region_changes(a, b, where))
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

  def __init__(self, ctx, steps=()):
    recipe: needs.EditsLatents = ctx.recipe
    self._frozen = ctx.frozen
    # The truth is drawn with the source's camera, so the edit is too.
    editor = functools.partial(
      common.Editor,
      recipe,
      ctx.variables,
      ctx.frozen,
      camera_from="source",
    )
    self.edit = editor()
    self._in_steps = {f"edit_{n}_steps": editor(steps=n) for n in steps}
    self._reconstruct = jax.jit(
      lambda frozen, x: recipe.decode(frozen, recipe.encode(frozen, x))
    )

  def in_steps(self, batch, first):
    """Pictures of the edit with other numbers of sampling steps."""
    inputs = _all_from_query(batch)
    return {
      name: edit(inputs, first)["image"]
      for name, edit in self._in_steps.items()
    }

  def pair(self, batch, first):
    """Pictures of every method, and the edit's other outputs."""
    source, query = batch["source_image"], batch["query_image"]
    result = self.edit(_all_from_query(batch), first)
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


def _readings(reading, seen):
  """{method/metric: (b,)} of what nets read in pictures and in the truth."""
  seen = dict(seen)
  truth, who = seen.pop(truth_measures.TRUTH), seen["copy_source"].person
  out: dict[str, np.ndarray] = {}
  for method, found in seen.items():
    for name, values in reading.distances(found.codes, truth.codes).items():
      out[f"{method}/{name}"] = values
    out[f"{method}/identity"] = np.asarray((found.person * who).sum(-1))
  # What a perfect edit would get.
  cosine = (truth.person * who).sum(-1)
  out["eval_net_error/identity_of_truth"] = np.asarray(cosine)
  return out


def _eval_net_error(reading, seen, batch):
  """Distance between what the nets read in the truth and its true codes."""
  true = {
    name: jnp.asarray(batch[f"truth_{name}"])
    for name in ("pose", "expression", "light", "gaze")
  }
  return reading.distances(seen[truth_measures.TRUTH].codes, true)


def region_changes(a, b, regions):
  """Mean absolute difference in each region (b, 4), on [0, 1]."""
  unit = [image_metrics.to_unit(jnp.asarray(x)) for x in (a, b)]
  return truth_measures.by_region(region_error, *unit, regions=regions)


def _all_from_query(batch):
  """Inputs of an edit that takes everything from the query."""
  queries = dict.fromkeys(common.QUERIES, batch["query_image"])
  return {"source": batch["source_image"], **queries}


def swap_regions(source, truth, own: int):
  """Labels (b, h, w) by which a swap of region `own` is measured.

  The region itself is where either picture has it, for a shorter haircut
  uncovers what was behind; pixels that change between other regions belong
  to none (-1).
  """
  same = np.where(source == truth, source, -1)
  return np.where((source == own) | (truth == own), own, same)


def make_batch(source, indices):
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
  scores: Mapping[str, float],
  camera: str,
  count: int,
  notes: Sequence[str] = (),
) -> report.Table:
  """The scores as a table: one row per method, everything else below."""
  found = [name.split("/") for name in scores]
  methods = [
    *METHODS[:1],
    *dict.fromkeys(m for m, _ in found if m.startswith("edit_")),
    *METHODS[1:],
  ]
  metrics = list(dict.fromkeys(metric for m, metric in found if m in methods))
  rows = [
    (
      (method,),
      {
        m: scores[f"{method}/{m}"] for m in metrics if f"{method}/{m}" in scores
      },
    )
    for method in methods
  ]
  rest = [
    f"{name:<40}{value:.4f}"
    for name, value in scores.items()
    if name.split("/")[0] not in methods
  ]
  return report.Table(
    f"{count} pairs, camera from the {camera}",
    [report.Column(metric, metric) for metric in metrics],
    rows,
    ("method",),
    [*notes, *rest],
  )
