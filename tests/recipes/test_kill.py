"""Kill -9 somewhere in a run of all five stages; the rest ends the same."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from faceedit_jax.core import checkpoint
from faceedit_jax.core import config as config_lib
from tests.recipes.test_processes import CONFIG, data  # noqa: F401, a fixture
from tests.recipes.test_stages import SMALL, STAGES
from tests.toy_runs import assert_equal, state_of

pytestmark = pytest.mark.slow

OVERRIDES = [
  *SMALL,
  "tensorboard=False",
  "stage.denoiser.evaluate=False",
  *(
    f"stage.{stage}.{name}={value}"
    for stage in STAGES
    for name, value in (
      ("steps", 24),
      ("checkpoint_every", 2),
      ("preview_every", 0),
      ("data.source.folder", "tiny"),
    )
  ),
]


def start(root, workdir, folder):
  """One process with one device trains everything."""
  line = [sys.executable, "-m", "faceedit_jax.main", f"--config={CONFIG}"]
  line += [f"--workdir={workdir}", f"--data_dir={folder}"]
  line += [f"--config.{override}" for override in OVERRIDES]
  kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  return subprocess.Popen(
    line, cwd=root, env=kept, stderr=subprocess.PIPE, text=True
  )


def finish(process):
  """Waits for a run that must end well."""
  _, errors = process.communicate()
  assert process.returncode == 0, errors[-3000:]


def test_killed_in_each_stage_it_ends_the_same(tmp_path, data, root):  # noqa: F811
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  finish(start(root, whole, data))
  dice, codes = random.Random(), []
  for stage in STAGES:
    process = start(root, killed, data)
    # From its first save on, at a moment that nobody chose.
    while not checkpoint.steps_in(killed / stage / "checkpoints"):
      assert process.poll() is None, process.communicate()
      time.sleep(0.01)
    time.sleep(dice.random())
    process.kill()
    codes.append(process.wait())
    process.stderr.close()
  assert set(codes) <= {-signal.SIGKILL, 0} and -signal.SIGKILL in codes
  finish(start(root, killed, data))
  config = config_lib.override(config_lib.load(CONFIG), OVERRIDES)
  for stage in STAGES:
    states = [state_of(config, workdir, stage) for workdir in (killed, whole)]
    assert int(states[0]["step"]) == 24
    assert_equal(*states)
