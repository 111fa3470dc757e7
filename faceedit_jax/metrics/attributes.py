"""How well an edit changes one attribute and nothing else.

Attribute correctness and irrelevance preservation are the two requirements in
L2M-GAN's abstract; how they are measured here is our own. The region measures
need pictures of the true outcome: glasses and bangs come in many forms, so
there are several, and the nearest one counts.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from faceedit_jax.core.typing import Array, Bool, Float, UInt8, typechecked
from faceedit_jax.metrics import image as image_metrics

# A truth differs from the source where a channel moves by more than that many
# of 255 grey levels; the region reaches so many pixels further.
LEVELS, REACH = 4, 2


@typechecked
def correctness(
  logits: Float[Array, "b a"], attribute: int, wanted: bool
) -> Float[Array, "b"]:
  """Whether each picture is read as having (lacking) an attribute, 1 or 0.

  Args:
    logits: of the classifier.
    attribute: which of them.
    wanted: the value that was to be reached.
  """
  return ((logits[:, attribute] > 0) == wanted).astype(jnp.float32)


@typechecked
def other_changes(
  edit: Float[Array, "b a"], source: Float[Array, "b a"], attribute: int
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
  """How the readings of the attributes move that were to stay.

  Args:
    edit: logits of the edited pictures.
    source: logits of their sources.
    attribute: the one that was edited; it does not count.

  Returns:
    Share of the others whose reading flips, and mean absolute change of their
    probability; NaN where there are no others.
  """
  keep = np.arange(edit.shape[1]) != attribute
  edit, source = edit[:, keep], source[:, keep]
  flips = ((edit > 0) != (source > 0)).astype(jnp.float32)
  change = jnp.abs(jax.nn.sigmoid(edit) - jax.nn.sigmoid(source))
  return flips.mean(-1), change.mean(-1)


@typechecked
def region(
  source: UInt8[np.ndarray, "b h w 3"], truths: UInt8[np.ndarray, "b k h w 3"]
) -> Bool[np.ndarray, "b h w"]:
  """Where an edit may change the picture.

  Args:
    source: pictures before the edit.
    truths: several pictures of the true outcome each.

  Returns:
    Pixels within `REACH` rows and columns of one where any truth differs from
    the source by more than `LEVELS` grey levels in any channel.
  """
  gap = np.abs(truths.astype(np.int16) - source[:, None].astype(np.int16))
  changed = (gap > LEVELS).any((1, 4))
  reached = np.ones((1, 2 * REACH + 1, 2 * REACH + 1), bool)
  return ndimage.binary_dilation(changed, reached)


@jax.jit
@typechecked
def inside_error(
  picture: Float[Array, "b h w 3"],
  truths: Float[Array, "b k h w 3"],
  mask: Bool[Array, "b h w"],
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
  """Error in the region to the truth that is nearest there.

  Args:
    picture: edited pictures, unit.
    truths: several pictures of the true outcome each, unit.
    mask: the region.

  Returns:
    The least mean absolute and the least mean squared error over the truths;
    NaN where the region is empty.
  """
  gap = picture[:, None] - truths
  weight = mask[:, None, :, :, None].astype(jnp.float32)
  pixels = 3 * jnp.sum(weight, axis=(2, 3, 4))
  absolute = jnp.sum(jnp.abs(gap) * weight, axis=(2, 3, 4)) / pixels
  squared = jnp.sum(jnp.square(gap) * weight, axis=(2, 3, 4)) / pixels
  return absolute.min(1), squared.min(1)


@jax.jit
@typechecked
def outside_psnr(
  picture: Float[Array, "b h w 3"],
  source: Float[Array, "b h w 3"],
  mask: Bool[Array, "b h w"],
) -> Float[Array, "b"]:
  """PSNR in dB between edit and source outside the region, both unit."""
  return image_metrics.psnr(picture, source, mask=~mask)


@jax.jit
@typechecked
def to_nearest_truth(
  picture: Float[Array, "b h w 3"], truths: Float[Array, "b k h w 3"]
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
  """PSNR and SSIM to the truth that is nearest over the whole picture.

  Args:
    picture: edited pictures, unit.
    truths: several pictures of the true outcome each, unit.

  Returns:
    Both (b,), to the truth of the least mean squared error.
  """
  errors = jnp.square(picture[:, None] - truths).mean((2, 3, 4))
  at = errors.argmin(1)[:, None, None, None, None]
  nearest = jnp.take_along_axis(truths, at, axis=1)[:, 0]
  return (
    image_metrics.psnr(picture, nearest),
    image_metrics.ssim(picture, nearest),
  )
