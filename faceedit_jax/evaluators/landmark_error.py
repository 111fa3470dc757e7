"""Normalised mean error of a landmark net on held-out pictures."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import samplers, transforms
from faceedit_jax.core import options
from faceedit_jax.evaluators import common, needs, report
from faceedit_jax.evaluators import evaluator as evaluator_lib
from faceedit_jax.metrics import landmarks as metric

TRUE, VISIBLE = "landmarks68", "visible68"
_COLUMNS = (report.Column("nme", "NME %", 2),)
_NOTES = (
  "NME: distance from the true point in distances of the outer corners of the "
  "eyes (300-W), mean over points and then over pictures, in percent",
  "hidden: points that lie behind something or beside the picture",
)


@dataclasses.dataclass(frozen=True)
class LandmarkError(evaluator_lib.Evaluator):
  """How far 68 points are off, on pictures of people never seen.

  Attributes:
    data: names the set; by default the stage's own.
    split: held-out pictures.
  """

  data: Mapping[str, Any]
  split: str = "test"

  @classmethod
  def from_config(cls, section, setup):
    needs.check(setup.recipe, needs.FindsLandmarks, setup.where)
    data = section.get("data") or setup.data
    return options.build(cls, {**section, "data": data}, setup.where)

  def run(self, ctx) -> dict[str, float]:
    """Finds the points of all pictures of the split; writes the report.

    Returns:
      "nme" in percent; "nme/PART" of jaw, brows, nose, eyes, mouth; where the
      set says what is hidden, "nme/visible" and "nme/hidden"; "failed", the
      share of pictures whose error is above 10 percent.
    """
    recipe: needs.FindsLandmarks = ctx.recipe
    source = common.open_source(
      self.data, recipe.image_size, ctx.data_dir, self.split
    )
    find = jax.jit(recipe.find_landmarks)
    errors, visible = [], []
    for first in range(0, len(source), common.BATCH):
      batch = self._read(
        recipe, source, range(first, min(first + common.BATCH, len(source)))
      )
      count = len(batch["image"])
      found = find(ctx.variables, common.full(batch["image"]))[:count]
      off = metric.point_errors(found, jnp.asarray(batch[TRUE]))
      errors.append(np.asarray(off))
      visible.append(batch.get(VISIBLE))
    off = 100 * np.concatenate(errors)
    groups = {"all": off}
    groups |= {name: off[:, part] for name, part in metric.PARTS.items()}
    if visible[0] is not None:
      seen = np.concatenate(visible) > 0
      groups["visible"] = np.where(seen, off, np.nan)
      groups["hidden"] = np.where(seen, np.nan, off)
    means = {name: _mean(group) for name, group in groups.items()}
    failed = float((off.mean(1) > 100 * metric.FAILED).mean())
    table = report.Table(
      f"{len(off)} pictures of split {self.split!r}",
      _COLUMNS,
      [((name,), {"nme": value}) for name, value in means.items()],
      label_heads=("points",),
      notes=(*_NOTES, f"pictures with an error above 10 %: {failed:.3f}"),
    )
    scores = {"nme": means.pop("all"), "failed": failed}
    scores |= {f"nme/{name}": value for name, value in means.items()}
    report.Report(scores, table).write(ctx.out_dir, ctx.log)
    return scores

  def _read(self, recipe, source, rows) -> dict[str, np.ndarray]:
    """Pictures, their points and, where it is known, which are visible."""
    examples = [source[i] for i in rows]
    names = (*recipe.batch_spec(), *(n for n in (VISIBLE,) if n in examples[0]))
    prepare = transforms.make(
      transforms.Options(), recipe.image_size, names, names
    )
    made = [
      prepare(example, samplers.generator(0, i))
      for i, example in zip(rows, examples, strict=True)
    ]
    return {name: np.stack([e[name] for e in made]) for name in names}


def _mean(group: np.ndarray) -> float:
  """Mean over points and then over the pictures that have some; else NaN."""
  known = ~np.isnan(group)
  has = known.any(1)
  if not has.any():
    return float("nan")
  total = np.where(known, group, 0.0).sum(1)[has]
  return float((total / known.sum(1)[has]).mean())
