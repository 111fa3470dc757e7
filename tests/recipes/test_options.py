"""A stage's section `recipe`: what does not fit is refused in one line."""

import dataclasses

import pytest

from faceedit_jax import recipes, stages
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError

CONFIGS = (
  "configs/difffae.py:smoke",
  "configs/l2m_gan.py:smoke",
  "configs/l2m_gan.py:smoke=published_skips",
)


def stage_with(name):
  """The config, and a stage in it, of a registered recipe."""
  for path in CONFIGS:
    config = config_lib.load(path)
    for stage in (*config.stages, *config.eval_stages):
      if config.stage[stage].recipe.name == name:
        return config, stage
  raise AssertionError(f"no config trains {name!r}")


def refused(config, stage, tmp_path):
  """The line about a stage that cannot be made, after the section's place."""
  with pytest.raises(UserError) as caught:
    stages.make_stage(config, stage, tmp_path)
  line, place = str(caught.value), f"config.stage.{stage}.recipe"
  assert "\n" not in line and line.startswith(place)
  return line.removeprefix(place)


@pytest.mark.parametrize("name", recipes.REGISTRY)
def test_every_recipe_names_the_nearest_key(name, tmp_path):
  config, stage = stage_with(name)
  for key in config.stage[stage].recipe:
    if key in ("name", "optimizer", "optimizers"):  # these two are alike
      continue
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
      section = changed.stage[stage].recipe
      section[f"{key}_"] = section[key]
    said = refused(changed, stage, tmp_path)
    assert said == f" has no key '{key}_'; did you mean {key!r}?"


@pytest.mark.parametrize("name", recipes.REGISTRY)
def test_every_recipe_checks_the_type_of_every_key(name, tmp_path):
  config, stage = stage_with(name)
  fields = dataclasses.fields(recipes.load(name).Options)
  assert {"optimizer"} <= {field.name for field in fields}
  for field in fields:
    changed = config.copy_and_resolve_references()
    # No option is a set.
    with changed.unlocked(), changed.ignore_type():
      changed.stage[stage].recipe[field.name] = {1, 2}
    said = refused(changed, stage, tmp_path)
    assert said.startswith(f".{field.name} is {{1, 2}}, wanted ")


@pytest.mark.parametrize("name", recipes.REGISTRY)
def test_every_recipe_names_a_missing_key(name, tmp_path):
  config, stage = stage_with(name)
  with config.unlocked():
    del config.stage[stage].recipe["optimizer"]
  assert refused(config, stage, tmp_path) == " lacks the key 'optimizer'"


@pytest.mark.parametrize(
  "name, override, message",
  [
    (
      "difffae",
      {"timesteps": dict(antithetic=True, powr=3.0)},
      ".timesteps has no key 'powr'; did you mean 'power'?",
    ),
    (
      "difffae",
      {"slot_names": ("face", "hair", "cloth", "background")},
      ".slot_names[2] is 'cloth', wanted 'face' or 'hair' or 'clothes' or "
      "'background'",
    ),
    (
      "difffae",
      {"sampler": "ddimm"},
      ".sampler is 'ddimm', wanted 'ddim' or 'ddpm' or 'dpm_solver_pp'",
    ),
    (
      "difffae",
      {"consistency_weight": dict(start=1.0, end=0.0, step=3)},
      ".consistency_weight has no key 'step'; did you mean 'steps'?",
    ),
    (
      "l2m_gan",
      {"weights": dict(pixel_l2=1.0)},
      ".weights has no key 'pixel_l2'; did you mean 'pixel_l1'?",
    ),
    (
      "first_stage",
      {"perceptual": "vgg"},
      ".perceptual is 'vgg', wanted 'none' or 'lpips' or 'estimator' or "
      "'identity' or 'features'",
    ),
    (
      "identity",
      {"identities": 2.5},
      ".identities is 2.5, wanted a whole number",
    ),
  ],
)
def test_sections_choices_and_numbers(name, override, message, tmp_path):
  config, stage = stage_with(name)
  with config.unlocked(), config.ignore_type():
    for key, value in override.items():
      config.stage[stage].recipe[key] = value
  assert refused(config, stage, tmp_path) == message


def test_an_alignment_that_is_none_is_refused(tmp_path):
  config, stage = stage_with("l2m_gan")
  with config.unlocked():
    config.stage[stage].recipe.alignment = "ffhq"
  assert ": alignment is 'ffhq'" in refused(config, stage, tmp_path)
