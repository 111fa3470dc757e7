"""Short runs of the toy recipes: data, configs, command lines, saved states."""

import sys
import time

import jax
import numpy as np

from data_pipelines import records
from faceedit_jax import stages
from faceedit_jax.core import checkpoint, partial_restore
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import step as step_lib
from tests import toy_config

CONFIG = "tests/toy_config.py"

# A program that trains with a pause of {seconds} in each step.
SLOW = """
import sys, time
from faceedit_jax.core import step as step_lib
due = step_lib.due_phases
def slow(*a):
  time.sleep({seconds})
  return due(*a)
step_lib.due_phases = slow
from faceedit_jax import main
main.main()
"""


def write_pictures(path):
  """24 random pictures of 6 people."""
  draw = np.random.default_rng(0)
  records.write_records(
    path / "toy" / "train",
    (
      {
        "image": draw.integers(0, 256, (8, 8, 3), dtype=np.uint8),
        "identity": np.int32(i // 4),
        "frame": np.int32(i % 4),
      }
      for i in range(24)
    ),
  )
  return path


def config_of(variant="gan", **changes):
  config = config_lib.from_dict(toy_config.get_config(variant))
  changes = [f"{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return config_lib.override(config, changes)


def state_of(config, workdir, name="gan", step=None):
  """The saved state, on one device, as NumPy arrays by path."""
  stage = stages.make_stage(config, name, workdir)
  abstract = jax.eval_shape(
    lambda: step_lib.init_state(stage.recipe, jax.random.key(0))
  )
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  state, _ = checkpoint.restore(
    stage.checkpoints, partial_restore.place_on(one)(abstract), step
  )
  state = state.replace(rng=jax.random.key_data(state.rng))
  return {
    jax.tree_util.keystr(k, simple=True, separator="/"): np.asarray(v)
    for k, v in jax.tree_util.tree_flatten_with_path(state)[0]
  }


def assert_equal(a, b, atol=None):
  assert set(a) == set(b)
  for name in a:
    if atol is None:
      np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    else:
      np.testing.assert_allclose(a[name], b[name], atol=atol, err_msg=name)


def command(workdir, data, *arguments, config=f"{CONFIG}:gan"):
  return [
    sys.executable,
    "-m",
    "faceedit_jax.main",
    f"--config={config}",
    f"--workdir={workdir}",
    f"--data_dir={data}",
    *arguments,
  ]


def wait_for(path, process, seconds=180):
  end = time.monotonic() + seconds
  while not path.exists():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < end, f"no {path}"
    time.sleep(0.01)


def evaluated(config, **options):
  """The config with an evaluator of its first stage."""
  changed = config.to_dict()
  changed["stage"]["ae"]["evaluators"] = {
    "error": {"kind": "tests.toy_evaluators:ReconstructionError", **options}
  }
  return config_lib.from_dict(changed)
