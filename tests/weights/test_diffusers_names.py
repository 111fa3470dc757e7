"""diffusers' names, there and back, without diffusers."""

import functools
import json
import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from faceedit_jax import convert, to_diffusers
from faceedit_jax.core import checkpoint
from faceedit_jax.core.errors import UserError
from faceedit_jax.core.state import TrainState
from faceedit_jax.weights import diffusers_names
from faceedit_jax.weights.checkpoint_formats import FORMATS

# Published sizes: latent diffusion's VQ-f8, Stable Diffusion 1's KL-f8, U-Net.
FULL = {
  "vq": {
    "autoencoder": dict(
      mult=(1, 2, 2, 4), attention_levels=(3,), codes=16384, z_channels=4
    )
  },
  "kl": {"autoencoder": dict(mult=(1, 2, 4, 4), attention_levels=())},
  "unet": {"unet": dict(in_channels=4, context_dim=768)},
}
SMALL = {
  "autoencoder": dict(
    channels=8,
    mult=(1, 1, 2),
    res_blocks=1,
    attention_levels=(1,),
    codes=16,
    z_channels=4,
    embed_dim=4,
    groups=4,
  ),
  "unet": dict(
    in_channels=4,
    channels=8,
    mult=(1, 2),
    res_blocks=1,
    attention_levels=(0,),
    heads=2,
    depth=2,
    context_dim=5,
    condition_dim=6,
    groups=4,
  ),
}


def rows_of(kind, nets):
  made = FORMATS[kind]
  net, inputs = made.net(nets)
  wanted = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  return diffusers_names.table(made.diffusers.naming(net), wanted), wanted


@functools.cache
def full_rows(kind):
  return rows_of(kind, FULL[kind])


@functools.cache
def small_rows(kind):
  return rows_of(kind, SMALL)


def draw(wanted, rng):
  flat = flax.traverse_util.flatten_dict(wanted, sep="/")
  return {
    path: rng.normal(size=leaf.shape).astype(np.float32)
    for path, leaf in flat.items()
  }


@pytest.mark.parametrize(
  "kind, keys, numbers",
  [
    ("vq", 299, 27_397_764 + 40_253_955 + 65_536 + 40),
    ("kl", 248, 83_653_863),
    ("unet", 686, 859_520_964),
  ],
)
def test_the_table_holds_all_of_the_published_nets(kind, keys, numbers):
  rows, wanted = full_rows(kind)
  flat = flax.traverse_util.flatten_dict(wanted["params"])
  assert len(rows) == len(flat) == keys
  assert {goal.path for goal in rows.values()} == set(flat)
  assert sum(math.prod(leaf.shape) for leaf in flat.values()) == numbers


@pytest.mark.parametrize(
  "kind, key, path",
  [
    ("unet", "conv_in.weight", "conv_in/kernel"),
    ("unet", "time_embedding.linear_2.bias", "time_out/bias"),
    (
      "unet",
      "down_blocks.1.resnets.0.conv_shortcut.weight",
      "input_4_res/shortcut/kernel",
    ),
    ("unet", "down_blocks.2.downsamplers.0.conv.bias", "input_9_down/bias"),
    (
      "unet",
      "down_blocks.0.attentions.1.transformer_blocks.0.ff.net.0.proj.weight",
      "input_2_attn/block_0/ff_in/kernel",
    ),
    ("unet", "mid_block.resnets.1.norm2.weight", "middle_2_res/norm2/scale"),
    ("unet", "mid_block.attentions.0.proj_in.weight", None),
    (
      "unet",
      "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0.weight",
      "output_11_attn/block_0/attn2/to_out/kernel",
    ),
    ("unet", "up_blocks.0.upsamplers.0.conv.weight", "output_2_up/kernel"),
    (
      "unet",
      "up_blocks.1.resnets.2.time_emb_proj.weight",
      "output_5_res/time/kernel",
    ),
    ("unet", "conv_norm_out.weight", "norm_out/scale"),
    (
      "vq",
      "decoder.up_blocks.0.attentions.2.to_out.0.bias",
      "decoder/up_3_attn_2/proj_out/bias",
    ),
    (
      "vq",
      "encoder.down_blocks.3.attentions.1.group_norm.weight",
      "encoder/down_3_attn_1/norm/scale",
    ),
    ("vq", "quantize.embedding.weight", "quantizer/embedding"),
    (
      "kl",
      "decoder.up_blocks.2.upsamplers.0.conv.weight",
      "decoder/up_1_upsample/kernel",
    ),
    (
      "kl",
      "encoder.mid_block.resnets.1.conv2.bias",
      "encoder/mid_block_2/conv2/bias",
    ),
    (
      "kl",
      "encoder.mid_block.attentions.0.query.weight",  # before 0.12
      "encoder/mid_attn_1/q/kernel",
    ),
    (
      "kl",
      "decoder.mid_block.attentions.0.proj_attn.bias",
      "decoder/mid_attn_1/proj_out/bias",
    ),
  ],
)
def test_published_keys(kind, key, path):
  goal = diffusers_names.keymap(full_rows(kind)[0])(key)
  assert "/".join(goal.path) == (path or "middle_1_attn/proj_in/kernel")


def test_options_are_those_of_stable_diffusion():
  """The arguments in the `config.json` of its U-Net and its autoencoder."""
  unet = FORMATS["unet"].net(FULL["unet"])[0]
  published = {
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "in_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 4,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
  }
  options = FORMATS["unet"].diffusers.options(unet)
  assert published.items() <= options.items()
  kl = FORMATS["kl"].net(FULL["kl"])[0]
  assert FORMATS["kl"].diffusers.options(kl) == {
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
  }


@pytest.mark.parametrize("kind", ["vq", "kl", "unet"])
def test_there_and_back_is_the_same_bits(kind, tmp_path, rng):
  arrays = draw(small_rows(kind)[1], rng)
  convert.write(arrays, tmp_path / "ours.safetensors", {})
  state, config = to_diffusers.export(
    kind, tmp_path / "ours.safetensors", SMALL
  )
  assert config["_class_name"] == FORMATS[kind].diffusers.cls
  kernel = next(k for k in state if k.endswith("conv1.weight"))
  assert state[kernel].shape[2:] == (3, 3)
  to_diffusers.write(state, config, tmp_path / "folder")
  back, report = convert.convert(
    kind, tmp_path / "folder" / to_diffusers.WEIGHTS, SMALL
  )
  assert len(report.used) == len(arrays) and not report.fresh
  assert set(back) == set(arrays)
  for path, value in arrays.items():
    np.testing.assert_array_equal(back[path], value)


def test_old_and_new_forms_of_one_tensor(tmp_path, rng):
  """Attention by its old names and as convolutions; projections as linear."""
  arrays = draw(small_rows("kl")[1], rng)
  convert.write(arrays, tmp_path / "kl.safetensors", {})
  state, _ = to_diffusers.export("kl", tmp_path / "kl.safetensors", SMALL)
  old = {}
  for key, value in state.items():
    for new, before in (
      ("to_q", "query"),
      ("to_k", "key"),
      ("to_v", "value"),
      ("to_out.0", "proj_attn"),
    ):
      if f".{new}." in key:
        key = key.replace(new, before)
        value = value[..., None, None] if value.ndim == 2 else value
    old[key] = value
  assert set(old) != set(state)
  safetensors.numpy.save_file(old, tmp_path / "old.safetensors")
  back, _ = convert.convert("kl", tmp_path / "old.safetensors", SMALL)
  for path, value in arrays.items():
    np.testing.assert_array_equal(back[path], value)

  arrays = draw(small_rows("unet")[1], rng)
  convert.write(arrays, tmp_path / "unet.safetensors", {})
  state, _ = to_diffusers.export("unet", tmp_path / "unet.safetensors", SMALL)
  for key, value in state.items():
    if key.endswith(("proj_in.weight", "proj_out.weight")):
      assert value.shape[2:] == (1, 1)
      state[key] = value[:, :, 0, 0].copy()
  safetensors.numpy.save_file(state, tmp_path / "linear.safetensors")
  back, _ = convert.convert("unet", tmp_path / "linear.safetensors", SMALL)
  for path, value in arrays.items():
    np.testing.assert_array_equal(back[path], value)


@pytest.mark.parametrize("kind", ["residual", "replace"])
def test_unet_into_one_with_other_inputs(tmp_path, rng, kind):
  """Everything that both have is kept; new inputs are zero; the rest fresh."""
  small = dict(SMALL["unet"], context_dim=7)
  arrays = draw(rows_of("unet", {"unet": small})[1], rng)
  convert.write(arrays, tmp_path / "ours.safetensors", {})
  state, _ = to_diffusers.export(
    "unet", tmp_path / "ours.safetensors", {"unet": small}
  )
  path = tmp_path / "theirs.safetensors"
  safetensors.numpy.save_file(state, path)
  nets = {"unet": dict(SMALL["unet"], in_channels=8, adain=kind)}
  got, report = convert.convert("unet", path, nets)
  assert not report.faults
  assert len(report.used) + len(report.dead) == len(state)
  context = [p for p in arrays if "attn2/to_k" in p or "attn2/to_v" in p]
  adain = [p for p in got if "/adain/" in p]
  assert context and adain
  assert sorted(report.fresh) == sorted(context + adain)
  for name, value in got.items():
    if name in adain:
      assert not value.any()
    elif name in context:
      assert value.shape[0] == 5 and value.any()
    elif name == "params/conv_in/kernel":
      np.testing.assert_array_equal(value[:, :, :4], arrays[name])
      assert not value[:, :, 4:].any()
    else:
      np.testing.assert_array_equal(value, arrays[name])
  # A context of the same size is kept.
  same = {"unet": dict(small, in_channels=8, adain=kind)}
  got, report = convert.convert("unet", path, same)
  assert sorted(report.fresh) == sorted(adain)
  np.testing.assert_array_equal(got[context[0]], arrays[context[0]])


@pytest.mark.parametrize(
  "kind, change, message",
  [
    ("unet", dict(adain="residual"), "no layer for adain='residual'"),
    ("unet", dict(adain="replace"), "no layer for adain='replace'"),
    ("unet", dict(updown=True), "no layer for updown=True"),
    ("kl", dict(embed_dim=3), "z_channels=4, embed_dim=3"),
    (
      "deca",
      {},
      r"no class in diffusers, wanted one of \['difffae_unet', 'kl', 'unet', "
      r"'vq'\]",
    ),
  ],
)
def test_nets_that_diffusers_has_not(tmp_path, kind, change, message):
  nets = {name: options | change for name, options in SMALL.items()}
  if kind == "unet":
    nets = {"unet": SMALL["unet"] | change}
  with pytest.raises(UserError, match=message) as error:
    to_diffusers.export(kind, tmp_path / "any.safetensors", nets)
  assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
  """A trained stage with an average, and what it holds."""
  rng = np.random.default_rng(3)
  made = FORMATS["vq"]
  net, inputs = made.net(SMALL)
  wanted = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
  raw, mean = (
    jax.tree.map(
      lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), wanted
    )
    for _ in range(2)
  )
  state = TrainState(
    step=jnp.int32(7),
    params={"autoencoder": raw, "other": {"x": jnp.ones(3)}},
    stats={"autoencoder": {"latents": {"spread": jnp.ones(())}}, "other": {}},
    opt={},
    ema={"ema": {"autoencoder": mean}},
    rng=jax.random.key(0),
  )
  directory = tmp_path_factory.mktemp("run") / "first_stage"
  store = checkpoint.Checkpoints(directory / "checkpoints")
  config = json.loads(json.dumps({"nets": SMALL}))
  store.save(state, checkpoint.Record(7, {}, config, {}))
  store.close()
  return directory, raw, mean


@pytest.mark.parametrize("ema", [None, ""])
def test_command_on_a_trained_stage(stage, tmp_path, capsys, ema):
  directory, raw, mean = stage
  out = tmp_path / "folder"
  command = ["to_diffusers", "vq", str(directory), f"--output={out}"]
  command += [] if ema is None else [f"--ema={ema}"]
  assert convert.main(command) == 0, capsys.readouterr().err
  assert "VQModel" in capsys.readouterr().out
  assert sorted(p.name for p in tmp_path.iterdir()) == ["folder"]
  assert sorted(p.name for p in out.iterdir()) == sorted(
    ["config.json", to_diffusers.WEIGHTS]
  )
  config = json.loads((out / "config.json").read_text())
  assert config["block_out_channels"] == [8, 8, 16]
  assert config["num_vq_embeddings"] == 16
  assert config["up_block_types"][1] == "AttnUpDecoderBlock2D"
  state = safetensors.numpy.load_file(out / to_diffusers.WEIGHTS)
  wanted = raw if ema == "" else mean
  np.testing.assert_array_equal(
    state["decoder.conv_in.weight"],
    np.transpose(wanted["decoder"]["conv_in"]["kernel"], (3, 2, 0, 1)),
  )


def test_command_knows_the_sizes_of_a_converted_file(tmp_path, rng, capsys):
  arrays = draw(small_rows("unet")[1], rng)
  convert.write(arrays, tmp_path / "ours.safetensors", {})
  state, _ = to_diffusers.export("unet", tmp_path / "ours.safetensors", SMALL)
  source = tmp_path / "theirs.safetensors"
  safetensors.numpy.save_file(state, source)
  net = tmp_path / "net.safetensors"
  sizes = [
    f"--config.nets.unet.{k}={v}"
    for k, v in SMALL["unet"].items()
    if k != "depth"
  ]
  assert convert.main(["unet", str(source), f"--output={net}", *sizes]) == 2
  assert "unexpected" in capsys.readouterr().err
  shallow = {k: v for k, v in state.items() if "transformer_blocks.1." not in k}
  safetensors.numpy.save_file(shallow, source)
  assert convert.main(["unet", str(source), f"--output={net}", *sizes]) == 0
  folder = tmp_path / "folder"
  command = ["to_diffusers", "unet", str(net), f"--output={folder}"]
  assert convert.main(command) == 0, capsys.readouterr().err
  back = safetensors.numpy.load_file(folder / to_diffusers.WEIGHTS)
  assert set(back) == set(shallow)
  for key, value in shallow.items():
    np.testing.assert_array_equal(back[key], value)


def test_errors_of_the_way_back(stage, tmp_path, capsys):
  directory = str(stage[0])
  broken = tmp_path / "broken.safetensors"
  broken.write_bytes(b"\x10\x00")
  there = tmp_path / "there"
  there.mkdir()
  file = tmp_path / "file"
  file.write_text("")
  new = f"--output={tmp_path / 'new'}"
  small = "--config=configs/difffae.py:smoke"
  for arguments, message in (
    (["vqq", directory, new], "format 'vqq' has no class in diffusers"),
    (["vq", directory, f"--output={there}"], "is there already"),
    (["vq", directory, f"--output={file}/x"], "--output="),
    (["vq", directory, new, "--ema=fast"], "no average 'fast'"),
    (["unet", directory, new], "has no net 'unet'"),
    (["vq", str(tmp_path), new, small], "neither a .safetensors file nor"),
    (["vq", str(tmp_path / "no.safetensors"), new, small], "no file"),
    (["vq", str(broken), new, small], "cannot read"),
    (["vq", directory, new, "--config=none.py"], "no config file 'none.py'"),
    (
      ["vq", directory, new, "--config.nets.autoencoder.channels=16"],
      "does not fit",
    ),
  ):
    assert convert.main(["to_diffusers", *arguments]) == 2, arguments
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, (arguments, error)
  assert not (tmp_path / "new").exists()
  assert not list(tmp_path.glob(".*"))
