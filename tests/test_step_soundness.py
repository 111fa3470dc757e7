"""Training steps compiled with and without YNNPACK agree, at default sizes.

XLA's CPU compiler hands products and sums to YNNPACK, which has computed some
of them wrong (tests/test_soundness.py). Both programs of a step are right up to
rounding, so they differ by no more than that. Rectifiers are smooth here, see
`recipe_steps.StepOf`.
"""

import os

import jax
import pytest

from tests import recipe_steps

_UNKNOWN = "No such compile option"


@pytest.mark.slow
@pytest.mark.parametrize("path, stage", recipe_steps.every_recipe())
def test_a_step_is_the_same_without_ynnpack(path, stage):
  if jax.default_backend() != "cpu":
    pytest.skip("YNNPACK computes on CPUs only")
  if "ynn_fusion_type" in os.environ.get("XLA_FLAGS", ""):
    # Both programs would be the same one, and the comparison would pass empty.
    pytest.skip("this version of JAX runs without YNNPACK (jax_versions.py)")
  step = recipe_steps.StepOf(path, stage, smooth=True)
  try:
    without = step.compile(recipe_steps.NO_YNNPACK)
  except jax.errors.JaxRuntimeError as e:
    if _UNKNOWN not in str(e):
      raise
    pytest.skip(f"this jaxlib has another name for it: {e}")
  assert "__ynn" not in without.as_text()
  difference = recipe_steps.compare(step.run(without), step.run(step.compile()))
  assert difference.loss < 1e-4, difference
  assert difference.gradient < 1e-3, difference
