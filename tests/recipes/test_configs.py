"""The embedded defaults are the papers' settings, shrunk."""

import copy

import numpy as np
import pytest

from configs import (
  difffae_embedded,
  difffae_paper,
  l2m_gan_embedded,
  l2m_gan_paper,
)
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import optim

# (paper's setting, shrink, variants, nets of the paper alone)
METHODS = {
  "difffae": (
    lambda: difffae_paper.paper(256, "synthetic"),
    difffae_embedded,
    set(),
  ),
  "l2m_gan": (
    lambda: l2m_gan_paper.celeba_hq("celeba_hq_multi"),
    l2m_gan_embedded,
    {"fan", "features"},
  ),
}


def cases():
  return [
    (method, variant)
    for method, (_, module, _) in METHODS.items()
    for variant in module.STEPS
    if variant != "long_stargan_v2"  # another method, with a net more
  ]


def recipes_of(config):
  return {name: s["recipe"]["name"] for name, s in config["stage"].items()}


@pytest.mark.parametrize("method, variant", cases())
def test_the_shrunk_default_has_the_papers_structure(method, variant):
  make, module, dropped = METHODS[method]
  # What opens the skips of the published generator has a stage of its own.
  skips = variant == "published_skips"
  dropped = dropped - {"fan"} if skips else dropped
  paper = make()
  small = module.shrink(paper, variant)
  assert set(small) == set(paper)
  assert set(small["nets"]) == set(paper["nets"]) - dropped
  assert recipes_of(paper).items() <= recipes_of(small).items()
  # Nets of the embedded world alone: those that evaluate, and features that
  # stand for a published net's.
  more = set(small["stage"]) - set(paper["stage"])
  more -= {*small["eval_stages"], "identity"}
  assert more == ({"landmarks"} if skips else set())
  trained = [s for s in small["stages"] if s in paper["stages"]]
  assert tuple(trained) == paper["stages"]
  # Whatever the paper's setting says of a shared recipe the default says too.
  for name, stage in paper["stage"].items():
    assert set(stage["recipe"]) <= set(small["stage"][name]["recipe"])


@pytest.mark.parametrize("method, variant", cases())
def test_to_shrink_leaves_the_papers_setting_as_it_is(method, variant):
  make, module, _ = METHODS[method]
  paper = make()
  before = copy.deepcopy(paper)
  small = module.shrink(paper, variant)
  assert paper == before
  # Nor do the stages of the result share a section.
  sections = [id(s["data"]) for s in small["stage"].values()]
  assert len(set(sections)) == len(sections)


@pytest.mark.parametrize("method", METHODS)
def test_the_size_of_the_pictures_is_said_once(method):
  for source in ("", ":smoke"):
    config = config_lib.load(f"configs/{method}.py{source}")
    said = [k for k in config_lib.flatten(config) if k.endswith("source.size")]
    assert not said and config.image_size == 64


@pytest.mark.parametrize("variant", ["", ":long", ":long_stargan_v2"])
def test_nets_that_start_late_start_at_their_highest_rate(variant):
  stage = config_lib.load(f"configs/l2m_gan.py{variant}").stage.gan
  recipe = stage.recipe
  assert recipe.generator_start > 0
  for net in ("generator", "style_encoder"):
    values = {**recipe.optimizer, **recipe.optimizers[net]}
    rate = optim.make_schedule(
      *(values[k] for k in ("lr", "schedule", "warmup_steps", "total_steps")),
      final=values["final"],
      decay_start=values["decay_start"],
    )
    found = [float(rate(n)) / values["lr"] for n in
             (recipe.generator_start, stage.steps)]  # fmt: skip
    np.testing.assert_allclose(found, [1.0, 0.05], rtol=1e-5)
