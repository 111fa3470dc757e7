"""What the denoising U-Net is asked for, what it gives, what is added to it.

Places are named by strings, level 0 being full size:

- "encoder/in", "encoder/<level>/<layer>", "encoder/<level>/down": the skip
  connections, in the order in which they are made;
- "middle";
- "decoder/<level>/<layer>", "decoder/<level>/up": the layers in front of a
  change of size, and what it gives;
- with one more number, that of the transformer block, for cross-attention:
  "encoder/<level>/<layer>/<block>", "middle/<block>",
  "decoder/<level>/<layer>/<block>".
"""

import dataclasses
from typing import Literal, get_args

from flax import struct

from faceedit_jax.core.typing import Array

Part = Literal["encoder", "middle", "decoder"]
MapHeads = Literal["mean", "all"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclasses.dataclass(frozen=True)
class Capture:
  """What a U-Net is to return besides its prediction, by part of the net.

  What is not asked for is not computed.

  Attributes:
    features: parts whose feature maps are returned.
    cross_outputs: parts whose cross-attention outputs are returned.
    cross_maps: parts whose cross-attention maps are returned. Their attention
      is computed with explicit probabilities, which takes more memory.
    map_heads: "mean" averages the maps over the heads, "all" keeps them.

  Raises:
    ValueError: an unknown part, or another value of `map_heads`.
  """

  features: tuple[Part, ...] = ()
  cross_outputs: tuple[Part, ...] = ()
  cross_maps: tuple[Part, ...] = ()
  map_heads: MapHeads = "mean"

  def __post_init__(self):
    for field in ("features", "cross_outputs", "cross_maps"):
      given = getattr(self, field)
      if not isinstance(given, tuple) or set(given) - set(PARTS):
        raise ValueError(
          f"Capture.{field} is {given!r}, wanted a tuple of "
          f"{', '.join(map(repr, PARTS))}"
        )
    if self.map_heads not in get_args(MapHeads):
      raise ValueError(
        f"Capture.map_heads is {self.map_heads!r}, wanted 'mean' or 'all'"
      )


NOTHING = Capture()
MEAN_MAPS = Capture(cross_maps=PARTS)


@struct.dataclass
class UNetOutput:
  """The prediction of a U-Net and what a `Capture` asked for.

  The dictionaries are keyed by place, see above, in the order of the network
  (`jax.jit` sorts their keys), and empty where nothing was asked for.

  Attributes:
    prediction: (b, h, w, out_channels) float32.
    features: (b, h_l, w_l, c_l) in the compute dtype, as the layers give them:
      residuals are not in "encoder/..." and "middle", but in all that follows
      them in the decoder.
    cross_outputs: (b, h_l, w_l, heads * head features) in the compute dtype,
      what cross-attention gives before it is added to the tokens.
    cross_maps: float32 probabilities that sum to 1 over the n tokens:
      (b, h_l, w_l, n) averaged over heads, or (b, heads, h_l * w_l, n).
  """

  prediction: Array
  features: dict[str, Array]
  cross_outputs: dict[str, Array]
  cross_maps: dict[str, Array]


@struct.dataclass
class Residuals:
  """What a ControlNet adds to a U-Net.

  Attributes:
    skips: one array for each skip connection of the encoder, in the order of
      `UNet.residual_shapes`, added before the decoder reads the skip.
    middle: added to what the middle of the net gives.

  Source: cldm/cldm.py of lllyasviel/ControlNet; `down_block_` and
  `mid_block_additional_residual` of diffusers' `UNet2DConditionModel`.
  """

  skips: tuple[Array, ...]
  middle: Array

  def check(self, wanted: "Residuals") -> None:
    """Checks number and shapes.

    Args:
      wanted: from `UNet.residual_shapes`.

    Raises:
      ValueError: one line saying what was got and what was wanted.
    """
    hint = "make them as `UNet.residual_shapes` says"
    if len(self.skips) != len(wanted.skips):
      raise ValueError(
        f"got {len(self.skips)} residuals for {len(wanted.skips)} skip "
        f"connections; {hint}"
      )
    named = [
      (f"skip {i}", got, want)
      for i, (got, want) in enumerate(
        zip(self.skips, wanted.skips, strict=True)
      )
    ]
    for name, got, want in [*named, ("the middle", self.middle, wanted.middle)]:
      if tuple(got.shape) != tuple(want.shape):
        raise ValueError(
          f"got a residual of shape {tuple(got.shape)} for {name}, wanted "
          f"{tuple(want.shape)}; {hint}"
        )
