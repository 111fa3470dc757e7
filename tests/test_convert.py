"""Published weight files: every key accounted for, nothing run, one line."""

import json
import os
import pathlib
import pickle
import subprocess
import sys
import types

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from faceedit_jax import convert, net_sizes
from faceedit_jax.core.errors import UserError
from faceedit_jax.models.diffusion.unet import UNet
from faceedit_jax.models.faces.iresnet import IResNet
from faceedit_jax.weights import reader
from faceedit_jax.weights.checkpoint_formats import FORMATS
from tests.parity.harness import load_case
from tests.parity.ldm import autoencoder_options

STAGES, WIDTHS = (1, 2, 1, 1), (4, 8, 8, 8)
NETS = {
  "identity": dict(
    stages=STAGES, widths=WIDTHS, stem=4, embedding=6, input_size=16
  ),
  "unet": dict(
    in_channels=8,
    channels=8,
    mult=(1, 2),
    res_blocks=1,
    attention_levels=(1,),
    heads=2,
    context_dim=5,
    condition_dim=6,
    adain="residual",
    groups=4,
  ),
}


def norm(state, name, size, rng):
  for leaf in ("weight", "bias", "running_mean"):
    state[f"{name}.{leaf}"] = rng.normal(size=size)
  state[f"{name}.running_var"] = rng.uniform(0.5, 1.5, size)
  state[f"{name}.num_batches_tracked"] = np.array(3)


@pytest.fixture
def arcface(rng):
  """Keys and shapes of a small arcface_torch backbone."""
  state = {"conv1.weight": rng.normal(size=(4, 3, 3, 3))}
  norm(state, "bn1", 4, rng)
  state["prelu.weight"] = rng.normal(size=4)
  before = 4
  for stage, (blocks, width) in enumerate(zip(STAGES, WIDTHS, strict=True), 1):
    for i in range(blocks):
      name = f"layer{stage}.{i}"
      norm(state, f"{name}.bn1", before, rng)
      state[f"{name}.conv1.weight"] = rng.normal(size=(width, before, 3, 3))
      norm(state, f"{name}.bn2", width, rng)
      state[f"{name}.prelu.weight"] = rng.normal(size=width)
      state[f"{name}.conv2.weight"] = rng.normal(size=(width, width, 3, 3))
      norm(state, f"{name}.bn3", width, rng)
      if i == 0:
        kernel = rng.normal(size=(width, before, 1, 1))
        state[f"{name}.downsample.0.weight"] = kernel
        norm(state, f"{name}.downsample.1", width, rng)
      before = width
  norm(state, "bn2", 8, rng)
  state["fc.weight"] = rng.normal(size=(6, 8))
  state["fc.bias"] = rng.normal(size=6)
  norm(state, "features", 6, rng)
  return {
    k: v.astype(np.float32 if v.ndim else np.int64) for k, v in state.items()
  }


def test_arcface_becomes_a_net_that_runs(arcface, tmp_path):
  path = tmp_path / "backbone.safetensors"
  safetensors.numpy.save_file(arcface, path)
  arrays, report = convert.convert("arcface", path, NETS)
  counters = [k for k in arcface if k.endswith("num_batches_tracked")]
  assert len(report.used) == len(arcface) - len(counters)
  assert sorted(report.dead) == sorted(counters) and not report.faults
  net = IResNet(STAGES, WIDTHS, 4, 6)
  variables = flax.traverse_util.unflatten_dict(arrays, sep="/")
  out = net.apply(variables, jnp.ones((1, 16, 16, 3)))
  assert out.shape == (1, 6) and np.isfinite(out).all()
  kernel = arcface["layer2.1.conv2.weight"]
  np.testing.assert_array_equal(
    arrays["params/layer2_1/conv2/kernel"], kernel.transpose(2, 3, 1, 0)
  )


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda s: s.pop("fc.bias"), r"1 missing \(params/fc/bias\)"),
    (
      lambda s: s.update({"layer9.0.conv1.weight": np.ones(1, np.float32)}),
      r"1 unexpected \(layer9.0.conv1.weight\)",
    ),
    (
      lambda s: s.update({"fc.weight": np.ones((7, 8), np.float32)}),
      r"1 of another shape \(params/fc/kernel: got \(8, 7\), wanted \(8, 6\)\)",
    ),
  ],
)
def test_keys_that_do_not_fit(arcface, tmp_path, change, message):
  change(arcface)
  path = tmp_path / "backbone.safetensors"
  safetensors.numpy.save_file(arcface, path)
  with pytest.raises(UserError, match=message):
    convert.convert("arcface", path, NETS)


def torch_unet(net, channels, context):
  """A state of the official net with other inputs, keys made from ours."""
  shapes = jax.eval_shape(
    net.init,
    jax.random.key(0),
    np.zeros((1, 4, 4, channels)),
    np.zeros(1),
    np.zeros((1, 1, context)),
  )["params"]
  flat = {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
  }
  rename = {
    "time_in": "time_embed.0",
    "time_out": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "norm_out": "out.0",
    "conv_out": "out.2",
  }
  block = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
  }
  rng, state = np.random.default_rng(1), {}
  for path, shape in flat.items():
    top, *rest = path.split("/")
    if top in rename:
      module = rename[top]
    else:
      kind, index, part = top.split("_")
      side = {"middle": "middle_block"}.get(kind, f"{kind}_blocks")
      if kind == "middle":
        module = f"{side}.{index}"
      else:
        # An upsampling convolution comes after what else the block holds.
        place = {"res": 0, "attn": 1, "down": 0, "up": 1}[part]
        attends = any(p.startswith(f"{kind}_{index}_attn") for p in flat)
        module = f"{side}.{index}.{place + (part == 'up' and attends)}"
      if part == "res":
        module += "." + block[rest[0]]
      elif part == "attn":
        module += "." + ".".join(rest[:-1]).replace(
          "block_0", "transformer_blocks.0"
        ).replace("to_out", "to_out.0").replace(
          "ff_in", "ff.net.0.proj"
        ).replace("ff_out", "ff.net.2")
      else:
        module += {"down": ".op", "up": ".conv"}[part]
    leaf = rest[-1]
    value = rng.normal(size=shape).astype(np.float32)
    if leaf == "kernel":
      axes = (3, 2, 0, 1) if value.ndim == 4 else (1, 0)
      value = np.ascontiguousarray(value.transpose(axes))
    name = {"kernel": "weight", "scale": "weight", "bias": "bias"}[leaf]
    state[f"model.diffusion_model.{module}.{name}"] = value
  return state


@pytest.mark.parametrize("adain", ["residual", "replace"])
def test_unet_takes_over_what_it_shares(tmp_path, adain):
  official = dict(NETS["unet"], in_channels=4, context_dim=7, adain="none")
  state = torch_unet(UNet(**official), 4, 7)
  state["first_stage_model.encoder.conv_in.weight"] = np.ones(1, np.float32)
  path = tmp_path / "ldm.safetensors"
  safetensors.numpy.save_file(state, path)
  nets = {"unet": dict(NETS["unet"], adain=adain)}
  arrays, report = convert.convert("unet", path, nets)
  assert not report.faults
  # The norm that the identity modulates begins with the file's affine part.
  norm = arrays["params/middle_0_res/norm2/scale"]
  theirs = state["model.diffusion_model.middle_block.0.out_layers.0.weight"]
  np.testing.assert_array_equal(norm, theirs)
  wide = arrays["params/conv_in/kernel"]
  narrow = state["model.diffusion_model.input_blocks.0.0.weight"]
  np.testing.assert_array_equal(wide[:, :, :4], narrow.transpose(2, 3, 1, 0))
  assert wide.shape == (3, 3, 8, 8) and not wide[:, :, 4:].any()
  fresh = [p for p in report.fresh if "attn2" in p]
  # Keys and values of one block on the way down, the middle, two on the way up.
  assert len(fresh) == 2 * 4
  for name in report.fresh:
    values = arrays[name]
    assert ("adain" in name) == (not values.any()), name
  assert len(report.used) + len(report.dead) == len(state) - 1
  assert len(report.dead) == len(fresh)  # their old context projections


@pytest.mark.parametrize(
  "kind, count",
  [
    ("vq", 27_397_764 + 40_253_955 + 65_536 + 40),
    ("kl", 83_653_863),
    ("unet", 859_520_964),
    ("difffae_unet", 865_839_684),
    ("deca", 25_848_108),
    ("deca_detail_encoder", 25_737_408),
    ("deca_detail_decoder", 1_773_345),
    ("arcface", 43_590_848),
    ("arcface_irse50", 43_797_696),
    ("l2m_fan", 6_333_603),
    ("resnet18", 11_176_512),
  ],
)
def test_nets_have_the_published_size(kind, count):
  net, inputs = FORMATS[kind].net()
  shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize(
  "name, config",
  [
    *[
      (name, "configs/difffae.py:voxceleb256")
      for name in (
        "vq",
        "difffae_unet",
        "deca",
        "deca_detail_encoder",
        "deca_detail_decoder",
        "arcface",
      )
    ],
    *[
      (f"l2m_{name}", "configs/l2m_gan.py:celeba_hq_smiling_official")
      for name in ("generator", "style_encoder", "discriminator", "fan")
    ],
    ("arcface", "configs/l2m_gan.py:celeba_hq_smiling"),
    ("resnet18", "configs/l2m_gan.py:celeba_hq_smiling_official"),
    ("stargan2_mapping_network", "configs/l2m_gan.py:stargan_v2"),
  ],
)
def test_configs_of_the_papers_have_the_published_sizes(name, config):
  made = FORMATS[name]
  nets = net_sizes.of_command({}, config, [])
  own = [section for section in made.published if section in nets]
  assert own == list(made.published)
  nets = net_sizes.of_command(made.published, config, [])
  assert made.net(nets) == made.net()


def test_sizes_of_a_config_are_taken():
  """Otherwise the comparison above would compare nothing."""
  made = FORMATS["l2m_style_encoder"]
  config = "configs/l2m_gan.py:celeba_hq_multi"
  nets = net_sizes.of_command(made.published, config, ["image_size=64"])
  net, inputs = made.net(nets)
  assert (net.image_size, net.domains) == (64, 10)
  assert inputs[0].shape == (1, 64, 64, 3)
  assert made.net() != (net, inputs)


@pytest.mark.shared
@pytest.mark.parametrize(
  "stem, kind",
  [
    ("ldm__vq_model", "vq"),
    ("ldm__autoencoder_kl", "kl"),
    ("deca__encoder", "deca"),
  ],
)
def test_keys_of_the_official_nets(shared, tmp_path, stem, kind):
  case = load_case(shared / "fixtures", stem)
  config, path = case.config, tmp_path / "net.safetensors"
  state = {k: np.ascontiguousarray(v) for k, v in case.state().items()}
  safetensors.numpy.save_file(state, path)
  if kind == "deca":
    names = {"tex": "albedo", "exp": "expression", "cam": "camera"}
    nets = {
      "estimator": dict(
        outputs={names.get(k, k): n for k, n in config["n"].items()},
        stages=config["layers"],
        width=64 // config["div"],
        hidden=state["layers.0.bias"].size,
        input_size=case["x"].shape[-1],
      )
    }
  else:
    options = autoencoder_options(config, case.image("x"))
    options |= {"codes": config["n_embed"]} if kind == "vq" else {}
    nets = {"autoencoder": options}
  report = convert.convert(kind, path, nets)[1]
  assert report.used and not report.faults
  assert len(report.used) + len(report.dead) == len(state)


ROOT = pathlib.Path(convert.__file__).parents[1]


def install(folder):
  """Puts the two packages into a folder, as a wheel does, without configs."""
  folder.mkdir()
  for name in ("faceedit_jax", "data_pipelines"):
    (folder / name).symlink_to(ROOT / name)
  return str(folder)


def test_command(arcface, tmp_path):
  """In a folder of its own, where no config lies."""
  source, out = tmp_path / "backbone.safetensors", tmp_path / "w/id.safetensors"
  safetensors.numpy.save_file(arcface, source)
  sizes = [
    f"--config.nets.identity.{k}={v}" for k, v in NETS["identity"].items()
  ]
  site = install(tmp_path / "site")
  command = [sys.executable, "-m", "faceedit_jax.convert", "arcface"]
  run = subprocess.run(
    [*command, str(source), f"--output={out}", *sizes],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": site},
  )
  assert run.returncode == 0, run.stderr
  assert "used" in run.stdout and list(out.parent.iterdir()) == [out]
  with safetensors.safe_open(out, "numpy") as file:
    notes = file.metadata()
    assert "params/fc/kernel" in file.keys()
  assert notes["source"] == "backbone.safetensors"
  assert json.loads(notes["report"])["missing"] == []


def test_no_config_is_named():
  files = [*(ROOT / "faceedit_jax" / "weights").glob("*.py")]
  assert len(files) > 8
  files += [
    ROOT / "faceedit_jax" / f"{name}.py"
    for name in ("convert", "to_diffusers", "net_sizes")
  ]
  assert not [f.name for f in files if "configs/" in f.read_text()]


@pytest.mark.parametrize(
  "content, name, message",
  [
    (None, "x.safetensors", "does not exist"),
    (b"\x10\x00\x00", "x.safetensors", "is damaged"),
    (b"\x02\0\0\0\0\0\0\0{}", "x.safetensors", "0 used.*missing"),
    (b"{}", "x.json", "it is JSON.*ends in '.json'"),
  ],
)
def test_files_that_cannot_be_read(tmp_path, content, name, message):
  path = tmp_path / name
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UserError, match=message) as error:
    convert.convert("arcface", path, NETS)
  assert "\n" not in str(error.value)


def test_errors_of_the_command(arcface, tmp_path, capsys):
  path = tmp_path / "b.safetensors"
  safetensors.numpy.save_file(arcface, path)
  out = f"--output={tmp_path / 'o.safetensors'}"
  sizes = [
    f"--config.nets.identity.{k}={v}" for k, v in NETS["identity"].items()
  ]
  for arguments, message in (
    (["arcfase", str(path), out], "format 'arcfase' is unknown"),
    (["arcface", str(path), "--output=o.npz", *sizes], "ending in .safetens"),
    (["vq", str(path), out], "does not fit this net"),
    (["vq", str(path), out, "--config=none.py"], "no config file 'none.py'"),
    (["vq", str(path), out, *sizes[:1]], "has no key 'nets.identity.stages'"),
    (
      ["arcface", str(path), out, "--config.nets.identity.stage=1"],
      "Did you mean 'nets.identity.stages'?",
    ),
    (
      ["arcface", str(path), out, "--config.image_size=64"],
      "has no key 'image_size'",
    ),
  ):
    assert convert.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
  assert not (tmp_path / "o.safetensors").exists()


class Evil:
  """Runs a command when it is unpickled the ordinary way."""

  def __init__(self, command):
    self.command = command

  def __reduce__(self):
    return os.system, (self.command,)


def test_torch_files(arcface, tmp_path, monkeypatch):
  torch = pytest.importorskip("torch")
  tensors = {k: torch.from_numpy(v) for k, v in arcface.items()}
  for name, content, old in (
    ("plain.pth", tensors, False),
    ("old.tar", {"state_dict": tensors, "epoch": 3}, True),
  ):
    path = tmp_path / name
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    arrays, report = convert.convert("arcface", path, NETS)
    assert not report.faults
    np.testing.assert_array_equal(
      arrays["params/fc/kernel"], arcface["fc.weight"].T
    )
  # What a training framework leaves beside the tensors is passed over.
  module = types.ModuleType("pytorch_lightning.callbacks")
  module.Note = type("Note", (), {"__module__": module.__name__})
  monkeypatch.setitem(sys.modules, module.__name__, module)
  monkeypatch.setitem(
    sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning")
  )
  note = module.Note()
  note.best = 1.0
  path = tmp_path / "lightning.ckpt"
  torch.save({"state_dict": tensors, "callbacks": note}, path)
  monkeypatch.delitem(sys.modules, module.__name__)
  assert not convert.convert("arcface", path, NETS)[1].faults
  cut = tmp_path / "cut.pth"
  cut.write_bytes((tmp_path / "plain.pth").read_bytes()[:2000])
  with pytest.raises(UserError, match="damaged"):
    convert.convert("arcface", cut, NETS)


def test_torch_files_run_nothing(tmp_path):
  torch = pytest.importorskip("torch")
  touched = tmp_path / "touched"
  evil = {"state_dict": {}, "hook": Evil(f"touch {touched}")}
  for name, old in (("new.pth", False), ("old.pth", True)):
    path = tmp_path / name
    torch.save(evil, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(ValueError, match="refused"):
      reader.read(path)
  plain = tmp_path / "plain.pkl"
  plain.write_bytes(pickle.dumps(evil))
  with pytest.raises(ValueError, match="refused|damaged"):
    reader.read(plain)
  assert not touched.exists()


def test_landmarks_with_tensors_are_read_without_torch(tmp_path, rng):
  """Against torch's own pickles; its bytes are not only what we think."""
  torch = pytest.importorskip("torch")
  ids = rng.integers(0, 90, (79, 17))
  weights = rng.uniform(size=(79, 3, 17))
  content = {
    "static_lmk_faces_idx": rng.integers(0, 90, 51),
    "static_lmk_bary_coords": rng.uniform(size=(51, 3)),
    "dynamic_lmk_faces_idx": torch.from_numpy(ids),
    # Neither from the beginning of its storage nor in its order.
    "dynamic_lmk_bary_coords": torch.from_numpy(
      np.concatenate([weights[:1], weights])
    )[1:].transpose(1, 2),
    "full_lmk_faces_idx": rng.integers(0, 90, (1, 68)),
    "full_lmk_bary_coords": rng.uniform(size=(1, 68, 3)),
  }
  path = tmp_path / "landmark_embedding.npy"
  np.save(path, content)
  arrays, report = convert.convert("flame_landmarks", path, {})
  assert sorted(report.used) == sorted(content) and not report.dead
  np.testing.assert_array_equal(arrays["dynamic_lmk_faces_idx"], ids)
  np.testing.assert_allclose(
    arrays["dynamic_lmk_bary_coords"], weights.transpose(0, 2, 1), rtol=1e-6
  )
