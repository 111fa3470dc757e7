"""Our U-Net against diffusers' in PyTorch: training step, sampling, memory.

python -m tests.benchmarks.unet_vs_diffusers --size=small --batch=2 --side=32

Each side has a process of its own, with the same weights, inputs, threads and
optimiser; they take turns. On a GPU also the rate of the training step against
that of a product of large matrices, measured in the same run.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from faceedit_jax.core import huge_pages
from tests.benchmarks import unet_sides

_TURN = 0.5  # seconds that a turn lasts at least
_PAUSE = 0.1  # until the other side's threads have gone to sleep


def turn(work: Callable[[], float]) -> dict[str, float]:
  """Seconds of one piece of work, on the clock and of the processor."""
  count, start, cpu = 0, time.perf_counter(), time.process_time()
  while not count or time.perf_counter() - start < _TURN:
    outcome = work()
    count += 1
  return {
    "seconds": (time.perf_counter() - start) / count,
    "cpu_seconds": (time.process_time() - cpu) / count,
    "outcome": outcome,
  }


def forget_peak() -> None:
  """Lets this process's peak of memory begin anew."""
  pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
  """Most bytes that this process has had in memory."""
  status = pathlib.Path("/proc/self/status").read_text()
  line = next(x for x in status.splitlines() if x.startswith("VmHWM"))
  return 1024 * int(line.split()[1])


def serve(connection: Any, side: str, *args: Any) -> None:
  """Builds a side and does what it is asked for, until asked for nothing."""
  try:
    made = getattr(unet_sides, side)(*args)
  except ImportError as error:
    connection.send({"missing": str(error)})
    return
  connection.send(made.facts())
  while name := connection.recv():
    if name == "forget_peak":
      connection.send(forget_peak())
    elif name == "peak":
      connection.send(peak())
    elif name in ("train", "sample"):
      connection.send(turn(getattr(made, name)))
    else:
      connection.send(getattr(made, name)())


class Side:
  """A side in its process. `facts` says what it is, or what it lacks."""

  def __init__(self, name: str, *args: Any):
    # Not forked: neither JAX nor torch bears it.
    context = multiprocessing.get_context("spawn")
    self._connection, other = context.Pipe()
    self._process = context.Process(target=serve, args=(other, name, *args))
    self._process.start()
    other.close()
    self._name = name
    self.facts = self._receive()

  def __enter__(self) -> "Side":
    return self

  def __exit__(self, *error: object) -> None:
    if "missing" not in self.facts and not error[0]:
      self._connection.send(None)
    elif error[0]:
      self._process.terminate()
    self._process.join()

  def ask(self, name: str) -> Any:
    """What it answers."""
    self._connection.send(name)
    return self._receive()

  def _receive(self) -> Any:
    try:
      return self._connection.recv()
    except EOFError as e:
      self._process.join()
      raise SystemExit(
        f"{self._name} ended with exit code {self._process.exitcode}"
      ) from e


def measure(options: unet_sides.Options, repeats: int) -> dict[str, Any]:
  """Runs both sides in turns.

  Args:
    options: what is measured.
    repeats: turns of each side at each piece of work.

  Returns:
    {"ours", "theirs"}: facts, medians of the turns and peaks of memory, or
    {"missing": why} of theirs; "load" before and after; "matrix_rate".
  """
  load = os.getloadavg()[0]
  with tempfile.TemporaryDirectory() as folder:
    weights = pathlib.Path(folder, "net")
    with Side("Ours", options, weights) as ours:
      platform = ours.facts["platform"]
      with Side("Theirs", options, weights, platform) as theirs:
        sides = {"ours": ours, "theirs": theirs}
        found: dict[str, Any] = {k: dict(v.facts) for k, v in sides.items()}
        if "missing" in theirs.facts:
          del sides["theirs"]
        elif ours.facts["parameters"] != theirs.facts["parameters"]:
          raise SystemExit(
            f"ours has {ours.facts['parameters']} parameters, theirs "
            f"{theirs.facts['parameters']}"
          )
        for work in ("train", "sample"):
          turns = {name: [] for name in sides}
          for side in sides.values():
            side.ask(work)  # warm
            if platform == "cpu":
              side.ask("forget_peak")
          for _ in range(repeats):
            for name, side in sides.items():
              time.sleep(_PAUSE)
              turns[name].append(side.ask(work))
          for name, side in sides.items():
            found[name][work] = {
              key: statistics.median(t[key] for t in turns[name])
              for key in turns[name][0]
            }
            found[name][work]["turns"] = [t["seconds"] for t in turns[name]]
            if platform == "cpu":
              found[name][work]["memory"] = side.ask("peak")
            elif work == "train":  # it has no way to begin anew
              found[name][work]["memory"] = side.ask("memory")
        found["matrix_rate"] = ours.ask("matrix_rate")
  found["load"] = (load, os.getloadavg()[0])
  return found


def report(options: unet_sides.Options, found: dict[str, Any]) -> str:
  """The figures as a table."""
  ours, theirs = found["ours"], found["theirs"]
  rival = "missing" not in theirs
  cpu = ours["platform"] == "cpu"
  where = f"{options.threads} thread(s)" if cpu else ours["device"]
  lines = [
    f"{options.size}: {ours['parameters']:,} parameters, batch {options.batch},"
    f" latents of {options.side} x {options.side}, {options.dtype}, "
    f"{ours['platform']}, {where}; load {found['load'][0]:.1f} before, "
    f"{found['load'][1]:.1f} after",
    f"{'':32s}{'ours':>10s}"
    + f"{'diffusers':>12s}{'ours/theirs':>13s}" * rival,
  ]

  def row(name, value, unit=1.0):
    a = value(ours) / unit
    line = f"{name:32s}{a:10.3f}"
    if rival:
      b = value(theirs) / unit
      line += f"{b:12.3f}{a / b:13.2f}"
    lines.append(line)

  works = {
    "train": "training step",
    "sample": f"{options.steps} DDIM steps",
  }
  for work, name in works.items():
    row(f"{name}, s", lambda side, w=work: side[w]["seconds"])
    if cpu:
      row("  processor time, s", lambda side, w=work: side[w]["cpu_seconds"])
    if "memory" in ours[work]:
      row("  memory, GiB", lambda side, w=work: side[w]["memory"], 2**30)
  if not rival:
    lines.append(f"ours alone: {theirs['missing']}")
  else:
    row("loss of the second step", lambda side: side["losses"][1])
  rate = ours["train_flops"] / ours["train"]["seconds"]
  lines.append(
    f"training step: {ours['train_flops'] / 1e12:.3f} TFLOP, "
    f"{rate / 1e12:.3f} TFLOP/s = {rate / found['matrix_rate']:.0%} of the "
    f"{found['matrix_rate'] / 1e12:.3f} TFLOP/s of a product of large matrices"
  )
  return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--size", choices=unet_sides.SIZES, default="small")
  add("--batch", type=int, default=2)
  add("--side", type=int, default=32, help="of the latents")
  add("--dtype", choices=("float32", "bfloat16"), default="float32")
  add("--steps", type=int, default=20, help="of DDIM")
  add("--repeats", type=int, default=5, help="turns of each side")
  add("--remat", default="none", help="of ours")
  add("--attention", default="auto", help="attention_kernel of ours")
  add("--threads", type=int, default=len(os.sched_getaffinity(0)))
  add("--channels_last", action="store_true", help="layout of theirs")
  add("--compile", action="store_true", help="theirs by torch.compile")
  add("--json", type=pathlib.Path, help="file for the figures")
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
  """Measures and prints."""
  args = parse(argv)
  fields = {f.name for f in dataclasses.fields(unet_sides.Options)}
  options = unet_sides.Options(
    **{k: v for k, v in vars(args).items() if k in fields}
  )
  # The sides inherit these: as many cores as threads, and no reservation of all
  # of a GPU.
  cores = sorted(os.sched_getaffinity(0))
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  try:
    os.sched_setaffinity(0, cores[: args.threads])
    found = measure(options, args.repeats)
  finally:
    os.sched_setaffinity(0, cores)
  print(report(options, found))
  if args.json:
    found["options"] = dataclasses.asdict(options)
    args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
  huge_pages.restart()  # as `faceedit_jax.main` does
  main()
