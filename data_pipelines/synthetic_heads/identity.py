"""Draws the identity factors: shape, colours, hair, accessories, clothes."""

import colorsys

import numpy as np

from data_pipelines.synthetic_heads import tables
from data_pipelines.synthetic_heads.factors import Identity, as_factor
from data_pipelines.synthetic_heads.streams import Stream
from faceedit_jax.morphable.head_bases import SHAPE_NAMES

HEAD_GROUP = ("Bangs", "Wearing_Hat", "Bald")
FREE = (  # balanced by drawing the attribute first
  "Big_Nose",
  "Bushy_Eyebrows",
  "Eyeglasses",
  "Pale_Skin",
  "Pointy_Nose",
  "Rosy_Cheeks",
  "Young",
)
BANG_SWEEP = (-5, 5)  # degrees that the fringe is lower on one side
BEARDS = ("none", "stubble", "moustache", "full", "goatee")
_BEARD_WEIGHTS = (0.38, 0.26, 0.10, 0.18, 0.08)  # of men
# Half of the men is a quarter of the people: CelebA name, kinds that have it.
_BEARD_GROUPS = {
  "5_o_Clock_Shadow": ("stubble",),
  "Goatee": ("goatee",),
  "Mustache": ("moustache", "full", "goatee"),
}


def beard_weights(balance):
  """Weights of BEARDS among men that bring the named beards to a quarter of
  all people; those of three beards at once fall short of it."""
  weights = dict(zip(BEARDS, _BEARD_WEIGHTS, strict=True))
  named = [n for n in _BEARD_GROUPS if n in balance]
  if not named:
    return _BEARD_WEIGHTS
  for name in named:
    inside = _BEARD_GROUPS[name]
    total = sum(weights[k] for k in inside)
    if total < 0.5:
      for k in BEARDS:
        inner = k in inside
        weights[k] *= 0.5 / total if inner else 0.5 / (1 - total)
  return tuple(weights.values())


def head_group_weights(balance):
  """Weights of (none, Bangs, Wearing_Hat, Bald), or None to draw freely."""
  named = [n for n in HEAD_GROUP if n in balance]
  if not named:
    return None
  share = {1: 0.5, 2: 0.33, 3: 0.23}[len(named)]
  return [1 - share * len(named)] + [
    share if n in named else 0.0 for n in HEAD_GROUP
  ]


def colour_group_weights(balance):
  """Weights of the four hair colour groups, or None to draw freely."""
  named = [n for n in tables.COLOUR_GROUPS if n in balance]
  if not named:
    return None
  share = {1: 0.5, 2: 0.4, 3: 0.32, 4: 0.25}[len(named)]
  other = (1 - share * len(named)) / max(4 - len(named), 1)
  return [share if n in named else other for n in tables.COLOUR_GROUPS]


def draw_glasses(s, on=None):
  """Glasses factor from a stream; `on` None leaves to chance if they are
  worn."""
  free = s.chance(0.25)
  on = free if on is None else on
  return as_factor(
    on=float(on),
    sun=float(on and s.chance(0.2)),
    width=s.uniform(2.2, 2.7),
    height=s.uniform(1.5, 2.15),
    exponent=s.uniform(0.55, 1.0),
    tube=s.uniform(0.09, 0.2),
    colour=s.choice(tables.FRAME_COLOURS),
  )


class _Draw:
  """One identity being drawn; a method per factor."""

  def __init__(self, seed, index, balance):
    self.seed, self.index, self.balance = seed, index, frozenset(balance)
    self.wants = {
      n: self.stream("balance/" + n).chance(0.5)
      for n in FREE
      if n in self.balance
    }
    group = head_group_weights(self.balance)
    self.head_group = (
      None if group is None else self.stream("balance/head").index(group)
    )
    s = self.stream("person")
    g = s.uniform(-1, 1)
    self.masculine = float(np.sign(g)) * abs(g) ** 0.5
    u = s.random()
    if "Young" in self.wants:
      u = 0.63 * u if self.wants["Young"] else 0.645 + 0.355 * u
    self.age = (1 - (1 - u) ** (1 / 1.6)) ** (1 / 1.35)
    self.melanin = self._melanin()

  def stream(self, factor):
    return Stream(self.seed, self.index, factor)

  def _melanin(self):
    s = self.stream("melanin")
    bands = ((0, 0.35), (0.3, 0.8), (0.7, 1.4), (1.3, 2.1))
    if "Pale_Skin" in self.wants:
      if self.wants["Pale_Skin"]:
        return s.uniform(0, 0.2)
      return s.uniform(*(((0.21, 0.35),) + bands[1:])[s.index((1, 1, 1, 1))])
    return s.uniform(*bands[s.index((0.36, 0.26, 0.20, 0.18))])

  def shape(self):
    s, g, a = self.stream("shape"), self.masculine, self.age - 0.4
    c = {n: min(max(s.normal(), -2.2), 2.2) * 0.9 for n in SHAPE_NAMES}
    for n in ("asym_nose", "asym_mouth"):
      c[n] *= 0.5
    for n, k in tables.MASCULINE_SHIFT.items():
      c[n] += k * g
    for n, k in tables.AGE_SHIFT.items():
      c[n] += k * a
    c["fat"] *= 0.75
    c["jaw_width"] -= 0.3 * max(0.0, c["fat"])
    if "Big_Nose" in self.wants:
      big = self.wants["Big_Nose"]
      c["nose_width"] = s.uniform(0.85, 2.2) if big else s.uniform(-2.2, 0.75)
    if "Pointy_Nose" in self.wants:
      if self.wants["Pointy_Nose"] and not self.wants.get("Big_Nose"):
        c["nose_width"] = s.uniform(-2.2, -0.65)
        c["nose_tip_out"] = s.uniform(0.35, 2.2)
      else:
        c["nose_tip_out"] = min(c["nose_tip_out"], 0.25)
    values = [min(max(c[n], -2.4), 2.4) for n in SHAPE_NAMES]
    return np.array(values).astype(np.float32)

  def skin(self):
    s = self.stream("skin")
    rosy = self.wants.get("Rosy_Cheeks", s.chance(0.2))
    freckled = s.chance(0.2) and self.melanin < 0.6
    return as_factor(
      melanin=self.melanin,
      blood=s.uniform(0.4, 1.0),
      cheek=s.uniform(0.1, 0.5) + (0.6 if rosy else 0.0),
      freckles=s.uniform(0.4, 1.0) if freckled else 0.0,
      wrinkles=1.6 * max(0.0, self.age - 0.35),
      age=self.age,
    )

  def lips(self):
    s, female = self.stream("lips"), self.masculine < 0
    p = 0.75 if "Wearing_Lipstick" in self.balance else 0.5
    amount = s.uniform(0.4, 0.9)
    liner = s.uniform(0.4, 1.0)
    return as_factor(
      lipstick=amount if female and s.chance(p) else 0.0,
      colour=s.choice(tables.LIPSTICKS),
      liner=liner if female and s.chance(0.6) else 0.15,
    )

  def hair_colour(self):
    s = self.stream("hair_colour")
    groups = colour_group_weights(self.balance)
    if groups is not None:
      names = list(tables.COLOUR_GROUPS.values())[s.index(groups)]
      return s.choice(names)
    dark = self.melanin > 0.9
    w = list(
      tables.COLOUR_WEIGHTS_DARK if dark else tables.COLOUR_WEIGHTS_LIGHT
    )
    if self.age > 0.7:
      w = [0.5 * x for x in w]
      w[6] += 0.3
      w[7] += 0.2
    dyed = s.chance(0.015)
    name = tables.HAIR_COLOUR_NAMES[s.index(w)]
    return "dyed" if dyed else name

  def hair(self, colour_name):
    s, g = self.stream("hair"), self.masculine
    free = self.head_group is None
    bald = s.chance(0.1) and g > 0 if free else self.head_group == 3
    styles = tables.MASCULINE_STYLES if g > 0 else tables.FEMININE_STYLES
    fringed = not free and self.head_group == 1
    if fringed:
      styles = [
        n
        for n in styles
        if n in tables.FRINGE_STYLES
        or tables.STYLES[n].get("length", 0) > 0
        or tables.STYLES[n].get("bangs", 0) > 0
      ]
    name = s.choice(styles)
    if bald:
      name = "bald"
    v = dict(tables.STYLE_DEFAULTS, **tables.STYLES[name])
    v["part"] = v["part"] or s.uniform(-0.4, 0.4)
    v["top"] *= s.uniform(0.85, 1.2)
    v["side"] *= s.uniform(0.85, 1.2)
    v["length"] *= s.uniform(0.85, 1.2)
    v["sweep"] *= 1.0 if s.chance(0.5) else -1.0
    u, sweep = s.random(), s.uniform(*BANG_SWEEP)
    odds = 0.35 if v["length"] > 0 else 0.25
    can = v["length"] > 0 or name in tables.FRINGE_STYLES
    if can and (fringed or (free and u < odds)):
      v["bangs"], v["bang_sweep"] = 1.0, sweep
    if not free and not fringed:
      v["bangs"] = 0.0
    v["hairline"] = s.uniform(-2, 4) + 9 * max(0.0, g) * self.age
    v["seed"] = s.uniform(0, 99)
    colour = tables.HAIR_COLOURS[colour_name]
    gray = colour_name == "gray"
    rooted = colour_name in ("blond", "light_blond", "brown")
    return as_factor(
      style=tables.STYLE_NAMES.index(name),
      colour_name=tables.HAIR_COLOUR_NAMES.index(colour_name),
      colour=colour,
      roots=float(rooted),
      streaks=float(gray),
      **v,
    )

  def brows(self, colour_name):
    s, g = self.stream("brows"), self.masculine
    pale = colour_name in ("white", "light_blond")
    colour = np.array(tables.HAIR_COLOURS[colour_name]) * (
      0.45 if pale else 0.75
    )
    thick = s.uniform(0.75, 1.3) + (0.3 if g > 0 else -0.15)
    thick += 0.5 if s.chance(0.12) else 0.0
    if "Bushy_Eyebrows" in self.wants:
      bushy = self.wants["Bushy_Eyebrows"]
      thick = s.uniform(1.4, 2.0) if bushy else s.uniform(0.65, 1.3)
    return as_factor(
      thickness=thick,
      arch=s.uniform(0.05, 0.5) - 0.12 * g,
      cover=s.uniform(0.75, 0.97),
      length=s.uniform(-0.2, 0.25),
      colour=colour,
    )

  def eyes(self):
    s = self.stream("eyes")
    colours = tables.IRIS_COLOURS[: 3 if self.melanin > 0.8 else None]
    return as_factor(colour=s.choice(colours), radius=s.uniform(0.56, 0.66))

  def beard(self, colour_name):
    s = self.stream("beard")
    size, shade = s.uniform(0.35, 1.0), s.uniform(0.3, 0.9)
    weights = beard_weights(self.balance)
    kind = BEARDS[s.index(weights)]
    able = 0.0 if weights is not _BEARD_WEIGHTS else 0.15
    if self.masculine <= able:
      kind = "none"
    full = size if kind in ("full", "goatee") else 0.0
    return as_factor(
      full=full,
      moustache=float(full > 0 or kind == "moustache"),
      goatee=float(kind == "goatee"),
      stubble=shade if kind == "stubble" else 0.7 * (full > 0),
      colour=tables.HAIR_COLOURS[colour_name],
    )

  def glasses(self):
    return draw_glasses(self.stream("glasses"), self.wants.get("Eyeglasses"))

  def hat(self):
    s = self.stream("hat")
    on = s.chance(0.09) if self.head_group is None else self.head_group == 2
    kind = 1 + int(s.chance(0.5))
    colour = (0.03 + 0.57 * s.array(3)) * np.array([1, 0.8, 0.8])
    return as_factor(kind=kind if on else 0, colour=colour)

  def earrings(self):
    s = self.stream("earrings")
    p = 0.6 if "Wearing_Earrings" in self.balance else 0.35
    return as_factor(on=float(self.masculine < 0 and s.chance(p)))

  def clothes(self):
    s = self.stream("clothes")
    hue, sat, val = s.random(), s.uniform(0.1, 0.85), s.uniform(0.06, 0.75)
    first = np.array(colorsys.hsv_to_rgb(hue, sat, val)) ** 1.5
    hue = (hue + s.uniform(0.2, 0.6)) % 1
    sat, val = s.uniform(0, 0.7), s.uniform(0.1, 0.9)
    second = np.array(colorsys.hsv_to_rgb(hue, sat, val)) ** 1.5
    return as_factor(
      kind=s.index(tables.CLOTHES_WEIGHTS),
      pattern=s.index(tables.PATTERN_WEIGHTS),
      colour=first,
      colour2=second,
      width=s.uniform(0.88, 0.98) + 0.07 * self.masculine,
    )

  def background(self):
    s = self.stream("background")
    return as_factor(
      kind=int(s.random() * 5),
      palette=s.array(8, 3),
      angle=s.uniform(0, 6.28),
      places=s.array(9, 4),
      seed=s.uniform(0, 97),
    )


def sample_identity(seed: int, index: int, balance=()) -> Identity:
  """Draws one person.

  Args:
    seed: seed of the world.
    index: which person; any integer.
    balance: CelebA names of attributes to bring between 20 % and 80 %; the
      hair colours count as one choice, as do hat, bald and bangs.

  Returns:
    An Identity; a pure function of the arguments on every machine.
  """
  draw = _Draw(int(seed), int(index), balance)
  colour = draw.hair_colour()
  return Identity(
    seed=int(seed),
    index=int(index),
    person=as_factor(masculine=draw.masculine, age=draw.age),
    shape=draw.shape(),
    skin=draw.skin(),
    lips=draw.lips(),
    brows=draw.brows(colour),
    eyes=draw.eyes(),
    beard=draw.beard(colour),
    hair=draw.hair(colour),
    glasses=draw.glasses(),
    hat=draw.hat(),
    earrings=draw.earrings(),
    clothes=draw.clothes(),
    background=draw.background(),
  )
