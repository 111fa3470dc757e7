"""Reads the folder CelebAMask-HQ as it is unpacked, counting what is there.

Source: github.com/switchablenorms/CelebAMask-HQ, Lee et al. 2020.
"""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np
from PIL import Image

from data_pipelines import align, images, tables
from data_pipelines.synthetic_heads import labels

PICTURES = 30_000
ATTRIBUTES = 40
PARTITION_SIZES = (24_183, 2_993, 2_824)  # train, validation, test of CelebA

IMAGES = "CelebA-HQ-img"
MASKS = "CelebAMask-HQ-mask-anno"
TABLE = "CelebAMask-HQ-attribute-anno.txt"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
PARTITION = "list_eval_partition.txt"
_MASKS_PER_FOLDER = 2000

INSTRUCTIONS = f"""\
Download CelebAMask-HQ.zip from github.com/switchablenorms/CelebAMask-HQ
(non-commercial research only) and unpack it. Its folder CelebAMask-HQ holds
  {IMAGES}/0.jpg ... {PICTURES - 1}.jpg   (or .png, or 00000.jpg)
  {TABLE}
  {MAPPING}
  {MASKS}/0/00000_skin.png ... {MASKS}/14/...   (only for labels)
To split as CelebA does, put CelebA's own {PARTITION} beside them."""


class CelebaError(ValueError):
  """A folder that is not what it should be; the message says what is not."""


@dataclasses.dataclass(frozen=True)
class Index:
  """What the text files say of every picture.

  Attributes:
    root: the folder.
    attribute_names: CelebA's names.
    attributes: int8 (n, A), 0 or 1.
    original: int32 (n,), the picture's number in CelebA (its file is that
      number plus one); None without the mapping.
    partition: int8 (n,), 0 train, 1 validation, 2 test; None without the file.
    content: tells apart what the tables say.
    files: name of every picture's file.
  """

  root: pathlib.Path
  attribute_names: tuple[str, ...]
  attributes: np.ndarray
  original: np.ndarray | None
  partition: np.ndarray | None
  content: str
  files: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.attributes)


def _lines(path: pathlib.Path) -> list[list[str]]:
  """The words of every line that has any."""
  try:
    return tables.words(path)
  except tables.TableError as error:
    raise CelebaError(
      f"{error}; wanted the folder CelebAMask-HQ as it is unpacked"
    ) from error


def _table(path: pathlib.Path, pictures: int) -> tuple[tuple, np.ndarray]:
  """Names and 0/1 values of the attribute file: a count, names, rows."""
  lines = _lines(path)
  names = tuple(lines[1]) if len(lines) > 1 else ()
  rows = {_official_name(words[0]): words[1:] for words in lines[2:]}
  if len(names) != ATTRIBUTES:
    raise CelebaError(
      f"{path}: names {len(names)} attributes in its second line, wanted "
      f"{ATTRIBUTES}"
    )
  wanted = [f"{i}.jpg" for i in range(pictures)]
  missing = [name for name in wanted if name not in rows]
  if missing or len(rows) != pictures:
    raise CelebaError(
      f"{path}: has {len(rows)} pictures, wanted {pictures}"
      + (f"; {missing[0]} is missing" if missing else "")
    )
  for name, row in rows.items():
    if len(row) != ATTRIBUTES or not set(row) <= {"1", "-1"}:
      raise CelebaError(
        f"{path}: the line of {name} has {len(row)} values, wanted "
        f"{ATTRIBUTES} of 1 or -1"
      )
  values = np.asarray([rows[name] for name in wanted])
  return names, (values == "1").astype(np.int8)


def _official_name(name: str) -> str:
  """`7.jpg` of a table that was exported with `00007.png`."""
  stem = os.path.splitext(name)[0]
  return f"{int(stem)}.jpg" if stem.isascii() and stem.isdigit() else name


def _original(path: pathlib.Path, pictures: int) -> np.ndarray:
  """Numbers in CelebA; lines `idx orig_idx orig_file` below a header."""
  rows = _lines(path)[1:]
  numbers = {
    words[0]: words[1]
    for words in rows
    if len(words) == 3 and words[1].isdecimal() and len(words[1]) < 10
  }
  missing = [i for i in range(pictures) if str(i) not in numbers]
  if missing or len(rows) != pictures:
    raise CelebaError(
      f"{path}: has {len(rows)} pictures, wanted {pictures}"
      + (f"; number {missing[0]} is missing" if missing else "")
    )
  return np.asarray([int(numbers[str(i)]) for i in range(pictures)], np.int32)


def _partition(path: pathlib.Path, original: np.ndarray) -> np.ndarray:
  """0, 1 or 2 for every picture, by CelebA's own list of file names."""
  parts = {words[0]: words[-1] for words in _lines(path)}
  names = [f"{number + 1:06d}.jpg" for number in original]
  missing = [name for name in names if parts.get(name) not in ("0", "1", "2")]
  if missing:
    raise CelebaError(
      f"{path}: {len(missing)} of {len(names)} pictures have no part 0, 1 or "
      f"2, first {missing[0]}; wanted CelebA's own list"
    )
  out = np.asarray([int(parts[name]) for name in names], np.int8)
  sizes = tuple(np.bincount(out, minlength=3).tolist())
  if len(out) == PICTURES and sizes != PARTITION_SIZES:
    raise CelebaError(
      f"{path}: makes parts of {sizes} pictures, wanted {PARTITION_SIZES}"
    )
  return out


def read_index(
  root: str | os.PathLike,
  pictures: int = PICTURES,
  masks: bool = False,
  partition: str | os.PathLike | None = None,
) -> Index:
  """Reads the text files and counts the pictures; opens no picture.

  Args:
    root: the folder CelebAMask-HQ.
    pictures: how many there should be.
    masks: whether the masks should be there as well.
    partition: CelebA's list of train, validation and test; by default the one
      in the folder, if there is one.

  Returns:
    The index.

  Raises:
    CelebaError: something is missing; names the file and the numbers.
  """
  root = pathlib.Path(root)
  names, values = _table(root / TABLE, pictures)
  files = _picture_files(root / IMAGES, pictures)
  if masks:
    _check_masks(root / MASKS, pictures)
  if partition is None and (root / PARTITION).exists():
    partition = root / PARTITION
  original = parts = None
  if partition is not None or (root / MAPPING).exists():
    original = _original(root / MAPPING, pictures)
  if partition is not None:
    parts = _partition(pathlib.Path(partition), original)
  seen = hashlib.sha256()
  for array in (values, original, parts):
    seen.update(b"none" if array is None else array.tobytes())
  if files != _official(pictures):
    seen.update(repr(files).encode())
  content = seen.hexdigest()[:16]
  return Index(root, names, values, original, parts, content, files)


def _official(pictures: int) -> tuple[str, ...]:
  """Names of the files as they are unpacked."""
  return tuple(f"{i}.jpg" for i in range(pictures))


def _picture_files(folder: pathlib.Path, pictures: int) -> tuple[str, ...]:
  """The file of every number: `7.jpg`, or `7.png`, `00007.jpg` and the like.

  Raises:
    CelebaError: some are missing, or there are two of one number; the message
      fits the cause.
  """
  official = _official(pictures)
  found = set(os.listdir(folder)) if folder.is_dir() else None
  if found is None:
    raise CelebaError(f"{folder}: no such folder; unpack CelebAMask-HQ.zip")
  if found >= set(official):
    return official
  numbered: dict[int, list[str]] = {}
  for name in sorted(found):
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in images.SUFFIXES and stem.isascii() and stem.isdigit():
      numbered.setdefault(int(stem), []).append(name)
  files, twice = [], []
  for number, name in enumerate(official):
    names = numbered.get(number, [])
    files += [name] if name in names else names[:1]
    twice += [] if name in names or len(names) < 2 else [names]
  if len(files) < pictures:
    raise CelebaError(f"{folder}: {_missing(numbered, pictures, len(found))}")
  if twice:
    raise CelebaError(
      f"{folder}: {' and '.join(twice[0])} are pictures of one number, and "
      f"{len(twice) - 1} more; keep one of each"
    )
  return tuple(files)


def _missing(numbered: dict[int, list[str]], pictures: int, files: int) -> str:
  """Why pictures are missing, and what to do."""
  wanted = f"wanted 0.jpg to {pictures - 1}.jpg (or .png, or 00000.jpg)"
  if not numbered:
    return f"holds {files} files, none named by its number; {wanted}"
  missing = [i for i in range(pictures) if i not in numbered]
  beyond = [i for i in numbered if i >= pictures]
  first = f"{len(missing)} of {pictures} pictures are missing, first "
  if missing == [0] and pictures in numbered:
    return (
      f"counts its pictures from 1 to {pictures}; {wanted}: rename each to the "
      "number before"
    )
  if len(missing) < pictures and not beyond:
    return f"{first}{missing[0]}.jpg; unpack CelebAMask-HQ.zip again"
  return (
    f"{first}{missing[0]}.jpg, while {len(beyond)} have numbers from "
    f"{pictures} on; {wanted}, the pictures of CelebA-HQ and not of CelebA"
  )


def _mask_folder(number: int) -> str:
  return str(number // _MASKS_PER_FOLDER)


def _check_masks(folder: pathlib.Path, pictures: int) -> None:
  """Every picture needs a mask of the skin or any other part."""
  found: set[int] = set()
  for name in {_mask_folder(i) for i in range(pictures)}:
    files = os.listdir(folder / name) if (folder / name).is_dir() else ()
    stems = (file.partition("_")[0] for file in files)
    found |= {int(stem) for stem in stems if stem.isdigit()}
  missing = sorted(set(range(pictures)) - found)
  if missing:
    raise CelebaError(
      f"{folder}: {len(missing)} of {pictures} pictures have no mask, first "
      f"{_mask_folder(missing[0])}/{missing[0]:05d}_*.png; unpack "
      "CelebAMask-HQ.zip again, or leave the labels out"
    )


def read_picture(index: Index, number: int, size: int) -> np.ndarray:
  """One picture, uint8 (size, size, 3), shrunk with Lanczos' filter.

  Raises:
    ImageError: it is damaged.
  """
  image = images.read_image(index.root / IMAGES / index.files[number])
  picture = Image.fromarray(image)
  return np.array(picture.resize((size, size), Image.Resampling.LANCZOS))


def read_labels(index: Index, number: int, size: int) -> np.ndarray:
  """The 19 classes of one picture, uint8 (size, size).

  A part lies over those before it in CLASS_NAMES, as in CelebAMask-HQ's own
  `g_mask.py`.

  Raises:
    ImageError: a mask is damaged.
    CelebaError: the masks of a picture differ in size.
  """
  folder = index.root / MASKS / _mask_folder(number)
  out = None
  for place, name in enumerate(labels.CLASS_NAMES):
    file = folder / f"{number:05d}_{name}.png"
    if not file.exists():
      continue
    mask = images.read_image(file)[..., 0] > 0
    if out is None:
      out = np.zeros(mask.shape, np.uint8)
    if mask.shape != out.shape:
      raise CelebaError(
        f"{file}: is {mask.shape}, the masks before it {out.shape}"
      )
    out[mask] = place
  if out is None:
    raise CelebaError(f"{folder}: no mask {number:05d}_*.png")
  picture = Image.fromarray(out)
  return np.array(picture.resize((size, size), Image.Resampling.NEAREST))


def read_example(
  index: Index, number: int, size: int, masks: bool = False
) -> dict[str, np.ndarray]:
  """One example.

  Args:
    index: of the folder.
    number: of the picture in CelebA-HQ.
    size: side of the picture in pixels.
    masks: whether to add the labels.

  Returns:
    `image` uint8 (s, s, 3), `landmarks5` (5, 2) where the crop puts a mean
    face, the same for all, `attributes` int8 (A,), `picture` int32, and where
    known `original` int32 (its number in CelebA), `partition` int8, `labels`
    uint8 (s, s).
  """
  out = {
    "image": read_picture(index, number, size),
    "landmarks5": align.CELEBA_HQ5.copy(),
    "attributes": index.attributes[number],
    "picture": np.int32(number),
  }
  if index.original is not None:
    out["original"] = np.int32(index.original[number])
  if index.partition is not None:
    out["partition"] = np.int8(index.partition[number])
  if masks:
    out["labels"] = read_labels(index, number, size)
  return out
