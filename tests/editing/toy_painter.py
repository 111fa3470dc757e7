"""A small recipe that paints from everything but photos, for tests of editing.

Its output is of another size than its inputs, and no square.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.core import editing
from tests.editing import toy_editor

CLASSES = 4
WORDS = ("", "dark", "light", "warm")
LENGTH = 3


def tokenize(text):
  """Indices into WORDS, filled up with 0."""
  words = text.split()
  unknown = [word for word in words if word not in WORDS]
  if unknown or len(words) > LENGTH:
    raise ValueError(f"{text!r}: wanted at most {LENGTH} of {WORDS[1:]}")
  tokens = [WORDS.index(word) for word in words]
  return np.array(tokens + [0] * (LENGTH - len(words)))


@dataclasses.dataclass(frozen=True)
class ToyPainter(toy_editor.ToyEditor):
  """Red is the class, green the sketch, blue what words and numbers say."""

  find_points = None
  edit_inputs = (
    editing.EditInput("layout", "label_map", required=True, classes=CLASSES),
    editing.EditInput("lines", "sketch", size=16),
    editing.EditInput("prompt", "text", tokenizer=tokenize, length=LENGTH),
    editing.EditInput("camera", "camera"),
    editing.EditInput("amount", "number"),
  )
  traced_options = ("gain",)
  keeps_frame = False

  def edit(self, variables, frozen, inputs, rng, *, gain=1.0, invert=False):
    del variables, frozen, rng
    layout = inputs["layout"]
    assert layout.dtype == jnp.uint8
    count, side = layout.shape[:2]
    shape = (count, 2 * side, side)
    red = jnp.repeat(layout, 2, axis=1) * (2 / (CLASSES - 1)) - 1
    green = jnp.zeros(shape)
    if "lines" in inputs:
      green = jax.image.resize(inputs["lines"][..., 0], shape, "nearest")
    blue = jnp.full((count,), -1.0)
    if "prompt" in inputs:
      blue += inputs["prompt"].sum(-1) / 10
    if "camera" in inputs:
      blue += inputs["camera"][:, 3] / 10
    blue += gain * inputs.get("amount", jnp.zeros(count)) / 10
    blue = jnp.broadcast_to(blue[:, None, None], shape)
    image = jnp.stack([red, green, -blue if invert else blue], -1)
    return {"image": image, "strip": jnp.concatenate([image] * 2, 2)}


def config_of():
  config = toy_editor.config_of()
  with config.unlocked():
    name = "tests.editing.toy_painter:ToyPainter"
    config.stage["head"]["recipe"] = {"name": name}
  return config


def blue_of(picture):
  """What words and numbers said, in tenths."""
  (value,) = set(picture[..., 2].ravel().tolist())
  return (value / 127.5) * 10
