"""Scores edits of single attributes: reached, and nothing else changed.

The two requirements in L2M-GAN's abstract, measured with nets that are trained
apart, and on synthetic heads also against pictures of the true outcome, beside
what copying the source and what a perfect edit would get.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import attributes as attributes_lib
from data_pipelines import samplers, sources, transforms
from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.evaluators import attribute_fid, attribute_table
from faceedit_jax.evaluators import common as scoring_lib
from faceedit_jax.metrics import attributes as measures
from faceedit_jax.metrics import fid as fid_lib
from faceedit_jax.metrics import identity as identity_metrics
from faceedit_jax.metrics import image as image_metrics
from faceedit_jax.models.faces import iresnet
from faceedit_jax.nn import warp
from faceedit_jax.recipes.pretrain import attributes as attributes_recipe
from faceedit_jax.recipes.pretrain import identity as identity_recipe

# Files may take the place of these scoring stages.
STAGES = {"classifier": "score_attributes", "identity": "score_identity"}
_SHOWN = 3  # examples of each direction on the sheet


@dataclasses.dataclass(frozen=True)
class AttributeEvaluator:
  """Runs `recipe.edit` with each attribute given and taken, and measures it.

  Attributes:
    data: names the set.
    attributes: names that the recipe edits.
    reads: names that the classifier reads, in its order; the others of them
      tell whether an edit changes what it should not.
    reader: the scoring classifier.
    identity: the scoring identity net.
    identity_size: side of the crop that it reads, in pixels.
    image_size: side of the pictures in pixels.
    counterfactuals: whether the split holds edits with their true outcome
      (`source_image`, `attribute`, `target`, `truth0_image`, ...); else it
      holds pictures with `attributes`, and each attribute of each is edited.
    split: held-out pictures.
    edits: how many examples of it to use; 0 for all.
    weights: files in place of the scoring stages ("classifier", "identity"),
      and those of FID, see `attribute_fid.VARIANTS`; "" where there is none.
    fid: see `attribute_fid.Protocol`.
  """

  data: Mapping[str, Any]
  attributes: tuple[str, ...]
  reads: tuple[str, ...]
  reader: attributes_recipe.AttributeReader
  identity: iresnet.IResNet
  identity_size: int
  image_size: int
  counterfactuals: bool = True
  split: str = "attributes"
  edits: int = 0
  weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
  fid: attribute_fid.Protocol = attribute_fid.Protocol()

  name = "attributes"

  def scoring(self):
    """Where the scoring nets come from; none of them takes part in an edit."""
    made = {
      net: recipe_lib.WeightSource(stage=stage) for net, stage in STAGES.items()
    }
    files = {net: path for net, path in self.weights.items() if path}
    return made | {
      net: recipe_lib.WeightSource(path=path) for net, path in files.items()
    }

  def init_scoring(self, rng):
    """Structure of the scoring nets."""
    crop = jnp.zeros((1, self.identity_size, self.identity_size, 3))
    nets = {
      "classifier": self.reader.init(rng, self.image_size),
      "identity": self.identity.init(rng, crop),
    }
    picture = jnp.zeros((1, fid_lib.SIZE, fid_lib.SIZE, 3))
    for net, variant in attribute_fid.VARIANTS.items():
      if self.weights.get(net):
        nets[net] = variant.net.init(rng, picture)
    return nets

  def open(self, split: str, data_dir):
    """The examples of a split, all of them."""
    source = options_lib.build_kind(
      sources.KINDS,
      self.data["source"],
      "evaluation.data.source",
      size=self.image_size,
    )
    return source.open(data_dir, split)

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
    """Scores the edits; writes table.json, table.txt and edits.png.

    Args:
      recipe: its `edit` takes the knob `attribute`, "+NAME" or "-NAME".
      variables: its trained nets.
      frozen: its frozen nets.
      data_dir: directory of prepared data.
      out_dir: where the sheet and the tables go.
      log: prints a line.
      scoring: the scoring nets, or None: then what needs them is left out.
      quick: a smaller look at the end of training, without FID.

    Returns:
      {"method/direction/measure": value}: methods are "edit", "copy" (the
      source as it is) and "truth" (a true outcome, a perfect edit); directions
      "+NAME", "-NAME", "NAME" (both) and "all". "classifier/NAME/..." is its
      share of right answers on true pictures. What could not be measured is
      missing.
    """
    out_dir = pathlib.Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    examples = Examples(self, data_dir, quick)
    editors = Editors(recipe, variables, frozen)
    judge = _Judge(self, scoring)
    rows, shown = {}, {}
    for direction, indices in examples.jobs.items():
      parts: dict[str, list] = {}
      for first in range(0, len(indices), scoring_lib.BATCH):
        batch = examples.batch(indices[first : first + scoring_lib.BATCH])
        edit = editors(direction, batch["image"], first)
        found = judge(batch, edit, direction)
        for name, values in found.items():
          parts.setdefault(name, []).append(values)
        if not first:
          shown[direction] = self._columns(batch, edit, direction, editors)
      rows[direction] = {n: np.concatenate(v) for n, v in parts.items()}
      log(f"{direction}: {len(indices)} edits")
    scores = attribute_table.summary(rows, self.attributes)
    scores |= judge.accuracy()
    notes = list(judge.notes())
    if not quick:
      found, told = attribute_fid.run(self, editors, scoring, data_dir, log)
      scores |= found
      notes += told
    attribute_table.save_sheet(shown, out_dir / "edits.png")
    title = (
      f"{sum(map(len, examples.jobs.values()))} edits of split {self.split!r}"
    )
    attribute_table.write(scores, title, notes, self.attributes, out_dir, log)
    return scores

  def _columns(self, batch, edit, direction, editors):
    """Columns of the sheet: source, every attribute turned, best truth."""
    count = min(_SHOWN, len(edit))
    source = batch["image"][:count]
    columns = [("source", source)]
    for name in self.attributes:
      has = batch["attributes"][:count, self.reads.index(name)]
      made = np.empty_like(source)
      for value in (0, 1):
        where = has == value
        if where.any():
          turned = ("+", "-")[value] + name
          if turned == direction:
            made[where] = edit[:count][where]
          else:
            made[where] = editors(turned, source[where], 0)
      columns.append((f"{name} turned", made))
    if "truths" in batch:
      truths = batch["truths"][:count]
      gap = np.square(truths - edit[:count, None]).mean((2, 3, 4))
      nearest = truths[np.arange(count), gap.argmin(1)]
      columns.append((f"true {direction}", nearest))
    return columns


class Editors:
  """`recipe.edit`, compiled once for each direction."""

  def __init__(self, recipe, variables, frozen):
    self._nets = (recipe, variables, frozen)
    self._made: dict[str, scoring_lib.Editor] = {}

  def __call__(self, direction: str, image, first: int) -> np.ndarray:
    """Edits of at most `scoring.BATCH` pictures (n, s, s, 3) in [-1, 1]."""
    if direction not in self._made:
      self._made[direction] = scoring_lib.Editor(
        *self._nets, attribute=direction
      )
    return self._made[direction]({"source": image}, first)["image"]


class Examples:
  """What is edited: which pictures in which direction.

  Attributes:
    jobs: {direction: positions in the source}.
  """

  def __init__(self, settings: AttributeEvaluator, data_dir, quick: bool):
    self._is, self._source = settings, settings.open(settings.split, data_dir)
    self._prefix = "source_" if settings.counterfactuals else ""
    names = attributes_lib.names_of(self._source)
    missing = [name for name in settings.reads if name not in names]
    if missing:
      raise ValueError(
        f"split {settings.split!r} has no attributes {missing}; it has {names} "
        "(recipe.evaluation.data)"
      )
    self._at = np.array([names.index(name) for name in settings.reads])
    count = settings.edits or len(self._source)
    if quick:
      count = scoring_lib.QUICK_PAIRS
    count = min(count, len(self._source))
    read = self._pairs if settings.counterfactuals else self._pictures
    self.jobs: dict[str, list[int]] = {
      sign + name: [] for name in settings.attributes for sign in "+-"
    }
    for direction, position in read(count):
      if direction in self.jobs:  # sets may hold more attributes
        self.jobs[direction].append(position)
    self.jobs = {name: at for name, at in self.jobs.items() if at}
    if not self.jobs:
      raise ValueError(
        f"split {settings.split!r} holds no edit of {settings.attributes} "
        "(recipe.evaluation)"
      )

  def _pairs(self, count):
    metadata = getattr(self._source, "metadata", {})
    names = metadata.get("settings", {}).get("attributes")
    if not names:
      raise ValueError(
        f"split {self._is.split!r} does not say which attributes it edits; "
        "draw it with data_pipelines.prepare, or set "
        "recipe.evaluation.counterfactuals=False for a set without outcomes"
      )
    columns = [
      samplers.column_of(self._source, name) for name in ("attribute", "target")
    ]
    for at in range(count):
      attribute, target = (int(column[at]) for column in columns)
      yield ("+" if target else "-") + names[attribute], at

  def _pictures(self, count):
    for at in range(count):
      has = np.asarray(self._source[at]["attributes"])[self._at]
      for name in self._is.attributes:
        given = has[self._is.reads.index(name)]
        yield ("-" if given else "+") + name, at

  def batch(self, positions) -> dict[str, np.ndarray]:
    """Examples: image (n, s, s, 3), attributes (n, reads), points (n, 5, 2).

    With counterfactuals also truths (n, k, s, s, 3), and "bytes" and
    "truth_bytes", the same pictures as uint8.
    """
    size, prefix = self._is.image_size, self._prefix
    resize, rng = transforms.Resize(size), samplers.generator(0)
    found = [resize(self._source[at], rng) for at in positions]
    image = np.stack([e[f"{prefix}image"] for e in found])
    out = {
      "bytes": image,
      "image": transforms.to_float(image),
      "attributes": np.stack(
        [np.asarray(e[f"{prefix}attributes"])[self._at] for e in found]
      ),
      "points": np.stack([e[f"{prefix}landmarks5"] for e in found]),
    }
    if self._is.counterfactuals:
      count = sum(name.startswith("truth") for name in found[0])
      truths = np.stack(
        [np.stack([e[f"truth{k}_image"] for k in range(count)]) for e in found]
      )
      out |= {"truth_bytes": truths, "truths": transforms.to_float(truths)}
    return out


class _Judge:
  """Measures batches of edits; remembers how well the classifier reads."""

  def __init__(self, settings: AttributeEvaluator, scoring):
    self._is, self._nets = settings, scoring
    self._logits = jax.jit(settings.reader.logits)
    self._right: dict[str, list] = {}

    def embed(variables, image, points):
      crop = warp.face_crop(image, points, settings.identity_size)
      return settings.identity.apply(variables, crop)

    self._embed = jax.jit(embed)

  def __call__(self, batch, edit, direction) -> dict[str, np.ndarray]:
    """{"method/measure": (n,)} of a batch."""
    out = {}
    if self._nets is not None:
      out |= self._read(batch, edit, direction)
    if "truths" in batch:
      out |= self._compare(batch, edit)
    return out

  def _net(self, name, run, image, points):
    """What a net says of at most BATCH pictures."""
    full = [scoring_lib.full(np.asarray(x)) for x in (image, points)]
    return run(self._nets[name], *full)[: len(image)]

  def _read(self, batch, edit, direction):
    at, wanted = self._is.reads.index(direction[1:]), direction[0] == "+"
    pictures = {"edit": edit, "copy": batch["image"]}
    truths = batch.get("truths")
    if truths is not None:
      pictures["truth"] = truths[:, 0]
    points, out = batch["points"], {}
    logits = {
      method: self._net("classifier", self._logits, picture, points)
      for method, picture in pictures.items()
    }
    who = {
      method: self._net("identity", self._embed, picture, points)
      for method, picture in pictures.items()
    }
    for method, read in logits.items():
      out[f"{method}/correct"] = measures.correctness(read, at, wanted)
      if method == "copy":
        continue
      flips, change = measures.other_changes(read, logits["copy"], at)
      if len(self._is.reads) > 1:
        out[f"{method}/others_flipped"] = flips
        out[f"{method}/others_changed"] = change
      out[f"{method}/identity"] = identity_metrics.cosine_similarity(
        who[method], who["copy"]
      )
    for column, name in enumerate(self._is.reads):
      true = batch["attributes"][:, column] > 0
      right = (np.asarray(logits["copy"])[:, column] > 0) == true
      self._right.setdefault(f"{name}/accuracy_sources", []).append(right)
    if truths is not None:
      kept = self._right.setdefault(f"{direction[1:]}/accuracy_truths", [])
      for k in range(truths.shape[1]):
        read = self._net("classifier", self._logits, truths[:, k], points)
        kept.append(np.asarray(measures.correctness(read, at, wanted)) > 0)
    return {name: np.asarray(values) for name, values in out.items()}

  def _compare(self, batch, edit):
    """Measures against the pictures of the true outcome."""
    region = measures.region(batch["bytes"], batch["truth_bytes"])
    truths = image_metrics.to_unit(jnp.asarray(batch["truths"]))
    source = image_metrics.to_unit(jnp.asarray(batch["image"]))
    edit = image_metrics.to_unit(jnp.asarray(edit))
    out = {"edit/outside_psnr": measures.outside_psnr(edit, source, region)}
    out["truth/outside_psnr"] = measures.outside_psnr(
      truths[:, 0], source, region
    )
    for method, picture in (("edit", edit), ("copy", source)):
      absolute, squared = measures.inside_error(picture, truths, region)
      psnr, ssim = measures.to_nearest_truth(picture, truths)
      out |= {
        f"{method}/inside_l1": absolute,
        f"{method}/inside_l2": squared,
        f"{method}/psnr": psnr,
        f"{method}/ssim": ssim,
      }
    return {name: np.asarray(values) for name, values in out.items()}

  def accuracy(self) -> dict[str, float]:
    """{"classifier/NAME/accuracy_...": share of right answers}."""
    return {
      f"classifier/{name}": float(np.concatenate(parts).mean())
      for name, parts in self._right.items()
    }

  def notes(self):
    """Lines below the table: who scores, and what is missing."""
    if self._nets is None:
      yield (
        "correct, others, identity: -, the scoring stages are not trained yet; "
        "--mode=evaluate trains them"
      )
      return
    for net, what in (
      ("classifier", "correct, others: read by the classifier"),
      ("identity", "identity: cosine of embeddings by the identity net"),
    ):
      path = self._is.weights.get(net)
      yield f"{what} of {path or 'stage ' + STAGES[net]}"


def from_config(options, nets, attributes, image_size, dtype):
  """Builds it from `recipe.evaluation`.

  Args:
    options: `recipe.evaluation`: `data`, and any of `split`, `edits`,
      `counterfactuals`, `weights`, `fid` and `reads`, the attributes of the
      scoring classifier where they are more than those that are edited.
    nets: of the config; `classifier` and `identity` are the scoring nets.
    attributes: names that the recipe edits.
    image_size: side of the pictures in pixels.
    dtype: compute dtype of the nets.

  Raises:
    ValueError: a setting that is none.
  """
  reads = tuple(options.get("reads") or attributes)
  unread = [name for name in attributes if name not in reads]
  if unread:
    raise ValueError(
      f"recipe.evaluation.reads lacks {unread}, which the recipe edits"
    )
  given = {
    name: options[name]
    for name in ("counterfactuals", "split", "edits")
    if options.get(name) is not None
  }
  weights = dict(options.get("weights") or {})
  known = (*STAGES, *attribute_fid.VARIANTS)
  if unknown := sorted(set(weights) - set(known)):
    raise ValueError(
      f"recipe.evaluation.weights has {unknown}, wanted some of {known}"
    )
  identity, identity_size = identity_recipe.build_identity(nets.identity, dtype)
  return AttributeEvaluator(
    data=options.data.to_dict(),
    attributes=tuple(attributes),
    reads=reads,
    reader=attributes_recipe.build_reader(nets.classifier, len(reads), dtype),
    identity=identity,
    identity_size=identity_size,
    image_size=image_size,
    weights=weights,
    fid=attribute_fid.Protocol(**dict(options.get("fid") or {})),
    **given,
  )
