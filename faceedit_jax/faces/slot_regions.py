"""Which slot stands for which region of the picture, and how to look at it.

DiffFAE section 4.2: four slots take over face, hair, clothes and background
without supervision. The regions of a labelled set only name the slots
afterwards; they enter no loss.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Region = Literal["face", "hair", "clothes", "background"]
REGIONS: tuple[Region, ...] = get_args(Region)
UNNAMED = len(REGIONS)  # "region" of slots that nobody has named
# Skin, violet, blue, grey: the colours of the regions in every picture.
COLOURS = np.array(
  [[230, 190, 160], [110, 60, 160], [40, 140, 200], [70, 70, 70]], np.float32
)
# Slots beyond the regions' number get the colours that follow.
MORE_COLOURS = np.array(
  [[230, 120, 40], [90, 170, 70], [220, 70, 120], [240, 220, 90]], np.float32
)


def confusion(masks, regions):
  """Pixels that each slot and each region share.

  Args:
    masks: slot masks (b, h, w, k).
    regions: (b, H, W) int, 0..3; H, W are multiples of h, w.

  Returns:
    (k, 4): soft masks are hardened by argmax, counts are per coarse pixel.
  """
  height, width = masks.shape[1:3]
  step_y, step_x = regions.shape[1] // height, regions.shape[2] // width
  truth = jnp.stack([regions == r for r in range(len(REGIONS))], axis=-1)
  truth = truth.astype(jnp.float32)
  truth = truth.reshape(
    truth.shape[0], height, step_y, width, step_x, len(REGIONS)
  ).mean(axis=(2, 4))
  hard = masks.argmax(-1)[..., None] == jnp.arange(masks.shape[-1])
  return jnp.einsum("bhwk,bhwr->kr", hard.astype(jnp.float32), truth)


def from_names(names: Sequence[str], slots: int) -> np.ndarray:
  """The confusion (k, 4) of slots that somebody has named by looking.

  Args:
    names: region of each slot.
    slots: how many slots there are.

  Raises:
    ValueError: one line, when a slot has no name, a name is no region, or a
      region has no slot although there are enough.
  """
  unknown = [n for n in names if n not in REGIONS]
  absent = [r for r in REGIONS if r not in names] if slots >= 4 else []
  if len(names) != slots or unknown or absent:
    raise ValueError(
      f"recipe.slot_names is {tuple(names)}; wanted one of {REGIONS} for each "
      f"of {slots} slots, and each of them at least once"
    )
  at = [REGIONS.index(name) for name in names]
  return np.eye(len(REGIONS), dtype=np.float32)[at]


def assign(counts):
  """Region of each slot (k,), from a confusion (k, 4).

  With as many slots as regions it is the one-to-one assignment of the best
  mean IoU; otherwise each slot goes to the region that it covers most.
  """
  slots = counts.shape[0]
  if slots != len(REGIONS):
    return counts.argmax(axis=1)
  union = counts.sum(1)[:, None] + counts.sum(0)[None] - counts
  score = counts / jnp.maximum(union, 1e-6)
  orders = np.array(list(itertools.permutations(range(slots))))
  total = score[np.arange(slots)[None], orders].sum(axis=1)
  return jnp.asarray(orders)[total.argmax()]


def are_named(counts) -> bool:
  """Whether a confusion (k, 4) says anything: nothing counted, nothing named.

  Args:
    counts: values, no tracer.
  """
  return bool(np.asarray(counts).any())


def named_regions(counts):
  """Region (k,) of each slot as `assign` does; UNNAMED where nothing counted.

  Args:
    counts: (k, 4).
  """
  return jnp.where(counts.any(), assign(counts), UNNAMED)


def mean_iou(counts, regions_of_slots):
  """Mean IoU over the four regions for a confusion and an assignment."""
  onto = regions_of_slots[:, None] == jnp.arange(len(REGIONS))
  merged = jnp.einsum("kr,kq->rq", onto.astype(jnp.float32), counts)
  union = merged.sum(1) + merged.sum(0) - jnp.diag(merged)
  return (jnp.diag(merged) / jnp.maximum(union, 1e-6)).mean()


def paint(masks, regions_of_slots, size: int):
  """Pictures (b, size, size, 3) in [-1, 1] of slot masks (b, h, w, k).

  Each pixel shows the blend of the slots' colours, a slot's colour being that
  of its region; a second slot of one region, and slots without names, take
  colours of their own.
  """
  slots = masks.shape[-1]
  colours = jnp.asarray(np.concatenate([COLOURS, MORE_COLOURS]))
  if slots == len(REGIONS):
    own = jnp.arange(slots) + len(REGIONS)
    unnamed = regions_of_slots == UNNAMED
    palette = colours[jnp.where(unnamed, own, regions_of_slots)]
  else:
    palette = colours[:slots]
  image = jnp.einsum("bhwk,kc->bhwc", masks, palette / 127.5 - 1)
  return upsample(image, size)


@functools.cache
def _captions(slots: int, size: int) -> np.ndarray:
  """Captions "SLOT REGION" (k, 5, h, size) in 0..1, for every combination.

  The fifth is that of a slot without a name.
  """
  font = ImageFont.load_default(size=max(9.0, size / 7))
  strip = int(font.getbbox("bg")[3]) + 2
  names = (*REGIONS, "")
  out = np.zeros((slots, len(names), strip, size), np.float32)
  for slot in range(slots):
    for at, region in enumerate(names):
      drawn = Image.new("L", (size, strip))
      ImageDraw.Draw(drawn).text((1, 0), f"{slot} {region}", 255, font)
      out[slot, at] = np.asarray(drawn, np.float32) / 255
  return out


def attended(image, masks):
  """The pictures (b, k, s, s, 3), dark where other slots look.

  Args:
    image: pictures (b, s, s, 3) in [-1, 1].
    masks: slot masks (b, h, w, k).
  """
  share = jnp.moveaxis(upsample(masks, image.shape[1]), -1, 1)[..., None]
  return (image[:, None] + 1) * (0.15 + 0.85 * share) - 1


def named(image, masks, regions_of_slots):
  """What each slot attends to, with its number and the name it has now.

  Args:
    image: pictures (b, s, s, 3) in [-1, 1].
    masks: slot masks (b, h, w, k).
    regions_of_slots: (k,) region of each slot.

  Returns:
    {"slot_0": (b, s, s, 3), ...}: the picture, dark where other slots look.
  """
  size, slots = image.shape[1], masks.shape[-1]
  tiles = attended(image, masks)
  text = jnp.asarray(_captions(slots, size))
  text = text[jnp.arange(slots), regions_of_slots][None, ..., None]
  strip = text.shape[2]
  top = jnp.maximum(tiles[:, :, :strip] * 0.5 - 0.5, 2 * text - 1)
  tiles = jnp.concatenate([top, tiles[:, :, strip:]], axis=2)
  return {f"slot_{slot}": tiles[:, slot] for slot in range(slots)}


def upsample(image, size: int):
  """Nearest up-sampling, so that a coarse map still looks coarse."""
  times = size // image.shape[1]
  return jnp.repeat(jnp.repeat(image, times, axis=1), times, axis=2)
