"""Scores edits by the paper's measures where no true outcome exists.

DiffFAE Sec. 5.2, Table 1: pairs of held-out people, pose, expression and light
all of the query. FID says whether edits look like pictures; APD, AED and ALD
how far they are from the query, CSIM how near to the source. The paper states
neither its pairs nor its tools, so the table states ours.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from data_pipelines import samplers, sources, transforms
from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.evaluators import common as scoring_lib
from faceedit_jax.evaluators import eval_nets, reenactment_table
from faceedit_jax.faces import face_reader
from faceedit_jax.metrics import fid as fid_lib
from faceedit_jax.models.faces import deep3d
from faceedit_jax.models.perception import inception as inception_lib

PEOPLE = ("same", "other")
READERS = ("stages", "frozen")


@dataclasses.dataclass(frozen=True)
class ReenactmentEvaluator:
  """Runs `recipe.edit` on pairs of pictures and measures it with judges.

  Attributes:
    data: names the set; its examples have `image` and `identity`.
    reader: the nets that read faces.
    code_shapes: shapes of their codes.
    image_size: side of the pictures in pixels.
    split: held-out people.
    pairs: how many pairs to score.
    pair_seed: of the choice of pairs.
    people: "same", as in the paper: source and query show one person, or
      "other": two.
    weights: files of the judges: "inception" (FID), "face" (Deep3DFaceRecon:
      APD, AED, ALD) and "identity" (CSIM); "" where there is none.
    standard_points: file of the standard 3D points that "face" needs, see
      `models.deep3d.read_standard_points`.
    readers: who reads codes and identity where no file is given: "stages",
      nets of the stages `score_estimator` and `score_identity`, or "frozen",
      the nets that condition the edit, which flatters it.
    estimator_name: whose codes these are, in the names of their columns.
    identity_name: whose identity net that is; "" where it is the published
      one, so that its column is CSIM itself.
    fid_rule: resizing rule of FID.
    fid_reference: saved statistics of true pictures (.npz of pytorch-fid);
      without it, the queries of the pairs.
    inception: structure of that judge.
    face: structure of that judge.
  """

  data: Mapping[str, Any]
  reader: face_reader.FaceReader
  code_shapes: Mapping[str, tuple[int, ...]]
  image_size: int
  split: str = "test"
  pairs: int = 5000
  pair_seed: int = 0
  people: str = "same"
  weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
  standard_points: str = ""
  readers: str = "stages"
  estimator_name: str = "own"
  identity_name: str = "own"
  fid_rule: str = "pytorch-fid"
  fid_reference: str = ""
  inception: inception_lib.Inception = inception_lib.Inception()
  face: deep3d.Deep3D = deep3d.Deep3D()

  name = "reenactment"

  def scoring(self):
    """Where the judges come from: files first, then scoring stages."""
    files = {
      net: recipe_lib.WeightSource(path=self.weights[net])
      for net in eval_nets.FILES
      if self.weights.get(net)
    }
    if self.readers == "frozen":
      return files
    wanted = [] if "face" in files else ["estimator"]
    wanted += [] if "identity" in files else ["identity"]
    return files | scoring_lib.sources(wanted)

  def init_scoring(self, rng):
    """Structure of the judges."""
    wanted = self.scoring()
    nets = scoring_lib.init(
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
    source = options_lib.build_kind(
      sources.KINDS,
      self.data["source"],
      "evaluation.data.source",
      size=self.image_size,
    )
    return samplers.PairSource(
      source.open(data_dir, self.split),
      self.pair_seed,
      across=self.people == "other",
    )

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
    """Scores the edits; writes table.txt, table.json and edits.png.

    Args:
      recipe: an editing recipe with `find_points`.
      variables: its trained nets.
      frozen: its frozen nets.
      data_dir: directory of prepared data.
      out_dir: where the sheet and the tables go. A full run also keeps the
        statistics of the true pictures there, `fid_reference.npz`.
      log: prints a line.
      scoring: the judges, or None: then what needs them is left out.
      quick: a smaller look at the end of training.

    Returns:
      {"method/column": value}, "count/pairs" and, where there were such,
      "count/pictures_without_points". A column that could not be measured is
      missing.
    """
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    panel = eval_nets.Judges(self, recipe, variables, frozen, scoring)
    source = self.open(data_dir)
    count = self.pairs
    if not getattr(source, "endless", False):
      count = min(count, len(source))
    if quick:
      count = min(count, scoring_lib.QUICK_PAIRS)
    edit = scoring_lib.Editor(recipe, variables, frozen)
    for first in range(0, count, scoring_lib.BATCH):
      last = min(first + scoring_lib.BATCH, count)
      given, query = self._pictures(source, range(first, last))
      inputs = {"source": given} | dict.fromkeys(scoring_lib.QUERIES, query)
      result = edit(inputs, first)
      panel.add(result["image"], given, query)
      if not first:
        shown = (given, query, result.get("rendering"), result["image"])
        columns = [column for column in shown if column is not None]
        scoring_lib.save_sheet(columns, out_dir / "edits.png", 12)
      log(f"{last}/{count} pairs")
    scores = panel.scores() | {"count/pairs": float(count)}
    if not quick:
      panel.keep_reference(out_dir / "fid_reference.npz")
    shown = "one person" if self.people == "same" else "two people"
    title = (
      f"{count} pairs of split {self.split!r} (seed {self.pair_seed}): source "
      f"and query show {shown}; pose, expression and light of the query"
    )
    notes = panel.notes()
    text = reenactment_table.table(scores, title, notes)
    (out_dir / "table.txt").write_text(text + "\n", encoding="utf-8")
    whole = {
      "measured here": scores,
      "published, not measured here": reenactment_table.paper_rows(),
      "notes": [title, *notes],
    }
    (out_dir / "table.json").write_text(
      json.dumps(whole, indent=1), encoding="utf-8"
    )
    log("\n" + text)
    return scores

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


def from_config(options, reader, code_shapes, image_size):
  """Builds it from `recipe.evaluation`.

  Raises:
    ValueError: a setting that is none, or files that need one another.
  """
  fields = {field.name for field in dataclasses.fields(ReenactmentEvaluator)}
  given = {
    name: value for name, value in options.to_dict().items() if name in fields
  }
  made = ReenactmentEvaluator(
    reader=reader, code_shapes=code_shapes, image_size=image_size, **given
  )
  for name, known in (
    ("people", PEOPLE),
    ("readers", READERS),
    ("fid_rule", tuple(fid_lib.RULES)),
  ):
    if (value := getattr(made, name)) not in known:
      raise ValueError(
        f"recipe.evaluation.{name} is {value!r}; it must be one of "
        + ", ".join(map(repr, known))
      )
  if unknown := sorted(set(made.weights) - set(eval_nets.FILES)):
    raise ValueError(
      f"recipe.evaluation.weights has {unknown}, wanted some of "
      f"{list(eval_nets.FILES)}"
    )
  if made.readers == "stages" and getattr(reader, "locator", None) is not None:
    raise ValueError(
      "recipe.evaluation.readers is 'stages', but a stage trains no estimator "
      "of this kind; set it to 'frozen', or nets.estimator.kind to 'synthetic'"
    )
  if made.weights.get("face") and not made.standard_points:
    raise ValueError(
      "recipe.evaluation.weights.face is given, standard_points is empty; it "
      "must name similarity_Lm3D_all.mat of Deep3DFaceRecon's authors"
    )
  return made
