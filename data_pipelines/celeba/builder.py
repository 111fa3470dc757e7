"""CelebA-HQ as TensorFlow Datasets builders, one config per size and split.

For users of `tfds build` and `tfds.load`; importing this file imports
TensorFlow, and nothing else of the library does. Reading what it wrote needs
none: `sources.Tfds("celeba_hq/256_hisd")`.
"""

import dataclasses
import itertools

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.celeba import files, splits

SIZES = (128, 256, 512)
# Attributes with more than 1,412 pictures on either side, by far.
SPLIT_BY = (splits.FIRST, splits.PARTS, "Smiling", "Male", "Young", "Bangs")


@dataclasses.dataclass
class CelebaHqConfig(tfds.core.BuilderConfig):
  """One size and one way of splitting.

  Attributes:
    size: side of the pictures in pixels.
    split_by: see `splits.positions`.
    labels: whether to add the 19 classes of the masks.
    test_per_class: see `splits.positions`.
    pictures: how many there should be.
  """

  size: int = 256
  split_by: str = splits.FIRST
  labels: bool = False
  test_per_class: int = splits.TEST_PER_CLASS
  pictures: int = files.PICTURES


class CelebaHq(tfds.core.GeneratorBasedBuilder):
  """CelebA-HQ with CelebA's 40 attributes and CelebAMask-HQ's classes."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "First version."}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    files.INSTRUCTIONS + "\nThe folder CelebAMask-HQ goes into the manual "
    "folder (--manual_dir)."
  )
  BUILDER_CONFIGS = [
    CelebaHqConfig(
      name=f"{size}_{split_by}" + ("_labels" if labels else ""),
      size=size,
      split_by=split_by,
      labels=labels,
    )
    for size, split_by, labels in itertools.product(
      SIZES, SPLIT_BY, (False, True)
    )
  ]

  def __init__(self, *, file_format="array_record", **kwargs):
    # array_record: random access without TensorFlow.
    super().__init__(file_format=file_format, **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    config = self.builder_config
    size = config.size
    features = {
      "image": tfds.features.Image(shape=(size, size, 3), dtype=np.uint8),
      "landmarks5": tfds.features.Tensor(shape=(5, 2), dtype=np.float32),
      "attributes": tfds.features.Tensor(
        shape=(files.ATTRIBUTES,), dtype=np.int8
      ),
      "picture": tfds.features.Scalar(dtype=np.int32),
    }
    if config.labels:
      features["labels"] = tfds.features.Image(
        shape=(size, size, 1), dtype=np.uint8
      )
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features),
      supervised_keys=None,
      description=__doc__,
      homepage="https://github.com/switchablenorms/CelebAMask-HQ",
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    config = self.builder_config
    index = files.read_index(
      dl_manager.manual_dir / "CelebAMask-HQ", config.pictures, config.labels
    )
    self.info.metadata["attribute_names"] = list(index.attribute_names)
    return {
      split: self._generate_examples(
        index,
        splits.positions(
          config.split_by,
          split,
          index.attribute_names,
          index.attributes,
          index.partition,
          config.test_per_class,
        ),
      )
      for split in splits.names_of_splits(config.split_by)
    }

  def _generate_examples(self, index, positions):
    config = self.builder_config
    for number in positions.tolist():
      example = files.read_example(index, number, config.size, config.labels)
      example = {k: v for k, v in example.items() if k in self.info.features}
      if config.labels:
        example["labels"] = example["labels"][..., None]
      yield number, example
