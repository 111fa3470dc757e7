"""Eight devices (4 x 2) lose what one device loses, stage by stage."""

import dataclasses

import jax
import numpy as np
import pytest

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import optim, sharding
from faceedit_jax.core import step as step_lib
from tests.recipes.test_stages import STAGES, build, quick_jit

pytestmark = pytest.mark.slow

# Small nets: the default rules would leave all of them whole.
RULES = (
  (r"^(step|rng)$", sharding.replicate),
  (r".*", sharding.fsdp("fsdp", 64)),
)
STEPS = 20
BATCH = 8


def losses(recipe, mesh):
  """Losses (STEPS, phases) of the first steps on a mesh."""
  init = lambda: step_lib.init_state(recipe, jax.random.key(0))  # noqa: E731
  abstract = jax.eval_shape(init)
  places = sharding.infer(abstract, RULES, mesh)
  if mesh.shape["fsdp"] > 1:
    split = [p for p in jax.tree.leaves(places) if "fsdp" in str(p.spec)]
    assert split, "nothing is split over fsdp"
  state = quick_jit(init, out_shardings=places)()
  frozen = quick_jit(
    lambda: recipe.init_frozen(jax.random.key(1)),
    out_shardings=sharding.replicated(mesh),
  )()
  step = quick_jit(
    step_lib.make_step(recipe),
    static_argnames="due",
    out_shardings=(places, sharding.replicated(mesh), None),
  )
  found = []
  with jax.set_mesh(mesh):
    for i in range(STEPS):
      batch = batch_lib.example_batch(recipe.batch_spec(), BATCH, i)
      batch = jax.device_put(batch, sharding.batch_sharding(mesh))
      due = step_lib.due_phases(recipe.phases(), i)
      state, metrics, _ = step(state, frozen, batch, due=due)
      found.append(sum(float(metrics[f"{name}/loss"]) for name in due))
  return np.array(found)


@pytest.mark.parametrize("stage", STAGES)
def test_eight_devices_equal_one(stage):
  # The beginning that the config has: a rate that warms up, and no critic
  # yet. At the full rate tiny nets amplify rounding; it then decides between
  # two codes of the first stage after ten steps.
  options = config_lib.load("configs/difffae.py").stage[stage].recipe
  recipe = dataclasses.replace(
    build(stage), tx=optim.make_tx(**options.optimizer)
  )
  if stage == "first_stage":
    own = dataclasses.replace(
      recipe.options, adversarial_start=options.adversarial_start
    )
    recipe = dataclasses.replace(recipe, options=own)
  one = sharding.make_mesh({"data": 1, "fsdp": 1}, jax.devices()[:1])
  eight = sharding.make_mesh({"data": 4, "fsdp": 2}, jax.devices())
  a, b = losses(recipe, one), losses(recipe, eight)
  np.testing.assert_allclose(b, a, rtol=1e-4)
