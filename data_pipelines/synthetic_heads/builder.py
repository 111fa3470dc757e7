"""The synthetic heads as a TensorFlow Datasets builder.

For users of `tfds build` and `tfds.load`; importing this file imports
TensorFlow, and nothing else of the library does. Reading what it wrote needs
none: `sources.Tfds("synthetic_heads")`.
"""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.synthetic_heads import generate, worlds

_SHAPES = {
  "shape": (None,),
  "albedo": (None,),
  "expression": (None,),
  "pose": (6,),
  "gaze": (2,),
  "light": (9, 3),
  "camera": (3,),
  "landmarks5": (5, 2),
  "eg3d_camera": (25,),
}
_SHAPES68 = {"landmarks68": (68, 2), "visible68": (68,)}


@dataclasses.dataclass
class SyntheticHeadsConfig(tfds.core.BuilderConfig):
  """One size of the set.

  Attributes:
    size: side of the pictures in pixels.
    identities: people for training; validation and test get a sixteenth each.
    frames: pictures of each person.
    seed: of the world.
    world: see `worlds.load_world`.
    landmarks68: whether examples carry 68 points as well.
  """

  size: int = 64
  identities: int = 1024
  frames: int = 8
  seed: int = 0
  world: str = worlds.WORLD
  landmarks68: bool = False


class SyntheticHeads(tfds.core.GeneratorBasedBuilder):
  """Procedural heads with exact factors; no download, no licence."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "First version."}
  BUILDER_CONFIGS = [
    SyntheticHeadsConfig(name="64", size=64),
    SyntheticHeadsConfig(name="128", size=128),
    SyntheticHeadsConfig(name="256", size=256),
  ]

  def __init__(self, *, file_format="array_record", **kwargs):
    # array_record: random access without TensorFlow.
    super().__init__(file_format=file_format, **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    size = self.builder_config.size
    plane = tfds.features.Image(shape=(size, size, 1), dtype=np.uint8)
    features = {
      "image": tfds.features.Image(shape=(size, size, 3), dtype=np.uint8),
      "regions": plane,
      "labels": plane,
      "identity": tfds.features.Scalar(dtype=np.int32),
      "frame": tfds.features.Scalar(dtype=np.int32),
      "attributes": tfds.features.Tensor(shape=(None,), dtype=np.int8),
      "caption": tfds.features.Text(),
    }
    for name, shape in _SHAPES.items():
      features[name] = tfds.features.Tensor(shape=shape, dtype=np.float32)
    if self.builder_config.landmarks68:
      for name, shape in _SHAPES68.items():
        dtype = np.float32 if name.startswith("landmarks") else np.int8
        features[name] = tfds.features.Tensor(shape=shape, dtype=dtype)
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features),
      supervised_keys=None,
      description=__doc__,
      metadata=tfds.core.MetadataDict(
        attribute_names=list(
          worlds.load_world(self.builder_config.world).ATTRIBUTE_NAMES
        )
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    config = self.builder_config
    held_out = max(1, config.identities // 16)
    people = {
      "train": config.identities,
      "validation": held_out,
      "test": held_out,
    }
    return {
      split: self._generate_examples(split, count)
      for split, count in people.items()
    }

  def _generate_examples(self, split, people):
    config = self.builder_config
    first = generate.FIRST_IDENTITY[split]
    settings = generate.Settings(
      split=split,
      identities=(first, first + people),
      frames=config.frames,
      size=config.size,
      seed=config.seed,
      world=config.world,
      landmarks68=config.landmarks68,
    )
    names = set(self.info.features)
    for shard in range(settings.shards):
      for example in generate.shard_examples(settings, shard):
        example = {k: v for k, v in example.items() if k in names}
        for name in ("regions", "labels"):
          example[name] = np.asarray(example[name])[..., None]
        key = f"{int(example['identity'])}-{int(example['frame'])}"
        yield key, example
