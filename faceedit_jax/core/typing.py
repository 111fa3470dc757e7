"""Array types shared by every layer of the library.

Shapes follow one convention: images NHWC, tokens `b n d`, slots `b k d`.
Images are float in [-1, 1] inside the library and uint8 at its edges.
"""

from collections.abc import Mapping
from typing import Any

from beartype import beartype
from jaxtyping import Array, Bool, Float, Int, Key, UInt8, jaxtyped

PyTree = Any
Params = Mapping[str, PyTree]  # {net name: parameter tree}
Variables = Mapping[str, PyTree]  # {"params": tree, collection: tree, ...}

Image = Float[Array, "b h w c"]
Mask = Float[Array, "b h w"]
Tokens = Float[Array, "b n d"]
Slots = Float[Array, "b k d"]
Timesteps = Float[Array, "b"] | Int[Array, "b"]
Scalar = Float[Array, ""] | float
PRNGKey = Key[Array, ""]

# Checks shapes while tracing; costs nothing after compilation.
# Switched off by JAXTYPING_DISABLE=1.
typechecked = jaxtyped(typechecker=beartype)

__all__ = [
  "Array",
  "Bool",
  "Float",
  "Image",
  "Int",
  "Key",
  "Mask",
  "PRNGKey",
  "Params",
  "PyTree",
  "Scalar",
  "Slots",
  "Timesteps",
  "Tokens",
  "UInt8",
  "Variables",
  "typechecked",
]
