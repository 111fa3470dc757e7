"""Checkpoints: bit-exact, atomic, onto any mesh, by net, with clear errors."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.core import checkpoint, files, partial_restore, sharding
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.checkpoint import Record
from faceedit_jax.core.errors import CheckpointError, WorkdirError
from faceedit_jax.core.recipe import WeightSource
from tests import toy_recipes

RULES = ((r".*", sharding.fsdp("fsdp", min_size=8)),)


def abstract_of(tree, mesh):
  shardings = sharding.infer(tree, RULES, mesh)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    jax.eval_shape(lambda: tree),
    shardings,
  )


def record(step):
  return Record(
    step, {"batches": step, "seed": 1}, {"a": [1, None]}, {"v": "x"}
  )


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture(scope="module")
def mesh():
  return sharding.make_mesh({"data": 4, "fsdp": 2})


@pytest.fixture(scope="module")
def state():
  recipe = toy_recipes.ToyGan(size=4)
  return jax.jit(lambda: step_lib.init_state(recipe, jax.random.key(5)))()


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
  directory = tmp_path_factory.mktemp("saved") / "checkpoints"
  store = checkpoint.Checkpoints(directory, max_to_keep=2)
  for step in (1, 2, 3):
    store.save(state.replace(step=jnp.int32(step)), record(step))
  store.close()
  return directory


def test_keeps_the_newest_and_restores_bits_onto_two_meshes(saved, state, mesh):
  assert checkpoint.steps_in(saved) == [2, 3]
  for target in (mesh, sharding.make_mesh({"data": 2, "fsdp": 4})):
    abstract = abstract_of(state, target)
    restored, found = checkpoint.restore(saved, abstract)
    assert_same(restored, state.replace(step=jnp.int32(3)))
    kernel = restored.params["gen"]["Dense_1"]["kernel"]
    assert kernel.sharding.mesh.shape["fsdp"] == target.shape["fsdp"]
    assert kernel.addressable_shards[0].data.size * target.shape["fsdp"] == (
      kernel.size
    )
  assert found == record(3)
  assert int(checkpoint.restore(saved, abstract, step=2)[0].step) == 2


def test_save_survives_donation_of_the_state(tmp_path, state):
  bump = jax.jit(
    lambda s: s.replace(params=jax.tree.map(lambda x: x + 1, s.params)),
    donate_argnums=0,
  )
  now = jax.tree.map(jnp.copy, state)
  store = checkpoint.Checkpoints(tmp_path, max_to_keep=5)
  for step in range(4):
    store.save(now, record(step))
    now = bump(now)
  store.close()
  first = np.asarray(state.params["gen"]["Dense_0"]["kernel"])
  abstract = place(view_net(state, "gen"))
  for step in range(4):
    got = partial_restore.restore_net(tmp_path, "gen", abstract, step=step)
    wanted = first
    for _ in range(step):
      wanted = wanted + np.float32(1)
    np.testing.assert_array_equal(got["params"]["Dense_0"]["kernel"], wanted)


def view_net(state, net):
  return {"params": state.params[net], **state.stats[net]}


def place(tree):
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return partial_restore.place_on(one)(jax.eval_shape(lambda: tree))


def test_one_net_from_an_average_and_from_the_parameters(tmp_path, state):
  averaged = jax.tree.map(lambda x: x + 7, state.params["gen"])
  state = state.replace(ema={"ema": {"gen": averaged}})
  store = checkpoint.Checkpoints(tmp_path)
  store.save(state, record(1))
  store.close()
  gen, disc = (place(view_net(state, net)) for net in ("gen", "disc"))
  got = partial_restore.restore_net(tmp_path, "gen", gen, ema="ema")
  assert_same(got, {**view_net(state, "gen"), "params": averaged})
  got = partial_restore.restore_net(tmp_path, "gen", gen)
  assert_same(got, view_net(state, "gen"))
  # The average does not cover the critic: its raw parameters.
  got = partial_restore.restore_net(tmp_path, "disc", disc, ema="ema")
  assert_same(got, view_net(state, "disc"))
  with pytest.raises(CheckpointError, match=r"no net 'gne'.*\['disc', 'gen'\]"):
    partial_restore.restore_net(tmp_path, "gne", gen)
  with pytest.raises(CheckpointError, match=r"no average 'em'.*\['ema'\]"):
    partial_restore.restore_net(tmp_path, "gen", gen, ema="em")


def test_leaves_are_listed_as_orbax_lists_them(saved, tmp_path, state):
  listed = checkpoint.stored_shapes(saved)
  assert listed == checkpoint.flat_shapes(state)
  # Of a checkpoint from before they were written down.
  old = tmp_path / "checkpoints"
  shutil.copytree(saved, old)
  path = old / "3" / "_CHECKPOINT_METADATA"
  found = json.loads(path.read_text())
  del found["custom_metadata"]["leaves"]
  path.write_text(json.dumps(found))
  # Orbax lists the numbers of a random key.
  assert {**checkpoint.stored_shapes(old, 3), "rng": ((), "key")} == listed
  assert checkpoint.read_record(old, 3) == checkpoint.read_record(saved, 3)


def test_another_structure_is_named_in_one_line(saved, mesh):
  other = jax.eval_shape(
    lambda: step_lib.init_state(toy_recipes.ToyGan(size=8), jax.random.key(0))
  )
  with pytest.raises(CheckpointError) as error:
    checkpoint.restore(saved, abstract_of(other, mesh))
  text = str(error.value)
  assert "\n" not in text and "float32[48]" in text and "float32[192]" in text
  renamed = {"params": {"Dense_9": jax.ShapeDtypeStruct((2,), jnp.float32)}}
  with pytest.raises(CheckpointError, match="lacks Dense_9.*Dense_0") as error:
    partial_restore.restore_net(saved, "gen", renamed)
  assert "\n" not in str(error.value)


def test_missing_and_damaged_checkpoints(saved, state, mesh, tmp_path):
  abstract = abstract_of(state, mesh)
  with pytest.raises(CheckpointError, match="no checkpoint in"):
    checkpoint.restore(tmp_path, abstract)
  with pytest.raises(CheckpointError, match=r"step 9 .*\[2, 3\]"):
    checkpoint.restore(saved, abstract, step=9)
  damaged = tmp_path / "damaged"
  shutil.copytree(saved, damaged)
  for file in (damaged / "3" / "state").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  with pytest.raises(CheckpointError) as error:
    checkpoint.restore(damaged, abstract)
  assert "\n" not in str(error.value)
  assert int(checkpoint.restore(damaged, abstract, step=2)[0].step) == 2


def test_left_overs_of_a_killed_save_are_ignored_and_removed(saved, tmp_path):
  shutil.copytree(saved, tmp_path / "c")
  half = tmp_path / "c" / "4.orbax-checkpoint-tmp"
  shutil.copytree(saved / "3", half)
  assert checkpoint.steps_in(tmp_path / "c") == [2, 3]
  store = checkpoint.Checkpoints(tmp_path / "c")
  assert store.latest == 3
  store.close()
  assert not half.exists()


def test_unusable_directories(tmp_path, monkeypatch, state):
  blocked = tmp_path / "file"
  blocked.write_text("")
  with pytest.raises(WorkdirError, match="cannot write to .*another --workdir"):
    checkpoint.Checkpoints(blocked / "checkpoints")
  store = checkpoint.Checkpoints(tmp_path / "full")
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
  with pytest.raises(WorkdirError, match="0 MB free"):
    store.save(state, record(1))
  assert not list((tmp_path / "full").iterdir())
  monkeypatch.undo()
  store.save(state, record(1))
  store.close()
  assert checkpoint.steps_in(tmp_path / "full") == [1]


def test_json_is_replaced_whole(tmp_path):
  path = tmp_path / "x.json"
  files.write_json(path, {"a": 1})
  with pytest.raises(TypeError):
    files.write_json(path, {"a": object()})
  assert json.loads(path.read_text()) == {"a": 1}


def test_tree_hash_sees_names_shapes_and_types():
  tree = {"a": jnp.zeros((2, 3)), "b": jax.random.key(0)}
  same = {"a": jnp.ones((2, 3)), "b": jax.random.key(1)}
  assert checkpoint.tree_hash(tree) == checkpoint.tree_hash(same)
  for other in (
    {"c": tree["a"], "b": tree["b"]},
    {"a": jnp.zeros((3, 2)), "b": tree["b"]},
    {"a": jnp.zeros((2, 3), jnp.bfloat16), "b": tree["b"]},
  ):
    assert checkpoint.tree_hash(tree) != checkpoint.tree_hash(other)


def test_safetensors_and_unknown_sources(tmp_path, state):
  from safetensors.numpy import save_file

  net = {"params": state.params["disc"]}
  abstract = place(net)
  flat = {
    "/".join(str(k.key) for k in path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_flatten_with_path(net)[0]
  }
  path = tmp_path / "disc.safetensors"
  save_file(flat, path)
  source = WeightSource(path=str(path))
  assert_same(partial_restore.load_net("disc", source, abstract, tmp_path), net)
  # The same without knowing its shapes, alone and in a file of several nets.
  halves = {name: leaf.astype(np.float16) for name, leaf in flat.items()}
  bundle = tmp_path / "nets.safetensors"
  save_file(
    {f"disc/{k}": v for k, v in halves.items()}
    | {"gen/params/bias": np.ones(3, np.float32)},
    bundle,
  )
  for file in (path, bundle):
    of = WeightSource(path=str(file))
    stored = place(partial_restore.stored_net("disc", of, tmp_path))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), stored) == jax.tree.map(
      lambda x: (x.shape, x.dtype), abstract
    )
    got = partial_restore.load_net("disc", of, stored, tmp_path)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6),
      got,
      net,
    )
  flat.pop("params/Dense_0/bias")
  save_file(flat, path)
  with pytest.raises(CheckpointError, match="1 missing.*Dense_0/bias") as error:
    partial_restore.load_net("disc", source, abstract, tmp_path)
  assert "convert" not in str(error.value)
  # As others publish it: with their names, or in types that NumPy lacks.
  save_file({"dense.weight": np.ones(1)}, path)
  with pytest.raises(CheckpointError, match="names are not ours.*convert"):
    partial_restore.load_net("disc", source, abstract, tmp_path)
  with pytest.raises(CheckpointError, match="names are not ours.*convert"):
    partial_restore.stored_net("disc", source, tmp_path)
  header = b'{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
  path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
  with pytest.raises(CheckpointError, match="cannot read"):
    partial_restore.load_net("disc", source, abstract, tmp_path)
  for source, message in (
    (WeightSource(stage="ae"), "--stage=ae"),
    (WeightSource(), "neither a stage nor a path"),
    (WeightSource(path=str(tmp_path)), "neither a .safetensors file nor"),
  ):
    with pytest.raises(CheckpointError, match=message):
      partial_restore.load_net("disc", source, abstract, tmp_path)
