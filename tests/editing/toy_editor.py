"""A small recipe that edits pictures of red discs, for tests of editing."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from PIL import Image

from data_pipelines import align
from faceedit_jax import edit, stages
from faceedit_jax.core import checkpoint, editing, optim
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import step as step_lib
from tests import toy_config, toy_recipes

SIZE = 32
REFERENCES = ("pose_from", "light_from")
RADIUS = 0.2  # of the toy face, in an aligned picture
MIDDLE = align.CANONICAL5.mean(0)


@dataclasses.dataclass(frozen=True)
class ToyEditor(toy_recipes.ToyLatent):
  """Edits red discs: the mean of source and references, through two nets."""

  edit_inputs = (
    editing.EditInput("source", "photo", required=True),
    *(
      editing.EditInput(name, "photo", default="source") for name in REFERENCES
    ),
  )

  @property
  def head(self):
    return nn.Dense(3)

  def init(self, rng):
    return {"head": self.head.init(rng, jnp.zeros((1, 3)))}

  def groups(self):
    return {"h": recipe_lib.Group(("head",), optim.make_tx())}

  def find_points(self, variables, frozen, image):
    """Centre and spread of what is red; sure where its area is a face's."""
    del variables, frozen
    red = image[..., 0] - image[..., 1:].max(-1) > 0.8
    weight = red / jnp.maximum(red.sum((1, 2), keepdims=True), 1.0)
    at = (jnp.arange(image.shape[1]) + 0.5) / image.shape[1]
    x, y = (weight.sum(axis) @ at for axis in (1, 2))
    spread = (weight.sum(1) * (at - x[:, None]) ** 2).sum(-1)
    scale = jnp.sqrt(spread) / (RADIUS / 2)
    centre = jnp.stack([x, y], -1)[:, None]
    points = centre + (align.CANONICAL5 - MIDDLE) * scale[:, None, None]
    area = red.mean((1, 2)) / (jnp.pi * RADIUS**2)
    return points, 4.0 - 6.0 * jnp.abs(area - 1.0)

  def edit(
    self, variables, frozen, inputs, rng, *, steps=None, mode="mean", noise=0.0
  ):
    if mode not in ("mean", "nan"):
      raise ValueError(f"mode is {mode!r};\n it must be 'mean' or 'nan'")
    source = inputs["source"]
    every = [source] + [inputs[name] for name in REFERENCES if name in inputs]
    image = sum(every) / len(every)
    latent = toy_recipes.ToyEncoder(self.channels).apply(frozen["enc"], image)
    draw = jax.vmap(
      lambda i: jax.random.normal(jax.random.fold_in(rng, i), image.shape[1:])
    )(inputs.get("row", jnp.arange(image.shape[0])))
    bias = self.head.apply(variables["head"], jnp.zeros((1, 3)))
    image = image + noise * draw + bias[:, None, None]
    if mode == "nan":
      image = image * jnp.nan
    return {
      "image": jnp.clip(image, -1, 1),
      "rendering": jnp.broadcast_to(
        source.mean((1, 2), keepdims=True), image.shape
      ),
      "slots": jax.nn.softmax(latent, -1),
      "steps": jnp.asarray(steps or 1),
    }


def config_of():
  config = toy_config.get_config("latent")
  config.image_size = SIZE
  config.stages = ("ae", "head")
  config.stage["head"]["recipe"] = {
    "name": "tests.editing.toy_editor:ToyEditor"
  }
  return config_lib.from_dict(config)


def portrait(width=90, height=120, x=45.0, y=60.0, side=60.0, ground=90):
  """A red disc whose aligned square has this side, centred on x, y."""
  rows, columns = np.mgrid[:height, :width] + 0.5
  picture = np.full((height, width, 3), ground, np.uint8)
  inside = (rows - y) ** 2 + (columns - x) ** 2 < (RADIUS * side) ** 2
  picture[inside] = (255, 20, 20)
  points = (x, y) + (align.CANONICAL5.astype(float) - MIDDLE) * side
  return picture, points


def save_run(path, config):
  """Stages `ae` and `head` as a finished run leaves them below a folder."""
  for number, name in enumerate(("ae", "head")):
    stage = stages.make_stage(config, name, path)
    init = jax.jit(lambda key, r=stage.recipe: step_lib.init_state(r, key))
    store = checkpoint.Checkpoints(stage.checkpoints)
    store.save(
      init(jax.random.key(0)), checkpoint.Record(2, {}, stage.identity, {})
    )
    store.close()
    marker = {"step": 2, "time": float(number)}
    (stage.directory / "finished.json").write_text(json.dumps(marker))
  return path


def write_portraits(folder):
  """a.png and b.png, which differ in their ground."""
  for name, ground in (("a", 90), ("b", 200)):
    Image.fromarray(portrait(ground=ground)[0]).save(folder / f"{name}.png")
  return folder


def command(workdir, folder, *arguments):
  """The exit code of a command line on a.png."""
  return edit.main(
    [
      f"--workdir={workdir}",
      f"--source={folder / 'a.png'}",
      f"--output={folder / 'out.png'}",
      *map(str, arguments),
    ]
  )


def one_line(capsys):
  """The error printed, which must be one line and nothing else."""
  printed = capsys.readouterr()
  assert printed.out == ""
  assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
  return printed.err
