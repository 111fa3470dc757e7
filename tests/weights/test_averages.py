"""Files with raw and averaged weights: which are taken, and what is said."""

import functools

import numpy as np
import pytest
import safetensors.numpy

from faceedit_jax import convert
from faceedit_jax.core.errors import UserError
from faceedit_jax.models.diffusion.unet import UNet
from faceedit_jax.weights import ldm, parts, reader
from faceedit_jax.weights.checkpoint_formats import FORMATS
from tests.files.torch_files import tensor, tensors, write_zip
from tests.test_convert import NETS as SMALL
from tests.test_convert import torch_unet
from tests.weights.test_published_files import IDENTITY, NETS, iresnet_state

SIZES = dict(SMALL["unet"], adain="none", context_dim=5)
PREFIX = "model.diffusion_model."
ONE = np.array(1, np.float32)


@functools.cache
def unet_state():
  """By the authors' names, without a prefix."""
  state = torch_unet(UNet(**SIZES), 8, 5)
  return {k.removeprefix(PREFIX): v for k, v in state.items()}


def more(state):
  """An average that can be told from its raw weights."""
  return {key: value + 1 for key, value in state.items()}


def put(prefix, state):
  return {prefix + key: value for key, value in state.items()}


def litema(prefix, state):
  """As latent diffusion keeps an average: without dots, with counters."""
  names = put(prefix, state)
  found = {f"model_ema.{k.replace('.', '')}": v for k, v in names.items()}
  return found | {"model_ema.decay": ONE, "model_ema.num_updates": ONE}


def backbone(which, path, weights=None):
  """Whether an iresnet was read raw or averaged, and the report."""
  arrays, report = convert.convert("arcface", path, NETS, weights=weights)
  bias = arrays["params/fc/bias"]
  raw = iresnet_state(IDENTITY, np.random.default_rng(0))["fc.bias"]
  assert np.allclose(bias, raw + (which == "ema"))
  assert np.allclose(bias, raw) == (which == "raw")
  return report


def latent_diffusion(with_raw, with_average):
  state = {"betas": np.zeros(10, np.float32)}
  if with_raw:
    state |= put(PREFIX, unet_state())
  if with_average:
    state |= litema("diffusion_model.", more(unet_state()))
  return {"state_dict": tensors(state), "global_step": 5}


def read_unet(path, weights=None):
  arrays, report = convert.convert("unet", path, {"unet": SIZES}, 0, weights)
  bias, raw = arrays["params/conv_out/bias"], unet_state()["out.2.bias"]
  assert np.allclose(bias, raw) or np.allclose(bias, raw + 1)
  assert len(report.used) == len(unet_state()) and not report.faults
  return "raw" if np.allclose(bias, raw) else "ema", report


def test_latent_diffusion_with_both(tmp_path):
  path = write_zip(tmp_path / "full.ckpt", latent_diffusion(True, True))
  for weights, wanted in ((None, "ema"), ("ema", "ema"), ("raw", "raw")):
    which, report = read_unet(path, weights)
    assert which == wanted and "model_ema" in report.note
    assert str(report).startswith(report.note) and "\n" not in str(report)
    assert report.elsewhere == len(unet_state()) + 3
  assert "--weights=raw" in read_unet(path)[1].note


def test_latent_diffusion_with_one(tmp_path):
  path = write_zip(tmp_path / "ema.ckpt", latent_diffusion(False, True))
  for weights in (None, "ema"):
    which, report = read_unet(path, weights)
    assert which == "ema" and "only ones" in report.note
  with pytest.raises(UserError, match="--weights=raw.*only averages"):
    read_unet(path, "raw")
  path = write_zip(path, latent_diffusion(True, False))
  for weights in (None, "raw"):
    which, report = read_unet(path, weights)
    assert which == "raw" and not report.note
  count = len(unet_state())
  message = rf"--weights=ema: .* no averages .* raw weights \({count} arrays"
  with pytest.raises(UserError, match=message) as error:
    read_unet(path, "ema")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["full.ckpt", "ema_only.ckpt"])
@pytest.mark.shared
def test_field_case(shared, name):
  raw = reader.read(shared / "field_cases" / "W6-ema" / name)
  made = FORMATS["unet"]
  net, _ = made.net({"unet": SIZES})
  known = functools.partial(convert._known, [made.keymap(net)])
  part = parts.find(raw, made.places, known, 208, None, made.dotted)
  assert len(part.state) == 208 and "averaged" in part.note
  assert all(known(key) for key in part.state)
  if name == "full.ckpt":
    plain = parts.find(raw, made.places, known, 208, "raw", made.dotted).state
    for key, value in part.state.items():
      np.testing.assert_allclose(value, plain[key] + 1, rtol=1e-6, err_msg=key)


def test_all_names_get_their_dots_back(rng):
  """Of the full published nets, not of a small one alone."""
  numbers = [*range(13)]
  names = [
    f"{side}_blocks.{i}.{j}.{rest}"
    for side in ("input", "output")
    for i in numbers
    for j, rest in (
      (0, "in_layers.0.weight"),
      (0, "emb_layers.1.bias"),
      (0, "out_layers.3.weight"),
      (0, "skip_connection.weight"),
      (1, "norm.weight"),
      (1, "proj_in.bias"),
      (1, "transformer_blocks.0.attn1.to_q.weight"),
      (1, "transformer_blocks.0.attn2.to_out.0.bias"),
      (1, "transformer_blocks.10.ff.net.0.proj.weight"),
      (1, "transformer_blocks.0.norm3.bias"),
    )
  ]
  names += [f"input_blocks.{i}.0.op.weight" for i in numbers[1:]]
  names += [f"output_blocks.{i}.{j}.conv.bias" for i in numbers for j in (1, 2)]
  names += ["time_embed.0.weight", "out.2.bias", "label_emb.weight"]
  names += ["middle_block.1.proj_out.weight", "middle_block.2.in_layers.2.bias"]
  for name in names:
    whole = f"diffusion_model.{name}"
    assert ldm.unet()(name) is not None
    assert ldm.dotted_unet(whole.replace(".", "")) == whole
  for name in (
    "encoder.down.0.block.1.norm1.weight",
    "decoder.up.3.attn.2.q.bias",
    "encoder.down.2.downsample.conv.weight",
    "decoder.mid.block_1.nin_shortcut.weight",
    "encoder.mid.attn_1.proj_out.bias",
    "quantize.embedding.weight",
    "post_quant_conv.bias",
  ):
    assert ldm.autoencoder(name) is not None
    assert ldm.dotted_autoencoder(name.replace(".", "")) == name
  assert ldm.dotted_unet("betas") is None


LAYOUTS = {
  "params_ema": lambda raw, ema: {"params": raw, "params_ema": ema},
  "g_ema": lambda raw, ema: {"g": raw, "g_ema": ema, "d": {"w": ONE}},
  "model_ema dict": lambda raw, ema: {"model": raw, "model_ema": ema},
  "ema dict": lambda raw, ema: {"model": raw, "ema": ema, "epoch": ONE},
  "ema in ema": lambda raw, ema: {
    "model": raw,
    "ema": put("ema_model.", ema) | put("online_model.", raw) | {"step": ONE},
  },
  "ema_state_dict": lambda raw, ema: {"state_dict": raw, "ema_state_dict": ema},
  "state_dict_ema": lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema},
  "lightning": lambda raw, ema: {
    "state_dict": put("net.", raw) | put("ema_model.net.", ema)
  },
  "lightning, compiled": lambda raw, ema: {
    "state_dict": put("model._orig_mod.", raw)
    | put("ema_model.module._orig_mod.", ema)
    | {"ema_model.n_averaged": ONE}
  },
  "callback": lambda raw, ema: {
    "state_dict": raw,
    "callbacks": {"EMACallback": {"ema_state_dict": ema}},
  },
  "Lightning's WeightAveraging": lambda raw, ema: {
    "state_dict": put("model.", ema),
    "current_model_state": put("model.", raw),
    "averaging_state": {"n_averaged": ONE},
  },
  "swa": lambda raw, ema: {"state_dict": raw, "swa_model": put("module.", ema)},
  "shadow": lambda raw, ema: {"model": raw, "ema": {"shadow": ema}},
  "several": lambda raw, ema: {"model": raw, "ema_0.9999": ema},
  "nodots": lambda raw, ema: {
    "state_dict": put("model.", raw)
    | {f"model_ema.{k.replace('.', '')}": v for k, v in ema.items()}
  },
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_trainers(tmp_path, rng, name):
  raw = iresnet_state(IDENTITY, rng)
  found = LAYOUTS[name](raw, more(raw))
  path = tmp_path / "net.pth"
  write_zip(path, _as_tensors(found))
  for weights, wanted in ((None, "ema"), ("ema", "ema"), ("raw", "raw")):
    report = backbone(wanted, path, weights)
    assert len(report.used) == len(raw) and not report.faults
  assert "averaged weights" in backbone("ema", path).note
  assert "averages" in backbone("raw", path, "raw").note


def _as_tensors(value):
  if all(isinstance(v, np.ndarray) for v in value.values()):
    return tensors(value)
  return {
    k: _as_tensors(v) if isinstance(v, dict) else tensors({"x": v})
    for k, v in value.items()
  }


@pytest.mark.parametrize("complete", [True, False])
def test_an_average_that_is_a_list(tmp_path, rng, complete):
  """torch_ema's: parameters in their order, without names."""
  raw = iresnet_state(IDENTITY, rng)
  listed = [v for k, v in more(raw).items() if ".running_" not in k]
  ema = {"shadow_params": [tensor(v) for v in listed[not complete :]]}
  path = write_zip(tmp_path / "net.pth", {"model": tensors(raw), "ema": ema})
  report = backbone("ema" if complete else "raw", path)
  assert ("shadow_params" in report.note) == complete
  assert len(report.used) == len(raw)
  backbone("raw", path, "raw")
  if not complete:
    with pytest.raises(UserError, match="holds no averages"):
      convert.convert("arcface", path, NETS, weights="ema")


def test_safetensors_with_both(tmp_path, rng):
  raw = iresnet_state(IDENTITY, rng)
  path = tmp_path / "net.safetensors"
  safetensors.numpy.save_file(
    put("model.", raw) | put("model_ema.", more(raw)), path
  )
  assert backbone("ema", path).elsewhere == len(raw)
  backbone("raw", path, "raw")


def test_an_average_of_parameters_alone_is_completed(tmp_path, rng):
  """LitEma knows no running statistics."""
  raw = iresnet_state(IDENTITY, rng)
  running = [key for key in raw if ".running_" in key]
  ema = {k: v for k, v in more(raw).items() if k not in running}
  path = write_zip(
    tmp_path / "net.ckpt",
    {"state_dict": tensors(put("model.", raw) | put("model_ema.", ema))},
  )
  report = backbone("ema", path)
  assert f"with {len(running)} raw ones that it lacks (" in report.note
  assert running[0] in report.note
  assert len(report.used) == len(raw) and not report.faults
  arrays, _ = convert.convert("arcface", path, NETS)
  mean = arrays["batch_stats/bn1/mean"]
  np.testing.assert_array_equal(mean, raw["bn1.running_mean"])
  # Alone it does not suffice, and the missing ones are named.
  write_zip(path, {"state_dict": tensors(put("model_ema.", ema))})
  with pytest.raises(UserError, match=f"{len(running)} missing .batch_stats"):
    convert.convert("arcface", path, NETS)


def test_names_of_a_net_are_no_averages(tmp_path, rng):
  """A codebook keeps averages of its own, which are part of the net."""
  raw = iresnet_state(IDENTITY, rng)
  path = write_zip(
    tmp_path / "net.pth",
    {"state_dict": tensors(raw), "ema": tensors({"codes.ema_w": ONE})},
  )
  assert not backbone("raw", path).note


def test_command(tmp_path, rng, capsys):
  raw = iresnet_state(IDENTITY, rng)
  both = write_zip(
    tmp_path / "both.pth", {"params": tensors(raw), "params_ema": tensors(raw)}
  )
  plain = write_zip(tmp_path / "plain.pth", tensors(raw))
  sizes = [f"--config.nets.identity.{k}={v}" for k, v in IDENTITY.items()]
  out = f"--output={tmp_path / 'net.safetensors'}"
  assert convert.main(["arcface", str(both), out, *sizes]) == 0
  said = capsys.readouterr().out.splitlines()
  assert said[0].startswith("arcface: averaged weights of 'params_ema'")
  with safetensors.safe_open(tmp_path / "net.safetensors", "numpy") as file:
    assert "averaged weights" in file.metadata()["report"]
  command = ["arcface", str(both), out, "--weights=raw", *sizes]
  assert convert.main(command) == 0
  assert "raw weights" in capsys.readouterr().out
  command = ["arcface", str(plain), out, "--weights=ema", *sizes]
  assert convert.main(command) == 2
  error = capsys.readouterr().err
  assert error.count("\n") == 1 and "only raw weights" in error
  command = ["flame", str(plain), out, "--weights=ema"]
  assert convert.main(command) == 2
  assert "without averages" in capsys.readouterr().err
