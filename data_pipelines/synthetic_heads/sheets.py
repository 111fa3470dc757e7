"""Draws the three sheets that show the synthetic heads.

`python -m data_pipelines.synthetic_heads.sheets --output=docs/synthetic_heads`
writes random.png (36 consecutive people), factors.png (one factor changes per
picture) and maps.png (picture, classes, regions, normals, albedo, model only).
"""

import pathlib

import jax.numpy as jnp
import numpy as np
from absl import app, flags
from PIL import Image

from data_pipelines.synthetic_heads import labels, tables
from data_pipelines.synthetic_heads.albedo_model import world_model
from data_pipelines.synthetic_heads.factors import as_factor, replace
from data_pipelines.synthetic_heads.frames import (
  GROUND,
  SKY,
  direction,
  expression_vector,
  make_camera,
  make_light,
  rotation_vector,
  sample_frame,
)
from data_pipelines.synthetic_heads.identity import sample_identity
from data_pipelines.synthetic_heads.render import render, render_frames
from faceedit_jax.morphable.head_bases import SHAPE_NAMES
from faceedit_jax.morphable.render import render_condition

_OUTPUT = flags.DEFINE_string("output", "docs/synthetic_heads", "folder")
_TILE = flags.DEFINE_integer("tile", 128, "side of a tile in pixels")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the world")
_DEG = np.pi / 180


def grid(rows) -> np.ndarray:
  """One picture of rows of pictures."""
  return np.concatenate([np.concatenate(row, 1) for row in rows])


def random_sheet(tile: int, seed: int, count: int = 36) -> np.ndarray:
  """Consecutive people, nothing picked."""
  tiles = [
    render(sample_identity(seed, i), sample_frame(seed, i, 0), tile)["image"]
    for i in range(count)
  ]
  return grid(tiles[k : k + 6] for k in range(0, count, 6))


def _frame(base, yaw=12.0, pitch=0.0, roll=0.0, jaw=0.0, **changes):
  values = {
    "pose": rotation_vector(pitch * _DEG, yaw * _DEG, roll * _DEG),
    "jaw": np.float32([jaw * _DEG, 0, 0]),
    "expression": expression_vector(blink_L=0.08, blink_R=0.08),
    "gaze": np.zeros(2, np.float32),
    "light": make_light(
      [
        ((-0.6, 0.5, 0.8), np.array([1, 0.95, 0.88]) * 0.95),
        ((0.9, 0.2, 0.3), np.array([0.8, 0.9, 1.1]) * 0.3),
      ],
      SKY * 0.24,
      GROUND * 0.26,
    ),
    "camera": make_camera(31.0),
  }
  return replace(base, **(values | changes))


def _shape(seed, spread, **named):
  values = np.random.Generator(np.random.Philox(seed)).normal(
    size=len(SHAPE_NAMES)
  )
  values = values * spread
  for name, value in named.items():
    values[SHAPE_NAMES.index(name)] += value
  return values.astype(np.float32)


def _hair(style, colour, **changes):
  values = dict(tables.STYLE_DEFAULTS, **tables.STYLES[style])
  values |= {"part": values["part"] or 0.25, "seed": 3.7, "hairline": 0.0}
  return as_factor(
    style=tables.STYLE_NAMES.index(style),
    colour_name=tables.HAIR_COLOUR_NAMES.index(colour),
    colour=tables.HAIR_COLOURS[colour],
    roots=float(colour in ("blond", "light_blond", "brown")),
    streaks=float(colour == "gray"),
    **(values | changes),
  )


def _woman(seed):
  base = sample_identity(seed, 5)
  brow = np.array(tables.HAIR_COLOURS["brown"]) * 0.75
  return replace(
    base,
    person=as_factor(masculine=-0.8, age=0.25),
    shape=_shape(
      11,
      0.45,
      jaw_width=-0.9,
      eye_size=1.0,
      chin_width=-0.8,
      neck_width=-1.2,
      upper_lip=0.8,
      lower_lip=0.7,
      brow_ridge=-0.8,
    ),
    skin=as_factor(
      melanin=0.35, blood=0.6, cheek=0.3, freckles=0, wrinkles=0, age=0.25
    ),
    lips=as_factor(lipstick=0.4, colour=tables.LIPSTICKS[1], liner=0.8),
    brows=as_factor(
      thickness=0.95, arch=0.3, cover=0.9, length=0.0, colour=brow
    ),
    eyes=as_factor(colour=tables.IRIS_COLOURS[3], radius=0.6),
    beard=base.beard | as_factor(full=0, moustache=0, goatee=0, stubble=0),
    hair=_hair("wavy_lob", "brown"),
    glasses=base.glasses | as_factor(on=0, sun=0),
    hat=base.hat | as_factor(kind=0),
    earrings=as_factor(on=0),
    clothes=as_factor(
      kind=1,
      pattern=0,
      colour=(0.08, 0.2, 0.3),
      colour2=(0.3, 0.3, 0.3),
      width=0.9,
    ),
    background=sample_identity(seed, 3).background | as_factor(kind=0),
  )


def _man(seed):
  base = sample_identity(seed, 21)
  black = tables.HAIR_COLOURS["black"]
  return replace(
    base,
    person=as_factor(masculine=0.9, age=0.35),
    shape=_shape(
      4,
      0.5,
      jaw_width=0.8,
      brow_ridge=0.8,
      chin_width=0.7,
      neck_width=1.0,
      nose_width=0.4,
    ),
    skin=as_factor(
      melanin=0.75, blood=0.6, cheek=0.3, freckles=0, wrinkles=0.05, age=0.35
    ),
    lips=as_factor(lipstick=0, colour=tables.LIPSTICKS[0], liner=0.1),
    brows=as_factor(
      thickness=1.4, arch=0.15, cover=0.95, length=0.0, colour=black
    ),
    eyes=as_factor(colour=tables.IRIS_COLOURS[0], radius=0.6),
    beard=as_factor(full=0, moustache=0, goatee=0, stubble=0, colour=black),
    hair=_hair("messy", "black"),
    glasses=as_factor(
      on=0,
      sun=0,
      width=2.5,
      height=1.8,
      exponent=0.7,
      tube=0.14,
      colour=(0.03, 0.02, 0.02),
    ),
    hat=as_factor(kind=0, colour=(0.35, 0.05, 0.05)),
    earrings=as_factor(on=0),
    clothes=as_factor(
      kind=3,
      pattern=0,
      colour=(0.5, 0.5, 0.55),
      colour2=(0.02, 0.02, 0.02),
      width=1.0,
    ),
    background=sample_identity(seed, 9).background | as_factor(kind=1),
  )


def _frame_rows(tile, seed):
  """Pose, expression and light of one woman."""
  base, woman = sample_frame(seed, 5, 0), _woman(seed)
  face = expression_vector
  lamp = lambda a, e, c, k: (direction(a, e), np.array(c) * k)  # noqa: E731
  poses = ((-55, 0, 0), (-28, 0, 0), (0, 0, 0), (28, 0, 0), (55, 0, 0))
  rows = [
    [
      _frame(base, yaw=y, pitch=p, roll=r)
      for y, p, r in poses + ((15, 18, 10),)
    ],
    [
      _frame(base, expression=e, jaw=j)
      for e, j in (
        (face(), 0),
        (face(smile=1.1), 0),
        (
          face(smile=1.0, upper_lip_raise=0.2, blink_L=0.25, blink_R=0.25),
          11,
        ),
        (
          face(brow_raise_L=1, brow_raise_R=1, blink_L=-0.2, blink_R=-0.2),
          15,
        ),
        (face(frown=1, brow_furrow=1), 0),
        (face(pucker=1, blink_L=1, blink_R=1), 0),
      )
    ],
    [
      _frame(base, light=make_light(lamps, SKY * a, GROUND * a))
      for lamps, a in (
        ([lamp(-70, 15, (1, 0.9, 0.8), 1.2)], 0.12),
        ([lamp(0, 30, (1, 1, 1), 0.8)], 0.30),
        ([lamp(70, 15, (1, 0.95, 0.9), 1.2)], 0.12),
        ([lamp(0, 75, (1, 1, 1), 1.2)], 0.18),
        (
          [
            lamp(-60, 20, (1, 0.55, 0.3), 1),
            lamp(70, 10, (0.3, 0.5, 1), 0.8),
          ],
          0.12,
        ),
        ([lamp(0, -50, (0.9, 1, 0.95), 1.0)], 0.12),
      )
    ],
  ]
  return [[d["image"] for d in render_frames(woman, r, tile)] for r in rows]


def _identity_rows(tile, seed):
  """Hair of the woman; accessories, clothes and background of the man."""
  base, woman, man = sample_frame(seed, 5, 0), _woman(seed), _man(seed)
  draw = lambda who, frame: render(who, frame, tile)["image"]  # noqa: E731
  hair = [
    _hair("long_wavy", "blond"),
    _hair("bob", "black", bangs=1.0),
    _hair("curly_long", "auburn"),
    _hair("pixie", "light_blond"),
    _hair("afro", "dark_brown"),
    _hair("bun", "gray"),
  ]
  on = man.glasses | as_factor(on=1)
  grown = man.beard | as_factor(moustache=1, stubble=0.7)
  worn = [
    {},
    {"glasses": on},
    {"beard": man.beard | as_factor(stubble=0.8)},
    {"beard": grown | as_factor(full=0.6)},
    {"beard": grown | as_factor(full=0.8), "glasses": on | as_factor(sun=1)},
    {
      "hat": man.hat | as_factor(kind=1),
      "hair": _hair("crew", "black"),
    },
  ]

  def dressed(kind, pattern, colour, second, behind, place):
    return {
      "clothes": man.clothes
      | as_factor(
        kind=tables.CLOTHES.index(kind),
        pattern=tables.PATTERNS.index(pattern),
        colour=colour,
        colour2=second,
      ),
      "background": sample_identity(seed, place).background
      | as_factor(kind=behind),
    }

  blue, dark = (0.03, 0.06, 0.25), (0.02, 0.02, 0.02)
  clothed = [
    dressed("crew", "stripe", (0.5, 0.5, 0.5), blue, 4, 1),
    dressed("turtle", "plain", dark, dark, 2, 2),
    dressed("vneck", "plain", (0.05, 0.25, 0.12), dark, 3, 3),
    dressed("shirt", "plaid", (0.4, 0.04, 0.04), dark, 1, 14),
    dressed("crew", "print", (0.5, 0.3, 0.05), (0.05, 0.1, 0.3), 0, 5),
    dressed("scoop", "plain", (0.4, 0.4, 0.38), dark, 2, 6),
  ]
  frame, other = _frame(base), _frame(base, yaw=-14)
  return [
    [draw(replace(woman, hair=h), frame) for h in hair],
    [draw(replace(man, **w), other) for w in worn],
    [draw(replace(man, **c), other) for c in clothed],
  ]


def factors_sheet(tile: int, seed: int) -> np.ndarray:
  """Pose, expression, light, hair, accessories, clothes with background."""
  return grid(_frame_rows(tile, seed) + _identity_rows(tile, seed))


def maps_sheet(tile: int, seed: int, first: int = 100) -> np.ndarray:
  """What comes with each picture; the last column is the model alone."""
  rows, model = [], world_model()
  for i in range(first, first + 5):
    e = render(
      sample_identity(seed, i), sample_frame(seed, i, 0), tile, maps=True
    )
    codes = {
      k: jnp.asarray(e[k])[None]
      for k in (
        "shape",
        "albedo",
        "expression",
        "pose",
        "gaze",
        "light",
        "camera",
      )
    }
    alone = render_condition(model, codes, tile)
    picture = np.asarray(alone["image"][0]) * 0.5 + 0.5
    mask = np.asarray(alone["mask"][0])[..., None]
    covered = e["covered"][..., None]
    tiles = [
      e["normal_map"] * 0.5 + 0.5 * covered,
      np.clip(e["albedo_map"], 0, 1) ** (1 / 2.2),
      np.where(mask > 0, picture, 0.12),
    ]
    rows.append(
      [
        e["image"],
        labels.CLASS_COLOURS[e["labels"]],
        labels.REGION_COLOURS[e["regions"]],
      ]
      + [(np.clip(t, 0, 1) * 255 + 0.5).astype(np.uint8) for t in tiles]
    )
  return grid(rows)


def main(argv):
  del argv
  folder = pathlib.Path(_OUTPUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  for name, draw in (
    ("random", random_sheet),
    ("factors", factors_sheet),
    ("maps", maps_sheet),
  ):
    path = folder / f"{name}.png"
    Image.fromarray(draw(_TILE.value, _SEED.value)).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
  app.run(main)
