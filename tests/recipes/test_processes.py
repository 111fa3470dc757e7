"""Two real processes lose what one loses, stage by stage, on tiny nets."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from data_pipelines import prepare, sources
from faceedit_jax.core import config as config_lib
from tests.recipes.test_stages import SMALL, STAGES

pytestmark = pytest.mark.slow

STEPS = 20
CONFIG = "configs/difffae.py:smoke"
OVERRIDES = [f"--config.{line}" for line in SMALL] + [
  f"--config.stage.{stage}.{name}={value}"
  for stage in STAGES
  for name, value in (
    ("steps", STEPS),
    ("checkpoint_every", STEPS),
    ("preview_every", STEPS),
    ("data.source.folder", "tiny"),
    # As in the real config; at full rate tiny nets amplify rounding.
    ("recipe.optimizer.warmup_steps", 50),
  )
]
# No critic in the first steps, as in the real config: it would amplify too.
OVERRIDES.append("--config.stage.first_stage.recipe.adversarial_start=450")


def environment():
  """Ours without the eight devices of this process."""
  kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  return {**kept, "PYTHON": sys.executable, "PROCESSES": "2", "DEVICES": "1"}


def run(root, command, workdir, data, stage):
  line = [*command, f"--config={CONFIG}", f"--workdir={workdir}"]
  line += [f"--data_dir={data}", f"--stage={stage}", *OVERRIDES]
  line += [
    "--config.tensorboard=false",
    "--config.stage.denoiser.evaluate=false",
  ]
  done = subprocess.run(
    line, cwd=root, env=environment(), capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr[-3000:]
  lines = (workdir / stage / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
  names = [n for n in rows[-1] if n.endswith("/loss")]
  return np.array([[row.get(n, 0.0) for n in names] for row in rows])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  config = config_lib.load(CONFIG)
  section = config.stage.denoiser.data.source.to_dict()
  section.update(folder="tiny", size=32)
  del section["kind"]
  prepare.ensure(sources.SyntheticHeads(**section), folder, processes=0)
  return folder


def test_two_processes_equal_one(data, tmp_path, root):
  # One test, because every stage stands on the ones before it.
  one, two = tmp_path / "one", tmp_path / "two"
  alone = [sys.executable, "-m", "faceedit_jax.main"]
  for stage in STAGES:
    a = run(root, alone, one, data, stage)
    b = run(root, ["launch/local_processes.sh"], two, data, stage)
    np.testing.assert_allclose(b, a, rtol=1e-4, err_msg=stage)
    # Later stages build on the very same nets.
    (two / stage).rename(two / f"{stage}_of_two")
    (two / stage).symlink_to(one / stage)
