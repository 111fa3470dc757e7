"""Bundles: written, read in a process without the recipe, and refused."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax import export
from faceedit_jax.core import editing
from faceedit_jax.core.errors import UserError
from tests import toy_recipes


@pytest.fixture(scope="module")
def latent():
  recipe = toy_recipes.ToyLatent()
  keys = jax.random.split(jax.random.key(0))
  return recipe, recipe.init(keys[0]), recipe.init_frozen(keys[1])


@pytest.fixture(scope="module")
def bundle(latent, tmp_path_factory):
  out = tmp_path_factory.mktemp("bundle")
  return export.export_edit(*latent, out, image_size=8, info={"step": 7})


def _picture(n, seed=0):
  draw = np.random.default_rng(seed)
  return draw.uniform(-1, 1, (n, 8, 8, 3)).astype(np.float32)


def test_bundle_equals_the_edit_at_any_batch_size(latent, bundle):
  recipe, variables, frozen = latent
  loaded = export.load_bundle(bundle)
  for n in (1, 3):
    image = _picture(n)
    made = loaded({"image": image, "unused": np.zeros(3)})
    wanted = recipe.edit(
      variables, frozen, {"image": jnp.asarray(image)}, jax.random.key(0)
    )
    np.testing.assert_allclose(made["image"], wanted["image"], atol=1e-6)


def test_manifest(bundle):
  manifest = json.loads((bundle / "manifest.json").read_text())
  assert manifest["inputs"]["image"] == {
    "shape": ["b", 8, 8, 3],
    "dtype": "float32",
    "range": [-1.0, 1.0],
    "kind": "photo",
    "required": True,
  }
  assert manifest["outputs"]["image"]["shape"] == ["b", 8, 8, 3]
  assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
  assert manifest["info"] == {"step": 7}
  weights = export.load_bundle(bundle).weights
  assert manifest["parameters"] == sum(w.size for w in weights.values())
  assert "frozen/dec/params/ConvTranspose_0/kernel" in weights


def test_noise_and_options(tmp_path):

  class Unread(toy_recipes.ToyGan):
    edit_inputs = (
      *toy_recipes.PHOTO,
      editing.EditInput("never_read", "number", required=True),
    )

  recipe = Unread()
  variables = recipe.init(jax.random.key(1))
  out = export.export_edit(
    recipe,
    variables,
    {},
    tmp_path,
    image_size=8,
    options={"strength": 0.5},
    platforms=("cpu",),
    batch=2,
  )
  loaded = export.load_bundle(out)
  assert list(loaded.manifest["inputs"]) == ["image"]
  image = _picture(2)
  wanted = recipe.edit(
    variables, {}, {"image": image}, jax.random.key(5), strength=0.5
  )
  made = loaded({"image": image}, seed=5)
  np.testing.assert_allclose(made["image"], wanted["image"], atol=1e-6)
  other = loaded({"image": image}, seed=6)
  assert np.abs(other["image"] - made["image"]).max() > 1e-3
  with pytest.raises(UserError, match=r"float32\[2, 8, 8, 3\]"):
    loaded({"image": _picture(3)})


def test_bundle_runs_where_the_recipe_is_unknown(bundle, tmp_path, latent):
  np.save(tmp_path / "image.npy", _picture(2))
  code = (
    "import sys, numpy as np; from faceedit_jax import export; "
    f"b = export.load_bundle({str(bundle)!r}); "
    f"x = np.load({str(tmp_path / 'image.npy')!r}); "
    f"np.save({str(tmp_path / 'out.npy')!r}, b({{'image': x}})['image']); "
    "assert not any(m.startswith('tests.toy') for m in sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
  recipe, variables, frozen = latent
  wanted = recipe.edit(variables, frozen, {"image": _picture(2)}, None)
  np.testing.assert_allclose(
    np.load(tmp_path / "out.npy"), wanted["image"], atol=1e-6
  )


def test_refusals(bundle, latent, tmp_path, monkeypatch, capsys):
  loaded = export.load_bundle(bundle)
  with pytest.raises(UserError, match=r"needs \['image'\], got \['photo'\]"):
    loaded({"photo": _picture(1)})
  with pytest.raises(UserError, match="is float64"):
    loaded({"image": _picture(1).astype(np.float64)})
  with pytest.raises(UserError, match="is no bundle"):
    export.load_bundle(tmp_path)
  for name in ("manifest.json", "edit.jax", "weights.safetensors"):
    (tmp_path / name).write_bytes((bundle / name).read_bytes())
  with (tmp_path / "weights.safetensors").open("r+b") as file:
    file.seek(-1, 2)
    file.write(b"\x7f")
  with pytest.raises(UserError, match="damaged"):
    export.load_bundle(tmp_path)
  monkeypatch.setattr(jax, "default_backend", lambda: "rocm")
  with pytest.raises(UserError, match="runs on 'rocm'"):
    export.load_bundle(bundle)
  with pytest.raises(ValueError, match="platforms"):
    export.export_edit(*latent, tmp_path, image_size=8, platforms=("abacus",))
  with pytest.raises(UserError, match="did you mean 'image'"):
    export.export_edit(*latent, tmp_path, image_size=8, inputs=("imag",))
  with pytest.raises(UserError, match="lack 'image', which edits need"):
    export.export_edit(*latent, tmp_path, image_size=8, inputs=())
  pretrained = toy_recipes.ToyAutoencoder()
  with pytest.raises(UserError, match="net that others stand on"):
    export.export_edit(pretrained, {}, {}, tmp_path, image_size=8)
  arguments = ["--config=configs/none.py", "--workdir=x", "--out=y"]
  assert export.main(arguments) == 2
  assert capsys.readouterr().err.startswith("error: ")


class Choosy(toy_recipes.ToyLatent):
  """Takes a second photo that its trained nets may not understand."""

  edit_inputs = (
    *toy_recipes.PHOTO,
    editing.EditInput("other", "photo", default="image"),
  )

  def check_edit(self, variables, inputs):
    if "other" in inputs and not variables:
      raise ValueError("other needs a name")


def test_inputs_that_the_nets_cannot_take_are_left_out():
  chosen = export._chosen(Choosy(), None, {})
  assert [item.field for item in chosen] == ["image"]
  chosen = export._chosen(Choosy(), None, {"net": {}})
  assert [item.field for item in chosen] == ["image", "other"]
  with pytest.raises(UserError, match="other needs a name"):
    export._chosen(Choosy(), ["image", "other"], {})
