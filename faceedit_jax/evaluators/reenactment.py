"""Evaluates edits by the paper's measures where no true outcome exists.

DiffFAE Sec. 5.2, Table 1: pairs of held-out people, pose, expression and light
all of the query. FID says whether edits look like pictures; APD, AED and ALD
how far they are from the query, CSIM how near to the source. The paper states
neither its pairs nor its tools, so the table states ours.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from data_pipelines import samplers, transforms
from faceedit_jax.core import options
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import (
  common,
  eval_nets,
  needs,
  reenactment_measures,
  reenactment_table,
  report,
)
from faceedit_jax.evaluators import evaluator as evaluator_lib
from faceedit_jax.faces import face_reader
from faceedit_jax.metrics import fid as fid_lib
from faceedit_jax.models.faces import deep3d
from faceedit_jax.models.perception import inception as inception_lib


@dataclasses.dataclass(frozen=True)
class Files:
  """Converted weight files; "" where there is none.

  Attributes:
    inception: FID.
    face: Deep3DFaceRecon: APD, AED, ALD.
    identity: CSIM.
  """

  inception: str = ""
  face: str = ""
  identity: str = ""

  def given(self) -> dict[str, str]:
    """{net: file} of those that are there."""
    return {name: path for name, path in vars(self).items() if path}


@dataclasses.dataclass(frozen=True)
class ReenactmentEvaluator(evaluator_lib.Evaluator):
  """Runs `recipe.edit` on pairs of pictures and measures it with other nets.

  Attributes:
    data: names the set, whose examples have `image` and `identity`; by default
      the stage's own.
    reader: the nets that read faces.
    code_shapes: shapes of their codes.
    image_size: side of the pictures in pixels.
    where: this evaluator's section of the config.
    split: held-out people.
    pairs: how many pairs to evaluate.
    pair_seed: of the choice of pairs.
    steps: numbers of sampling steps that get a row each, beside the edit with
      the stage's own number; not in a quick run.
    steps_pairs: on how many of the pairs.
    quick_steps: sampling steps of a quick run; 0 for the stage's own.
    people: "same", as in the paper: source and query show one person, or
      "other": two.
    weights: files of the published nets.
    standard_points: file of the standard 3D points that `weights.face` needs,
      see `models.faces.deep3d.read_standard_points`.
    readers: who reads codes and identity where no file is given: "stages",
      nets of the stages `eval_estimator` and `eval_identity`, or "frozen",
      the nets that condition the edit, which flatters it.
    estimator_name: whose codes these are, in the names of their columns.
    identity_name: whose identity net that is; "" where it is the published
      one, so that its column is CSIM itself.
    fid_rule: resizing rule of FID, see `metrics.fid.RULES`.
    fid_reference: saved statistics of true pictures (.npz of pytorch-fid);
      without it, the queries of the pairs.
    inception: structure of that net.
    face: structure of that net.
  """

  data: Mapping[str, Any]
  reader: face_reader.FaceReader
  code_shapes: Mapping[str, tuple[int, ...]]
  image_size: int
  where: str = "config.stage.STAGE.evaluators.NAME"
  split: str = "test"
  pairs: int = 5000
  pair_seed: int = 0
  steps: tuple[int, ...] = ()
  steps_pairs: int = 1000
  quick_steps: int = 0
  people: Literal["same", "other"] = "same"
  weights: Files = Files()
  standard_points: str = ""
  readers: Literal["stages", "frozen"] = "stages"
  estimator_name: str = "own"
  identity_name: str = "own"
  fid_rule: Literal["pytorch-fid", "clean-fid"] = "pytorch-fid"
  fid_reference: str = ""
  inception: inception_lib.Inception = inception_lib.Inception()
  face: deep3d.Deep3D = deep3d.Deep3D()

  @classmethod
  def from_config(cls, section, setup):
    """Builds it; files that need one another are refused, too."""
    needs.check(setup.recipe, needs.FindsPoints, setup.where)
    made = options.build(
      cls,
      {**section, "data": section.get("data") or setup.data},
      setup.where,
      reader=common.face_reader_of(setup.recipe),
      code_shapes=setup.recipe.face.code_shapes,
      image_size=setup.image_size,
      where=setup.where,
      inception=inception_lib.Inception(),
      face=deep3d.Deep3D(),
    )
    quick = (made.quick_steps,) if made.quick_steps else ()
    common.check_steps((*made.steps, *quick), setup)
    if made.readers == "stages" and made.reader.locator is not None:
      raise UserError(
        f"{setup.where}.readers is 'stages', but a stage trains no estimator "
        "of this kind; set it to 'frozen', or nets.estimator.kind to "
        "'synthetic'"
      )
    if made.weights.face and not made.standard_points:
      raise UserError(
        f"{setup.where}.weights.face is given, standard_points is empty; it "
        "must name similarity_Lm3D_all.mat of Deep3DFaceRecon's authors"
      )
    return made

  def eval_nets(self):
    """Where the nets come from: files first, then stages."""
    files = {
      net: recipe_lib.WeightSource(path=path)
      for net, path in self.weights.given().items()
    }
    if self.readers == "frozen":
      return files
    wanted = [] if "face" in files else ["estimator"]
    wanted += [] if "identity" in files else ["identity"]
    return files | eval_nets.sources(wanted)

  def init_eval_nets(self, rng):
    """Structure of the nets."""
    wanted = self.eval_nets()
    nets = eval_nets.init(
      self.reader, self.code_shapes, self.image_size, rng, tuple(wanted)
    )
    for name, net, side in (
      ("inception", self.inception, fid_lib.SIZE),
      ("face", self.face, deep3d.SIZE),
    ):
      if name in wanted:
        nets[name] = net.init(rng, jnp.zeros((1, side, side, 3)))
    return nets

  def open(self, data_dir):
    """The pairs: examples with `image` and `pair_image`."""
    return samplers.PairSource(
      common.open_source(self.data, self.image_size, data_dir, self.split),
      self.pair_seed,
      across=self.people == "other",
    )

  def run(self, ctx) -> dict[str, float]:
    """Measures the edits; writes the report, with the sheet "edits".

    A full run also keeps the statistics of the true pictures in
    `ctx.out_dir`, `fid_reference.npz`.

    Returns:
      {"method/column": value}, "count/pairs" and, where there were such,
      "count/pictures_without_points". A column that could not be measured is
      missing.
    """
    source = self.open(ctx.data_dir)
    count = self.pairs
    if not getattr(source, "endless", False):
      count = min(count, len(source))
    own: dict[str, int] = {}
    if ctx.quick:
      count = min(count, common.QUICK_PAIRS)
      own = {"steps": self.quick_steps} if self.quick_steps else {}
    measures, shown = self._edit_all(ctx, source, count, own)
    in_steps: dict[str, float] = {}
    fewer = min(count, self.steps_pairs)
    for n in () if ctx.quick else self.steps:
      ctx.log(f"with {n} sampling steps")
      found, _ = self._edit_all(ctx, source, fewer, {"steps": n})
      in_steps |= {
        reenactment_table.in_steps(name, n): value
        for name, value in found.scores().items()
        if name.startswith("edit/")
      }
    scores = measures.scores() | in_steps | {"count/pairs": float(count)}
    who = "one person" if self.people == "same" else "two people"
    title = (
      f"{count} pairs of split {self.split!r} (seed {self.pair_seed}): source "
      f"and query show {who}; pose, expression and light of the query"
    )
    notes = measures.notes()
    if own:
      notes.append(f"edits of a short look, in {self.quick_steps} steps")
    if in_steps:
      notes.append(
        f"rows with a number of sampling steps: the first {fewer} pairs"
      )
    report.Report(
      scores,
      reenactment_table.table(scores, title, notes),
      {"edits": report.grid(shown, 12)},
      published=reenactment_table.paper_rows(),
    ).write(ctx.out_dir, ctx.log)
    if not ctx.quick:
      measures.keep_reference(ctx.out_dir / "fid_reference.npz")
    return scores

  def _edit_all(self, ctx, source, count, edit_options):
    """Edits the first pairs.

    Returns:
      The measures, which have taken in the edits, and columns of the sheet.
    """
    measures = reenactment_measures.Measures(
      self, ctx.recipe, ctx.variables, ctx.frozen, ctx.eval_nets
    )
    edit = common.Editor(ctx.recipe, ctx.variables, ctx.frozen, **edit_options)
    shown: list[np.ndarray] = []
    for first in range(0, count, common.BATCH):
      last = min(first + common.BATCH, count)
      given, query = self._pictures(source, range(first, last))
      inputs = {"source": given} | dict.fromkeys(common.QUERIES, query)
      result = edit(inputs, first)
      measures.add(result["image"], given, query)
      if not first:
        columns = (given, query, result.get("rendering"), result["image"])
        shown = [column for column in columns if column is not None]
      ctx.log(f"{last}/{count} pairs")
    return measures, shown

  def _pictures(self, source, indices):
    """Sources and queries (n, s, s, 3) in [-1, 1]."""
    prepare = transforms.make(
      transforms.Options(), self.image_size, ("image", "pair_image")
    )
    rng = samplers.generator(self.pair_seed)
    examples = [prepare(source[i], rng) for i in indices]
    return tuple(
      np.stack([e[name] for e in examples]) for name in ("image", "pair_image")
    )
