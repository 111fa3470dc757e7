"""A run of attributes, edited and exported from what it has recorded."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import align, images
from faceedit_jax import edit, export, load_trained, stages
from faceedit_jax.core import checkpoint
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.editing import Editor

SIZE = 16


def drawn(leaf):
  """An array for a shape: no initialiser has to be compiled."""
  draw = np.random.default_rng(leaf.size)
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return jax.random.key(0)
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    return np.zeros(leaf.shape, leaf.dtype)
  scale = np.prod(leaf.shape[-2:-1]) ** -0.5
  return np.asarray(scale * draw.standard_normal(leaf.shape), leaf.dtype)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """What training leaves, without the nets that only score or train."""
  path = tmp_path_factory.mktemp("run")
  config = config_lib.load("configs/l2m_gan.py").to_dict()
  for name in ("generator", "style_encoder", "discriminator"):
    config["nets"][name] |= {"channels": 4, "max_channels": 8}
  config["image_size"] = SIZE
  stage = stages.make_stage(config_lib.from_dict(config), "gan", path)
  init = functools.partial(step_lib.init_state, stage.recipe)
  state = jax.tree.map(drawn, jax.eval_shape(init, jax.random.key(0)))
  store = checkpoint.Checkpoints(stage.checkpoints)
  store.save(state, checkpoint.Record(2, {}, stage.identity, {}))
  store.close()
  for seed, name in enumerate(("a", "b")):
    images.write_image(path / f"{name}.png", picture(seed))
  return path


def picture(seed):
  draw = np.random.default_rng(seed)
  return draw.integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def editor(workdir):
  return Editor.from_workdir(workdir)


def test_the_command_line(workdir, editor, tmp_path, capsys):
  out = tmp_path / "out.png"
  line = [
    f"--workdir={workdir}",
    f"--source={workdir / 'a.png'}",
    f"--output={out}",
    "--aligned",
    "--attribute=-Bangs",
  ]
  other = f"--attribute_from={workdir / 'b.png'}"
  assert edit.main([*line, other, "--strengths=0:2:3"]) == 0
  strip = tmp_path / "out_strip.png"
  assert capsys.readouterr().out == f"wrote {out} and {strip}\n"
  assert strip.is_file()
  wanted = editor.edit(
    picture(0),
    attribute="-Bangs",
    attribute_from=picture(1),
    strengths=(0, 1, 2),
    aligned=True,
  )
  made = images.read_image(out).astype(int)
  np.testing.assert_allclose(made, wanted.image, atol=1)


@pytest.mark.parametrize(
  "given, message",
  [
    ({"attribute": "Smilling"}, "did you mean Smiling"),
    ({"strength": "much"}, "strength: 'much' is no number"),
    ({"strengths": "0,l"}, "strengths: '0,l' are no numbers"),
    ({"has": "maybe"}, "has is 'maybe'"),
    (
      {"attribute": "Smiling,Bangs", "attribute_from": picture(1)},
      "attribute_from goes with one attribute",
    ),
  ],
)
def test_mistakes(editor, given, message):
  with pytest.raises(UserError, match=message) as error:
    editor.edit(picture(0), aligned=True, **given)
  assert len(str(error.value).splitlines()) == 1


def test_faces_are_framed_as_in_training(workdir):
  found = load_trained.load(workdir)
  options = dataclasses.replace(found.recipe.options, alignment="celeba_hq")
  recipe = dataclasses.replace(found.recipe, options=options)
  editor = Editor(recipe, found.variables, found.frozen, SIZE)
  given = align.CELEBA_HQ5.astype(float) * SIZE
  framed = editor.edit(picture(0), aligned=True)
  np.testing.assert_allclose(framed.points, given, atol=1e-4)
  # With its points there, a picture lies as it should already.
  moved = editor.edit(picture(0), landmarks={"source": given})
  np.testing.assert_array_equal(moved.source, framed.source)


def test_a_strength_needs_no_new_compilation(workdir):
  editor = Editor.from_workdir(workdir)
  options = {"attribute": "-Eyeglasses", "aligned": True}
  made = [
    editor.edit(picture(0), strengths=(0, s), **options).strip for s in (1, 2.5)
  ]
  assert [program.programs() for program in editor._edits.values()] == [1]
  same, moved = np.split(made[0] != made[1], 2, axis=1)
  assert moved.any() and not same.any()


def test_an_export_holds_the_words_and_the_strip(workdir, editor, tmp_path):
  line = [f"--workdir={workdir}", f"--out={tmp_path}", "--platforms=cpu"]
  options = '--options={"attribute": "-Eyeglasses", "strengths": [0, 2]}'
  assert export.main([*line, options]) == 0
  bundle = export.load_bundle(tmp_path)
  assert list(bundle.manifest["inputs"]) == ["source"]
  made = bundle({"source": np.float32(picture(0)[None]) / 127.5 - 1})
  wanted = editor.edit(
    picture(0), attribute="-Eyeglasses", strengths=(0, 2), aligned=True
  )
  for name, shown in (("image", wanted.image), ("strip", wanted.strip)):
    as_bytes = (np.asarray(made[name][0]) + 1) * 127.5
    np.testing.assert_allclose(as_bytes, shown, atol=1)
