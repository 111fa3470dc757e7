"""Compares our programs with and without YNNPACK's part of XLA on a CPU.

  JAX_PLATFORMS=cpu python -m tests.benchmarks.arithmetic [NAME ...]

prints a row of docs/arithmetic.md for each training step, the renderers, the
skinning and the metrics, with whatever version of JAX is installed, those that
faceedit_jax refuses included. Seconds are CPU seconds of all threads.
"""

import argparse
import functools
import time
from importlib import metadata
from unittest import mock

with mock.patch.object(metadata, "version", return_value="measured"):
  import faceedit_jax  # noqa: F401

import jax
import numpy as np

from data_pipelines.synthetic_heads import bake, mesh
from data_pipelines.synthetic_heads import render as world
from data_pipelines.synthetic_heads.frames import sample_frame
from data_pipelines.synthetic_heads.identity import sample_identity
from faceedit_jax.metrics import image, reenactment, regions
from faceedit_jax.models import inception
from faceedit_jax.morphable import model, render, shading
from faceedit_jax.morphable.procedural import procedural_model
from tests import recipe_steps

BATCH, SIZE = 16, 64


def codes(head, seed=0):
  """Random codes of a batch of heads in front of the camera."""
  rng = np.random.default_rng(seed)
  made = {
    name: 0.3 * rng.standard_normal((BATCH, *shape)).astype(np.float32)
    for name, shape in head.code_sizes.items()
  }
  made["light"] += shading.ambient_light(np.full(3, 0.8), np.full(3, 0.2))
  made["camera"] = np.tile(np.float32([2 / 0.32, 0, 0.03]), (BATCH, 1))
  return made


def programs():
  """{name: (function, inputs)} of what is no training step."""
  head = procedural_model("light", texture_size=64)
  read = codes(head), codes(head, 1)
  rng = np.random.default_rng(0)
  a, b = (rng.random((BATCH, 256, 256, 3), np.float32) for _ in range(2))
  labels = rng.integers(0, 4, (BATCH, 256, 256)).astype(np.int32)
  names = ("shape", "expression", "pose", "gaze")
  points = [read[0][name] for name in names]
  person = sample_identity(0, 0)
  arrays = world.frame_arrays(sample_frame(0, 0, 0))
  baked = bake.bake(person, 1)
  net = inception.Inception()
  weights = jax.jit(net.init)(jax.random.key(0), a[:1, :75, :75])
  return {
    "skinning": (lambda *c: model.vertices(head, *c), points),
    "gradient of the skinning": (
      jax.grad(
        lambda *c: (model.vertices(head, *c)[0] ** 2).sum(), (0, 1, 2, 3)
      ),
      points,
    ),
    "condition renderer": (
      lambda c: render.render_condition(head, c, size=SIZE)["image"],
      read[:1],
    ),
    "synthetic heads": (
      lambda b, f: world.draw(mesh.static(), b, f, SIZE, 2, False)["image"],
      (baked, arrays),
    ),
    "metrics of pictures": (
      lambda a, b, r: (
        image.psnr(a, b),
        image.ssim(a, b),
        image.ms_ssim(a, b),
        regions.region_error(a, b, r, 4),
      ),
      (a, b, labels),
    ),
    "metrics of codes": (reenactment.code_distances, read),
    "Inception features": (
      lambda v, x: net.apply(v, x)[0],
      (weights, 2 * a[:2] - 1),
    ),
  }


def compiled(function, inputs, options):
  """The compiled function as a function of nothing."""
  made = jax.jit(function, compiler_options=options).lower(*inputs).compile()
  return lambda: jax.device_get(made(*inputs))


def seconds(run, repeats=5):
  """Least CPU seconds of one call."""
  times = []
  for _ in range(repeats):
    start = time.process_time()
    run()
    times.append(time.process_time() - start)
  return min(times)


def show(name, values, with_it, without):
  cells = [f"{value:.1e}" for value in values]
  cells += [""] * (3 - len(cells))
  cells += [f"{seconds(run):.2f}" for run in (with_it, without)]
  print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("names", nargs="*", help="only rows with one of these")
  wanted = parser.parse_args().names
  print(f"jax {jax.__version__}, jaxlib {jax.lib.__version__}")
  print(
    "| program | loss or value | gradient | parameters | s with | s without"
  )
  for path, stage in recipe_steps.every_recipe():
    name = f"{path.split('/')[-1]} {stage}"
    if wanted and not any(w in name for w in wanted):
      continue
    step = recipe_steps.StepOf(path, stage)
    runs = [
      functools.partial(step.run, step.compile(options))
      for options in (None, recipe_steps.NO_YNNPACK)
    ]
    one, other = (run() for run in runs)
    show(name, recipe_steps.compare(other, one), *runs)
  for name, (function, inputs) in programs().items():
    if wanted and not any(w in name for w in wanted):
      continue
    runs = [
      compiled(function, inputs, options)
      for options in (None, recipe_steps.NO_YNNPACK)
    ]
    one, other = (jax.tree.leaves(run()) for run in runs)
    gap = max(map(recipe_steps.relative, other, one))
    show(name, [gap], *runs)


if __name__ == "__main__":
  main()
