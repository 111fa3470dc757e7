"""A small recipe that edits attributes: each is a colour that comes or goes."""

import dataclasses

import jax.numpy as jnp

from faceedit_jax.core import editing
from faceedit_jax.recipes.l2m_gan import words as attribute_words
from tests.editing import toy_editor

# What each attribute adds to a picture in [-1, 1] at strength 1.
COLOURS = {
  "Smiling": (0.0, 0.4, 0.0),
  "Eyeglasses": (0.4, 0.0, 0.0),
  "Bangs": (0.0, 0.0, 0.4),
}


@dataclasses.dataclass(frozen=True)
class ToyAttributes(toy_editor.ToyEditor):
  """Adds and takes colours away, in order, each from the clipped last one."""

  attributes: tuple[str, ...] = tuple(COLOURS)
  traced_options = ("strength", "strengths")
  edit_inputs = (
    editing.EditInput("source", "photo", required=True),
    editing.EditInput("attribute_from", "photo"),
  )

  def edit(
    self,
    variables,
    frozen,
    inputs,
    rng,
    *,
    attribute="Smiling",
    strength=1.0,
    strengths=(),
    has="auto",
  ):
    del frozen, rng
    edits = attribute_words.parse_edits(attribute, self.attributes)
    bias = self.head.apply(variables["head"], jnp.zeros((1, 3)))

    def at(strength):
      image = inputs["source"] + bias[:, None, None]
      for number, (index, wanted) in enumerate(edits):
        colour = jnp.asarray(COLOURS[self.attributes[index]])
        change = colour if wanted else -colour
        if number == 0 and has == wanted:
          change = 0 * change
        if "attribute_from" in inputs:
          change = inputs["attribute_from"].mean((1, 2), keepdims=True)
        image = jnp.clip(image + strength * change, -1, 1)
      return image

    outputs = {"image": at(attribute_words.parse_strength(strength))}
    steps = attribute_words.parse_strengths(strengths)
    if steps:
      outputs["strip"] = jnp.concatenate([at(s) for s in steps], 2)
    return outputs


def config_of():
  config = toy_editor.config_of()
  with config.unlocked():
    name = "tests.toy_attributes:ToyAttributes"
    config.stage["head"]["recipe"] = {"name": name}
  return config
