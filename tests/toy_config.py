"""A config of toy stages, for tests of the trainer and the command line."""

import ml_collections

VARIANTS = ("", "gan", "ae", "latent")


def get_config(variant=""):
  """Stages `ae` -> `head` (default, "latent"), or one stage `gan` or `ae`."""
  config = ml_collections.ConfigDict()
  config.name = "toy"
  config.seed = 3
  config.data_dir = "data"
  config.tensorboard = False
  config.mesh = {"data": -1, "fsdp": 1}
  config.nets = {"enc": {"channels": 4}, "head": {"width": 4}}
  config.image_size = 8
  config.compute_dtype = "float32"
  one = variant in ("gan", "ae")
  config.stages = (variant,) if one else ("ae", "head")
  config.stage = {name: stage(name) for name in config.stages}
  return config


def stage(name):
  """The section of one stage."""
  recipes = {"ae": "ToyAutoencoder", "head": "ToyLatent", "gan": "ToyGan"}
  return {
    "recipe": {"name": f"tests.toy_recipes:{recipes[name]}"}
    | ({"cache_features": False} if name == "head" else {}),
    "data": {
      "source": {"kind": "array_record", "folder": "toy"},
      "sampler": {"kind": "single"},
      "loader": {"batch_size": 8, "num_threads": 2},
    },
    "steps": 6,
    "accumulate": 1,
    "log_every": 2,
    "preview_every": 3,
    "checkpoint_every": 2,
    "max_to_keep": 2,
    "evaluate": True,
  }
