"""Says which slot stands for which region, by looking at held-out pictures.

DiffFAE section 4.2: slots find face, hair, clothes and background without
labels, in an order that every training draws anew. The sheet shows what each
slot attends to, for somebody to name; where the pictures carry regions of a
parser or an annotator, these name the slots. The names are kept beside the
trained stage and enter no loss.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import records, transforms
from data_pipelines.sources import SourceError
from data_pipelines.synthetic_heads import labels as labels_lib
from faceedit_jax.core import editing, inference_record, options
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import common, needs, report
from faceedit_jax.evaluators import evaluator as evaluator_lib
from faceedit_jax.faces import slot_regions

# Splits of held-out pictures, the first that the set has.
HELD_OUT = ("test", "validation", "swaps", "pairs")
# An IoU below this is no agreement: a guess is not recorded.
LEAST_IOU = 0.3
_OPTION = "slot_names"


@dataclasses.dataclass(frozen=True)
class SlotNaming(evaluator_lib.Evaluator):
  """Shows, and where it can, names the slots of a stage.

  Attributes:
    data: names the set; by default the stage's own.
    image_size: side of the pictures in pixels.
    split: of the set; "" takes the first of HELD_OUT that it has.
    pictures: how many to look at, spread over the split.
    shown: how many of them are on the sheet.
    names: region of each slot, said by hand after a look at the sheet.
  """

  data: Mapping[str, Any]
  image_size: int
  split: str = ""
  pictures: int = 64
  shown: int = 8
  names: tuple[slot_regions.Region, ...] = ()

  @classmethod
  def from_config(cls, section, setup):
    needs.check(setup.recipe, needs.HasSlots, setup.where)
    return options.build(
      cls,
      {**section, "data": section.get("data") or setup.data},
      setup.where,
      image_size=setup.image_size,
    )

  def open(self, data_dir) -> tuple[Any, str]:
    """The examples, and the name of their split.

    Raises:
      UserError: one line: the set has no held-out pictures.
    """
    said = ""
    for split in (self.split,) if self.split else HELD_OUT:
      try:
        source = common.open_source(self.data, self.image_size, data_dir, split)
      except (records.RecordError, SourceError, OSError) as error:
        said = said or str(error)
        continue
      if len(source):
        return source, split
    raise UserError(
      f"no held-out pictures to look at ({said}); name another split of the "
      "set, or another --data_dir"
    )

  def run(self, ctx) -> dict[str, float]:
    """Writes the sheet "slots" and the table; keeps the names it finds.

    Returns:
      "slot_K/share" of the pictures and, with regions, "slot_K/iou_REGION".

    Raises:
      UserError: one line: `names` do not fit the slots.
    """
    source, split = self.open(ctx.data_dir)
    count = min(self.pictures, len(source))
    places = np.linspace(0, len(source) - 1, count).astype(int)
    masks_of = jax.jit(ctx.recipe.slot_masks)
    images, masks, regions = [], [], []
    for first in range(0, count, common.BATCH):
      batch = [source[int(i)] for i in places[first : first + common.BATCH]]
      seen = np.stack([_picture(e, self.image_size) for e in batch])
      found = masks_of(ctx.variables, common.full(seen))
      images.append(seen)
      masks.append(np.asarray(found)[: len(batch)])
      regions.append([_regions(e) for e in batch])
    images, masks = np.concatenate(images), np.concatenate(masks)
    truth = [r for part in regions for r in part]
    counts = None
    if all(r is not None for r in truth):
      counts = _counts(masks, truth)
    names, line = self._names(masks.shape[-1], counts, count, split)
    scores = _scores(masks, counts)
    self._write(ctx, scores, names, images, masks, f"{count} pictures, {split}")
    if names and _OPTION in editing.inference_options(ctx.recipe):
      if ctx.stage_dir is not None:
        path = inference_record.write(
          ctx.stage_dir, {_OPTION: list(names)}, line
        )
        line += f"; kept in {path}"
    ctx.log(line)
    return scores

  def _names(
    self, slots: int, counts, pictures: int, split: str
  ) -> tuple[tuple[str, ...], str]:
    """The names, () where there are none, and what they stand on."""
    if self.names:
      slot_regions.from_names(self.names, slots)
      return self.names, f"slots named by hand: {', '.join(self.names)}"
    advice = (
      "look at slots.png and say the region of each slot in its order, as in "
      "--slot_names=face,hair,clothes,background"
    )
    if counts is None:
      return (), f"the pictures carry no regions: {advice}"
    iou = _iou(counts)
    of_slots = np.asarray(slot_regions.assign(jnp.asarray(counts)))
    agreed = iou[np.arange(slots), of_slots]
    names = tuple(slot_regions.REGIONS[i] for i in of_slots)
    told = ", ".join(
      f"{i} {name} ({value:.2f})"
      for i, (name, value) in enumerate(zip(names, agreed, strict=True))
    )
    # Slots beyond the fourth share a region, of which each has a part.
    least = LEAST_IOU * min(1.0, len(slot_regions.REGIONS) / slots)
    whole = slots < 4 or set(names) == set(slot_regions.REGIONS)
    if agreed.min() < least or not whole:
      return (), (
        f"the slots agree too little with the regions to be named by them "
        f"({told}): {advice}"
      )
    return names, (
      f"slots named by the regions of {pictures} pictures of split {split!r}, "
      f"with IoU: {told}"
    )

  def _write(self, ctx, scores, names, images, masks, title):
    """The table, and one row of pictures for each example of the sheet."""
    slots = masks.shape[-1]
    captions = [
      f"slot {i} {names[i]}" if names else f"slot {i}" for i in range(slots)
    ]
    shown = slice(0, self.shown)
    tiles = np.asarray(
      slot_regions.attended(
        jnp.asarray(images[shown]), jnp.asarray(masks[shown])
      )
    )
    columns = [("picture", images[shown])]
    columns += [(captions[i], tiles[:, i]) for i in range(slots)]
    metrics = list(dict.fromkeys(name.split("/")[1] for name in scores))
    rows = [
      (
        (f"slot_{i}", names[i] if names else "-"),
        {m: scores[f"slot_{i}/{m}"] for m in metrics},
      )
      for i in range(slots)
    ]
    table = report.Table(
      title,
      [report.Column(name, name) for name in metrics],
      rows,
      ("slot", "name"),
    )
    sheet = report.labelled_grid([columns])
    report.Report(scores, table, {"slots": sheet}).write(ctx.out_dir, ctx.log)


def _picture(example: Mapping[str, Any], size: int) -> np.ndarray:
  """The picture of an example, (s, s, 3) in [-1, 1]."""
  name = "image" if "image" in example else "source_image"
  if name not in example:
    raise UserError(
      f"the examples have no picture, only {sorted(example)}; wanted `image`"
    )
  image = np.asarray(example[name])
  if image.shape != (size, size, 3):
    raise UserError(
      f"the examples' pictures are {image.shape}, wanted {(size, size, 3)}"
    )
  return transforms.to_float(image)


def _regions(example: Mapping[str, Any]) -> np.ndarray | None:
  """Regions (s, s) of an example: its own, or those of a parser's classes."""
  for prefix in ("", "source_"):
    if f"{prefix}regions" in example:
      return np.asarray(example[f"{prefix}regions"], np.int32)
    if f"{prefix}labels" in example:
      classes = np.asarray(example[f"{prefix}labels"])
      return labels_lib.region_table()[classes.squeeze()].astype(np.int32)
  return None


def _counts(masks: np.ndarray, truth: Sequence[np.ndarray]) -> np.ndarray:
  """Pixels (k, 4) that slots and regions share."""
  counts = 0.0
  for at in range(0, len(masks), common.BATCH):
    part = slice(at, at + common.BATCH)
    counts = counts + np.asarray(
      slot_regions.confusion(
        jnp.asarray(masks[part]), jnp.asarray(np.stack(truth[part]))
      )
    )
  return counts


def _iou(counts: np.ndarray) -> np.ndarray:
  """IoU (k, 4) of every slot and every region."""
  union = counts.sum(1)[:, None] + counts.sum(0)[None] - counts
  return counts / np.maximum(union, 1e-6)


def _scores(masks: np.ndarray, counts: np.ndarray | None) -> dict[str, float]:
  slots = masks.shape[-1]
  hard = masks.argmax(-1)
  scores = {}
  for i in range(slots):
    scores[f"slot_{i}/share"] = float((hard == i).mean())
    if counts is not None:
      for region, value in zip(
        slot_regions.REGIONS, _iou(counts)[i], strict=True
      ):
        scores[f"slot_{i}/iou_{region}"] = float(value)
  return scores
