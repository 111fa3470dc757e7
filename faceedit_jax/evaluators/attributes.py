"""Evaluates edits of single attributes: reached, and nothing else changed.

The two requirements in L2M-GAN's abstract, measured with nets that are trained
apart, and on synthetic heads also against pictures of the true outcome, beside
what copying the source and what a perfect edit would get.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import attributes as attributes_lib
from data_pipelines import samplers, transforms
from faceedit_jax.core import options
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import (
  attribute_fid,
  attribute_table,
  common,
  eval_nets,
  needs,
  report,
)
from faceedit_jax.evaluators import evaluator as evaluator_lib
from faceedit_jax.faces import attribute_reader
from faceedit_jax.faces import nets as nets_lib
from faceedit_jax.metrics import attributes as measures
from faceedit_jax.metrics import fid as fid_lib
from faceedit_jax.metrics import identity as identity_metrics
from faceedit_jax.metrics import image as image_metrics
from faceedit_jax.models.faces import iresnet
from faceedit_jax.nn import warp

# Stages that train the evaluation nets; files may take their place.
STAGES = {
  "classifier": eval_nets.stage_of("attributes"),
  "identity": eval_nets.stage_of("identity"),
}
_SHOWN = 3  # examples of each direction on the sheet


@dataclasses.dataclass(frozen=True)
class Files:
  """Converted weight files; "" where there is none.

  Attributes:
    classifier: in place of the stage that trains one.
    identity: likewise.
    inception: of FID, see `attribute_fid.VARIANTS`.
    inception_torchvision: likewise.
  """

  classifier: str = ""
  identity: str = ""
  inception: str = ""
  inception_torchvision: str = ""

  def given(self) -> dict[str, str]:
    """{net: file} of those that are there."""
    return {name: path for name, path in vars(self).items() if path}


@dataclasses.dataclass(frozen=True)
class AttributeEvaluator(evaluator_lib.Evaluator):
  """Runs `recipe.edit` with each attribute given and taken, and measures it.

  Attributes:
    data: names the set; by default the stage's own.
    attributes: names that the recipe edits.
    reads: names that the classifier reads, in its order; the others of them
      tell whether an edit changes what it should not. By default those that
      are edited.
    reader: the classifier.
    identity: the identity net.
    identity_size: side of the crop that it reads, in pixels.
    image_size: side of the pictures in pixels.
    where: this evaluator's section of the config.
    counterfactuals: whether the split holds edits with their true outcome
      (`source_image`, `attribute`, `target`, `truth0_image`, ...); else it
      holds pictures with `attributes`, and each attribute of each is edited.
    split: held-out pictures.
    edits: how many examples of it to use; 0 for all.
    weights: files of the nets.
    fid: see `attribute_fid.Protocol`.
  """

  data: Mapping[str, Any]
  attributes: tuple[str, ...]
  reads: tuple[str, ...]
  reader: attribute_reader.AttributeReader
  identity: iresnet.IResNet
  identity_size: int
  image_size: int
  where: str = "config.stage.STAGE.evaluators.NAME"
  counterfactuals: bool = True
  split: str = "attributes"
  edits: int = 0
  weights: Files = Files()
  fid: attribute_fid.Protocol = attribute_fid.Protocol()

  @classmethod
  def from_config(cls, section, setup):
    """Builds it; `nets.classifier` and `nets.identity` are its nets."""
    needs.check(setup.recipe, needs.EditsAttributes, setup.where)
    for net in ("classifier", "identity"):
      if net not in setup.nets:
        raise UserError(f"{setup.where} reads config.nets.{net}; add it")
    attributes = tuple(setup.recipe.attributes)
    reads = section.get("reads") or attributes
    identity, identity_size = nets_lib.build_identity(
      setup.nets["identity"], setup.dtype
    )
    made = options.build(
      cls,
      {**section, "data": section.get("data") or setup.data, "reads": reads},
      setup.where,
      attributes=attributes,
      reader=attribute_reader.build_reader(
        setup.nets["classifier"], len(reads), setup.dtype
      ),
      identity=identity,
      identity_size=identity_size,
      image_size=setup.image_size,
      where=setup.where,
    )
    unread = [name for name in attributes if name not in made.reads]
    if unread:
      raise UserError(
        f"{setup.where}.reads lacks {unread}, which the recipe edits"
      )
    return made

  def eval_nets(self):
    """Where the nets come from; none of them takes part in an edit."""
    made = {
      net: recipe_lib.WeightSource(stage=stage) for net, stage in STAGES.items()
    }
    return made | {
      net: recipe_lib.WeightSource(path=path)
      for net, path in self.weights.given().items()
    }

  def init_eval_nets(self, rng):
    """Structure of the nets."""
    crop = jnp.zeros((1, self.identity_size, self.identity_size, 3))
    nets = {
      "classifier": self.reader.init(rng, self.image_size),
      "identity": self.identity.init(rng, crop),
    }
    picture = jnp.zeros((1, fid_lib.SIZE, fid_lib.SIZE, 3))
    for net, variant in attribute_fid.VARIANTS.items():
      if net in self.weights.given():
        nets[net] = variant.net.init(rng, picture)
    return nets

  def open(self, split: str, data_dir):
    """The examples of a split, all of them."""
    return common.open_source(self.data, self.image_size, data_dir, split)

  def run(self, ctx) -> dict[str, float]:
    """Measures the edits; writes the report, with the sheet "edits".

    A quick run leaves out FID.

    Returns:
      {"method/direction/measure": value}: methods are "edit", "copy" (the
      source as it is) and "truth" (a true outcome, a perfect edit); directions
      "+NAME", "-NAME", "NAME" (both) and "all". "classifier/NAME/..." is its
      share of right answers on true pictures. What could not be measured is
      missing.
    """
    examples = Examples(self, ctx.data_dir, ctx.quick)
    editors = Editors(ctx.recipe, ctx.variables, ctx.frozen)
    measure = _Measures(self, ctx.eval_nets)
    rows, shown = {}, []
    for direction, indices in examples.jobs.items():
      parts: dict[str, list] = {}
      for first in range(0, len(indices), common.BATCH):
        batch = examples.batch(indices[first : first + common.BATCH])
        edit = editors(direction, batch["image"], first)
        found = measure(batch, edit, direction)
        for name, values in found.items():
          parts.setdefault(name, []).append(values)
        if not first:
          shown.append(self._columns(batch, edit, direction, editors))
      rows[direction] = {n: np.concatenate(v) for n, v in parts.items()}
      ctx.log(f"{direction}: {len(indices)} edits")
    scores = attribute_table.summary(rows, self.attributes)
    scores |= measure.accuracy()
    notes = list(measure.notes())
    if not ctx.quick:
      found, told = attribute_fid.run(
        self, editors, ctx.eval_nets, ctx.data_dir, ctx.log
      )
      scores |= found
      notes += told
    title = (
      f"{sum(map(len, examples.jobs.values()))} edits of split {self.split!r}"
    )
    report.Report(
      scores,
      attribute_table.table(scores, title, notes, self.attributes),
      {"edits": report.labelled_grid(shown)},
    ).write(ctx.out_dir, ctx.log)
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
    self._made: dict[str, common.Editor] = {}

  def __call__(self, direction: str, image, first: int) -> np.ndarray:
    """Edits of at most `common.BATCH` pictures (n, s, s, 3) in [-1, 1]."""
    if direction not in self._made:
      # The set says what its pictures have, so nothing has to be read.
      self._made[direction] = common.Editor(
        *self._nets, attribute=direction, has=direction.startswith("-")
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
        f"({settings.where}.data)"
      )
    self._at = np.array([names.index(name) for name in settings.reads])
    count = settings.edits or len(self._source)
    if quick:
      count = common.QUICK_PAIRS
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
        f"({settings.where})"
      )

  def _pairs(self, count):
    metadata = getattr(self._source, "metadata", {})
    names = metadata.get("settings", {}).get("attributes")
    if not names:
      raise ValueError(
        f"split {self._is.split!r} does not say which attributes it edits; "
        "draw it with data_pipelines.prepare, or set "
        f"{self._is.where}.counterfactuals=False for a set without outcomes"
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


class _Measures:
  """Measures batches of edits; remembers how well the classifier reads."""

  def __init__(self, settings: AttributeEvaluator, nets):
    self._is, self._nets = settings, nets
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
    full = [common.full(np.asarray(x)) for x in (image, points)]
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
    """Lines below the table: which nets read, and what is missing."""
    if self._nets is None:
      yield (
        "correct, others, identity: -, the evaluation nets are not trained "
        "yet; --mode=evaluate trains them"
      )
      return
    for net, what in (
      ("classifier", "correct, others: read by the classifier"),
      ("identity", "identity: cosine of embeddings by the identity net"),
    ):
      path = self._is.weights.given().get(net)
      yield f"{what} of {path or 'stage ' + STAGES[net]}"
