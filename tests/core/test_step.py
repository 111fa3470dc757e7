"""The training step: phases, groups, accumulation, averages, checks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import state as state_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.batch import Field
from faceedit_jax.core.recipe import Aux, Ema, Group, Phase
from tests import toy_recipes


@dataclasses.dataclass(frozen=True)
class Linear(recipe_lib.Recipe):
  """Nets a and b of one weight each; every number can be had by hand."""

  spoil: str = ""

  def init(self, rng):
    del rng
    return {
      "a": {"params": {"w": jnp.asarray(2.0)}, "seen": {"n": jnp.zeros(())}},
      "b": {"params": {"w": jnp.asarray(3.0)}},
    }

  def batch_spec(self):
    return {"x": Field(())}

  def groups(self):
    sgd = optax.sgd(0.1)
    if self.spoil == "forgotten net":
      return {"a": Group(("a",), sgd)}
    return {"a": Group(("a",), sgd), "b": Group(("b",), sgd)}

  def phases(self):
    if self.spoil == "idle group":
      return (Phase("one", ("a",), self.loss),)
    return (
      Phase("one", ("a",), self.loss),
      Phase("two", ("b",), self.loss, every=2, start=2),
    )

  def ema(self):
    nets = ("c",) if self.spoil == "unknown average" else ("a",)
    return {"ema": Ema(nets, 0.75)}

  def loss(self, params, ctx):
    value = (params["a"]["w"] * params["b"]["w"] * ctx.batch["x"]).mean()
    stats = {"a": {"seen": {"n": ctx.stats["a"]["seen"]["n"] + 1}}}
    if self.spoil == "shape":
      value = value * ctx.batch["x"]
    if self.spoil == "stats":
      stats = {"a": {"sene": {"n": jnp.zeros(())}}}
    if self.spoil == "stats shape":
      stats = {"a": {"seen": {"n": jnp.zeros((2,))}}}
    metrics = {"loss": value} if self.spoil == "metric" else {"m": value + 1}
    return value, Aux(metrics=metrics, stats=stats)


def run(recipe, batch, due, accumulate=1, frozen=None, state=None):
  if state is None:
    state = jax.jit(functools.partial(step_lib.init_state, recipe))(
      jax.random.key(0)
    )
  step = jax.jit(step_lib.make_step(recipe, accumulate), static_argnames="due")
  return step(state, frozen or {}, batch, due=due)


def test_phase_updates_its_groups_only_and_later_phases_see_it():
  batch = {"x": jnp.ones((4,))}
  state, metrics, _ = run(Linear(), batch, ("one", "two"))
  # a: 2 - 0.1 * 3 = 1.7; then b sees the new a: 3 - 0.1 * 1.7 = 2.83.
  np.testing.assert_allclose(state.params["a"]["w"], 1.7, rtol=1e-6)
  np.testing.assert_allclose(state.params["b"]["w"], 2.83, rtol=1e-6)
  np.testing.assert_allclose(metrics["one/loss"], 6.0, rtol=1e-6)
  np.testing.assert_allclose(metrics["two/loss"], 5.1, rtol=1e-6)
  np.testing.assert_allclose(metrics["one/grad_norm"], 3.0, rtol=1e-6)
  np.testing.assert_allclose(metrics["param_norm/b"], 2.83, rtol=1e-6)
  np.testing.assert_allclose(metrics["one/m"], 7.0, rtol=1e-6)
  # The average comes last: 2 + 0.25 (1.7 - 2). Stats passed through both.
  np.testing.assert_allclose(state.ema["ema"]["a"]["w"], 1.925, rtol=1e-6)
  assert float(state.stats["a"]["seen"]["n"]) == 2
  assert int(state.step) == 1


def test_phase_that_is_not_due_leaves_no_trace():
  state, metrics, _ = run(Linear(), {"x": jnp.ones((4,))}, ("one",))
  assert float(state.params["b"]["w"]) == 3.0
  assert not [name for name in metrics if name.startswith("two/")]


def test_a_stopped_phase_is_no_longer_due():
  loss = lambda params, ctx: (0.0, recipe_lib.Aux())  # noqa: E731
  phases = (
    recipe_lib.Phase("early", (), loss, stop=2),
    recipe_lib.Phase("late", (), loss, start=2),
  )
  due = [step_lib.due_phases(phases, i) for i in range(4)]
  assert due == [("early",), ("early",), ("late",), ("late",)]
  with pytest.raises(ValueError, match="stop > start"):
    recipe_lib.Phase("never", (), loss, start=3, stop=3)


@dataclasses.dataclass(frozen=True)
class Scheduled(Linear):
  """`a` is updated twice in every step, `b` in every second one from 2 on.

  Adam without memory moves a weight by its rate, whatever the gradient.
  """

  def groups(self):
    tx = optim.make_tx(lr=0.1, schedule="cosine", total_steps=8, b1=0.0, b2=0.0)
    return {"a": Group(("a",), tx), "b": Group(("b",), tx)}

  def phases(self):
    one, two = super().phases()
    return one, dataclasses.replace(one, name="again"), two


def test_a_schedule_counts_steps_of_the_stage():
  batch, state = {"x": jnp.ones((4,))}, None
  moved = {"a": [], "b": []}
  for n in range(5):
    due = step_lib.due_phases(Scheduled().phases(), n)
    before = (2.0, 3.0) if state is None else (
      float(state.params["a"]["w"]), float(state.params["b"]["w"])
    )  # fmt: skip
    state, _, _ = run(Scheduled(), batch, due, state=state)
    for net, old in zip("ab", before, strict=True):
      moved[net].append(old - float(state.params[net]["w"]))
  rates = 0.05 * (1 + np.cos(np.pi * np.arange(5) / 8))
  np.testing.assert_allclose(moved["a"], 2 * rates, rtol=1e-4)
  np.testing.assert_allclose(
    moved["b"], [0, 0, rates[2], 0, rates[4]], rtol=1e-4, atol=1e-7
  )


def test_due_phases():
  phases = toy_recipes.ToyGan().phases()
  due = [step_lib.due_phases(phases, i) for i in range(6)]
  assert due[0] == ("d", "d_r1", "g")
  assert due[1] == ("d", "g")
  assert due[2] == due[3] == due[5] == ("d", "g", "g_mean")
  assert due[4] == ("d", "d_r1", "g", "g_mean")


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_equals_the_full_batch(accumulate):
  # Plain descent, because Adam's first update is the gradient's sign.
  recipe = toy_recipes.ToyAutoencoder(tx=optax.sgd(1.0))
  batch = batch_lib.example_batch(recipe.batch_spec(), 8, seed=0)
  whole, whole_metrics, _ = run(recipe, batch, ("recon",))
  parts, metrics, images = run(recipe, batch, ("recon",), accumulate)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    parts.params,
    whole.params,
  )
  for name in ("recon/loss", "recon/grad_norm"):
    np.testing.assert_allclose(metrics[name], whole_metrics[name], rtol=1e-4)
  # A metric that is no mean over examples is averaged, not recomputed.
  assert metrics["recon/rmse"] <= whole_metrics["recon/rmse"]
  assert images["recon/recon"].shape == (8 // accumulate, 8, 8, 3)


def test_accumulation_passes_stats_on_and_takes_the_first_images():
  recipe = toy_recipes.ToyGan()
  batch = batch_lib.example_batch(recipe.batch_spec(), 8, seed=0)
  due = ("d", "d_r1", "g")
  one, _, _ = run(recipe, {"image": batch["image"][:4]}, due)
  two, _, images = run(recipe, batch, due, accumulate=2)
  moved = [
    float(jnp.abs(s.stats["gen"]["batch_stats"]["BatchNorm_0"]["mean"]).max())
    for s in (one, two)
  ]
  assert moved[0] > 0 and moved[1] > moved[0]
  assert images["g/fake"].shape == (4, 8, 8, 3)
  state, _, _ = run(Linear(), {"x": jnp.ones((6,))}, ("one",), accumulate=3)
  assert float(state.stats["a"]["seen"]["n"]) == 3


def test_accumulation_takes_images_of_the_first_micro_batch():
  @dataclasses.dataclass(frozen=True)
  class Echo(Linear):
    def loss(self, params, ctx):
      value, aux = super().loss(params, ctx)
      return value, aux.replace(images={"x": ctx.batch["x"]})

  batch = {"x": jnp.arange(6.0)}
  _, metrics, images = run(Echo(), batch, ("one",), accumulate=3)
  # Rows are dealt in turn, so part 0 of 3 holds rows 0 and 3.
  np.testing.assert_array_equal(images["one/x"], [0.0, 3.0])
  np.testing.assert_allclose(metrics["one/loss"], 6.0 * 2.5, rtol=1e-6)


def test_gan_trains_with_donated_state_and_two_executables_before_start():
  recipe = toy_recipes.ToyGan(start=100)
  state = jax.jit(functools.partial(step_lib.init_state, recipe))(
    jax.random.key(1)
  )
  step = jax.jit(
    step_lib.make_step(recipe), static_argnames="due", donate_argnums=0
  )
  batch = batch_lib.example_batch(recipe.batch_spec(), 4, seed=0)
  phases, first = recipe.phases(), jax.tree.map(np.asarray, state.params)
  for i in range(6):
    due = step_lib.due_phases(phases, i)
    state, metrics, _ = step(state, {}, batch, due=due)
    step_lib.finite_check(metrics, phases)
  assert step._cache_size() == 2
  changed = jax.tree.map(lambda a, b: bool((a != b).any()), first, state.params)
  # Biases in front of a batch norm get no gradient.
  assert changed["disc"]["Dense_0"]["kernel"]
  assert changed["gen"]["Dense_1"]["kernel"]
  assert int(state.step) == 6


def test_undonated_init_can_be_donated():
  recipe = Linear()
  state = step_lib.init_state(recipe, jax.random.key(0))
  step = jax.jit(
    step_lib.make_step(recipe), static_argnames="due", donate_argnums=0
  )
  state, _, _ = step(state, {}, {"x": jnp.ones((2,))}, due=("one",))
  assert int(state.step) == 1


def test_frozen_nets_are_arguments_and_stay():
  recipe = toy_recipes.ToyLatent()
  frozen = recipe.init_frozen(jax.random.key(3))
  batch = batch_lib.example_batch(recipe.batch_spec(), 4, seed=0)
  state, metrics, _ = run(recipe, batch, ("denoise",), frozen=frozen)
  assert set(state.params) == {"head"}
  zeros = jax.tree.map(jnp.zeros_like, frozen)
  _, other, _ = run(recipe, batch, ("denoise",), frozen=zeros)
  assert metrics["denoise/loss"] != other["denoise/loss"]


def test_frozen_dicts_are_taken():
  @dataclasses.dataclass(frozen=True)
  class Frozen(Linear):
    def init(self, rng):
      return {net: freeze(v) for net, v in super().init(rng).items()}

  state, _, _ = run(Frozen(), {"x": jnp.ones((2,))}, ("one",))
  assert float(state.stats["a"]["seen"]["n"]) == 1


@pytest.mark.parametrize(
  "spoil, message",
  [
    ("forgotten net", r"\['a', 'b'\], groups own \['a'\]; not owned: \['b'\]"),
    ("idle group", r"groups are \['a', 'b'\], phases update \['a'\]"),
    ("unknown average", r"averages \['c'\], trained nets are \['a', 'b'\]"),
    ("shape", r"one/loss has shape \(4,\), wanted a scalar"),
    ("stats", r"returned stats a/sene; the state has"),
    ("stats shape", r"returned stats a/seen as"),
    ("metric", r"reports \['loss'\]"),
  ],
)
def test_errors_say_what_was_wrong(spoil, message):
  with pytest.raises(ValueError, match=message):
    run(Linear(spoil), {"x": jnp.ones((4,))}, ("one",))


def test_unknown_due_phase_and_uneven_micro_batches():
  batch = {"x": jnp.ones((4,))}
  with pytest.raises(ValueError, match=r"\['three'\] are unknown"):
    run(Linear(), batch, ("three",))
  with pytest.raises(ValueError, match="batch of 4 .* 3 micro-batches"):
    run(Linear(), batch, ("one",), accumulate=3)


def test_finite_check_names_the_first_phase():
  phases = Linear().phases()
  step_lib.finite_check({"one/loss": 1.0, "one/grad_norm": 2.0}, phases)
  with pytest.raises(FloatingPointError, match="one/grad_norm is nan"):
    step_lib.finite_check(
      {"one/loss": 1.0, "one/grad_norm": np.nan, "two/loss": np.inf}, phases
    )
  with pytest.raises(FloatingPointError, match="two/loss is inf"):
    step_lib.finite_check({"two/loss": np.inf}, ["one", "two"])


def test_random_streams_follow_step_and_micro_batch():
  @dataclasses.dataclass(frozen=True)
  class Noisy(Linear):
    def loss(self, params, ctx):
      value, aux = super().loss(params, ctx)
      draw = jax.random.normal(ctx.key("noise"), ctx.batch["x"].shape)
      return value, aux.replace(images={"n": draw})

  batch = {"x": jnp.ones((2,))}
  state, _, first = run(Noisy(), batch, ("one",))
  again = run(Noisy(), batch, ("one",))[2]
  later = run(Noisy(), batch, ("one",), state=state)[2]
  np.testing.assert_array_equal(first["one/n"], again["one/n"])
  assert (first["one/n"] != later["one/n"]).all()


def test_view_pairs_averages_with_current_stats():
  state, _, _ = run(Linear(), {"x": jnp.ones((2,))}, ("one",))
  raw, averaged = state_lib.view(state), state_lib.view(state, "ema")
  np.testing.assert_allclose(raw["a"]["params"]["w"], 1.7, rtol=1e-6)
  np.testing.assert_allclose(averaged["a"]["params"]["w"], 1.925, rtol=1e-6)
  assert float(averaged["a"]["seen"]["n"]) == 1
  assert float(averaged["b"]["params"]["w"]) == 3.0
  with pytest.raises(ValueError, match=r"no EMA 'emma'; it has \['ema'\]"):
    state_lib.view(state, "emma")
