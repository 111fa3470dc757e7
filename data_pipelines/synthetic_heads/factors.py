"""The two arguments of the renderer: who is drawn, and how this once.

Every field is one independent factor of variation; `replace` swaps single
factors between two draws and leaves all others bit for bit as they were.
"""

import dataclasses
from typing import Any

import numpy as np

VERSION = "2"  # raise when the same seed no longer gives the same factors

Factor = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Identity:
  """One person with hair, accessories, clothes and a background.

  Attributes:
    seed, index: what it was drawn from.
    person: masculine (-1..1), age (0..1): only used to draw the other factors
      and to name attributes.
    shape: coefficients of the identity basis (40,).
    skin, lips, brows, eyes, beard, hair, glasses, hat, earrings, clothes,
      background: float32 arrays by name; see `identity.py` for the units.
  """

  seed: int
  index: int
  person: Factor
  shape: np.ndarray
  skin: Factor
  lips: Factor
  brows: Factor
  eyes: Factor
  beard: Factor
  hair: Factor
  glasses: Factor
  hat: Factor
  earrings: Factor
  clothes: Factor
  background: Factor


@dataclasses.dataclass(frozen=True)
class Frame:
  """What changes between two pictures of one person.

  Attributes:
    seed, identity_index, index: what it was drawn from.
    pose: head rotation, axis-angle in radians (3,).
    jaw: jaw rotation, axis-angle in radians (3,).
    expression: coefficients of the expression basis (16,).
    gaze: pitch and yaw of both eyes in radians (2,).
    light: directions (3, 3) and colours (3, 3) of up to three lamps, and the
      spherical harmonics (9, 3) of them and of the surroundings.
    camera: weak perspective [s, tx, ty] in metres (3,).
  """

  seed: int
  identity_index: int
  index: int
  pose: np.ndarray
  jaw: np.ndarray
  expression: np.ndarray
  gaze: np.ndarray
  light: Factor
  camera: np.ndarray


IDENTITY_FACTORS = tuple(
  f.name
  for f in dataclasses.fields(Identity)
  if f.name not in ("seed", "index")
)
FRAME_FACTORS = ("pose", "jaw", "expression", "gaze", "light", "camera")


def replace(base, **donors: Any):
  """Copy of `base` with single factors taken from other draws.

  Args:
    base: an Identity or a Frame.
    **donors: factor name = Identity or Frame to take it from, or the value
      itself. `expression` of a frame also brings the jaw and the gaze unless
      these are named as well: together they are what a face does.

  Returns:
    A new object of the type of `base`.

  Raises:
    ValueError: for a name that is no factor.
  """
  known = IDENTITY_FACTORS if isinstance(base, Identity) else FRAME_FACTORS
  values = {}
  for name, donor in donors.items():
    if name not in known:
      raise ValueError(
        f"replace: '{name}' is no factor of {type(base).__name__}; "
        f"choose from {', '.join(known)}"
      )
    is_donor = isinstance(donor, type(base))
    values[name] = getattr(donor, name) if is_donor else donor
    if name == "expression" and is_donor:
      values.setdefault("jaw", donor.jaw)
      values.setdefault("gaze", donor.gaze)
  for name in ("jaw", "gaze"):
    if name in donors and isinstance(donors[name], type(base)):
      values[name] = getattr(donors[name], name)
  return dataclasses.replace(base, **values)


def as_factor(**values) -> Factor:
  """Float32 arrays of plain numbers; the rounding hides the last bits of libm.

  Factors therefore compare equal on machines whose `pow` or `sin` differ in
  the sixteenth digit.
  """
  return {
    k: np.asarray(v, np.float64).astype(np.float32) for k, v in values.items()
  }
