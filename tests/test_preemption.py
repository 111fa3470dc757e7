"""Runs that are killed, or asked to stop, go on as if they had not been."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from faceedit_jax import train
from faceedit_jax.core import checkpoint
from tests import toy_evaluators
from tests.toy_runs import (
  SLOW,
  assert_equal,
  command,
  config_of,
  evaluated,
  state_of,
  wait_for,
  write_pictures,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return write_pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
  """Twelve steps of the GAN without a break."""
  config = config_of(stage__gan__steps=12)
  workdir = tmp_path_factory.mktemp("whole")
  assert train.run(config, workdir, data_dir=data)
  return state_of(config, workdir)


def test_killed_at_a_random_step(tmp_path, data, whole, root):
  # Slowed down so that the kill falls between the first save and the end.
  arguments = ("--config.stage.gan.steps=12",)
  body = SLOW.format(seconds=0.15)
  process = subprocess.Popen(
    [sys.executable, "-c", body, *command(tmp_path, data, *arguments)[3:]],
    cwd=root,
  )
  wait_for(tmp_path / "gan/checkpoints/2", process)
  time.sleep(random.random())
  process.kill()
  assert process.wait() == -signal.SIGKILL
  steps = checkpoint.steps_in(tmp_path / "gan/checkpoints")
  assert steps and steps[-1] < 12
  config = config_of(stage__gan__steps=12)
  assert train.run(config, tmp_path, data_dir=data)
  assert_equal(state_of(config, tmp_path), whole)


def test_sigterm_saves_and_exits_with_zero(tmp_path, data, whole, root):
  process = subprocess.Popen(
    [
      sys.executable,
      "-c",
      SLOW.format(seconds=0.2),
      *command(tmp_path, data, "--config.stage.gan.steps=12")[3:],
      "--config.stage.gan.checkpoint_every=100",
    ],
    cwd=root,
    stdout=subprocess.PIPE,
    text=True,
  )
  wait_for(tmp_path / "gan/previews/00000003_preview.png", process)
  process.terminate()
  out, _ = process.communicate(timeout=60)
  assert process.returncode == 0
  (step,) = checkpoint.steps_in(tmp_path / "gan/checkpoints")
  assert 3 <= step < 12 and f"stopped and saved at step {step}" in out
  config = config_of(stage__gan__steps=12)
  assert train.run(config, tmp_path, data_dir=data)
  assert_equal(state_of(config, tmp_path), whole)


def test_sigterm_during_an_evaluation_ends_it(tmp_path, data, monkeypatch):
  began = []

  class Endless(toy_evaluators.ReconstructionError):
    def run(self, ctx):
      began.append(time.monotonic())
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(30)

  monkeypatch.setattr(toy_evaluators, "ReconstructionError", Endless)
  old = signal.getsignal(signal.SIGTERM)
  config = evaluated(config_of("latent", stage__ae__steps=2))
  assert not train.run(config, tmp_path, data_dir=data)
  assert (tmp_path / "ae/finished.json").exists()
  assert not (tmp_path / "head").exists()  # nor did the next stage begin
  assert not train.run(config, tmp_path, "evaluate", stage="ae", data_dir=data)
  assert time.monotonic() - began[-1] < 20 and len(began) == 2
  assert signal.getsignal(signal.SIGTERM) is old


def test_sigterm_in_the_last_step_starts_no_other_stage(
  tmp_path, data, monkeypatch
):
  check = train.step_lib.finite_check

  def ask(*args):  # first called in step 2, for the values of step 1
    os.kill(os.getpid(), signal.SIGTERM)
    return check(*args)

  monkeypatch.setattr(train.step_lib, "finite_check", ask)
  config = config_of("latent", stage__ae__steps=2, stage__head__steps=2)
  assert not train.run(config, tmp_path, data_dir=data)
  assert (tmp_path / "ae/finished.json").exists()
  assert not (tmp_path / "head").exists()
