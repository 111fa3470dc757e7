"""Compares our programs with and without YNNPACK's part of XLA on a CPU.

  JAX_PLATFORMS=cpu python -m tests.benchmarks.arithmetic [NAME ...] [--smooth]

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

from faceedit_jax.metrics import image, reenactment, regions
from faceedit_jax.models.perception import inception
from faceedit_jax.morphable import model, render, shading
from faceedit_jax.morphable.procedural import procedural_model
from tests import recipe_steps

BATCH, SIZE = 16, 64


def head_and_codes():
  """A face model, and random codes of two batches before the camera."""
  head, rng = (
    procedural_model("light", texture_size=64),
    np.random.default_rng(0),
  )
  made = []
  for _ in range(2):
    codes = {
      name: 0.3 * rng.standard_normal((BATCH, *shape)).astype(np.float32)
      for name, shape in head.code_sizes.items()
    }
    codes["light"] += shading.ambient_light(np.full(3, 0.8), np.full(3, 0.2))
    codes["camera"] = np.tile(np.float32([2 / 0.32, 0, 0.03]), (BATCH, 1))
    made.append(codes)
  return head, *made


def skinning():
  head, codes, _ = head_and_codes()
  names = ("shape", "expression", "pose", "gaze")
  points = functools.partial(model.vertices, head)
  return lambda *c: points(*c)[0], [codes[name] for name in names]


def skinning_gradient():
  points, inputs = skinning()
  # This model has no eyeballs, so the gaze has no gradient.
  return jax.grad(lambda *c: (points(*c) ** 2).sum(), (0, 1, 2)), inputs


def renderer():
  head, codes, _ = head_and_codes()
  return lambda c: render.render_condition(head, c, size=SIZE)["image"], [codes]


def picture_metrics():
  rng = np.random.default_rng(0)
  a, b = (rng.random((BATCH, 256, 256, 3), np.float32) for _ in range(2))
  labels = rng.integers(0, 4, (BATCH, 256, 256)).astype(np.int32)

  def all_of_them(a, b, labels):
    return (
      image.psnr(a, b),
      image.ssim(a, b),
      image.ms_ssim(a, b),
      regions.region_error(a, b, labels, 4),
    )

  return all_of_them, [a, b, labels]


def code_metrics():
  return reenactment.code_distances, list(head_and_codes()[1:])


def inception_features():
  net = inception.Inception()
  pictures = np.random.default_rng(0).uniform(-1, 1, (2, 299, 299, 3))
  pictures = pictures.astype(np.float32)
  weights = jax.jit(
    net.init, compiler_options={"xla_backend_optimization_level": 0}
  )(jax.random.key(0), pictures)
  return lambda v, x: net.apply(v, x)[0], [weights, pictures]


PROGRAMS = {
  "skinning": skinning,
  "gradient of the skinning": skinning_gradient,
  "condition renderer": renderer,
  "metrics of pictures": picture_metrics,
  "metrics of codes": code_metrics,
  "Inception features": inception_features,
}


def compiled(function, inputs, options):
  """The compiled function as a function of nothing."""
  made = jax.jit(function, compiler_options=options).lower(*inputs).compile()
  return lambda: jax.device_get(made(*inputs))


def seconds(run, repeats=2):
  """Least CPU seconds of one call."""
  times = []
  for _ in range(repeats):
    start = time.process_time()
    run()
    times.append(time.process_time() - start)
  return min(times)


def show(name, values, with_it, without):
  cells = [f"{value:.1e}" for value in values]
  cells += [""] * (2 - len(cells))
  cells += [f"{seconds(run):.2f}" for run in (with_it, without)]
  print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("names", nargs="*", help="only rows with one of these")
  parser.add_argument("--smooth", action="store_true", help="ReLU is SiLU")
  args = parser.parse_args()
  wanted = args.names
  print(f"jax {jax.__version__}, jaxlib {jax.lib.__version__}")
  print("| program | loss or value | gradient | s with | s without")
  for path, stage in recipe_steps.every_recipe():
    name = f"{path.split('/')[-1]} {stage}"
    if wanted and not any(w in name for w in wanted):
      continue
    step = recipe_steps.StepOf(path, stage, smooth=args.smooth)
    runs = [
      functools.partial(step.run, step.compile(options))
      for options in (None, recipe_steps.NO_YNNPACK)
    ]
    one, other = (run() for run in runs)
    show(name, recipe_steps.compare(other, one), *runs)
  for name, make in PROGRAMS.items():
    if wanted and not any(w in name for w in wanted):
      continue
    function, inputs = make()
    runs = [
      compiled(function, inputs, options)
      for options in (None, recipe_steps.NO_YNNPACK)
    ]
    one, other = (jax.tree.leaves(run()) for run in runs)
    gap = max(map(recipe_steps.relative, other, one))
    show(name, [gap], *runs)


if __name__ == "__main__":
  main()
