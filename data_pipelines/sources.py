"""Opens a set of examples by name: `open_source(spec, data_dir, split)`.

A source is anything with `len(source)` and `source[i] -> {name: array}`.
Adding one means one class here, or a builder of TensorFlow Datasets, and its
name in a config.
"""

import functools
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from data_pipelines import (
  align,
  domains,
  images,
  landmarks,
  records,
  samplers,
)
from data_pipelines.celeba import prepare as celeba
from data_pipelines.celeba import splits
from data_pipelines.synthetic_heads import generate


class SourceError(ValueError):
  """A source that cannot be opened; the message says what to change."""


class Source(Protocol):
  """What the loader needs."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...


class OnlineSource:
  """Synthetic heads drawn when asked for; nothing is stored.

  Args:
    size: side of the pictures in pixels.
    identities: how many people.
    frames: pictures of each.
    split: its range of identities is used.
    seed: of the world.
    balance: CelebA attribute names to be brought near one half.
    world: see `synthetic_heads.generate.load_world`.
  """

  def __init__(
    self,
    size: int,
    identities: int = 100_000,
    frames: int = 8,
    split: str = "train",
    seed: int = 0,
    balance: Sequence[str] = (),
    world: str = generate.WORLD,
  ):
    if split not in generate.FIRST_IDENTITY:
      raise SourceError(
        f"no split {split!r}; wanted one of {sorted(generate.FIRST_IDENTITY)}"
      )
    self._size, self._people, self._frames = size, identities, frames
    self._first = generate.FIRST_IDENTITY[split]
    self._seed, self._balance = seed, tuple(balance)
    self._world = generate.load_world(world)
    self._identity = functools.lru_cache(maxsize=256)(self._draw_identity)

  def _draw_identity(self, person: int) -> Any:
    return self._world.sample_identity(self._seed, person, self._balance)

  def __len__(self) -> int:
    return self._people * self._frames

  def __getitem__(self, index: int) -> dict[str, Any]:
    person, frame = divmod(int(index), self._frames)
    person += self._first
    drawn = self._world.sample_frame(self._seed, person, frame, self._balance)
    (example,) = self._world.render_frames(
      self._identity(person), [drawn], self._size
    )
    return dict(example)

  def column(self, name: str) -> np.ndarray:
    """The identity or frame of every example."""
    person, frame = np.divmod(np.arange(len(self)), self._frames)
    columns = {"identity": person + self._first, "frame": frame}
    if name not in columns:
      raise SourceError(f"no column {name!r}; wanted identity or frame")
    return columns[name]

  @property
  def attribute_names(self) -> tuple[str, ...]:
    """What the numbers of the field `attributes` stand for."""
    return tuple(self._world.ATTRIBUTE_NAMES)

  def attribute_table(
    self, positions: Sequence[int] | np.ndarray | None = None
  ) -> np.ndarray:
    """Attributes of all examples, or of those at `positions`; int8 (n, A).

    Factors are drawn, pictures are not: about 1 ms each on one core.
    """
    rows = []
    for index in range(len(self)) if positions is None else positions:
      person, frame = divmod(int(index), self._frames)
      person += self._first
      drawn = self._world.sample_frame(self._seed, person, frame, self._balance)
      has = self._world.attributes(self._identity(person), drawn)
      rows.append([has[name] for name in self.attribute_names])
    return np.asarray(rows, np.int8)


def identity_name(relative: pathlib.PurePath) -> str:
  """Who is on a picture, by its path: its folder, or `who_what.jpg`.

  Args:
    relative: the picture's path relative to the top folder.

  Returns:
    The folder for pictures in folders; else the file name up to the last
    underscore.
  """
  if len(relative.parts) > 1:
    return relative.parent.as_posix()
  return relative.stem.rpartition("_")[0] or relative.stem


def held_out_split(identity: str, holdout: float) -> str:
  """The split of a person, by a stable hash of the name.

  Args:
    identity: its name.
    holdout: share of people kept out of training, half of it for validation.

  Returns:
    "train", "validation" or "test".
  """
  digest = hashlib.sha256(identity.encode("utf-8")).digest()
  place = int.from_bytes(digest[:8], "big") / 2.0**64
  if place >= holdout:
    return "train"
  return "validation" if place < holdout / 2 else "test"


class FolderIndex:
  """The pictures of a folder with identities and splits.

  A sub-folder named like the split is used as the split; otherwise people are
  held out by a hash of their name.

  Args:
    path: the folder.
    split: "train", "validation", "test", or "all".
    holdout: share of people kept out of training.

  Raises:
    SourceError: no person falls into this split.
    images.ImageError: there are no pictures.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    split: str = "train",
    holdout: float = 0.1,
  ):
    self.path = pathlib.Path(path)
    if (self.path / split).is_dir():
      self.path, holdout = self.path / split, 0.0
    files = images.list_images(self.path)
    names = sorted({identity_name(file) for file in files})
    self.numbers = {name: number for number, name in enumerate(names)}
    self.files = [
      file
      for file in files
      if split == "all"
      or holdout <= 0
      or held_out_split(identity_name(file), holdout) == split
    ]
    if not self.files:
      raise SourceError(
        f"{self.path}: none of the {len(names)} people falls into split "
        f"{split!r} with holdout {holdout}; raise `holdout`"
      )

  def identity(self, file: pathlib.PurePath) -> int:
    """The number of the person on a picture."""
    return self.numbers[identity_name(file)]

  def frame_numbers(self) -> list[int]:
    """A running number of each picture within its person."""
    seen: dict[str, int] = {}
    out = []
    for file in self.files:
      name = identity_name(file)
      seen[name] = seen.get(name, -1) + 1
      out.append(seen[name])
    return out


class ImageFolderSource:
  """A folder of people read as it is, no preparation.

  Without landmarks the pictures count as aligned and are cut square.

  Args:
    path: the folder; one sub-folder per person, or files `who_what.jpg`.
    size: side of the pictures in pixels.
    split: see `FolderIndex`.
    holdout: see `FolderIndex`.
    landmarks_file: five points per picture, see `landmarks.read_landmarks`.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    size: int,
    split: str = "train",
    holdout: float = 0.1,
    landmarks_file: str | os.PathLike | None = None,
  ):
    self._index = FolderIndex(path, split, holdout)
    self._frames = self._index.frame_numbers()
    self._size = size
    self._points = None
    if landmarks_file is not None:
      self._points = landmarks.read_landmarks(landmarks_file)
      missing = [
        str(file)
        for file in self._index.files
        if landmarks.find(self._points, file) is None
      ]
      if missing:
        raise SourceError(
          f"{landmarks_file}: no landmarks for {len(missing)} of "
          f"{len(self._frames)} pictures, first {missing[:3]}"
        )

  def __len__(self) -> int:
    return len(self._frames)

  def __getitem__(self, index: int) -> dict[str, Any]:
    file = self._index.files[index]
    image = images.read_image(self._index.path / file)
    if self._points is None:
      aligned = align.centre_square(image, self._size)
    else:
      points = landmarks.find(self._points, file)
      aligned = align.align(image, points, self._size)
    return {
      "image": aligned.image,
      "landmarks5": aligned.landmarks5,
      "identity": np.int32(self._index.identity(file)),
      "frame": np.int32(self._frames[index]),
    }

  def column(self, name: str) -> np.ndarray:
    """The identity or frame of every example, without opening pictures."""
    if name == "identity":
      return np.asarray([self._index.identity(f) for f in self._index.files])
    if name == "frame":
      return np.asarray(self._frames)
    raise SourceError(f"no column {name!r}; wanted identity or frame")


class TfdsSource:
  """A prepared TensorFlow Datasets set, read without TensorFlow.

  Args:
    name: of the data set, with config and version if need be.
    split: in the words of TensorFlow Datasets.
    data_dir: where it was prepared, in the array_record format.
  """

  def __init__(self, name: str, split: str, data_dir: str | os.PathLike):
    self._name, self._split = name, split
    self._data_dir = os.fspath(data_dir)
    self._source = self._open()

  def _open(self, **options: Any) -> Any:
    import tensorflow_datasets as tfds  # slow to import

    try:
      return tfds.data_source(
        self._name, split=self._split, data_dir=self._data_dir, **options
      )
    except Exception as error:  # many kinds, none of them speaks of the config
      raise SourceError(
        f"tfds:{self._name}, split {self._split!r}, cannot be opened in "
        f"{self._data_dir} ({type(error).__name__}: "
        f"{str(error).splitlines()[0]}); prepare it with `tfds build "
        "--file_format=array_record`"
      ) from error

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    out = {}
    for name, value in self._source[index].items():
      if isinstance(value, bytes):
        value = value.decode("utf-8")
      elif name in ("regions", "labels") and np.ndim(value) == 3:
        value = value[..., 0]
      out[name] = value
    return out

  @property
  def attribute_names(self) -> tuple[str, ...]:
    """What the numbers of the field `attributes` stand for.

    Raises:
      SourceError: the set does not say.
    """
    metadata = self._source.dataset_info.metadata or {}
    if "attribute_names" not in metadata:
      raise SourceError(
        f"tfds:{self._name} names no attributes; wanted `attribute_names` in "
        "the metadata that its builder gives"
      )
    return tuple(metadata["attribute_names"])

  def attribute_table(
    self, positions: Sequence[int] | np.ndarray | None = None
  ) -> np.ndarray:
    """Attributes of all examples, or of those at `positions`; int8 (n, A).

    Records are read through, but no picture is decoded.
    """
    import tensorflow_datasets as tfds

    pictures = {
      name: tfds.decode.SkipDecoding()
      for name, feature in self._source.dataset_info.features.items()
      if isinstance(feature, tfds.features.Image)
    }
    source = self._open(decoders=pictures)
    rows = range(len(self)) if positions is None else positions
    return np.stack([source[int(i)]["attributes"] for i in rows]).astype(
      np.int8
    )


_KINDS = (
  "synthetic_heads",
  "array_record",
  "online",
  "image_folder",
  "domain_folder",
)


def _records(spec: Mapping, folder: pathlib.Path, split: str) -> Any:
  """A split of its own, or the part of a whole set that `split_by` says."""
  fields = spec.get("read_fields")
  if not spec.get("split_by"):
    return records.RecordSource(folder / split, fields)
  source = records.RecordSource(folder / celeba.SPLIT, fields)
  positions = splits.positions(
    spec["split_by"],
    split,
    source.attribute_names,
    source.attribute_table(),
    samplers.column_of(source, "partition"),
    spec.get("test_per_class") or splits.TEST_PER_CLASS,
  )
  return samplers.SubsetSource(source, positions)


def _open(kind: str, spec: Mapping, data_dir: pathlib.Path, split: str) -> Any:
  if kind in ("synthetic_heads", "array_record"):
    return _records(spec, data_dir / spec.get("folder", ""), split)
  if kind == "online":
    names = ("size", "identities", "frames", "seed", "balance", "world")
    options = {n: spec[n] for n in names if spec.get(n) is not None}
    if "size" not in options:
      raise SourceError("source 'online' needs `size`, in pixels")
    return OnlineSource(split=split, **options)
  if kind == "image_folder":
    if spec.get("size") is None:
      raise SourceError("source 'image_folder' needs `size`, in pixels")
    return ImageFolderSource(
      data_dir / spec.get("folder", ""),
      spec["size"],
      split,
      spec.get("holdout", 0.1),
      spec.get("landmarks"),
    )
  if kind == "domain_folder":
    if spec.get("size") is None:
      raise SourceError("source 'domain_folder' needs `size`, in pixels")
    folder = data_dir / spec.get("folder", "")
    alignment = spec.get("alignment", "synthetic_heads")
    return domains.DomainFolderSource(folder, spec["size"], split, alignment)
  if kind.startswith("tfds:"):
    return TfdsSource(kind.removeprefix("tfds:"), split, data_dir)
  raise SourceError(
    f"unknown source {kind!r}; wanted one of {', '.join(_KINDS)}, or tfds:NAME"
  )


def open_source(
  spec: str | Mapping[str, Any],
  data_dir: str | os.PathLike,
  split: str = "train",
) -> Any:
  """Opens the examples a stage's `data` section names.

  Args:
    spec: a name, or a mapping with `source` and any of
      `folder` (under `data_dir`), `size`, `identities`, `frames`, `seed`,
      `balance`, `holdout`, `landmarks`, `alignment` (of `domain_folder`, see
      `align.TEMPLATES`), `read_fields` (decode only these),
      `split_by` and `test_per_class` (a set prepared as a whole, see
      `celeba.splits`), `limit` (only the first examples), `balanced` (all
      identities equally often), `paired` (two frames as one example, the second
      behind `pair_`) and how pairs are drawn, see `samplers.PairSource`:
      `pair_seed`, `pair_within`, `pair_across`, `pairs_per_identity`. Other
      entries are ignored.
    data_dir: where the data lie.
    split: "train", "validation", "test", "pairs" or "swaps".

  Returns:
    A source.

  Raises:
    SourceError, RecordError, ImageError: it cannot be opened.
  """
  if isinstance(spec, str):
    spec = {"source": spec}
  kind = spec.get("source") or spec.get("kind")
  if not kind:
    raise SourceError(f"data has no `source`: {dict(spec)}")
  source = _open(kind, spec, pathlib.Path(data_dir), split)
  if spec.get("limit"):
    source = samplers.TakeSource(source, spec["limit"])
  if spec.get("paired"):
    return samplers.PairSource.from_config(source, spec, 0, "pair_")
  if spec.get("balanced"):
    return samplers.BalancedSource(source)
  return source
