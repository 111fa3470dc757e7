"""Overrides of the wrong kind end in one line, before anything is trained."""

import functools
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import difffae, l2m_gan
from data_pipelines import prepare
from faceedit_jax import stages, train
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError
from tests.test_main import run_main

ROOT = pathlib.Path(__file__).resolve().parents[1]
VALUES = (
  "", "x", "1 2", "[1", "None", "nan", "-1.5", "1,2,x", "[]", "{'a': 1}",
  "{1: 2}", "\u22121", "'", "1if 2else 3", "\\d", "(" * 300, "9" * 5000,
)  # fmt: skip


@functools.cache
def loaded(source):
  return config_lib.load(str(ROOT / source))


def leaves():
  """[(config file with variant, key)] of every leaf, each kind of it once."""
  found = {}
  for module in (difffae, l2m_gan):
    file = f"configs/{module.__name__.rpartition('.')[2]}.py"
    for variant in module.VARIANTS:
      source = f"{file}:{variant}" if variant != "folders" else ""
      if source:
        flat = config_lib.flatten(loaded(source.removesuffix(":")))
        for key, value in flat.items():
          where = (source.removesuffix(":"), key)
          found.setdefault((file, key, type(value)), where)
  return list(found.values())


LEAVES = leaves()


def test_every_leaf_of_every_config():
  """A value is read as what the old one is, or refused in one line."""
  assert len(LEAVES) > 400
  refused = 0
  for source, key in LEAVES:
    old = config_lib.flatten(loaded(source))[key]
    for text in VALUES:
      try:
        value = config_lib._parse(key, text, old)
      except UserError as error:
        assert "\n" not in str(error) and key in str(error)
        refused += 1
        continue
      fits = old is None or value is None or type(value) is type(old)
      assert fits, (key, text, value)
  assert refused > 2 * len(LEAVES)


@pytest.mark.parametrize("value", ["-1", "[]", "64,64,64,64,64,64"])
def test_sizes_that_make_no_net(tmp_path, value):
  """The nets are traced here; their layers raise errors of any kind."""
  config = config_lib.override(
    loaded("configs/l2m_gan.py:smoke"), [f"nets.identity.widths={value}"]
  )
  with pytest.raises(UserError, match="cannot be made with these sizes") as e:
    stages.make_stage(config, "identity", tmp_path)
  assert "config.stage.identity.recipe" in str(e.value)
  assert "\n" not in str(e.value)


@pytest.fixture(scope="module")
def built():
  """Runs the command line up to the training, without tracing the nets."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(prepare, "ensure", lambda *_: None)
    patch.setattr(train, "run", lambda *_: True)
    patch.setattr(stages.jax, "eval_shape", lambda *_: {})
    patch.chdir(ROOT)
    yield


def outcome(folder, source, override):
  """Exit code of a command, and what it says."""
  try:
    return run_main(folder, overrides=[override], config=source), ""
  except UserError as error:
    return 2, str(error)


@settings(derandomize=True, max_examples=100, deadline=None, database=None)
@given(leaf=st.sampled_from(LEAVES), text=st.sampled_from(VALUES))
def test_commands(built, tmp_path_factory, leaf, text):
  source, key = leaf
  code, said = outcome(tmp_path_factory.getbasetemp(), source, f"{key}={text}")
  assert code in (0, 2) and "\n" not in said
  assert bool(said) == (code == 2)


@pytest.mark.parametrize(
  "source, override, message",
  [
    ("difffae", "nets.unet.mult=1 2 4", "wanted a list, each entry a whole"),
    ("difffae", "nets.unet.mult=1,2,2,x", "wanted a list, each entry a whole"),
    ("difffae", "nets.unet.mult=", "wanted a list, each entry a whole number"),
    ("difffae", "compute_dtype=bf16", "wanted 'float32' or 'bfloat16' or"),
  ],
)
def test_the_field_case(built, tmp_path, source, override, message):
  """R5-overrides: one line each, before any stage is trained."""
  code, said = outcome(tmp_path, f"configs/{source}.py:smoke", override)
  assert code == 2 and message in said and "\n" not in said


def test_the_attributes_of_the_field_case(built, tmp_path):
  """The sampler draws those of the recipe."""
  override = "stage.gan.recipe.attributes=[Smiling,Bangs]"
  assert outcome(tmp_path, "configs/l2m_gan.py:smoke", override) == (0, "")
  config = config_lib.override(loaded("configs/l2m_gan.py:smoke"), [override])
  made = stages.make_stage(config, "gan", tmp_path)
  assert made.data.sampler.attributes == ("Smiling", "Bangs")
