"""Second estimator and identity net, which only evaluate.

Stages `eval_estimator` and `eval_identity` train them with another seed, so
that no net that conditions an edit measures it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import face_reader
from faceedit_jax.faces import nets as nets_lib

NETS = ("estimator", "identity")


def stage_of(net: str) -> str:
  """Name of the stage that trains the second net of this name."""
  return f"eval_{net}"


def sources(
  nets: Sequence[str] = NETS,
) -> dict[str, recipe_lib.WeightSource]:
  """Where second nets come from."""
  return {
    net: recipe_lib.WeightSource(stage=stage_of(net), net=net) for net in nets
  }


def init(
  reader: face_reader.FaceReader,
  code_shapes: Mapping[str, tuple[int, ...]],
  image_size: int,
  rng,
  nets: Sequence[str] = NETS,
) -> dict[str, Any]:
  """{net: variables} with the structure of those nets."""
  made = {}
  if "estimator" in nets:
    picture = jnp.zeros((1, image_size, image_size, 3))
    made["estimator"] = nets_lib.init_estimator(
      reader.estimator, code_shapes, rng, picture
    )
  if "identity" in nets:
    crop = jnp.zeros((1,) + (reader.identity_size,) * 2 + (3,))
    made["identity"] = reader.identity.init(rng, crop)
  return made
