"""The edit of the attribute recipe: words, strengths, strips and its export."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax import edit, export, recipes
from faceedit_jax.core import config as config_lib

SIZE = 16


@pytest.fixture(scope="module")
def trained():
  """(recipe, variables) of tiny nets; drawn here, which compiles nothing."""
  config = config_lib.load("configs/l2m_gan.py").to_dict()
  for name in ("generator", "style_encoder", "discriminator"):
    config["nets"][name] |= {"channels": 4, "max_channels": 8}
  config = config_lib.from_dict(config)
  options = config_lib.from_dict(
    {k: v for k, v in config.stage.gan.recipe.items() if k != "name"}
  )
  recipe = recipes.build(
    "l2m_gan",
    nets=config.nets,
    options=options,
    image_size=SIZE,
    dtype=jnp.float32,
  )
  shapes = jax.eval_shape(recipe.init, jax.random.key(0))
  draw = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda leaf: np.float32(
      draw.standard_normal(leaf.shape) / np.prod(leaf.shape[-2:-1]) ** 0.5
    ),
    shapes,
  )
  return recipe, variables


def pictures(n, seed=0):
  draw = np.random.default_rng(seed)
  return draw.uniform(-1, 1, (n, SIZE, SIZE, 3)).astype(np.float32)


PROGRAMS = {}


def run(trained, source, strength=1.0, other=None, **fixed):
  """The edit of pictures, `other` is what to take the attribute from."""
  recipe, variables = trained
  key = repr(fixed)
  if key not in PROGRAMS:
    PROGRAMS[key] = jax.jit(functools.partial(recipe.edit, **fixed))
  inputs = {"source": source}
  if other is not None:
    inputs["attribute_from"] = other
  rng = jax.random.key(0)
  made = PROGRAMS[key](variables, {}, inputs, rng, strength=strength)
  return {k: np.asarray(v) for k, v in made.items()}


def test_a_strip_is_the_single_edits(trained):
  source, strengths = pictures(2), (-0.5, 0.0, 1.5)
  made = run(trained, source, attribute="-Bangs", strengths=strengths)
  assert made["strip"].shape == (2, SIZE, 3 * SIZE, 3)
  shown = np.split(made["strip"], 3, axis=2)
  for strength, picture in zip(strengths, shown, strict=True):
    alone = run(trained, source, attribute="-Bangs", strength=strength)
    assert list(alone) == ["image"]
    np.testing.assert_allclose(picture, alone["image"], atol=2e-5)
  assert np.abs(shown[0] - shown[2]).max() > 1e-3
  # At strength 0 the style is the picture's own, whatever the target.
  there = run(trained, source, attribute="Bangs", has=True, strength=0.0)
  np.testing.assert_allclose(there["image"], shown[1], atol=2e-5)


def test_several_attributes_follow_one_another(trained):
  source = pictures(2)
  both = run(trained, source, attribute="+Smiling,-Bangs", strength=1.2)
  first = run(trained, source, attribute="+Smiling", strength=1.2)["image"]
  then = run(trained, first, attribute="-Bangs", strength=1.2)["image"]
  np.testing.assert_allclose(both["image"], then, atol=2e-5)
  assert np.abs(first - then).max() > 1e-4


def test_a_reference_gives_its_part_of_the_style(trained):
  source = pictures(2)
  a, b = (
    run(trained, source, other=pictures(2, seed), attribute="+Smiling")["image"]
    for seed in (1, 2)
  )
  plain = run(trained, source, attribute="+Smiling")["image"]
  for left, right in ((a, b), (a, plain), (b, plain)):
    assert np.abs(left - right).max() > 1e-4


@pytest.mark.parametrize(
  "given, message",
  [
    ({"attribute": "Smilling"}, "did you mean Smiling"),
    ({"strength": "much"}, "strength: 'much' is no number"),
    ({"strengths": "0,l"}, "strengths: '0,l' are no numbers"),
    ({"has": "maybe"}, "has is 'maybe'"),
    (
      {"attribute": "Smiling,Bangs", "other": pictures(2)},
      "attribute_from goes with one attribute",
    ),
  ],
)
def test_mistakes(trained, given, message):
  with pytest.raises(ValueError, match=message):
    inputs = {"source": pictures(2), "attribute_from": given.pop("other", None)}
    trained[0].edit(trained[1], {}, inputs, None, **given)


def test_a_slider_needs_no_new_compilation(trained):
  editor = edit.Editor(*trained, {}, SIZE)
  source = np.uint8(127.5 * (pictures(1)[0] + 1))
  made = [
    editor.edit(source, strength=s, aligned=True).image for s in (0.0, 1, 2.5)
  ]
  assert [program._cache_size() for program in editor._edits.values()] == [1]
  assert (made[0] != made[2]).any()


def test_an_export_holds_the_words_and_the_strip(trained, tmp_path):
  knobs = {"attribute": "-Eyeglasses", "strengths": [0.0, 2.0]}
  export.export_edit(*trained, {}, tmp_path, knobs=knobs, platforms=("cpu",))
  bundle = export.load_bundle(tmp_path)
  assert list(bundle.manifest["inputs"]) == ["source"]
  for count in (1, 2):
    source = pictures(2)[:count]
    made = bundle({"source": source})
    wanted = run(trained, pictures(2), **knobs)
    for name in ("image", "strip"):
      np.testing.assert_allclose(made[name], wanted[name][:count], atol=2e-5)
