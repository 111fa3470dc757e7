"""Forms in which nets are published, and everything that can be wrong."""

import functools
import pickle
import re

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

from faceedit_jax import convert, net_sizes, to_diffusers
from faceedit_jax.core.errors import UserError
from faceedit_jax.weights import diffusers_names
from faceedit_jax.weights.checkpoint_formats import FORMATS
from tests.files.torch_files import tensors, write_old, write_zip
from tests.weights.test_diffusers_names import SMALL

IDENTITY = dict(
  stages=(1, 2, 1, 1), widths=(4, 8, 8, 8), stem=4, embedding=6, input_size=16
)
NETS = {**SMALL, "identity": IDENTITY}
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


def iresnet_state(options, rng=None):
  """Keys of arcface_torch for a net of ours; zeros without `rng`."""
  net, inputs = FORMATS["arcface"].net({"identity": options})
  shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  state = {}
  for path, leaf in flax.traverse_util.flatten_dict(shapes).items():
    *modules, last = path[1:]
    module = ".".join(modules)
    module = re.sub(r"^layer(\d)_(\d+)", r"layer\1.\2", module)
    for ours, theirs in (
      ("bn_shortcut", "downsample.1"),
      ("shortcut", "downsample.0"),
      ("bn_features", "features"),
    ):
      module = module.replace(ours, theirs)
    draw = rng.normal(size=leaf.shape) if rng else np.zeros(leaf.shape)
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(draw.ndim, (0,))
    value = np.ascontiguousarray(draw.transpose(axes), np.float32)
    state[f"{module}.{_LEAVES[last]}"] = value
  return state


def save(path, state):
  safetensors.numpy.save_file(state, path)
  return path


@functools.cache
def _official(kind):
  theirs = FORMATS[kind].diffusers
  net, inputs = FORMATS[kind].net(NETS)
  shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  return diffusers_names.table(theirs.naming(net), shapes), shapes


def official(kind, rng):
  """A file of a small first stage or U-Net by diffusers' names."""
  rows, shapes = _official(kind)
  flat = flax.traverse_util.flatten_dict(shapes, sep="/")
  arrays = {
    k: rng.normal(size=v.shape).astype(np.float32) for k, v in flat.items()
  }
  return diffusers_names.rename(arrays, rows)


@pytest.mark.parametrize(
  "wrapper", ["module.", "backbone.", "module.backbone."]
)
def test_backbone_inside_of_a_wrapper(tmp_path, rng, wrapper):
  plain = iresnet_state(IDENTITY, rng)
  wanted, _ = convert.convert(
    "arcface", save(tmp_path / "plain.safetensors", plain), NETS
  )
  state = {f"{wrapper}{key}": value for key, value in plain.items()}
  if "backbone" in wrapper:
    head = wrapper.replace("backbone", "head")
    state[f"{head}weight"] = np.ones((6, 10), np.float32)
  got, report = convert.convert(
    "arcface", save(tmp_path / "wrapped.safetensors", state), NETS
  )
  assert report.elsewhere == len(state) - len(plain)
  assert len(report.used) == len(plain) == len(got)
  for path, value in wanted.items():
    np.testing.assert_array_equal(got[path], value)


def test_backbone_in_a_checkpoint_of_the_training_script(tmp_path, rng):
  """arcface_torch keeps both halves of its training in one dict."""
  plain = iresnet_state(IDENTITY, rng)
  raw = {
    "epoch": 3,
    "state_dict_backbone": {f"module.{k}": v for k, v in plain.items()},
    "state_dict_softmax_fc": {"weight": np.ones((2, 3), np.float32)},
  }
  path = tmp_path / "checkpoint.pt"
  path.write_bytes(pickle.dumps(raw))
  report = convert.convert("arcface", path, NETS)[1]
  assert set(report.used) == set(plain) and report.elsewhere == 1


def test_iresnet100(tmp_path):
  """Every key at its full size; the numbers themselves are zeros."""
  published = FORMATS["arcface"].published
  nets = net_sizes.of_command(
    published, None, ["nets.identity.stages=3,13,30,3"]
  )
  state = iresnet_state(nets["identity"])
  path = save(tmp_path / "backbone.safetensors", state)
  arrays, report = convert.convert("arcface", path, nets)
  assert len(report.used) == len(state) and not report.dead
  params = {k: v for k, v in arrays.items() if k.startswith("params/")}
  assert sum(value.size for value in params.values()) == 65_156_160


def lpips_parts(net, rng):
  """Both published parts, and the whole module."""
  made, inputs = FORMATS[f"lpips_{net}"].net({})
  shapes = jax.eval_shape(made.init, jax.random.key(0), *inputs)["params"]
  trunk, linear, whole = {}, {}, {}
  for name, leaf in shapes.items():
    if name.startswith("lin_"):
      value = rng.uniform(size=(1, leaf.size, 1, 1)).astype(np.float32)
      linear[f"lin{name[4:]}.model.1.weight"] = value
      whole[f"lins.{name[4:]}.model.1.weight"] = value
      continue
    index = int(name.removeprefix("conv_"))
    kernel = np.zeros(leaf["kernel"].shape, np.float32)
    kernel[..., 0, :] = index + rng.uniform(size=kernel.shape[-1])
    bias = rng.uniform(size=leaf["bias"].shape).astype(np.float32)
    for leaf_name, value in (
      ("weight", np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))),
      ("bias", bias),
    ):
      trunk[f"features.{index}.{leaf_name}"] = value
      whole[f"net.slice1.{index}.{leaf_name}"] = value
  whole |= linear
  whole["scaling_layer.shift"] = np.zeros((1, 3, 1, 1), np.float32)
  trunk["classifier.0.weight"] = np.ones((2, 2), np.float32)
  return trunk, linear, whole


@pytest.mark.parametrize(
  "net, numbers", [("vgg", 14_714_688 + 1_472), ("alex", 2_469_696 + 1_152)]
)
def test_lpips_whole_and_in_two_parts(tmp_path, rng, net, numbers):
  trunk, linear, whole = lpips_parts(net, rng)
  kind = f"lpips_{net}"
  first = save(tmp_path / "whole.safetensors", whole)
  a, report = convert.convert(kind, first, {})
  assert sum(value.size for value in a.values()) == numbers
  assert len(report.dead) == 5 + 1  # the second copies and the shift
  parts = [
    save(tmp_path / "torchvision.safetensors", trunk),
    save(tmp_path / "linear.safetensors", linear),
  ]
  b, report = convert.convert(kind, parts, {})
  assert report.dead == ["classifier.0.weight"]
  # As a first stage holds it that was trained with it.
  inside = {f"loss.perceptual_loss.{k}": v for k, v in whole.items()}
  inside["encoder.conv_in.bias"] = np.ones(3, np.float32)
  c, report = convert.convert(
    kind, save(tmp_path / "vqgan.safetensors", inside), {}
  )
  assert report.elsewhere == 1
  assert set(a) == set(b) == set(c)
  for path, value in a.items():
    np.testing.assert_array_equal(b[path], value)
    np.testing.assert_array_equal(c[path], value)
  index = max(int(p.split("/")[1][5:]) for p in a if "conv_" in p)
  np.testing.assert_array_equal(
    a[f"params/conv_{index}/kernel"].transpose(3, 2, 0, 1),
    trunk[f"features.{index}.weight"],
  )
  for files, message in (
    (parts[:1], "linear weights are not among the files"),
    (parts[1:], "torchvision's convolutions are not among the files"),
    ([first, parts[1]], "holds .'lin0.model.1.weight'.*which another"),
  ):
    with pytest.raises(UserError, match=message):
      convert.convert(kind, files, {})


def fails(kind, path, message, nets=NETS):
  with pytest.raises(UserError, match=message) as error:
    convert.convert(kind, path, nets)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".tar", ".pkl"])
def test_files_without_a_net(tmp_path, suffix):
  path = tmp_path / f"net{suffix}"
  fails("arcface", path, "does not exist")
  path.write_bytes(b"")
  fails("arcface", path, "is empty")
  path.write_bytes(b"nothing of the kind, but long enough for a header")
  fails("arcface", path, "is damaged")
  folder = tmp_path / f"folder{suffix}"
  folder.mkdir()
  fails("arcface", folder, "is a folder")
  other = tmp_path / "net.h5"
  other.write_bytes(b"x")
  message = "is damaged.*ends in '.h5'; wanted .safetensors or one of .pt,"
  fails("arcface", other, message)


@pytest.mark.parametrize("write", [None, write_zip, write_old])
def test_cut_files_are_one_line_wherever_they_are_cut(tmp_path, rng, write):
  state = iresnet_state(IDENTITY, rng)
  if write is None:
    whole = save(tmp_path / "net.safetensors", state)
  else:
    whole = write(tmp_path / "net.pth", tensors(state))
  content = whole.read_bytes()
  convert.convert("arcface", whole, NETS)
  for cut in np.linspace(1, len(content) - 1, 25).astype(int):
    whole.write_bytes(content[:cut])
    fails("arcface", whole, "is damaged")


def test_first_five_of_each_sort_are_named(tmp_path, rng):
  state = iresnet_state(IDENTITY, rng)
  for i in range(7):
    state[f"more.{i}.weight"] = np.ones(1, np.float32)
  gone = sorted(k for k in state if k.startswith("layer2.1.bn"))[:8]
  for key in gone:
    del state[key]
  path = save(tmp_path / "net.safetensors", state)
  with pytest.raises(UserError) as error:
    convert.convert("arcface", path, NETS)
  text = str(error.value)
  named = ", ".join(f"more.{i}.weight" for i in range(5))
  assert f"7 unexpected ({named}, ...)" in text
  missing = re.search(r"8 missing \(([^)]*)\)", text)[1].split(", ")
  assert len(missing) == 6 and missing[-1] == "..." and "\n" not in text


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(stages=(2, 2, 1, 1)), r"unexpected.*stages=2,2,1,1\)"),
    (dict(stages=(1, 1, 1, 1)), r"missing.*stages=1,1,1,1\)"),
    (dict(widths=(4, 8, 8, 12)), "of another shape"),
    (dict(embedding=5), r"fc/kernel: got \(8, 5\), wanted \(8, 6\)"),
    (dict(input_size=32), r"fc/kernel: got \(32, 6\), wanted \(8, 6\)"),
  ],
)
def test_iresnets_of_another_size(tmp_path, change, message):
  state = iresnet_state({**IDENTITY, **change})
  fails("arcface", save(tmp_path / "net.safetensors", state), message)


@pytest.mark.parametrize(
  "kind, of, change, message",
  [
    ("kl", "vq", {}, r"1 unexpected \(quantize.embedding.weight\)"),
    ("vq", "kl", {}, r"missing \(params/quantizer/embedding\)"),
    ("unet", "vq", {}, "unexpected.*missing"),
    ("arcface", "unet", {}, "0 used.*unexpected.*missing"),
    ("vq", "vq", {"autoencoder": {"channels": 16}}, "of another shape"),
    ("vq", "vq", {"autoencoder": {"codes": 8}}, "quantizer/embedding: got"),
    ("vq", "vq", {"autoencoder": {"mult": (1, 2)}}, "unexpected"),
    ("unet", "unet", {"unet": {"depth": 1}}, "unexpected"),
    ("unet", "unet", {"unet": {"depth": 3}}, "missing"),
    ("unet", "unet", {"unet": {"attention_levels": (1,)}}, "missing"),
    ("unet", "unet", {"unet": {"channels": 16}}, "of another shape"),
    # Fewer inputs than the file's; more would start at zero.
    ("unet", "unet", {"unet": {"in_channels": 3}}, "conv_in/kernel: got"),
    ("unet", "unet", {"unet": {"width": 3}}, "config.nets: .*width"),
    ("unet", "unet", {"unet": {"groups": 5}}, "config.nets: .*groups"),
  ],
)
def test_nets_of_another_build(tmp_path, rng, kind, of, change, message):
  path = save(tmp_path / "net.safetensors", official(of, rng))
  nets = {k: {**v, **change.get(k, {})} for k, v in NETS.items()}
  fails(kind, path, message, nets)


def test_without_sizes_the_published_ones_are_meant(tmp_path, rng):
  path = save(tmp_path / "net.safetensors", official("vq", rng))
  message = r"does not fit this net: .* unexpected"
  fails("vq", path, message, {})


def test_kernels_with_other_axes(tmp_path, rng):
  """A linear layer where a convolution is wanted, and the other way."""
  for kind, key, value in (
    ("vq", "encoder.conv_in.weight", np.ones((8, 3), np.float32)),
    (
      "vq",
      "encoder.mid_block.attentions.0.to_q.weight",
      np.ones((16, 16, 3, 3), np.float32),
    ),
    ("unet", "time_embedding.linear_1.weight", np.ones(32, np.float32)),
  ):
    state = official(kind, rng)
    assert key in state
    state[key] = value
    path = save(tmp_path / "net.safetensors", state)
    fails(kind, path, r"1 of another shape \(")


@pytest.mark.parametrize("place", ["under a file", "a folder"])
def test_outputs_that_cannot_be_written(tmp_path, rng, capsys, place):
  source = save(tmp_path / "net.safetensors", iresnet_state(IDENTITY, rng))
  out = tmp_path / "out.safetensors"
  if place == "under a file":
    out = source / "out.safetensors"
  else:
    out.mkdir()
  sizes = [f"--config.nets.identity.{k}={v}" for k, v in IDENTITY.items()]
  command = ["arcface", str(source), f"--output={out}", *sizes]
  assert convert.main(command) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: --output=") and error.count("\n") == 1
  left = {p.name for p in tmp_path.iterdir()} - {"net.safetensors"}
  assert left == ({"out.safetensors"} if place == "a folder" else set())


@pytest.mark.parametrize("folder", [False, True])
def test_a_full_disk_leaves_nothing_behind(tmp_path, folder):
  resource = pytest.importorskip("resource")
  arrays = {"x": np.ones(100_000, np.float32)}
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
  try:
    with pytest.raises(UserError, match="--output=") as error:
      if folder:
        to_diffusers.write(arrays, {}, tmp_path / "out")
      else:
        convert.write(arrays, tmp_path / "out.safetensors", {})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert "\n" not in str(error.value)
  assert not list(tmp_path.iterdir())
