"""How long an edit and a restart of a training take, cold and warm.

  python -m tests.benchmarks.start_times --workdir=runs/difffae \
    --config=configs/difffae.py --stage=denoiser

prints wall and CPU seconds of commands in processes of their own: the first
with an empty compilation cache, the second with what the first has left there,
and of the first and second edit in one process. The restart trains the stage's
last step again in a copy of the run. Nothing of the run is changed.
"""

import argparse
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from data_pipelines import images
from faceedit_jax.core import checkpoint, compile_cache

IN_ONE = """
import sys, time
begin = time.perf_counter()
from data_pipelines import images
from faceedit_jax.editing import Editor
editor = Editor.from_workdir(sys.argv[1])
given = {item.field: sys.argv[2] for item in editor.inputs if item.required}
source = given.pop("source", sys.argv[2])
for _ in range(3):
  editor.edit(source, aligned=True, **given)
  print(time.perf_counter() - begin, flush=True)
  begin = time.perf_counter()
"""


def timed(command, cache):
  """(wall seconds, CPU seconds, what it printed) of a command."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  begin = time.perf_counter()
  environment = {
    name: value
    for name, value in os.environ.items()
    if name != "JAX_COMPILATION_CACHE_DIR"
  }
  done = subprocess.run(
    command,
    env={**environment, compile_cache.VARIABLE: str(cache)},
    capture_output=True,
    text=True,
  )
  wall = time.perf_counter() - begin
  if done.returncode:
    raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  cpu = sum(
    getattr(after, n) - getattr(before, n) for n in ("ru_utime", "ru_stime")
  )
  return wall, cpu, done.stdout


def restart_of(args, folder):
  """A command that trains the last step of a stage once more."""
  run = folder / "run"
  shutil.copytree(
    args.workdir,
    run,
    ignore=shutil.ignore_patterns("tensorboard", "previews", "evaluation"),
  )
  (run / args.stage / "finished.json").unlink(missing_ok=True)
  last = checkpoint.steps_in(run / args.stage / "checkpoints")[-1]
  stage = f"--config.stage.{args.stage}"
  return [
    *(sys.executable, "-m", "faceedit_jax.main"),
    f"--config={args.config}",
    f"--workdir={run}",
    f"--stage={args.stage}",
    f"--data_dir={args.data_dir}",
    f"{stage}.steps={last + 1}",
    f"{stage}.evaluate=False",
    f"{stage}.preview_every=0",
  ]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--config", help="for the restart; without: none")
  parser.add_argument("--stage", default="denoiser")
  parser.add_argument("--data_dir", default="data")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    source = folder / "source.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    images.write_image(source, noise)
    edit = [
      *(sys.executable, "-m", "faceedit_jax.edit"),
      f"--workdir={args.workdir}",
      f"--source={source}",
      f"--output={folder / 'out.png'}",
      "--aligned",
    ]
    rows = [("edit", edit)]
    if args.config:
      rows.append((f"restart of {args.stage}", restart_of(args, folder)))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    print("command, cache: wall s, CPU s")
    for name, command in rows:
      cache = folder / name.replace(" ", "_")
      for state in ("cold", "warm"):
        wall, cpu, _ = timed(command, cache)
        print(f"{name}, {state}: {wall:.1f}, {cpu:.1f}", flush=True)
    command = [sys.executable, "-c", IN_ONE, args.workdir, str(source)]
    _, _, out = timed(command, folder / "edit")
    first, second, third = map(float, out.split())
    print(f"in one process, warm: first {first:.1f} s with loading, "
          f"second {second:.2f}, third {third:.2f}")  # fmt: skip


if __name__ == "__main__":
  main()
