"""Compiling on a second thread."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.core import sharding
from faceedit_jax.core.aot_compile import CompileAhead


@pytest.fixture
def mesh():
  return sharding.make_mesh(dict(data=-1, fsdp=1))


@pytest.fixture
def compiled():
  """Names of the threads on which XLA compiled something."""
  names = []

  def heard(event, *_, **__):
    if event == "/jax/core/compile/backend_compile_duration":
      names.append(threading.current_thread().name)

  jax.monitoring.register_event_duration_secs_listener(heard)
  yield names
  jax.monitoring.unregister_event_duration_listener(heard)


def make(mesh, traced):
  """A donating step as `train` has it, and arguments on the mesh."""
  everywhere = sharding.replicated(mesh)

  def step(state, batch, due):
    traced.append(due)
    return state + batch.mean() * len(due), batch.sum()

  fn = jax.jit(
    step,
    static_argnames="due",
    donate_argnums=0,
    out_shardings=(everywhere, None),
  )
  state = jax.device_put(jnp.zeros(3), everywhere)
  rows = jax.device_put(np.ones((8, 2)), sharding.batch_sharding(mesh))
  return fn, state, rows


def test_the_call_finds_what_was_compiled(mesh, compiled):
  traced = []
  fn, state, rows = make(mesh, traced)
  shape = jax.ShapeDtypeStruct(
    (8, 2), rows.dtype, sharding=sharding.batch_sharding(mesh)
  )
  compiled.clear()
  with CompileAhead(mesh) as ahead, jax.set_mesh(mesh):
    ahead.add("a", fn, state, shape, due=("a",))
    ahead.wait("a")
    assert len(compiled) == 1
    assert compiled[0].startswith("compile-ahead")
    compiled.clear()
    state, _ = fn(state, rows, due=("a",))
    # The state was donated once: a second set of phases after that.
    ahead.add("b", fn, state, rows, due=("a", "b"))
    ahead.wait("b")
    assert len(compiled) == 1
    state, _ = fn(state, rows, due=("a", "b"))
  assert len(compiled) == 1
  assert traced == [("a",), ("a", "b")]
  np.testing.assert_allclose(state, np.full(3, 3.0))


def test_other_shapes_and_errors_are_left_to_the_call(mesh):
  traced = []
  fn, state, rows = make(mesh, traced)
  failing = jax.jit(lambda x: x.no_such_thing)
  with CompileAhead(mesh) as ahead, jax.set_mesh(mesh):
    ahead.add("bad", failing, state)
    ahead.add("a", fn, state, jax.ShapeDtypeStruct((16, 2), "float32"), due=())
    ahead.wait("a")
    ahead.wait("bad")
    ahead.wait("never added")
    fn(state, rows, due=())
    with pytest.raises(AttributeError):
      failing(rows)


def test_nothing_is_done_where_it_is_off(mesh, compiled):
  fn, state, rows = make(mesh, [])
  compiled.clear()
  with CompileAhead(mesh, enabled=False) as ahead:
    ahead.add("a", fn, state, rows, due=())
    ahead.wait("a")
  assert not compiled
