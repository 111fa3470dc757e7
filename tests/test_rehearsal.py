"""The paper's path from clips to Table 1, by the commands of docs/voxceleb.md.

Minutes long: pytest -m slow tests/test_rehearsal.py
"""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from data_pipelines import records

pytestmark = pytest.mark.slow


def commands(root) -> list[list[str]]:
  """The commands of the page's last section, as lists of arguments."""
  page = (root / "docs" / "voxceleb.md").read_text()
  block = page.split("## Rehearsal")[1]
  lines = [line[4:] for line in block.splitlines() if line.startswith("    ")]
  text = "\n".join(lines).replace("\\\n", " ")
  shared = re.search(r'c="([^"]*)"', text)[1]
  found = [line for line in text.splitlines() if line.startswith("python -m")]
  return [line.replace("$c", shared).split() for line in found]


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
  """The folder in which the commands were run, and what they printed."""
  folder = tmp_path_factory.mktemp("rehearsal")
  shutil.copytree(root / "configs", folder / "configs")
  environment = dict(os.environ, PYTHONPATH=str(root), XLA_FLAGS="")
  printed = []
  for command in commands(root):
    done = subprocess.run(
      [sys.executable, *command[1:]],
      cwd=folder,
      env=environment,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    printed.append(done.stdout + done.stderr)
  return folder / "rehearsal", printed


def test_the_page_has_the_three_commands(root):
  modules = [command[2] for command in commands(root)]
  assert modules == [
    "tests.published_files",
    "faceedit_jax.annotate",
    "faceedit_jax.main",
    "faceedit_jax.main",
  ]


def test_frames_carry_codes_and_identity(run):
  folder, _ = run
  data = folder / "data" / "voxceleb_smoke"
  split = json.loads((data / "splits.json").read_text())
  people = [set(split[name]) for name in ("train", "validation", "test")]
  assert len(set.union(*people)) == sum(map(len, people)) == 6
  source = records.RecordSource(data / "test")
  example = source[0]
  assert example["shape"].shape == (8,) and example["detail"].shape == (8,)
  assert example["light"].shape == (9, 3) and example["camera"].shape == (3,)
  norm = np.linalg.norm(example["person_vector"])
  np.testing.assert_allclose(norm, 1.0, atol=1e-3)
  points = np.stack([source[i]["landmarks5"] for i in range(len(source))])
  assert (points > 0).all() and (points < 1).all()


def test_table_1_has_every_column(run):
  folder, printed = run
  (table,) = folder.glob("run/denoiser/evaluation/*/reenactment/table.json")
  scores = json.loads(table.read_text())["scores"]
  for column in ("FID", "APD", "AED", "ALD", "CSIM"):
    assert np.isfinite(scores[f"edit/{column}"]), column
  # The source as it is shows the same person, and another face.
  assert scores["copy_source/CSIM"] == pytest.approx(1, abs=1e-4)
  assert scores["copy_source/APD"] > 0
  assert "paper, Table 1: DiffFAE" in printed[-1]
  assert (table.parent / "edits.png").is_file()


def test_the_same_command_finds_everything_done(run, root):
  folder, _ = run
  before = sorted(folder.rglob("*.array_record"))
  stamps = [path.stat().st_mtime_ns for path in before]
  command = commands(root)[1]
  done = subprocess.run(
    [sys.executable, *command[1:]],
    cwd=folder.parent,
    env=dict(os.environ, PYTHONPATH=str(root), XLA_FLAGS=""),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert "finished at step" in done.stdout
  assert [path.stat().st_mtime_ns for path in before] == stamps and before
