"""Training on a folder in which pictures are broken, or break on the way."""

import os
import subprocess

import numpy as np
import pytest

from data_pipelines import images
from faceedit_jax import train
from faceedit_jax.core import checkpoint
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError
from tests import toy_config, toy_runs


@pytest.fixture
def photos(tmp_path, rng):
  """Four people with six pictures each."""
  for person in "abcd":
    for number in range(6):
      picture = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
      path = tmp_path / "data" / "photos" / person / f"{number}.png"
      images.write_image(path, picture)
  return tmp_path / "data" / "photos"


def config_of(**changes):
  config = toy_config.get_config("ae")
  config.stage["ae"]["data"]["source"] = {
    "kind": "image_folder",
    "folder": "photos",
    "holdout": 0.0,
    "broken": "refuse",
  }
  changes = [f"{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return config_lib.override(config_lib.from_dict(config), changes)


SKIP = {"stage__ae__data__source__broken": "skip"}


def run(folder, **changes):
  return train.run(
    config_of(**changes), folder / "run", data_dir=folder / "data"
  )


def spoil(path):
  """Other bytes of the same length and time, as of a bad disk."""
  stat = path.stat()
  path.write_bytes(b"\1" * stat.st_size)
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def one_line(error):
  text = str(error.value)
  assert "\n" not in text
  return text


def test_they_are_named_before_the_first_step(photos, tmp_path, capsys):
  (photos / "b" / "3.png").write_bytes(b"")
  with pytest.raises(UserError) as error:
    run(tmp_path)
  assert (
    f"data of the stage: {photos}: 1 of 24 pictures cannot be read, first "
    "b/3.png is empty (0 bytes)"
  ) in one_line(error)
  assert not (tmp_path / "run" / "ae").exists()
  assert run(tmp_path, **SKIP)
  printed = capsys.readouterr()
  assert printed.err.count("1 of 24 pictures cannot be read") == 1
  assert checkpoint.steps_in(tmp_path / "run" / "ae" / "checkpoints")[-1] == 6


def test_a_picture_that_breaks_ends_the_run_in_one_line(photos, tmp_path):
  assert run(tmp_path, stage__ae__steps=2)
  for path in photos.rglob("*.png"):
    if path.parent.name != "a":
      spoil(path)
  # Found sound before, so that only the threads that read can tell.
  with pytest.raises(UserError) as error:
    run(tmp_path)
  text = one_line(error)
  assert text.startswith("config.stage.ae.data: ")
  assert ".png: is not a picture" in text
  # The next try looks at that one again, and may leave out what is broken.
  with pytest.raises(UserError, match="pictures cannot be read, first"):
    run(tmp_path)
  for _ in range(20):  # each try finds at least one more
    try:
      assert run(tmp_path, **SKIP)
      break
    except UserError as again:
      assert "\n" not in str(again) and "is not a picture" in str(again)
  steps = checkpoint.steps_in(tmp_path / "run" / "ae" / "checkpoints")
  assert steps[-1] == 6


def test_the_command_says_it_in_one_line(photos, tmp_path):
  (photos / "d" / "5.png").write_text("<!doctype html><html></html>")
  file = tmp_path / "config.py"
  file.write_text(
    "from tests import test_broken_training\n"
    "def get_config():\n"
    "  return test_broken_training.config_of()\n"
  )
  done = subprocess.run(
    toy_runs.command(tmp_path / "run", tmp_path / "data", config=file),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  lines = done.stderr.splitlines()
  assert len(lines) == 1 and lines[0].startswith("error: data of the stage: ")
  assert "d/5.png is not a picture but a web page (HTML)" in lines[0]
