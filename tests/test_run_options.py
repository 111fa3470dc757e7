"""The top of a config and its stages, typed: what is refused, and how."""

import pytest

from faceedit_jax import run_options, stages
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError
from tests import toy_config


def changed(**entries):
  """The toy config with entries changed, added, or with None taken away."""
  config = toy_config.get_config().to_dict()
  for path, value in entries.items():
    *parents, last = path.split("__")
    section = config
    for parent in parents:
      section = section[parent]
    section[last] = value
    if value is None:
      del section[last]
  return config_lib.from_dict(config)


def test_the_config_is_read():
  config = changed()
  run = run_options.read(config)
  assert run.stages == ("ae", "head") and run.mesh.data == -1
  assert (run.compute_dtype, run.image_size) == ("float32", 8)
  stage = run_options.read_stage(run.stage["ae"], "ae")
  assert (stage.steps, stage.log_every, stage.max_to_keep) == (6, 2, 2)
  assert (stage.keep_period, stage.seed) == (None, None)


@pytest.mark.parametrize("method", ["difffae", "l2m_gan"])
def test_no_config_says_what_nobody_reads(method):
  module = __import__(f"configs.{method}", fromlist=["VARIANTS"])
  for variant in module.VARIANTS:
    run = run_options.read(module.get_config(variant))
    for name, section in run.stage.items():
      assert run_options.read_stage(section, name).steps > 0


@pytest.mark.parametrize(
  "entries, message",
  [
    (dict(tensorbord=True), "config has no key 'tensorbord'; .* 'tensorboard'"),
    (dict(image_size=None), "config lacks the key 'image_size'"),
    (dict(image_size="8"), "config.image_size is '8', wanted a whole number"),
    (dict(image_size=0), "config: image_size is 0, wanted 1 or more"),
    (
      dict(compute_dtype="bf16"),
      "compute_dtype is 'bf16', wanted 'float32' or",
    ),
    (dict(mesh__dta=1), "config.mesh has no key 'dta'; did you mean 'data'"),
    (dict(mesh__fsdp="all"), "config.mesh.fsdp is 'all', wanted a whole"),
    (dict(stages="ae"), "config.stages is 'ae', wanted a list, each entry a"),
    (dict(stages=("ae", "haed")), r"config.stages lists \['haed'\]"),
    (
      dict(stage__ae__log_evry=1),
      "stage.ae has no key 'log_evry'; .*log_every",
    ),
    (dict(stage__ae__keep=1), "config.stage.ae has no key 'keep'"),
    (dict(stage__ae__steps=None), "config.stage.ae lacks the key 'steps'"),
    (dict(stage__ae__steps=-1), "stage.ae: steps is -1, wanted 0 or more"),
    (
      dict(stage__ae__steps=1.5),
      "stage.ae.steps is 1.5, wanted a whole number",
    ),
    (dict(stage__ae__accumulate=0), "accumulate is 0, wanted 1 or more"),
    (dict(stage__ae__max_to_keep=0), "max_to_keep is 0, wanted 1 or more"),
    (dict(stage__ae__keep_period=-5), "keep_period is -5, wanted 1 or more"),
    (dict(stage__ae__evaluate=1), "evaluate is 1, wanted True or False"),
    (dict(stage__ae__recipe__name=None), "ae: recipe lacks the key 'name'"),
  ],
)
def test_mistakes_in_a_file_are_one_line(entries, message, tmp_path):
  config = changed(**entries)
  with pytest.raises(UserError, match=message) as caught:
    for name in stages.pick_stages(config, None):
      stages.make_stage(config, name, tmp_path)
  assert "\n" not in str(caught.value)


def test_a_stage_may_have_a_size_and_a_seed_of_its_own(tmp_path):
  config = changed(stage__ae__image_size=16, stage__ae__seed=7)
  stage = stages.make_stage(config, "ae", tmp_path)
  assert stage.identity["image_size"] == 16 and stage.seed == 7
  other = stages.make_stage(config, "head", tmp_path)
  assert other.identity["image_size"] == 8 and other.seed == 3
