"""The loop: exact resume, stages, several processes, clear errors."""

import json
import os
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from faceedit_jax import load_trained, stages, train
from faceedit_jax.core import checkpoint, partial_restore
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import CheckpointError, UserError, WorkdirError
from tests import toy_recipes
from tests.toy_runs import (
  CONFIG,
  assert_equal,
  command,
  config_of,
  evaluated,
  state_of,
  write_pictures,
)

FOUR = {"stage__ae__steps": 4, "stage__head__steps": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return write_pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
  """Twelve steps of the GAN without a break, on eight devices."""
  config = config_of(stage__gan__steps=12)
  workdir = tmp_path_factory.mktemp("whole")
  assert train.run(config, workdir, data_dir=data)
  return workdir, state_of(config, workdir)


@pytest.fixture(scope="module")
def whole_stages(tmp_path_factory, data):
  """Two stages of four steps, on eight devices."""
  workdir = tmp_path_factory.mktemp("stages")
  assert train.run(config_of("latent", **FOUR), workdir, data_dir=data)
  return workdir


def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, data, whole):
  assert train.run(config_of(stage__gan__steps=5), tmp_path, data_dir=data)
  config = config_of(stage__gan__steps=12)
  assert int(state_of(config, tmp_path)["step"]) == 5
  assert train.run(config, tmp_path, data_dir=data)
  assert_equal(state_of(config, tmp_path), whole[1])
  lines = (tmp_path / "gan/metrics.jsonl").read_text().splitlines()
  steps = [json.loads(line)["step"] for line in lines]
  assert steps == sorted(set(steps)) and steps[-1] == 12


def test_what_a_run_leaves_behind(whole):
  stage = whole[0] / "gan"
  assert checkpoint.steps_in(stage / "checkpoints") == [10, 12]
  record = checkpoint.read_record(stage / "checkpoints")
  assert record.data == {"batches": 12, "seed": 3}
  assert record.meta["recipe"] == "ToyGan"
  metrics = [json.loads(x) for x in open(stage / "metrics.jsonl")]
  last = metrics[-1]
  assert {"d/loss", "d_r1/loss", "g/loss", "g_mean/loss"} <= set(last)
  assert {"steps_per_second", "param_norm/gen", "d/grad_norm"} <= set(last)
  names = {p.name for p in (stage / "previews").iterdir()}
  assert {"00000012_preview.png", "00000012_train.png"} <= names
  assert "Dense_0/kernel" in (stage / "parameters.txt").read_text()
  assert json.loads((stage / "finished.json").read_text())["step"] == 12


def test_one_mesh_or_another(tmp_path, data, whole_stages):
  config = config_of("ae", stage__ae__steps=2)
  assert train.run(config, tmp_path, data_dir=data)
  config = config_of("ae", stage__ae__steps=4, mesh__data=2, mesh__fsdp=4)
  assert train.run(config, tmp_path, data_dir=data)
  wanted = state_of(config, whole_stages, "ae")
  assert_equal(state_of(config, tmp_path, "ae"), wanted, atol=1e-5)


def test_stages_hand_over_and_are_skipped(tmp_path, data, capsys):
  config = config_of("latent", stage__ae__steps=3, stage__head__steps=2)
  with pytest.raises(CheckpointError, match="train it first .--stage=ae"):
    train.run(config, tmp_path, stage="head", data_dir=data)
  assert train.run(config, tmp_path, stage="ae", data_dir=data)
  assert not (tmp_path / "head" / "finished.json").exists()
  before = state_of(config, tmp_path, "ae")
  assert train.run(config, tmp_path, data_dir=data)
  assert "ae (1/2): finished at step 3" in capsys.readouterr().out
  assert_equal(state_of(config, tmp_path, "ae"), before)
  assert int(state_of(config, tmp_path, "head")["step"]) == 2
  # The second stage saw the average of the first one's nets.
  stage = stages.make_stage(config, "head", tmp_path)
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  place = partial_restore.place_on(one)
  frozen = partial_restore.load_frozen(stage.recipe, stage.workdir, place)
  np.testing.assert_array_equal(
    frozen["enc"]["params"]["Conv_0"]["kernel"],
    before["ema/ema/enc/Conv_0/kernel"],
  )


def test_a_net_starts_from_an_earlier_stage(tmp_path, data, monkeypatch):
  from faceedit_jax.core.recipe import WeightSource
  from tests import toy_recipes

  config = config_of("latent", stage__ae__steps=3)
  assert train.run(config, tmp_path, stage="ae", data_dir=data)
  before = state_of(config, tmp_path, "ae")
  monkeypatch.setattr(
    toy_recipes.ToyAutoencoder,
    "init_from",
    lambda self: {"enc": WeightSource(stage="ae", ema="ema")},
  )
  stage = stages.make_stage(config, "ae", tmp_path)
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  init = lambda: step_lib.init_state(stage.recipe, jax.random.key(1))  # noqa: E731
  fresh = jax.jit(init)()
  nets = partial_restore.place_on(one)(
    {k: {"params": v} for k, v in jax.eval_shape(init).params.items()}
  )
  loaded = partial_restore.load_nets(stage.recipe.init_from(), nets, tmp_path)
  decoder = np.asarray(fresh.params["dec"]["ConvTranspose_0"]["kernel"])
  shardings = jax.tree.map(lambda _: one, fresh)
  state = partial_restore.start_from(fresh, loaded, shardings)
  wanted = before["ema/ema/enc/Conv_0/kernel"]
  for tree in (state.params["enc"], state.ema["ema"]["enc"]):
    np.testing.assert_array_equal(tree["Conv_0"]["kernel"], wanted)
  np.testing.assert_array_equal(
    state.params["dec"]["ConvTranspose_0"]["kernel"], decoder
  )


def test_a_fresh_start_says_what_it_lacks(tmp_path, data, monkeypatch, capsys):
  line = "starts untrained"
  monkeypatch.setattr(toy_recipes.ToyGan, "notes", lambda self: (line,))
  assert train.run(config_of(stage__gan__steps=1), tmp_path, data_dir=data)
  assert f"gan (1/1): {line}\n" in capsys.readouterr().out
  assert train.run(config_of(stage__gan__steps=2), tmp_path, data_dir=data)
  assert line not in capsys.readouterr().out


def test_another_config_is_refused(whole, data):
  workdir = whole[0]
  config = config_of(stage__gan__steps=14, seed=4)
  with pytest.raises(WorkdirError, match=r"seed: 3 -> 4") as error:
    train.run(config, workdir, data_dir=data)
  assert "\n" not in str(error.value)
  config = config_of(
    stage__gan__steps=14, stage__gan__data__loader__batch_size=16
  )
  with pytest.raises(WorkdirError, match="data.loader.batch_size: 8 -> 16"):
    train.run(config, workdir, data_dir=data)
  config = config_of(stage__gan__steps=14, compute_dtype="bfloat16")
  with pytest.raises(WorkdirError, match="dtype: 'float32' -> 'bfloat16'"):
    train.run(config, workdir, data_dir=data)
  # What does not change a step may change.
  config = config_of(stage__gan__steps=12, stage__gan__log_every=1)
  assert train.run(config, workdir, data_dir=data)


@pytest.mark.parametrize(
  "changes, message",
  [
    (
      {"stage__gan__data__loader__batch_size": 12},
      "12 is not divisible by 8 devices",
    ),
    ({"mesh__fsdp": 3}, "does not make up 8 devices"),
    (
      {"stage__gan__data__sampler__kind": "pairs"},
      r"the data has no \['image'\]",
    ),
    ({"stage__gan__data__source__folder": "none"}, "none"),
    ({"stage__gan__recipe__name": "gann"}, "no recipe 'gann'"),
    ({"stage__gan__recipe__name": "tests.toy_recipes:X"}, "cannot import"),
    ({"stages": "('gan','x')"}, r"config.stages lists \['x'\]"),
  ],
)
def test_mistakes_are_one_line(tmp_path, data, changes, message):
  with pytest.raises(UserError, match=message) as error:
    train.run(config_of(**changes), tmp_path, data_dir=data)
  assert "\n" not in str(error.value)


def test_unknown_stage_names_the_nearest():
  with pytest.raises(UserError, match="did you mean 'head'"):
    stages.pick_stages(config_of("latent"), "haed")


def test_a_diverged_state_is_never_saved(tmp_path, data, monkeypatch):
  from tests import toy_recipes

  whole = toy_recipes.ToyAutoencoder.recon_loss

  def recon_loss(self, params, ctx):
    loss, aux = whole(self, params, ctx)
    return jax.numpy.where(ctx.step >= 3, jax.numpy.nan, loss), aux

  monkeypatch.setattr(toy_recipes.ToyAutoencoder, "recon_loss", recon_loss)
  with pytest.raises(UserError, match="step 4: recon/loss is nan.*step 2 is"):
    train.run(config_of("ae"), tmp_path, data_dir=data)
  assert checkpoint.steps_in(tmp_path / "ae/checkpoints") == [2]


def test_evaluators_run_after_training_and_on_demand(
  tmp_path, data, monkeypatch, capsys
):
  from tests import toy_evaluators

  asked = []

  class Noted(toy_evaluators.ReconstructionError):
    def run(self, ctx):
      assert ctx.eval_nets == {}
      asked.append((ctx.quick, self.level))
      (ctx.out_dir / "sheet.txt").write_text(str(ctx.data_dir))
      return super().run(ctx)

  monkeypatch.setattr(toy_evaluators, "ReconstructionError", Noted)
  config = evaluated(config_of("latent", stage__ae__steps=2))
  train.run(config, tmp_path, stage="ae", data_dir=data)
  path = tmp_path / "ae/evaluation/00000002"
  first = json.loads((path / "results.json").read_text())
  assert (path / "error/sheet.txt").read_text() == str(data)
  assert "error/l1" in capsys.readouterr().out
  train.run(config, tmp_path, "evaluate", stage="ae", data_dir=data)
  assert asked == [(True, 0.0), (False, 0.0)]
  second = json.loads((path / "results.json").read_text())
  assert second["error"]["l1"] == pytest.approx(first["error"]["l1"], rel=1e-6)
  assert second["error"]["l1"] > 0
  with pytest.raises(CheckpointError, match="no checkpoint"):
    train.run(config, tmp_path / "other", "evaluate", stage="ae", data_dir=data)
  # What is evaluated is no part of a run's identity.
  train.run(
    evaluated(config, level=0.5), tmp_path, "evaluate", "ae", data_dir=data
  )
  assert asked[-1] == (False, 0.5)


def test_pairs_reach_the_recipe(data):
  from faceedit_jax import input_pipeline

  section = {
    "source": {"kind": "array_record", "folder": "toy"},
    "sampler": {"kind": "pairs"},
    "loader": {"batch_size": 8},
  }
  made = input_pipeline.build_data(section, "config.stage.gan.data")
  source = input_pipeline.open_data(made, data, 0)
  for i in range(4):
    example = source[i]
    assert example["source_identity"] == example["query_identity"]
    assert example["source_frame"] != example["query_frame"]


def test_what_shapes_do_not_show_is_compared(tmp_path, data):
  config = config_of("ae", stage__ae__steps=2)
  assert train.run(config, tmp_path, data_dir=data)
  other = config_of("ae", stage__ae__steps=2)
  with other.unlocked():
    other.stage["ae"].recipe["prediction"] = "eps"
  with pytest.raises(UserError, match="other settings: .*prediction: added"):
    load_trained.load(tmp_path, other)
  assert load_trained.load(tmp_path, config).info["step"] == 2
  assert load_trained.load(tmp_path).info["stage"] == "ae"


def test_nets_that_went_on_training_are_refused(tmp_path, data):
  config = config_of("latent", stage__ae__steps=2, stage__head__steps=2)
  assert train.run(config, tmp_path, data_dir=data)
  more = config_of("latent", stage__ae__steps=4, stage__head__steps=2)
  assert train.run(more, tmp_path, stage="ae", data_dir=data)
  message = "'head' .*'ae' at step 2, which stands at step 4 now"
  with pytest.raises(WorkdirError, match=message) as error:
    train.run(more, tmp_path, data_dir=data)
  assert "\n" not in str(error.value)
  with pytest.raises(WorkdirError, match=message):
    load_trained.load(tmp_path, config)


def test_two_processes_are_one(tmp_path, data, whole_stages, root):
  with socket.socket() as s:
    s.bind(("localhost", 0))
    port = s.getsockname()[1]
  processes = []
  for index in range(2):
    environment = {
      **os.environ,
      "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
      "COORDINATOR": f"localhost:{port}",
      "NUM_PROCESSES": "2",
      "PROCESS_ID": str(index),
    }
    arguments = [
      f"--config.{k.replace('__', '.')}={v}" for k, v in FOUR.items()
    ]
    line = command(tmp_path, data, "--distributed", *arguments, config=CONFIG)
    processes.append(subprocess.Popen(line, cwd=root, env=environment))
  assert [p.wait(timeout=120) for p in processes] == [0, 0]
  config = config_of("latent", **FOUR)
  for name in ("ae", "head"):
    got = state_of(config, tmp_path, name)
    assert_equal(got, state_of(config, whole_stages, name), atol=1e-5)
  assert (tmp_path / "ae/previews/00000004_train.png").exists()


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--config.stage.gan.stpes=3"], "Did you mean 'stage.gan.steps'"),
    (["--stage=gna"], "did you mean 'gan'"),
    (["--workdir=gs://bucket/run"], "mount the bucket"),
    (["--wrokdir=x"], "workdir"),
    (["--workdir="], "--workdir is missing"),
    (["--workdir=/dev/null/x"], "cannot write to /dev/null/x"),
    (["--mode=evaluat"], "evaluate"),
  ],
)
def test_command_line_mistakes(
  tmp_path, data, root, arguments, message, monkeypatch, capsys
):
  from absl import flags

  from faceedit_jax import main

  saved = flags.FLAGS.flag_values_dict()
  monkeypatch.chdir(root)
  monkeypatch.setattr(sys, "argv", ["main"])
  line = ["main", *command(tmp_path, data)[3:], *arguments]
  try:
    with pytest.raises(SystemExit) as stop:
      main._main(main._parse(line))
  finally:
    for name in ("config", "workdir", "data_dir", "stage", "mode"):
      flags.FLAGS[name].value = saved[name]
  assert stop.value.code == 2
  error = capsys.readouterr().err.strip().splitlines()
  assert len(error) == 1 and message in error[0], error


def test_a_second_run_waits_for_the_first(tmp_path, data, root):
  """Both would write the same checkpoints; a killed run holds nothing."""
  config = config_of(stage__gan__steps=3)
  other = subprocess.Popen(
    [
      sys.executable,
      "-c",
      "import sys, time\n"
      "from faceedit_jax.core import files\n"
      "with files.claim(sys.argv[1]):\n"
      "  print('held', flush=True)\n"
      "  time.sleep(600)",
      str(tmp_path / "gan"),
    ],
    cwd=root,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="gan is being written by another run"):
      train.run(config, tmp_path, data_dir=data)
    assert list((tmp_path / "gan").iterdir()) == []
  finally:
    other.kill()
    other.wait()
  assert train.run(config, tmp_path, data_dir=data)


def test_a_full_disk_leaves_the_checkpoints_whole(
  tmp_path, data, whole_stages, root
):
  """Files may grow to 2 kB only: the save fails half-way through."""
  config = config_of("ae", stage__ae__steps=2)
  assert train.run(config, tmp_path, data_dir=data)
  body = (
    "import resource, signal\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "from faceedit_jax import main\n"
    "from faceedit_jax.core import checkpoint\n"
    "save = checkpoint.Checkpoints.save\n"
    "def full(*a):\n"
    "  resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
    "  return save(*a)\n"
    "checkpoint.Checkpoints.save = full\n"
    "main.main()\n"
  )
  # No previews: those would not fit either.
  more = [f"--config.stage.ae.{x}" for x in ("steps=4", "preview_every=0")]
  line = command(tmp_path, data, *more, config=f"{CONFIG}:ae")
  done = subprocess.run(
    [sys.executable, "-c", body, *line[3:]],
    cwd=root,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2, done.stderr
  said = done.stderr.splitlines()
  hits = [line for line in said if "error: cannot write a checkpoint" in line]
  assert len(hits) == 1, done.stderr
  # Threads of tensorstore's may find asyncio's loop closed and say so, several
  # at once and mixed up, which is not ours to stop; no traceback is of ours.
  ours = r'File "[^"]*(faceedit_jax|data_pipelines)/[\w/]*\.py"'
  assert not re.search(ours, done.stderr)
  halves = (tmp_path / "ae/checkpoints").glob("*tmp*")
  assert not [file for half in halves for file in half.rglob("*")]
  assert checkpoint.steps_in(tmp_path / "ae/checkpoints") == [2]
  config = config_of("ae", stage__ae__steps=4)
  assert train.run(config, tmp_path, data_dir=data)
  wanted = state_of(config, whole_stages, "ae")
  assert_equal(state_of(config, tmp_path, "ae"), wanted)


def test_registry_lines_can_be_imported():
  from faceedit_jax import recipes

  for name, path in recipes.REGISTRY.items():
    assert recipes.load(name).__name__ == path.split(":")[1]
  assert recipes.load("tests.toy_recipes:ToyGan").__name__ == "ToyGan"
