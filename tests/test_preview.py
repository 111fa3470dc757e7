"""The preview of a run: compiled once, beside other work."""

import threading

import jax
import numpy as np
import pytest

from faceedit_jax import preview, stages, train
from faceedit_jax.core import sharding
from faceedit_jax.core import step as step_lib
from tests.toy_runs import config_of, write_pictures


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return write_pictures(tmp_path_factory.mktemp("data"))


def test_step_and_preview_are_compiled_once_beside_other_work(
  tmp_path, data, monkeypatch
):
  found = []

  def heard(event, _, fun_name="", **__):
    if event == "/jax/core/compile/backend_compile_duration":
      found.append((fun_name, threading.current_thread().name))

  jax.monitoring.register_event_duration_secs_listener(heard)
  try:
    config = config_of("gan", stage__gan__steps=3, stage__gan__preview_every=2)
    assert train.run(config, tmp_path, data_dir=data)
    again = config_of("gan", stage__gan__steps=4, stage__gan__preview_every=2)
    assert train.run(again, tmp_path, data_dir=data)
  finally:
    jax.monitoring.unregister_event_duration_listener(heard)
  steps = [thread for name, thread in found if name == "jit(step)"]
  previews = [thread for name, thread in found if name == "jit(preview)"]
  # Of both runs; the two phases are due together and one by one.
  assert len(steps) in (2, 3, 4)
  assert len(previews) == 2
  assert {t.split("_")[0] for t in steps + previews} == {"compile-ahead"}


def test_batch_and_noise_stay_the_same(tmp_path, data):
  def rows(state_seed=0):
    config = config_of("ae")
    stage = stages.make_stage(config, "ae", tmp_path, data)
    mesh = sharding.make_mesh(config["mesh"])
    state = step_lib.init_state(stage.recipe, jax.random.key(state_seed))
    with jax.set_mesh(mesh):
      shown = preview.Preview(stage, mesh, {})
      return jax.device_get((shown(state, {}), shown(state, {})))

  first, again = rows()
  assert first and set(first) == set(again)
  for name, pictures in first.items():
    np.testing.assert_array_equal(pictures, again[name])
    assert pictures.ndim == 4
  for a, b in zip(rows()[0].values(), first.values(), strict=True):
    np.testing.assert_array_equal(a, b)
  other, _ = rows(state_seed=1)
  assert any(np.abs(other[k] - first[k]).max() > 1e-3 for k in first)
  assert {len(v) for v in first.values()} == {8}
