"""Accuracy of a trained classifier of attributes on held-out pictures."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from data_pipelines import samplers, transforms
from faceedit_jax.core import options
from faceedit_jax.evaluators import common, needs, report
from faceedit_jax.evaluators import evaluator as evaluator_lib

_BLOCK = 64  # pictures that are read at a time
_COLUMNS = (
  report.Column("accuracy", "accuracy", 3),
  report.Column("share", "share", 3),
)


@dataclasses.dataclass(frozen=True)
class AttributeAccuracy(evaluator_lib.Evaluator):
  """Share of pictures of people never seen that the net reads rightly.

  Attributes:
    data: names the set; by default the stage's own.
    split: held-out pictures.
  """

  data: Mapping[str, Any]
  split: str = "test"

  @classmethod
  def from_config(cls, section, setup):
    needs.check(setup.recipe, needs.ReadsAttributes, setup.where)
    data = section.get("data") or setup.data
    return options.build(cls, {**section, "data": data}, setup.where)

  def run(self, ctx) -> dict[str, float]:
    """Reads all pictures of the split; writes the report.

    Returns:
      {"accuracy/NAME"} per attribute, and beside it {"share/NAME"}, how many
      of the pictures have it: a constant answer gets the larger of that and
      the rest.
    """
    recipe: needs.ReadsAttributes = ctx.recipe
    source = samplers.AttributeColumns(
      common.open_source(
        self.data, recipe.image_size, ctx.data_dir, self.split
      ),
      recipe.attributes,
    )
    spec = tuple(recipe.batch_spec())
    prepare = transforms.make(
      transforms.Options(), recipe.image_size, spec, spec
    )
    read = jax.jit(recipe.reader.logits)
    made, true = [], []
    for first in range(0, len(source), _BLOCK):
      rows = range(first, min(first + _BLOCK, len(source)))
      # The last block is filled up, so that one program reads them all.
      examples = [prepare(source[i], samplers.generator(0, i)) for i in rows]
      filled = examples + examples[-1:] * (_BLOCK - len(examples))
      batch = {name: np.stack([e[name] for e in filled]) for name in spec}
      logits = read(
        ctx.variables["classifier"], batch["image"], batch.get("landmarks5")
      )
      made.append(np.asarray(logits)[: len(rows)] > 0)
      true.append(batch["attributes"][: len(rows)] > 0)
    made, true = np.concatenate(made), np.concatenate(true)
    rows, scores = [], {}
    for at, name in enumerate(recipe.attributes):
      found = {
        "accuracy": float((made == true)[:, at].mean()),
        "share": float(true[:, at].mean()),
      }
      rows.append(((name,), found))
      scores |= {f"{measure}/{name}": v for measure, v in found.items()}
    table = report.Table(
      f"{len(true)} pictures of split {self.split!r}",
      _COLUMNS,
      rows,
      label_heads=("attribute",),
      notes=(
        "accuracy: share of the pictures that are read rightly",
        "share: of the pictures that have the attribute",
      ),
    )
    report.Report(scores, table).write(ctx.out_dir, ctx.log)
    return scores
