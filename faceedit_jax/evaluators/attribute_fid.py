"""FID of attribute edits, direction by direction.

The protocol of StarGAN v2, which L2M-GAN evaluates by: true pictures are those
of the training split that have the wanted value, edits are made of held-out
pictures that have the other one. The Inception network and its resizing are
part of a value's name, for values of two of them are not comparable.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import numpy as np

from data_pipelines import attributes as attributes_lib
from data_pipelines import samplers, transforms
from faceedit_jax.evaluators import common
from faceedit_jax.metrics import fid as fid_lib
from faceedit_jax.models.perception import inception as inception_lib


@dataclasses.dataclass(frozen=True)
class Variant:
  """An Inception network with the resizing that belongs to it.

  Attributes:
    rule: see `metrics.fid.RULES`; also the end of the metric's name.
    net: its structure.
    convert: what makes its file.
  """

  rule: str
  net: inception_lib.Inception
  convert: str


# By the name of the file in the evaluator's `weights`; see `Protocol.variants`.
VARIANTS: Mapping[str, Variant] = {
  "inception": Variant(
    "pytorch-fid",
    inception_lib.Inception(),
    "inception pt_inception-2015-12-05-6726825d.pth",
  ),
  "inception_torchvision": Variant(
    "stargan-v2",
    inception_lib.Inception(classes=1000, tensorflow=False),
    "inception_torchvision inception_v3_google-0cc3c7bd.pth",
  ),
}


@dataclasses.dataclass(frozen=True)
class Protocol:
  """Which pictures are compared.

  Attributes:
    true_split: where the true pictures come from.
    edit_split: where the pictures come from that are edited.
    pictures: how many of either split are looked at; 0 for all.
    outputs: edits of each picture; more than one makes sense where styles are
      drawn at random (StarGAN v2: 10).
    torchvision_rule: how pictures are resized for torchvision's network, see
      `metrics.fid.TORCHVISION_RULES`.
  """

  true_split: str = "train"
  edit_split: str = "test"
  pictures: int = 0
  outputs: int = 1
  torchvision_rule: Literal["stargan-v2", "l2m-gan"] = "stargan-v2"

  def variants(self) -> Mapping[str, Variant]:
    """VARIANTS with this protocol's resizing."""
    return {
      net: made
      if made.net.tensorflow
      else dataclasses.replace(made, rule=self.torchvision_rule)
      for net, made in VARIANTS.items()
    }


def run(settings, editors, eval_nets, data_dir, log):
  """FID of every direction.

  Args:
    settings: an `attributes.AttributeEvaluator`.
    editors: an `attributes.Editors`.
    eval_nets: {net: variables} of its `eval_nets`, or None.
    data_dir: directory of prepared data.
    log: prints a line.

  Returns:
    {"edit/direction/FID-rule": value}, also for the mean over directions,
    "all", and "copy/..." for the held-out pictures as they are; and lines for
    below the table.
  """
  notes, readers = [], {}
  for net, variant in settings.fid.variants().items():
    if eval_nets is not None and net in eval_nets:
      readers[variant.rule] = fid_lib.Reader(
        variant.net,
        eval_nets[net],
        variant.rule,
        batch=max(1, common.BATCH // jax.local_device_count()),
        devices=jax.local_devices(),
      )
    elif net in settings.weights.given():
      notes.append(
        f"FID-{variant.rule}: -, the evaluation nets are not trained yet; "
        "--mode=evaluate trains them"
      )
    else:
      notes.append(
        f"FID-{variant.rule}: -, no file. python -m faceedit_jax.convert "
        f"{variant.convert} --output={net}.safetensors makes it; it goes into "
        f"{settings.where}.weights.{net}"
      )
  if not readers:
    return {}, notes
  true = _Pictures(settings, settings.fid.true_split, data_dir)
  held = _Pictures(settings, settings.fid.edit_split, data_dir)
  scores = {}
  for name in settings.attributes:
    for sign, wanted in (("+", 1), ("-", 0)):
      direction = sign + name
      real, copy, made = ({} for _ in range(3))
      for image in true.batches(name, wanted):
        _add(real, readers, image)
      for first, image in enumerate(held.batches(name, 1 - wanted)):
        _add(copy, readers, image)
        for output in range(settings.fid.outputs):
          # The number names the noise: no two edits share it.
          row = (first * settings.fid.outputs + output) * common.BATCH
          _add(made, readers, editors(direction, image, row))
      for method, sets in (("edit", made), ("copy", copy)):
        for rule, state in sets.items():
          # A covariance needs two.
          if min(state.count, real[rule].count if rule in real else 0) > 1:
            key = f"{method}/{direction}/FID-{rule}"
            scores[key] = fid_lib.fid(state, real[rule])
      for rule in made:
        if f"edit/{direction}/FID-{rule}" in scores:
          told = fid_lib.describe(made[rule], real[rule], rule)
          notes.append(f"FID {direction}: {told}")
      log(f"{direction}: FID")
  for rule in readers:
    for method in ("edit", "copy"):
      values = [
        v
        for n, v in scores.items()
        if n.startswith(f"{method}/") and n.endswith(f"/FID-{rule}")
      ]
      if values:
        scores[f"{method}/all/FID-{rule}"] = float(np.mean(values))
  protocol = settings.fid
  notes.append(
    f"FID: true pictures of split {protocol.true_split!r} with the wanted "
    f"value, edits of split {protocol.edit_split!r} with the other one, "
    f"{protocol.outputs} of each; 'all' is the mean over directions"
  )
  return scores, notes


class _Pictures:
  """Pictures of a split by the value of an attribute."""

  def __init__(self, settings, split, data_dir):
    self._source = settings.open(split, data_dir)
    self._prepare = transforms.make(
      transforms.Options(), settings.image_size, ("image",), ("image",)
    )
    self._names = settings.attributes
    table = attributes_lib.table_of(self._source, self._names)
    self._table = table[: settings.fid.pictures or None]

  def batches(self, name, value):
    """Pictures (n, s, s, 3) in [-1, 1] that have it, or have it not."""
    found = np.flatnonzero(self._table[:, self._names.index(name)] == value)
    rng = samplers.generator(0)
    for first in range(0, len(found), common.BATCH):
      part = found[first : first + common.BATCH]
      pictures = [self._prepare(self._source[int(i)], rng) for i in part]
      yield np.stack([picture["image"] for picture in pictures])


def _add(sets, readers, image):
  """Adds pictures to the statistics of every reader."""
  image = transforms.to_uint8(image)
  for rule, read in readers.items():
    sets[rule] = sets.get(rule, read.empty()).add(read(image))
