"""FID: the Frechet distance between Inception features of two picture sets.

Heusel et al. 2017; the metric of DiffFAE Sec. 5.1, which names no tool. The
resizing rule changes the value, so it is part of the name: pytorch-fid's
(bilinear, no antialiasing) by default, clean-fid's (Parmar et al. 2022) on
request, and those of StarGAN v2 and of L2M-GAN's release, whose network is
torchvision's. So does the number of pictures: a value is given with both.
"""

import dataclasses
import functools
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import Image

from faceedit_jax.core.typing import UInt8, Variables, typechecked
from faceedit_jax.metrics import frechet
from faceedit_jax.models.perception.feature_resnet import imagenet_units
from faceedit_jax.models.perception.inception import Inception
from faceedit_jax.nn.layers import resize

SIZE = 299  # side that the network reads, in pixels
Rule = Literal["pytorch-fid", "clean-fid", "stargan-v2", "l2m-gan"]
RULES: dict[str, str] = {
  "pytorch-fid": "bilinear to 299 without antialiasing",
  "clean-fid": "Pillow's antialiased bicubic to 299 in float",
}
# With torchvision's network (`Inception.tensorflow` False).
TORCHVISION_RULES: dict[str, str] = {
  "stargan-v2": "torchvision's network, Pillow's bilinear to 256, then 299",
  "l2m-gan": "torchvision's network, Pillow's bilinear to 299",
}


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Mean and covariance of a set of features, as files hold them.

  Attributes:
    mean: (d,).
    covariance: (d, d), unbiased.
    count: number of pictures; None where a file does not say.
  """

  mean: np.ndarray
  covariance: np.ndarray
  count: int | None = None


Features = frechet.FeatureState | Statistics


def save(path: str | pathlib.Path, features: Features) -> None:
  """Writes an .npz that pytorch-fid and clean-fid read: `mu`, `sigma`.

  `count`, the number of pictures, stands beside them.
  """
  count = -1 if features.count is None else features.count
  with pathlib.Path(path).open("wb") as file:
    np.savez(file, mu=features.mean, sigma=features.covariance, count=count)


def load(path: str | pathlib.Path) -> Statistics:
  """Reads an .npz of `save`, pytorch-fid or clean-fid.

  Raises:
    ValueError: one line.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      missing = [name for name in ("mu", "sigma") if name not in file.files]
      if missing:
        raise ValueError(f"it has no {missing}, only {file.files[:5]}")
      mean, covariance = (np.float64(file[name]) for name in ("mu", "sigma"))
      count = int(file["count"]) if "count" in file.files else -1
    if mean.ndim != 1 or covariance.shape != (len(mean),) * 2:
      raise ValueError(
        f"mu and sigma have shapes {mean.shape} and {covariance.shape}"
      )
  except (OSError, ValueError, TypeError, zipfile.BadZipFile) as e:
    line = str(e).split("\n")[0]
    raise ValueError(f"FID reference {path} cannot be read: {line}") from e
  return Statistics(mean, covariance, None if count < 0 else count)


def fid(a: Features, b: Features) -> float:
  """The Frechet distance; `describe` says of what.

  Raises:
    ValueError: features of two networks, or fewer than two pictures.
  """
  if a.mean.shape != b.mean.shape:
    raise ValueError(
      f"FID between {a.mean.size} and {b.mean.size} features: the reference "
      "belongs to another network"
    )
  # Rounding may take the distance of equal sets below 0.
  return max(frechet.distance(a, b), 0.0)


def describe(a: Features, b: Features, rule: str) -> str:
  """What a value stands on: tool, resizing rule, numbers of pictures."""
  few = min(n for n in (a.count, b.count, np.inf) if n is not None)
  text = (
    f"{rule} ({(RULES | TORCHVISION_RULES)[rule]}), {a.count} pictures against "
    f"{'an unknown number' if b.count is None else b.count}"
  )
  if few <= a.mean.size:
    text += f"; fewer than the {a.mean.size} features need: a high value"
  return text


@typechecked
def clean_resize(
  pictures: UInt8[np.ndarray, "n h w 3"],
) -> np.ndarray:
  """clean-fid's resizing, (n, 299, 299, 3) float32 in 0..255.

  Each channel is resized as float, so nothing is rounded, and cut off at the
  ends of the range.
  """

  def one(channel):
    channel = Image.fromarray(channel.astype(np.float32))
    made = channel.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(made).clip(0, 255)

  return np.stack(
    [np.stack([one(p[..., c]) for c in range(3)], -1) for p in pictures]
  )


@typechecked
def bilinear_resize(
  pictures: UInt8[np.ndarray, "n h w 3"], sides: Sequence[int]
) -> UInt8[np.ndarray, "n h2 w2 3"]:
  """Pillow's bilinear resizing, rounded to grey levels each time.

  Args:
    pictures: to be resized.
    sides: to which, one after the other: 256 and 299 in StarGAN v2's metrics,
      299 alone in those of L2M-GAN's release.
  """

  def one(picture):
    made = Image.fromarray(picture)
    for side in sides:
      made = made.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(made)

  return np.stack([one(picture) for picture in pictures])


def _read(net, variables, pictures, rule):
  """Features of a block of pictures in 0..255."""
  if rule == "clean-fid":
    x = (pictures - 128) / 128
  elif rule in TORCHVISION_RULES:
    x = imagenet_units(pictures.astype(jnp.float32) / 127.5 - 1)
  else:
    x = resize(pictures.astype(jnp.float32) / 255, SIZE, SIZE, antialias=False)
    x = 2 * x - 1
  return net.apply(variables, x)[0]


class Reader:
  """Features of pictures, shared out over devices.

  Args:
    net: the network; its published size gives FID.
    variables: its weights.
    rule: resizing rule, one of RULES, or of TORCHVISION_RULES for a network of
      that kind.
    batch: pictures that a device reads at a time.
    devices: the devices to use, by default all of this process.
  """

  def __init__(
    self,
    net: Inception,
    variables: Variables,
    rule: Rule = "pytorch-fid",
    batch: int = 8,
    devices: Sequence[jax.Device] | None = None,
  ):
    rules = RULES if net.tensorflow else TORCHVISION_RULES
    if rule not in rules:
      raise ValueError(
        f"FID resizing rule {rule!r}, wanted one of {', '.join(rules)} with "
        "this Inception network"
      )
    devices = jax.local_devices() if devices is None else list(devices)
    mesh = jax.make_mesh(
      (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )
    rows = NamedSharding(mesh, PartitionSpec("data"))
    self._variables = jax.device_put(
      variables, NamedSharding(mesh, PartitionSpec())
    )
    self._rows, self._block = rows, batch * len(devices)
    self._rule, self.size = rule, 64 * net.width
    self._run = jax.jit(
      functools.partial(_read, net, rule=rule), out_shardings=rows
    )

  @typechecked
  def __call__(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> np.ndarray:
    """Features (n, d) float32 of uint8 pictures.

    All blocks have one size, so one program reads every picture and a picture
    does not depend on its neighbours; rows that fill a block up are dropped.
    """
    out = [np.zeros((0, self.size), np.float32)]
    for first in range(0, len(pictures), self._block):
      part = pictures[first : first + self._block]
      count = len(part)
      if self._rule == "clean-fid":
        part = clean_resize(part)
      elif self._rule == "stargan-v2":
        part = bilinear_resize(part, (256, SIZE))
      elif self._rule == "l2m-gan":
        part = bilinear_resize(part, (SIZE,))
      filling = ((0, self._block - count), (0, 0), (0, 0), (0, 0))
      part = jax.device_put(np.pad(part, filling), self._rows)
      out.append(np.asarray(self._run(self._variables, part))[:count])
    return np.concatenate(out)

  def empty(self) -> frechet.FeatureState:
    """Statistics of no pictures, to `add` features to."""
    return frechet.FeatureState.empty(self.size)
