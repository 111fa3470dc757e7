"""The launch scripts parse, and the local one starts what it should."""

import os
import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(
  shutil.which("bash") is None, reason="no bash on this machine"
)

_INTERPRETER = """#!/usr/bin/env bash
echo "$PROCESS_ID of $NUM_PROCESSES at $COORDINATOR: $*" >> "$TRACE"
if [[ "$PROCESS_ID" == "$FAILS" ]]; then exit 3; fi
if [[ -n "$FAILS" ]]; then exec sleep 60; fi
"""


@pytest.fixture
def environment(tmp_path):
  interpreter = tmp_path / "python"
  interpreter.write_text(_INTERPRETER)
  interpreter.chmod(0o755)
  return {
    **os.environ,
    "PYTHON": str(interpreter),
    "PORT": "1234",
    "PROCESSES": "3",
    "TRACE": str(tmp_path / "trace"),
    "FAILS": "",
  }


def test_all_parse(root):
  scripts = [*root.glob("launch/*.sh"), root / "launch" / "slurm.sbatch"]
  assert len(scripts) == 4
  for script in scripts:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_all_explain_themselves(root):
  keep = {"PATH": os.environ["PATH"]}
  for script in (*root.glob("launch/*.sh"), root / "launch" / "slurm.sbatch"):
    done = subprocess.run(
      ["bash", str(script)], env=keep, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert len((done.stdout + done.stderr).strip()) > 10


def test_stop_asks_python_alone(root):
  """Not tmux or the shells, whose command lines hold the program's."""
  script = (root / "launch" / "tpu_pod.sh").read_text()
  (pattern,) = re.findall(r"pkill -TERM -f '([^']+)'", script)
  program = ".venv/bin/python -m faceedit_jax.main --distributed --config=c.py"
  assert re.search(pattern, program)
  for other in (
    f"tmux new-session -d -s train cd faceedit_jax && {program} 2>&1 | tee x",
    f"bash -c cd faceedit_jax && {program}",
    f"bash -c pkill -TERM -f '{pattern}' || true",
  ):
    assert not re.search(pattern, other), other


def test_local_processes(root, tmp_path, environment):
  script = str(root / "launch" / "local_processes.sh")
  subprocess.run(
    [script, "--config=a b.py", "--workdir=w"], env=environment, check=True
  )
  lines = sorted((tmp_path / "trace").read_text().splitlines())
  rest = "-m faceedit_jax.main --distributed --config=a b.py --workdir=w"
  assert lines == [f"{i} of 3 at 127.0.0.1:1234: {rest}" for i in range(3)]


def test_one_failure_stops_the_others(root, environment):
  script = str(root / "launch" / "local_processes.sh")
  environment["FAILS"] = "1"
  done = subprocess.run([script, "--config=c"], env=environment, timeout=20)
  assert done.returncode == 3
