"""Mesh, sharding rules over the whole state, and a step on eight devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import sharding
from faceedit_jax.core import step as step_lib
from tests import toy_recipes

SMALL = (
  (r"^(step|rng)$", P()),
  (r".*", sharding.fsdp("fsdp", min_size=16)),
)


@pytest.fixture(autouse=True)
def eight_devices():
  assert jax.device_count() == 8, (
    "these tests need XLA_FLAGS=--xla_force_host_platform_device_count=8"
  )


def test_mesh_fills_in_the_rest_and_has_auto_axes():
  mesh = sharding.make_mesh({"data": -1, "fsdp": 2})
  assert dict(mesh.shape) == {"data": 4, "fsdp": 2}
  assert set(mesh.axis_types) == {AxisType.Auto}
  one = sharding.make_mesh({"data": -1, "fsdp": 1}, jax.devices()[:1])
  assert dict(one.shape) == {"data": 1, "fsdp": 1}


@pytest.mark.parametrize(
  "sizes",
  [
    {"data": -1, "fsdp": 3},
    {"data": -1, "fsdp": -1},
    {"data": 4, "fsdp": 4},
    {"data": 0, "fsdp": -1},
  ],
)
def test_mesh_sizes_that_do_not_fit(sizes):
  with pytest.raises(ValueError, match="does not make up 8 devices"):
    sharding.make_mesh(sizes)


def test_mesh_axis_names():
  with pytest.raises(ValueError, match="wanted .*data.*fsdp"):
    sharding.make_mesh({"data": 8, "fdsp": 1})


@pytest.mark.parametrize(
  "shape, spec",
  [
    ((), P()),
    ((8,), P()),  # below min_size
    ((15, 17), P()),  # not divisible
    ((3, 3, 8, 16), P(None, None, None, "fsdp")),
    ((64, 3), P("fsdp")),
    ((16, 16), P(None, "fsdp")),  # the last of equals
    ((2, 33), P("fsdp")),  # 33 is not divisible, 2 is
  ],
)
def test_fsdp_splits_the_largest_divisible_dimension(shape, spec):
  mesh = sharding.make_mesh({"data": 4, "fsdp": 2})
  assert sharding.fsdp("fsdp", 16)(shape, mesh) == spec


def test_state_is_split_alike_in_params_optimiser_and_average():
  mesh = sharding.make_mesh({"data": 4, "fsdp": 2})
  recipe = toy_recipes.ToyGan()
  init = functools.partial(step_lib.init_state, recipe)
  shapes = jax.eval_shape(init, jax.random.key(0))
  where = sharding.infer(shapes, SMALL, mesh)
  specs = {
    sharding.path_name(path): s.spec
    for path, s in jax.tree_util.tree_flatten_with_path(where)[0]
  }
  name = "gen/Dense_1/kernel"
  kernels = [s for path, s in specs.items() if path.endswith(name)]
  assert len(kernels) == 4  # params, two moments, average
  assert set(kernels) == {P(None, "fsdp")}
  assert specs["step"] == specs["rng"] == P()
  assert specs["params/disc/Dense_1/bias"] == P()


def test_step_on_eight_devices_equals_one_device():
  recipe = toy_recipes.ToyAutoencoder()
  batch = batch_lib.example_batch(recipe.batch_spec(), 16, seed=0)
  init = functools.partial(step_lib.init_state, recipe)
  rng = jax.random.key(0)
  results = []
  for sizes, devices in [
    ({"data": 1, "fsdp": 1}, jax.devices()[:1]),
    ({"data": 4, "fsdp": 2}, None),
  ]:
    mesh = sharding.make_mesh(sizes, devices)
    where = sharding.infer(jax.eval_shape(init, rng), SMALL, mesh)
    state = jax.jit(init, out_shardings=where)(rng)
    step = jax.jit(
      step_lib.make_step(recipe, accumulate=2),
      static_argnames="due",
      donate_argnums=0,
      out_shardings=(where, None, None),
    )
    placed = jax.device_put(batch, sharding.batch_sharding(mesh))
    for _ in range(2):
      state, metrics, _ = step(state, {}, placed, due=("recon",))
    results.append((state, metrics))
  (one, one_metrics), (many, many_metrics) = results
  kernel = many.params["enc"]["Conv_0"]["kernel"]
  assert len(kernel.sharding.device_set) == 8
  assert kernel.sharding.spec != P()
  np.testing.assert_allclose(
    one_metrics["recon/loss"], many_metrics["recon/loss"], rtol=1e-5
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    jax.device_get(one.params),
    jax.device_get(many.params),
  )


TREE = {"unet": {"attn_0": jnp.zeros((4, 4)), "conv": jnp.zeros((3,))}}


def test_leaf_without_rule():
  mesh = sharding.make_mesh({"data": 8, "fsdp": 1})
  with pytest.raises(ValueError, match="no sharding rule .* 'unet/conv'"):
    sharding.infer(TREE, [("attn", P())], mesh)


def test_rule_without_leaf_names_the_nearest_path():
  mesh = sharding.make_mesh({"data": 8, "fsdp": 1})
  with pytest.raises(
    ValueError, match="'unet/atn' matches no leaf; nearest path 'unet/attn_0'"
  ):
    sharding.infer(TREE, [("unet/atn", P()), (".*", P())], mesh)


def test_first_rule_wins_and_a_spec_must_divide():
  mesh = sharding.make_mesh({"data": 4, "fsdp": 2})
  rules = [("attn", P("fsdp")), (".*", P())]
  found = sharding.infer(TREE, rules, mesh)
  assert found["unet"]["attn_0"].spec == P("fsdp")
  assert found["unet"]["conv"].spec == P()
  with pytest.raises(ValueError, match=r"'unet/conv' of shape \(3,\)"):
    sharding.infer(TREE, [(".*", P("fsdp"))], mesh)


def test_default_rules_take_a_state_and_frozen_nets():
  mesh = sharding.make_mesh({"data": 4, "fsdp": 2})
  recipe = toy_recipes.ToyLatent()
  shapes = jax.eval_shape(
    functools.partial(step_lib.init_state, recipe), jax.random.key(0)
  )
  state = sharding.infer(shapes, sharding.DEFAULT_RULES, mesh)
  frozen = sharding.infer(
    recipe.init_frozen(jax.random.key(0)), sharding.NET_RULES, mesh
  )
  # Every leaf of a toy is too small to be worth splitting.
  assert {s.spec for s in jax.tree.leaves((state, frozen))} == {P()}
  assert sharding.infer({}, sharding.NET_RULES, mesh) == {}


def test_check_batch_divides():
  mesh = sharding.make_mesh({"data": 4, "fsdp": 2})
  sharding.check_batch_divides(32, mesh, accumulate=4)
  with pytest.raises(
    ValueError, match=r"batch of 30 is not divisible by 8 devices \(stage.x"
  ):
    sharding.check_batch_divides(30, mesh, key="stage.x.data.batch_size")
  with pytest.raises(ValueError, match="8 devices x 3 .*stage.x.accumulate"):
    sharding.check_batch_divides(32, mesh, 3, "stage.x.data.batch_size")
