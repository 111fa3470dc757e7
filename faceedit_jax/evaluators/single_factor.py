"""Edits that change one factor alone: the others must stay as they were.

DiffFAE figures 1, 3 and 12: only the pose, only the expression, only the light
of the query. Evaluation nets read every edit: the factor that changes should
read as the query, all others as the source. On synthetic heads the true outcome
of each is drawn, too.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from data_pipelines import samplers
from data_pipelines.synthetic_heads import pairs as pairs_lib
from faceedit_jax.core import options
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import (
  common,
  eval_nets,
  needs,
  report,
  truth_measures,
)
from faceedit_jax.evaluators import evaluator as evaluator_lib
from faceedit_jax.faces import face_reader

FACTORS = ("pose", "expression", "light")
METHODS = ("edit", "copy_source", truth_measures.TRUTH)
_READERS = ("estimator", "locator", "identity")


@dataclasses.dataclass(frozen=True)
class SingleFactorEvaluator(evaluator_lib.Evaluator):
  """Runs `recipe.edit` with one factor of the query at a time.

  Attributes:
    data: names the set, by default the stage's own.
    reader: reads codes and identities.
    code_shapes: shapes of the codes.
    image_size: side of the pictures in pixels.
    truths: "drawn": the split "pairs" of synthetic heads, whose world draws
      the true outcomes; "none": pairs of any set with `image` and `identity`.
    split: of the set, where `truths` is "none".
    pairs: how many pairs to measure.
    pair_seed: of the choice of pairs, where `truths` is "none".
    people: "same": source and query show one person, or "other": two; where
      `truths` is "none".
    readers: "stages", nets of the stages `eval_estimator` and `eval_identity`,
      or "frozen", the nets that condition the edit, which flatters it.
    quick: pairs of a short look, as at the end of training; 0 for none.
  """

  data: Mapping[str, Any]
  reader: face_reader.FaceReader
  code_shapes: Mapping[str, tuple[int, ...]]
  image_size: int
  truths: Literal["drawn", "none"] = "drawn"
  split: str = "test"
  pairs: int = 64
  pair_seed: int = 0
  people: Literal["same", "other"] = "other"
  readers: Literal["stages", "frozen"] = "stages"
  quick: int = 0

  @classmethod
  def from_config(cls, section, setup):
    needs.check(setup.recipe, needs.EditsFaces, setup.where)
    made = options.build(
      cls,
      {**section, "data": section.get("data") or setup.data},
      setup.where,
      reader=common.face_reader_of(setup.recipe),
      code_shapes=setup.recipe.face.code_shapes,
      image_size=setup.image_size,
    )
    if made.readers == "stages" and made.reader.locator is not None:
      raise UserError(
        f"{setup.where}.readers is 'stages', but a stage trains no estimator "
        "of this kind; set it to 'frozen'"
      )
    return made

  def eval_nets(self):
    """Where the nets come from; none of them conditions an edit."""
    return eval_nets.sources() if self.readers == "stages" else {}

  def init_eval_nets(self, rng):
    """Structure of the nets."""
    if self.readers == "frozen":
      return {}
    return eval_nets.init(self.reader, self.code_shapes, self.image_size, rng)

  def open(self, data_dir):
    """The pairs, and what draws their truths (None where nothing does).

    Raises:
      UserError: one line: the set's world is not at hand.
    """
    split = "pairs" if self.truths == "drawn" else self.split
    source = common.open_source(self.data, self.image_size, data_dir, split)
    if self.truths == "drawn":
      return source, _drawer(source)
    across = self.people == "other"
    return samplers.PairSource(source, self.pair_seed, across=across), None

  def run(self, ctx) -> dict[str, float]:
    """Measures the edits; writes the report, with the sheet "factors".

    Returns:
      "FACTOR_only/METHOD/METRIC": value. Of METHOD "truth", what nets read in
      the true outcome: nobody can be nearer than that.
    """
    count = self.quick if ctx.quick else self.pairs
    if not count:
      ctx.log("left out of a short look; --mode=evaluate measures it")
      return {}
    source, draw = self.open(ctx.data_dir)
    if not getattr(source, "endless", False):
      count = min(count, len(source))
    nets = ctx.eval_nets
    if self.readers == "frozen":
      nets = {n: ctx.frozen[n] for n in _READERS if n in ctx.frozen}
    morphable = ctx.frozen.get("morphable")
    reading = truth_measures.FaceReading(
      self.reader, nets, morphable and morphable["params"]
    )
    # True outcomes keep the source's camera, and so does a single change.
    edit = common.Editor(
      ctx.recipe, ctx.variables, ctx.frozen, camera_from="source"
    )
    against = {f: truth_measures.TruthMeasures(reading) for f in FACTORS}
    sums: dict[str, list] = {}
    shown = []
    for first in range(0, count, common.BATCH):
      places = range(first, min(first + common.BATCH, count))
      batch = _pictures(source, places)
      given, query = batch["source_image"], batch["query_image"]
      columns = [("source", given), ("query", query)]
      for factor in FACTORS:
        # The source in place of what is not given: one program for all.
        inputs = {"source": given} | dict.fromkeys(common.QUERIES, given)
        inputs[f"{factor}_from"] = query
        pictures = {"edit": edit(inputs, first)["image"], "copy_source": given}
        columns.append((f"{factor}_only", pictures["edit"]))
        if draw is not None:
          truth = draw(places, factor)
          seen = against[factor].add(pictures, truth["image"], truth["regions"])
          columns.append(("truth", truth["image"]))
        elif nets is not None:
          seen = {name: reading.look(p) for name, p in pictures.items()}
        if nets is not None:
          of_query = reading.look(query)
          found = _stays(reading, factor, seen, of_query)
          for name, values in found.items():
            sums.setdefault(f"{factor}_only/{name}", []).append(values)
      if not first:
        shown = [[(name, c[:6]) for name, c in columns]]
      ctx.log(f"{places[-1] + 1}/{count} pairs")
    scores = {name: common.mean(values) for name, values in sums.items()}
    notes = [
      "pose, expression, light: distance of the reading from the query's for "
      "the factor of the row, from the source's for all others; identity: "
      "cosine to the source"
    ]
    if self.readers == "frozen":
      notes.append("read by the nets that condition the edit (flatters it)")
    if nets is None:
      notes = ["readings: -, the evaluation nets are not trained yet"]
    if draw is not None:
      for factor in FACTORS:
        found = against[factor].scores()
        scores |= {f"{factor}_only/{k}": v for k, v in found.items()}
      notes.append(against[FACTORS[0]].note())
    table = table_of(scores, count, [n for n in notes if n])
    sheet = report.labelled_grid(shown)
    report.Report(scores, table, {"factors": sheet}).write(ctx.out_dir, ctx.log)
    return scores


def _stays(reading, factor, seen, of_query):
  """{method/metric: (b,)}: distances of all factors, and the identity."""
  of_source = seen["copy_source"]
  wanted = wanted_codes(factor, of_source.codes, of_query.codes)
  out: dict[str, np.ndarray] = {}
  for method, found in seen.items():
    for name, values in reading.distances(found.codes, wanted).items():
      out[f"{method}/{name}"] = values
    cosine = (found.person * of_source.person).sum(-1)
    out[f"{method}/identity"] = np.asarray(cosine)
  return out


def wanted_codes(factor: str, source, query) -> dict[str, Any]:
  """The source's codes with one factor of the query.

  Args:
    factor: one of FACTORS; the jaw belongs to the expression.
    source, query: face codes.
  """
  turned = (query if factor == "pose" else source)["pose"][:, :3]
  face = query if factor == "expression" else source
  return {
    "pose": jnp.concatenate([turned, face["pose"][:, 3:]], axis=-1),
    "expression": face["expression"],
    "light": (query if factor == "light" else source)["light"],
  }


def _pictures(source, places) -> dict[str, np.ndarray]:
  """ "source_image" and "query_image" (b, h, w, 3) in [-1, 1] of pairs."""
  examples = [source[i] for i in places]
  names = {"source_image": "image", "query_image": "pair_image"}
  out = {}
  for name, other in names.items():
    key = name if name in examples[0] else other
    stacked = np.stack([np.asarray(e[key]) for e in examples])
    out[name] = stacked.astype(np.float32) / 127.5 - 1
  return out


def _drawer(source):
  """Draws the true outcomes of a set's pairs: (places, factor) -> arrays.

  Raises:
    UserError: one line: the set was drawn by another version of its world.
  """
  metadata = getattr(source, "metadata", {})
  settings = pairs_lib.settings_of(metadata.get("settings", {}))
  if isinstance(settings, str):
    raise UserError(
      f"the true outcomes of single factors cannot be drawn: {settings}; set "
      "truths='none', or draw the set anew (data_pipelines.prepare)"
    )

  def draw(places, factor):
    made = [pairs_lib.single_truth(settings, i, factor) for i in places]
    image = np.stack([example["image"] for example in made])
    return {
      "image": image.astype(np.float32) / 127.5 - 1,
      "regions": np.stack([e["regions"] for e in made]).astype(np.int32),
    }

  return draw


def table_of(scores, count: int, notes) -> report.Table:
  """A row for every factor and method, a column for every measure."""
  names = [name.split("/") for name in scores]
  metrics = list(dict.fromkeys(metric for _, _, metric in names))
  rows = []
  for factor in FACTORS:
    for method in METHODS:
      start = f"{factor}_only/{method}/"
      row = {m: scores[start + m] for m in metrics if start + m in scores}
      if row:
        rows.append(((f"{factor} only", method), row))
  return report.Table(
    f"{count} pairs, one factor of the query at a time, camera of the source",
    [report.Column(metric, metric) for metric in metrics],
    rows,
    ("changed", "method"),
    notes,
  )
