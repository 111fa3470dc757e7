"""Convolutions, norms, embeddings and resampling shared by the networks.

Compute runs in the `dtype` of each layer; norms run in float32 whatever the
input, so bfloat16 activations lose no precision in their statistics.
"""

import functools
import math
from typing import Any, Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core.typing import Array, Float, Image, typechecked

# A feature map whose size and channels may differ from those of the input.
Features = Float[Array, "b _ _ _"]

# uniform(-1/sqrt(fan_in), 1/sqrt(fan_in)), with which the published networks
# start their convolutions and dense layers.
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
zeros = nn.initializers.zeros_init()


def _convolve(x, kernel, strides, padding, **options):
  """`lax.conv_general_dilated`, as a product where CPUs are faster at that.

  Kernels of one pixel: XLA turns the slope by the kernel into a convolution
  whose channels and batch change places, and works out what is in front of the
  layer once more while it transposes. Maps smaller than the kernel: XLA takes
  the map for the kernel and the kernel for the map, a form without a fast path.
  No more pixels in the batch than features: on CPUs the slope turns and copies
  the kernel, which is then larger than all patches of the map together.
  """
  height, width, channels, features = kernel.shape
  precision = options.get("precision")
  if height == width == 1 and not any(map(any, padding)):
    x = x[:, :: strides[0], :: strides[1]]
    flat = x.reshape(-1, channels)
    out = jnp.matmul(flat, kernel[0, 0], precision=precision)
    return out.reshape(*x.shape[:3], features)
  pixels = x.shape[1] * x.shape[2]
  few = pixels < height * width or (
    x.shape[0] * pixels <= features and jax.default_backend() == "cpu"
  )
  if any(step != 1 for step in strides) or not few:
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
  patches = [
    x[:, i : i + rows, j : j + columns]
    for i in range(height)
    for j in range(width)
  ]
  flat = kernel.reshape(-1, features)
  return jnp.matmul(jnp.concatenate(patches, -1), flat, precision=precision)


def conv(
  features: int,
  kernel: int = 3,
  stride: int = 1,
  *,
  bias: bool = True,
  padding: int | None = None,
  init: Any = fan_in_uniform,
  dtype: Any = jnp.float32,
  name: str | None = None,
) -> nn.Conv:
  """A square convolution with symmetric zero padding.

  Args:
    features: output channels.
    kernel: side of the kernel in pixels.
    stride: step in pixels.
    bias: whether a bias is added.
    padding: pixels on every side; `kernel // 2` when None.
    init: kernel initialiser.
    dtype: compute dtype.
    name: parameter name.

  Returns:
    A Linen module from (b, h, w, c) to (b, h', w', features). The padding is
    symmetric with a stride too, unlike "SAME", as in the published networks.
  """
  pad = kernel // 2 if padding is None else padding
  return nn.Conv(
    features,
    (kernel, kernel),
    (stride, stride),
    padding=((pad, pad), (pad, pad)),
    use_bias=bias,
    kernel_init=init,
    dtype=dtype,
    name=name,
    conv_general_dilated=_convolve,
  )


def dense(
  features: int,
  *,
  bias: bool = True,
  init: Any = fan_in_uniform,
  bias_init: Any = zeros,
  dtype: Any = jnp.float32,
  name: str | None = None,
) -> nn.Dense:
  """A linear layer with the initialiser of the published networks.

  Args:
    features: output features.
    bias: whether a bias is added.
    init: kernel initialiser.
    bias_init: bias initialiser.
    dtype: compute dtype.
    name: parameter name.

  Returns:
    A Linen module from (..., c) to (..., features).
  """
  return nn.Dense(
    features,
    use_bias=bias,
    kernel_init=init,
    bias_init=bias_init,
    dtype=dtype,
    name=name,
  )


class GroupNorm(nn.Module):
  """Group normalisation with affine parameters, in float32.

  Attributes:
    groups: number of groups; must divide the channels.
    eps: added to the variance.
  """

  groups: int = 32
  eps: float = 1e-5

  @nn.compact
  @typechecked
  def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "..."]:
    """Normalises each group over space; keeps shape and dtype of `x`.

    Raises:
      ValueError: the channels are not a multiple of `groups`.
    """
    channels = x.shape[-1]
    if channels % self.groups:
      raise ValueError(
        f"GroupNorm {self.name}: got {channels} channels, wanted a multiple of "
        f"{self.groups}; change `groups` or the channels of the net"
      )
    scale = self.param("scale", nn.initializers.ones_init(), (channels,))
    bias = self.param("bias", zeros, (channels,))
    y = x.astype(jnp.float32).reshape(x.shape[0], -1, channels)
    # Space is reduced channel by channel, and groups only then, on (b, c):
    # the large arrays keep their channels innermost, which CPUs vectorise.
    mean = self._over_groups(y.mean(1, keepdims=True))
    centred = y - mean
    variance = self._over_groups(jnp.square(centred).mean(1, keepdims=True))
    y = centred * (scale * jax.lax.rsqrt(variance + self.eps)) + bias
    return y.reshape(x.shape).astype(x.dtype)

  def _over_groups(self, x: Array) -> Array:
    """Mean over the channels of each group, given back to its channels."""
    b, one, channels = x.shape
    grouped = x.reshape(b, one, self.groups, channels // self.groups)
    mean = grouped.mean(3, keepdims=True)
    return jnp.broadcast_to(mean, grouped.shape).reshape(x.shape)


class LayerNorm(nn.Module):
  """Layer normalisation over the last axis, in float32.

  Attributes:
    eps: added to the variance.
  """

  eps: float = 1e-5

  @nn.compact
  @typechecked
  def __call__(self, x: Float[Array, "*shape c"]) -> Float[Array, "..."]:
    """Normalises the last axis; keeps shape and dtype of `x`."""
    scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
    bias = self.param("bias", zeros, (x.shape[-1],))
    y = x.astype(jnp.float32)
    mean = y.mean(-1, keepdims=True)
    variance = jnp.square(y - mean).mean(-1, keepdims=True)
    y = (y - mean) * jax.lax.rsqrt(variance + self.eps)
    return (y * scale + bias).astype(x.dtype)


def batch_norm(
  x: Array,
  train: bool,
  name: str,
  eps: float = 1e-5,
  momentum: float = 0.98,
  start: float = 1.0,
  affine: bool = True,
) -> Array:
  """Batch normalisation in float32; call inside a compact method.

  Args:
    x: (b, ..., c).
    train: whether batch statistics are used, and stored in "batch_stats".
    name: parameter name.
    eps: added to the variance.
    momentum: share of the old running statistics kept at each update.
    start: scale at initialisation; 0 lets a residual block start as identity,
      which trains deep nets faster (Goyal et al. 2017, section 5.1).
    affine: whether scale and bias are learned.

  Returns:
    The normalised array, with the dtype of `x`.
  """
  norm = nn.BatchNorm(
    use_running_average=not train,
    use_scale=affine,
    use_bias=affine,
    epsilon=eps,
    momentum=momentum,
    dtype=jnp.float32,
    use_fast_variance=False,
    scale_init=nn.initializers.constant(start),
    name=name,
  )
  return norm(x.astype(jnp.float32)).astype(x.dtype)


@typechecked
def instance_norm(x: Image, eps: float = 1e-5) -> Image:
  """Normalises every channel over height and width, without parameters.

  Args:
    x: (b, h, w, c).
    eps: added to the variance.

  Returns:
    The normalised array, with the dtype of `x`.
  """
  y = x.astype(jnp.float32)
  mean = y.mean((1, 2), keepdims=True)
  variance = jnp.square(y - mean).mean((1, 2), keepdims=True)
  return ((y - mean) * jax.lax.rsqrt(variance + eps)).astype(x.dtype)


NormKind = Literal["none", "batch", "group", "instance"]


def normalise(
  x: Array, kind: NormKind, train: bool, name: str, groups: int = 16
) -> Array:
  """One of the usual norms; call inside a compact method.

  Args:
    x: (b, h, w, c).
    kind: "batch", "group" (with parameters), "instance" (without) or "none".
    train: whether "batch" uses and stores batch statistics.
    name: parameter name.
    groups: of "group".

  Returns:
    The normalised array, with the dtype of `x`.
  """
  if kind == "batch":
    return batch_norm(x, train, name)
  if kind == "group":
    return GroupNorm(groups, name=name)(x)
  return instance_norm(x) if kind == "instance" else x


class PReLU(nn.Module):
  """Leaky ReLU with one learned slope per channel."""

  @nn.compact
  @typechecked
  def __call__(self, x: Float[Array, "*shape c"]) -> Float[Array, "..."]:
    """Applies max(x, 0) + slope * min(x, 0)."""
    init = nn.initializers.constant(0.25)
    slope = self.param("scale", init, (x.shape[-1],)).astype(x.dtype)
    return jnp.where(x >= 0, x, slope * x)


@typechecked
def timestep_embedding(
  t: Float[Array, "b"], dim: int, max_period: float = 1e4
) -> Float[Array, "b d"]:
  """Sinusoids of a diffusion time: cosines, then sines.

  Args:
    t: (b,) times, in steps of the training schedule.
    dim: number of features; even.
    max_period: longest period, in steps.

  Returns:
    (b, dim) float32.

  Source: openaimodel.py of CompVis/latent-diffusion.
  """
  half = dim // 2
  rates = jnp.exp(-math.log(max_period) * jnp.arange(half) / half)
  angles = t.astype(jnp.float32)[:, None] * rates[None]
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


class ConvTranspose(nn.Module):
  """Transposed convolution, "SAME" padding, with Linen's parameters.

  Equal to `nn.ConvTranspose` (or, with `trailing`, to torch's). The zeros
  between pixels are put in by hand: XLA has no fast path for dilated inputs on
  CPUs, and this form is about three times faster there, forward and backward.

  Attributes:
    features: output channels.
    kernel: side of the kernel in pixels.
    stride: factor by which the map grows.
    dtype: compute dtype.
    trailing: whether the padding that does not divide evenly goes below and to
      the right, as in torch with its output padding of `stride - 1`; Linen
      puts it above and to the left.
    bias: whether a bias is added.
  """

  features: int
  kernel: int
  stride: int
  dtype: Any = jnp.float32
  trailing: bool = False
  bias: bool = True

  @nn.compact
  @typechecked
  def __call__(self, x: Image) -> Features:
    k, s = self.kernel, self.stride
    weight = self.param(
      "kernel",
      nn.initializers.lecun_normal(),
      (k, k, x.shape[-1], self.features),
    )
    x, weight = x.astype(self.dtype), weight.astype(self.dtype)
    b, h, w, c = x.shape
    gaps = ((0, 0), (0, 0), (0, s - 1), (0, 0), (0, s - 1), (0, 0))
    x = jnp.pad(x[:, :, None, :, None], gaps).reshape(b, h * s, w * s, c)
    # The padding of lax.conv_transpose; s - 1 zeros are there already.
    total = k + s - 2
    before = k - 1 if s > k - 1 else -(-total // 2)
    if self.trailing:
      before = (k - 1) // 2
    padding = (before, total - before - (s - 1))
    x = jax.lax.conv_general_dilated(
      x,
      weight,
      (1, 1),
      (padding, padding),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    if not self.bias:
      return x
    bias = self.param("bias", zeros, (self.features,))
    return x + bias.astype(self.dtype)


@typechecked
def upsample2(x: Image) -> Features:
  """Doubles height and width by repeating pixels."""
  # `jnp.repeat` would gather, which is slow on CPUs.
  return einops.repeat(x, "b h w c -> b (h i) (w j) c", i=2, j=2)


@typechecked
def average_pool2(x: Image) -> Features:
  """Halves height and width by averaging 2 x 2 pixels."""
  return nn.avg_pool(x, (2, 2), (2, 2))


@typechecked
def adaptive_average_pool(x: Image, height: int, width: int) -> Features:
  """Means of `height` x `width` cells that may overlap by a pixel.

  Cell i of n takes the pixels floor(i side / n) to ceil((i + 1) side / n), as
  torch's AdaptiveAvgPool2d.

  Args:
    x: (b, h, w, c).
    height: cells.
    width: cells.
  """

  def cells(side: int, count: int) -> np.ndarray:
    i, pixel = np.arange(count)[:, None], np.arange(side)
    inside = (pixel >= i * side // count) & (pixel * count < (i + 1) * side)
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)

  rows, columns = cells(x.shape[1], height), cells(x.shape[2], width)
  out = jnp.einsum("ih,bhwc->biwc", rows, x, precision="highest")
  return jnp.einsum("jw,biwc->bijc", columns, out, precision="highest")


@typechecked
def max_pool(x: Image, window: int, stride: int, padding: int = 0) -> Features:
  """The largest of `window` x `window` pixels, per channel.

  Equal to `nn.max_pool` with symmetric padding, but as maxima of slices: the
  slope of XLA's pooling searches the windows anew. A training step of the
  embedded estimator took 201 ms with that, 178 so (batch of 16, one core of an
  Intel Xeon, jax 0.10.2). Where pixels tie, they share the slope.

  Args:
    x: (b, h, w, c).
    window: side in pixels.
    stride: step in pixels.
    padding: pixels on every side, which never win.

  Returns:
    (b, h', w', c) with h' = (h + 2 padding - window) // stride + 1.
  """
  for axis in (1, 2):
    pad = [(0, 0)] * 4
    pad[axis] = (padding, padding)
    x = jnp.pad(x, pad, constant_values=-jnp.inf)
    last = x.shape[axis] - window
    slices = [
      jax.lax.slice_in_dim(x, i, i + last + 1, stride, axis)
      for i in range(window)
    ]
    x = functools.reduce(jnp.maximum, slices)
  return x


@typechecked
def resize(
  x: Image, height: int, width: int, antialias: bool = True
) -> Features:
  """Bilinear resize, pixel centres at half integers.

  Args:
    x: (b, h, w, c).
    height: pixels.
    width: pixels.
    antialias: whether the kernel widens when shrinking.

  Returns:
    (b, height, width, c).
  """
  shape = (x.shape[0], height, width, x.shape[3])
  if shape == x.shape:
    return x
  return jax.image.resize(x, shape, "bilinear", antialias=antialias)
