"""The registry of recipes: a new method is one file and one line here."""

from collections.abc import Mapping
from typing import Any

from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import registry
from faceedit_jax.core.errors import as_user_error

# {name in configs: "module:Class"}; imported when first asked for.
REGISTRY: dict[str, str] = {
  "estimator": "faceedit_jax.recipes.pretrain.estimator:EstimatorRecipe",
  "identity": "faceedit_jax.recipes.pretrain.identity:IdentityRecipe",
  "attributes": "faceedit_jax.recipes.pretrain.attributes:AttributesRecipe",
  "landmarks": "faceedit_jax.recipes.pretrain.landmarks:LandmarksRecipe",
  "first_stage": "faceedit_jax.recipes.pretrain.first_stage:FirstStageRecipe",
  "region_encoder": (
    "faceedit_jax.recipes.pretrain.region_encoder:RegionEncoderRecipe"
  ),
  "difffae": "faceedit_jax.recipes.difffae.recipe:DiffFAERecipe",
  "l2m_gan": "faceedit_jax.recipes.l2m_gan.recipe:L2MGANRecipe",
}


def load(name: str) -> type[recipe_lib.Recipe]:
  """Finds a recipe class.

  Args:
    name: a name of the registry, or "module:Class" of a class elsewhere.

  Returns:
    The class.

  Raises:
    UserError: one line with the nearest names.
  """
  return registry.load(name, REGISTRY, "recipe")


def build(
  name: str,
  *,
  nets: Any,
  options: Mapping[str, Any],
  image_size: int,
  dtype: Any,
  where: str = "recipe",
) -> recipe_lib.Recipe:
  """Builds a recipe; the last reader of the config.

  Args:
    name: name in the registry.
    nets: {net: architecture} of the config.
    options: the stage's section `recipe` as a plain mapping, without the name.
    image_size: pixels.
    dtype: compute dtype of the nets.
    where: the section's place in the config, for errors.

  Returns:
    The recipe.

  Raises:
    UserError: one line for an unknown name, or for an option that is unknown,
      missing or of another type.
  """
  cls = load(name)
  made = options_lib.build(cls.Options, options, where)
  with as_user_error(where):
    return cls.from_config(nets, made, image_size, dtype)
