"""Good files of torch in all their layouts, and what trainers put into them."""

import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from faceedit_jax import convert
from faceedit_jax.weights import reader
from tests.files.torch_files import (
  Call,
  Global,
  New,
  Storage,
  pickled,
  tensor,
  tensors,
  write_old,
  write_zip,
)
from tests.weights.test_published_files import IDENTITY, NETS, iresnet_state

PROTOCOLS = (2, 3, 4, 5)
STATE = {
  "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
  "a.bias": np.array([1, -2], np.float16),
  "b.num": np.array(7),
  "b.mask": np.array([True, False]),
}


def same(found, wanted=None):
  wanted = STATE if wanted is None else wanted
  assert set(found) == set(wanted)
  for key, value in wanted.items():
    np.testing.assert_array_equal(found[key], value)
    assert found[key].dtype == value.dtype and found[key].shape == value.shape


@pytest.mark.parametrize("write", [write_zip, write_old])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_layouts_and_protocols(tmp_path, write, protocol):
  path = write(tmp_path / "net.pth", tensors(STATE), protocol)
  same(reader.read(path))
  path = write(path, {"state_dict": tensors(STATE), "epoch": 3}, protocol)
  same(reader.read(path)["state_dict"])


@pytest.mark.parametrize("protocol", [0, 1, *PROTOCOLS])
def test_plain_pickles(tmp_path, protocol):
  path = tmp_path / "net.pkl"
  record = {"__author__": "x", "model": dict(STATE), "matching": True}
  path.write_bytes(pickle.dumps(record, protocol))
  same(reader.read(path)["model"])
  columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
  whole = {"f": columns, "big": np.arange(3, dtype=">i2"), "empty": columns[:0]}
  path.write_bytes(pickle.dumps(whole, protocol))
  found = reader.read(path)
  for key, value in whole.items():
    np.testing.assert_array_equal(found[key], value)


def test_a_storage_that_tensors_share(tmp_path):
  numbers = np.arange(24, dtype=np.float32)
  storage = Storage(numbers)
  state = {
    "whole": tensor(numbers, storage),
    "part": tensor(numbers, storage, 4, (2, 3), (8, 2)),
    "turned": tensor(numbers, storage, 0, (4, 6), (1, 4)),
    "wide": tensor(numbers, storage, 5, (3, 2), (0, 0)),
    "none": tensor(numbers, storage, 0, (0, 3), (3, 1)),
    "one": tensor(numbers, storage, 23, (), ()),
    "odd": tensor(numbers, storage, 22, (1, 2), (1 << 40, 1)),
  }
  for write in (write_zip, write_old):
    found = reader.read(write(tmp_path / "net.pth", state))
    np.testing.assert_array_equal(
      found["part"], numbers[4:18].reshape(-1)[[[0, 2, 4], [8, 10, 12]]]
    )
    np.testing.assert_array_equal(found["turned"], numbers.reshape(6, 4).T)
    np.testing.assert_array_equal(found["wide"], np.full((3, 2), 5))
    np.testing.assert_array_equal(found["odd"], [[22, 23]])
    assert found["none"].shape == (0, 3) and found["one"] == 23
    assert not found["whole"].flags.writeable


def test_bfloat16_and_untyped_storages(tmp_path):
  half = np.array([0x3F80, 0xC000], np.uint16)  # 1, -2
  storage = Storage(half.view(np.uint8), 2, "BFloat16Storage")
  untyped = Storage(
    np.array([1, 2], np.float32).view(np.uint8),
    kind=Global("torch.storage", "UntypedStorage"),
  )
  hooks = Call("collections", "OrderedDict")
  args = (untyped, 0, (2,), (1,), False, hooks, Global("torch", "float32"))
  state = {
    "half": tensor(half, storage),
    "typed": Call("torch._utils", "_rebuild_tensor_v3", *args),
    "parameter": Call(
      "torch._utils", "_rebuild_parameter", tensor(half, storage), True, hooks
    ),
    "own": Call(
      "torch._tensor",
      "_rebuild_from_type_v2",
      Global("torch._utils", "_rebuild_tensor_v2"),
      Global("mine", "Tensor"),
      (storage, 0, (2,), (1,), False, hooks),
      {},
    ),
  }
  found = reader.read(write_zip(tmp_path / "net.pth", state))
  for name in ("half", "parameter", "own"):
    np.testing.assert_array_equal(found[name].astype(np.float32), [1, -2])
  np.testing.assert_array_equal(found["typed"], [1, 2])


OBJECTS = {
  "datetime": Call("datetime", "datetime", b"\x07\xe8\x01\x01\0\0\0\0\0\0"),
  "path": Call("pathlib", "PosixPath", "/", "data", "x"),
  "new path": Call("pathlib._local", "PosixPath", "/data/x"),
  "argparse": New("argparse", "Namespace", state={"lr": 0.1, "net": "r18"}),
  "yacs": New("yacs.config", "CfgNode", entries=[("a", 1)], state={"x": {}}),
  "defaultdict": Call(
    "collections", "defaultdict", Global("builtins", "list"), entries=[("a", 1)]
  ),
  "Counter": Call("collections", "Counter", {"a": 2}),
  "deque": Call("collections", "deque", (), 5, items=[1, 2]),
  "set": Call("builtins", "set", [1, 2]),
  "frozenset": Call("builtins", "frozenset", [(1, 2)]),
  "range": Call("builtins", "range", 0, 4, 1),
  "slice": Call("builtins", "slice", 0, 4, None),
  "complex": Call("builtins", "complex", 1.0, 2.0),
  "bytearray": Call("builtins", "bytearray", b"abc"),
  "enum": Call("net.modes", "Mode", 2),
  "inner enum": Call("builtins", "getattr", Global("net", "Trainer"), "Mode"),
  "attribute": Call("functools", "partial", Global("torch.optim", "Adam")),
  "scheduler": New("torch.optim.lr_scheduler", "StepLR", state={"step": 3}),
  "dtype": Global("torch", "float16"),
  "device": Call("torch", "device", "cpu"),
  "size": Call("torch", "Size", (1, 2)),
  "score": Call(
    "numpy.core.multiarray",
    "scalar",
    Call("numpy", "dtype", "f8", False, True, state=(3, "<", None)),
    b"\0" * 8,
  ),
  "uuid": New("uuid", "UUID", state={"int": 1}),
  "decimal": Call("decimal", "Decimal", "0.5"),
  "timedelta": Call("datetime", "timedelta", 1, 2, 3),
  "slots": New("net", "Options", state=(None, {"a": 1})),
  "quantised": Call("torch._utils", "_rebuild_qtensor", 1, 2),
  "dill": Call("dill._dill", "_create_function", b"code"),
  "own package called code": New("code.utils", "Config", state={"a": 1}),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_beside_the_tensors(tmp_path, name):
  value = {"hyper_parameters": OBJECTS[name], "state_dict": tensors(STATE)}
  for protocol in PROTOCOLS:
    path = write_zip(tmp_path / "net.ckpt", value, protocol)
    found = reader.read(path)
    assert list(found) == ["state_dict"]
    same(found["state_dict"])
  same(reader.read(write_old(path, value))["state_dict"])


def test_a_config_whose_parts_know_what_they_lie_in(tmp_path):
  """omegaconf's nodes hold their parents: a circle."""
  config = New("omegaconf.dictconfig", "DictConfig", state={"_content": {}})
  node = New("omegaconf.nodes", "AnyNode", state={"_val": 1, "_parent": config})
  config.state["_content"]["lr"] = node
  config.state["_parent"] = None
  value = {"hyper_parameters": config, "state_dict": tensors(STATE)}
  found = reader.read(write_zip(tmp_path / "net.ckpt", value))
  same(found["state_dict"])
  assert list(found) == ["state_dict"]


def test_a_module_that_was_saved_whole(tmp_path):
  """Its parameters, without the code of the module."""

  def module(parameters, buffers, **inside):
    ordered = lambda items: Call(  # noqa: E731
      "collections", "OrderedDict", entries=list(items)
    )
    return New(
      "net.models",
      "Net",
      state={
        "training": True,
        "_parameters": ordered((k, tensor(v)) for k, v in parameters.items()),
        "_buffers": ordered((k, tensor(v)) for k, v in buffers.items()),
        "_modules": ordered(inside.items()),
        "cache": tensor(np.ones(3)),
      },
    )

  a = module({"weight": STATE["a.weight"], "bias": STATE["a.bias"]}, {})
  b = module({}, {"num": STATE["b.num"], "mask": STATE["b.mask"]})
  path = write_zip(tmp_path / "net.pth", module({}, {}, a=a, b=b))
  found = reader.read(path)
  same({f"{k}.{n}": v for k, part in found.items() for n, v in part.items()})


def test_a_state_dict_of_somebodys_class(tmp_path):
  value = New(
    "net", "State", entries=[(k, tensor(v)) for k, v in STATE.items()]
  )
  same(reader.read(write_zip(tmp_path / "net.pth", value)))


@pytest.mark.parametrize(
  "name",
  ["UPPER.PTH", "net.bin", "net.safetensors", "net", "net.pth.tar", "a b"],
)
def test_names_say_nothing(tmp_path, name):
  path = tmp_path / name
  for write in (write_zip, write_old):
    same(reader.read(write(path, tensors(STATE))))
  path.write_bytes(pickle.dumps(STATE))
  same(reader.read(path))
  safetensors.numpy.save_file(STATE, path)
  same(reader.read(path))


def test_an_archive_that_somebody_packed_again(tmp_path):
  for packing in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
    path = write_zip(tmp_path / "net.pth", tensors(STATE), packing=packing)
    same(reader.read(path))


@pytest.mark.parametrize(
  "prefix",
  [
    "module.",
    "module.module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "model.module.",
    "module.backbone.",
    "backbone.module.",
    "backbone.",
    "net.model.",
    "state_dict/module.",
    "state_dict/backbone.",
    "model/module._orig_mod.",
    "net/",
    "network/",
    "weights/",
    "backbone/",
    "state_dict_backbone/module.",
    "model_state_dict/",
    "checkpoint/state_dict/model.",
    "my_own_word/",
    "trainer.my_own_word.",
  ],
)
def test_wrappers_in_any_order(tmp_path, rng, prefix):
  state = iresnet_state(IDENTITY, rng)
  place, _, inside = prefix.rpartition("/")
  value = tensors({inside + key: array for key, array in state.items()})
  for word in reversed(place.split("/") if place else ()):
    value = {word: value, "epoch": 3}
  if place:
    moment = {"exp_avg": tensor(np.ones(3)), "step": 5}
    value["optimizer"] = {"state": {0: moment}, "param_groups": [{"lr": 0.1}]}
  path = write_zip(tmp_path / "net.pth", value)
  arrays, report = convert.convert("arcface", path, NETS)
  assert len(report.used) == len(state) and not report.note
  assert report.elsewhere == (1 if place else 0)
  np.testing.assert_array_equal(
    arrays["params/fc/kernel"], state["fc.weight"].T
  )


def test_two_nets_at_unusual_places_are_not_guessed(tmp_path, rng):
  state = tensors(iresnet_state(IDENTITY, rng))
  path = write_zip(tmp_path / "net.pth", {"one": state, "two": state})
  with pytest.raises(ValueError, match="does not fit this net"):
    convert.convert("arcface", path, NETS)
  path = write_zip(path, {"one": state, "model": state})
  assert not convert.convert("arcface", path, NETS)[1].faults


def test_torch_is_not_needed(tmp_path):
  path = write_zip(tmp_path / "net.pth", tensors(STATE))
  program = (
    "import sys; sys.modules['torch'] = None\n"
    "from faceedit_jax.weights import reader\n"
    f"print(len(reader.read({str(path)!r})))"
  )
  run = subprocess.run(
    [sys.executable, "-c", program],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(convert.__file__).parents[1],
  )
  assert run.stdout.strip() == str(len(STATE)), run.stderr


def test_what_torch_itself_writes(tmp_path):
  """Its bytes are not only what we think."""
  torch = pytest.importorskip("torch")
  state = {k: torch.from_numpy(v.copy()) for k, v in STATE.items()}
  path = tmp_path / "net.pth"
  net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
  for old in (False, True):
    for protocol in PROTOCOLS:
      torch.save(
        state,
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not old,
      )
      same(reader.read(path))
    torch.save(net, path, _use_new_zipfile_serialization=not old)
    found = reader.read(path)
    wanted = {k: v.numpy() for k, v in net.state_dict().items()}
    same(
      {f"{k}.{n}": v for k, p in found.items() for n, v in p.items()}, wanted
    )
  path.write_bytes(pickle.dumps(state))
  same(reader.read(path))
  # A file of ours is one of torch's.
  write_zip(path, tensors(STATE))
  theirs = torch.load(path, weights_only=True)
  same({k: v.numpy() for k, v in theirs.items()})
  write_old(path, tensors(STATE))
  theirs = torch.load(path, weights_only=True)
  same({k: v.numpy() for k, v in theirs.items()})


def test_pickled_bytes_are_deterministic():
  assert pickled(tensors(STATE)) == pickled(tensors(STATE))
