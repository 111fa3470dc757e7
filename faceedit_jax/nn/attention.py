"""Multi-head attention and the spatial transformer of latent diffusion.

DiffFAE Sec. 4.2 and Tab. 5: cross-attention of the U-Net on the face tokens.
"""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from faceedit_jax.core.typing import Array, Float, Image, Tokens, typechecked
from faceedit_jax.nn.blocked_attention import blocked_attention
from faceedit_jax.nn.layers import GroupNorm, LayerNorm, conv, dense, zeros

Kernel = Literal["auto", "xla", "cudnn"]


def check_kernel(kernel: str, dtype: Any, features: int) -> None:
  """Checks that `attend` can do what it is asked for on this machine.

  Args:
    kernel: see `attend`.
    dtype: compute dtype.
    features: of one head.

  Raises:
    ValueError: the kernel is unknown, or cannot do it here.
  """
  dtype, wrong = jnp.dtype(dtype), ""
  if kernel not in get_args(Kernel):
    wrong = f"wanted one of {', '.join(get_args(Kernel))}"
  elif kernel == "cudnn":
    if jax.default_backend() != "gpu":
      wrong = f"which needs a GPU; this is a {jax.default_backend()}"
    elif dtype not in (jnp.bfloat16, jnp.float16):
      wrong = f"which computes in bfloat16; this net does in {dtype}"
    elif features % 8 or features > 256:
      wrong = (
        "whose heads have up to 256 features, by eights; this net's have "
        f"{features}"
      )
  if wrong:
    raise ValueError(
      f"attention_kernel is {kernel!r}, {wrong} (nets.<net>.attention_kernel)"
    )


@typechecked
def attend(
  q: Tokens,
  k: Float[Array, "b k d"],
  v: Float[Array, "b k e"],
  heads: int,
  with_maps: bool = False,
  kernel: str = "auto",
) -> tuple[Float[Array, "b n e"], Float[Array, "b heads n k"] | None]:
  """Scaled dot-product attention of several heads.

  Args:
    q: (b, q, heads * d) queries.
    k: (b, k, heads * d) keys.
    v: (b, k, heads * e) values.
    heads: number of heads.
    with_maps: whether the probabilities are formed and returned, whatever the
      kernel.
    kernel: who computes it otherwise: "xla" or "cudnn", see
      `jax.nn.dot_product_attention`, or "auto": by blocks on CPUs, what that
      function chooses elsewhere.

  Returns:
    (b, q, heads * e) and the probabilities (b, heads, q, k) in float32, or
    None.

  Raises:
    ValueError: see `check_kernel`.
  """

  def split(x):
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads)

  q, k, v = split(q), split(k), split(v)
  check_kernel(kernel, q.dtype, q.shape[-1])
  maps = None
  if with_maps:
    logits = jnp.einsum(
      "bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32
    )
    maps = jax.nn.softmax(logits * q.shape[-1] ** -0.5, -1)
    out = jnp.einsum("bhqk,bkhd->bqhd", maps.astype(v.dtype), v)
  # Decided while tracing: an export made on a CPU has this form everywhere.
  elif kernel == "auto" and jax.default_backend() == "cpu":
    out = blocked_attention(q, k, v)
  else:
    named = None if kernel == "auto" else kernel
    out = jax.nn.dot_product_attention(q, k, v, implementation=named)
  return out.reshape(*out.shape[:2], -1), maps


class Attention(nn.Module):
  """Multi-head attention of tokens on a context.

  Attributes:
    heads: number of heads.
    head_dim: features of one head.
    bias: whether queries, keys and values have a bias.
    with_maps: whether the probabilities are returned.
    dtype: compute dtype.
    kernel: see `attend`.
  """

  heads: int
  head_dim: int
  bias: bool = False
  with_maps: bool = False
  dtype: Any = jnp.float32
  kernel: str = "auto"

  @nn.compact
  @typechecked
  def __call__(
    self, x: Tokens, context: Float[Array, "b k e"]
  ) -> tuple[Tokens, Float[Array, "b heads n k"] | None]:
    """Attends from `x` (b, n, d) to `context` (b, k, e).

    Returns:
      (b, n, d) and the probabilities (b, heads, n, k), or None.
    """
    inner = self.heads * self.head_dim

    def linear(name):
      return dense(inner, bias=self.bias, dtype=self.dtype, name=name)

    q = linear("to_q")(x)
    k = linear("to_k")(context)
    v = linear("to_v")(context)
    out, maps = attend(q, k, v, self.heads, self.with_maps, self.kernel)
    return dense(x.shape[-1], dtype=self.dtype, name="to_out")(out), maps


@struct.dataclass
class CrossAttention:
  """What the cross-attention of one transformer block gave.

  Attributes:
    output: (b, n, d), what is added to the tokens; None unless asked for.
    maps: (b, heads, n, k) probabilities in float32; None unless asked for.
  """

  output: Array | None
  maps: Array | None


class TransformerBlock(nn.Module):
  """Self-attention, cross-attention and a gated feed-forward layer.

  Attributes:
    heads: number of heads.
    head_dim: features of one head.
    with_output: whether the output of the cross-attention is returned.
    with_maps: whether the cross-attention maps are returned.
    dtype: compute dtype.
    kernel: see `attend`.
  """

  heads: int
  head_dim: int
  with_output: bool = False
  with_maps: bool = False
  dtype: Any = jnp.float32
  kernel: str = "auto"

  @nn.compact
  @typechecked
  def __call__(
    self, x: Tokens, context: Float[Array, "b k e"] | None = None
  ) -> tuple[Tokens, CrossAttention]:
    """Returns the new tokens and what was asked of the cross-attention.

    Without a context the second attention is a self-attention as well.
    """
    shared = {
      "heads": self.heads,
      "head_dim": self.head_dim,
      "dtype": self.dtype,
      "kernel": self.kernel,
    }
    h = LayerNorm(name="norm1")(x)
    x = x + Attention(name="attn1", **shared)(h, h)[0]
    h = LayerNorm(name="norm2")(x)
    cross = Attention(name="attn2", with_maps=self.with_maps, **shared)
    h, maps = cross(h, h if context is None else context)
    found = CrossAttention(h if self.with_output else None, maps)
    x = x + h
    h = LayerNorm(name="norm3")(x)
    h = dense(8 * x.shape[-1], dtype=self.dtype, name="ff_in")(h)
    h, gate = jnp.split(h, 2, -1)
    # The exact GELU by erf: JAX's goes by erfc, which is slower on CPUs.
    gate = gate * (0.5 + 0.5 * jax.lax.erf(gate * 2**-0.5))
    h = h * gate
    return x + dense(x.shape[-1], dtype=self.dtype, name="ff_out")(h), found


class SpatialTransformer(nn.Module):
  """Transformer blocks over the pixels of a feature map.

  Attributes:
    heads: number of heads.
    head_dim: features of one head.
    depth: number of blocks.
    groups: groups of the first norm.
    with_output: whether cross-attention outputs are returned.
    with_maps: whether cross-attention maps are returned.
    dtype: compute dtype.
    kernel: see `attend`.

  Source: ldm/modules/attention.py of CompVis/latent-diffusion.
  """

  heads: int
  head_dim: int
  depth: int = 1
  groups: int = 32
  with_output: bool = False
  with_maps: bool = False
  dtype: Any = jnp.float32
  kernel: str = "auto"

  @nn.compact
  @typechecked
  def __call__(
    self, x: Image, context: Float[Array, "b k e"] | None = None
  ) -> tuple[Image, list[CrossAttention]]:
    """Attends from the pixels of `x` (b, h, w, c) to `context` (b, k, e).

    Returns:
      (b, h, w, c), and for each block what was asked of its cross-attention
      of the n = h * w pixels.
    """
    inner = self.heads * self.head_dim
    h = GroupNorm(self.groups, 1e-6, name="norm")(x)
    h = conv(inner, 1, dtype=self.dtype, name="proj_in")(h)
    h = h.reshape(x.shape[0], -1, inner)
    found = []
    for i in range(self.depth):
      block = TransformerBlock(
        self.heads,
        self.head_dim,
        self.with_output,
        self.with_maps,
        self.dtype,
        self.kernel,
        name=f"block_{i}",
      )
      h, cross = block(h, context)
      found.append(cross)
    h = h.reshape(*x.shape[:3], inner)
    out = conv(x.shape[-1], 1, init=zeros, dtype=self.dtype, name="proj_out")
    return x + out(h), found


class PixelAttention(nn.Module):
  """Residual self-attention over the pixels of a feature map.

  Attributes:
    heads: number of heads.
    groups: groups of the norm.
    eps: of the norm.
    zero_out: whether the last layer starts at zero.
    dtype: compute dtype.
  """

  heads: int = 1
  groups: int = 32
  eps: float = 1e-6
  zero_out: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  @typechecked
  def __call__(self, x: Image) -> Image:
    """Returns `x` plus the attention of its pixels on one another."""
    channels = x.shape[-1]
    h = GroupNorm(self.groups, self.eps, name="norm")(x)
    h = h.reshape(x.shape[0], -1, channels)
    q, k, v = (dense(channels, dtype=self.dtype, name=n)(h) for n in "qkv")
    h, _ = attend(q, k, v, self.heads)
    init = {"init": zeros} if self.zero_out else {}
    h = dense(channels, dtype=self.dtype, name="proj_out", **init)(h)
    return x + h.reshape(x.shape)
