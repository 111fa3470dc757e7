"""Files in the layout of L2M-GAN's and StarGAN v2's, small ones of our own."""

import re

import numpy as np
import pytest
import safetensors.numpy

from faceedit_jax import convert
from faceedit_jax.core.errors import UserError
from faceedit_jax.models.gan.style_encoder import StyleEncoder
from faceedit_jax.models.gan.translation_generator import TranslationGenerator
from faceedit_jax.weights import key_report, l2m, reader
from tests.models.counts import array, shapes

SIZES = dict(image_size=64, channels=4, max_channels=8)
NETS = {
  "generator": SIZES,
  "style_encoder": {**SIZES, "style_dim": 6, "domains": 2},
  "discriminator": {**SIZES, "domains": 2},
  "mapping_network": {"style_dim": 6, "width": 8, "latent_dim": 5},
  "fan": {"width": 8, "input_size": 64},
  "features": {"width": 4},
}
DEAD = {
  "generator": [
    "attention.layers.0.bias",
    "attention.layers.0.weight",
    "attention.layers.2.bias",
    "attention.layers.2.weight",
    "decode.3.conv1x1.weight",
    "decode.4.conv1x1.weight",
  ],
  "style_encoder": [
    "attention.layers.0.bias",
    "attention.layers.0.weight",
    "attention.layers.2.bias",
    "attention.layers.2.weight",
  ],
}


def block(name, inputs, outputs, norm):
  """One residual block's keys and shapes."""
  keys = {
    f"{name}.conv1.weight": (inputs, inputs, 3, 3),
    f"{name}.conv1.bias": (inputs,),
    f"{name}.conv2.weight": (outputs, inputs, 3, 3),
    f"{name}.conv2.bias": (outputs,),
  }
  if norm:
    for i in (1, 2):
      keys |= {f"{name}.norm{i}.{k}": (inputs,) for k in ("weight", "bias")}
  if inputs != outputs:
    keys[f"{name}.conv1x1.weight"] = (outputs, inputs, 1, 1)
  return keys


def affine(name, inputs, outputs, *kernel):
  return {
    f"{name}.weight": (outputs, inputs, *kernel),
    f"{name}.bias": (outputs,),
  }


def generator_keys(size=64, base=4, most=8, style=6, w_hpf=1):
  halvings = size.bit_length() - 5 + (w_hpf > 0)
  widths = [min(base * 2**i, most) for i in range(halvings + 1)]
  pairs = [*zip(widths, widths[1:], strict=False)]
  keys = affine("from_rgb", 3, base, 3, 3)
  for i, (a, b) in enumerate([*pairs, *[(widths[-1],) * 2] * 2]):
    keys |= block(f"encode.{i}", a, b, True)
    number = halvings + 1 - i  # the decoder mirrors the encoder
    name = f"decode.{number}"
    keys |= affine(f"{name}.norm1.fc", style, 2 * b)
    keys |= affine(f"{name}.norm2.fc", style, 2 * a)
    keys |= affine(f"{name}.conv1", b, a, 3, 3)
    keys |= affine(f"{name}.conv2", a, a, 3, 3)
    if a != b:
      keys[f"{name}.conv1x1.weight"] = (a, b, 1, 1)
  keys |= {"to_rgb.0.weight": (base,), "to_rgb.0.bias": (base,)}
  return keys | affine("to_rgb.2", base, 3, 1, 1)


def trunk_keys(head, size=64, base=4, most=8):
  blocks = size.bit_length() - 3
  widths = [min(base * 2**i, most) for i in range(blocks + 1)]
  keys = affine(f"{head}.0", 3, base, 3, 3)
  for i in range(blocks):
    keys |= block(f"{head}.{i + 1}", widths[i], widths[i + 1], False)
  return keys | affine(f"{head}.{blocks + 2}", *[widths[-1]] * 2, 4, 4)


def attention_keys(style):
  names = ("attention.layers.0", "attention.layers.2")
  return {k: s for n in names for k, s in affine(n, style, style).items()}


def encoder_keys(style=6, most=8, **sizes):
  keys = trunk_keys("shared", most=most, **sizes)
  for k in range(2):
    keys |= affine(f"unshared.{k}", most, style)
  for head in ("transform1", "transform2.0", "transform2.1"):
    for i in (0, 2, 4):
      keys |= affine(f"{head}.{i}", style, style)
  return keys


def drawn(keys, rng):
  return {k: rng.normal(size=s).astype(np.float32) for k, s in keys.items()}


def official(rng):
  """A file as the authors save it."""
  attention = attention_keys(6)
  return {
    "generator": drawn(generator_keys() | attention, rng),
    "style_encoder": drawn(encoder_keys() | attention, rng),
  }


def convert_raw(kind, raw, monkeypatch, nets=NETS):
  monkeypatch.setattr(reader, "read", lambda path: raw)
  return convert.convert(kind, "100000_nets_ema.ckpt", nets)


@pytest.mark.parametrize("section", ["generator", "style_encoder"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_layout(rng, monkeypatch, section, prefix):
  raw = official(rng)
  wrapped = {
    name: {prefix + key: value for key, value in state.items()}
    for name, state in raw.items()
  }
  arrays, report = convert_raw(f"l2m_{section}", wrapped, monkeypatch)
  # At four channels the decoder has one projection only.
  dead = [k for k in DEAD[section] if k != "decode.3.conv1x1.weight"]
  assert sorted(report.dead) == dead
  assert all(name in str(report) for name in dead)
  assert len(report.used) == len(raw[section]) - len(dead)
  other = ({"generator", "style_encoder"} - {section}).pop()
  assert report.elsewhere == len(raw[other])
  state = raw[section]
  if section == "generator":
    np.testing.assert_array_equal(
      arrays["params/decode_3/norm1/fc/kernel"],
      state["decode.3.norm1.fc.weight"].T,
    )
  else:
    np.testing.assert_array_equal(
      arrays["params/trunk/conv_out/kernel"],
      state["shared.6.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
      arrays["params/transformer_1/layer_2/kernel"],
      state["transform2.1.4.weight"].T,
    )


def test_shortcuts_live_without_high_pass(rng, monkeypatch):
  raw = {"generator": drawn(generator_keys(w_hpf=0), rng)}
  nets = {**NETS, "generator": {**SIZES, "w_hpf": 0.0}}
  arrays, report = convert_raw("l2m_generator", raw, monkeypatch, nets)
  assert not report.dead
  assert arrays["params/decode_3/shortcut/kernel"].shape == (1, 1, 8, 4)
  # A filter that was saved as well is rebuilt from w_hpf.
  raw = {"generator": drawn(generator_keys(), rng)}
  raw["generator"]["hpf.filter"] = np.ones((3, 3), np.float32)
  report = convert_raw("l2m_generator", raw, monkeypatch)[1]
  assert "hpf.filter" in report.dead


def test_other_kinds(rng, monkeypatch):
  """Nets of StarGAN v2's files; of FAN's, with a wrapper's section."""
  encoder = {
    k: v for k, v in encoder_keys().items() if not k.startswith("transform")
  }
  critic = trunk_keys("main") | affine("main.8", 8, 2, 1, 1)
  mapping = {}
  for i in range(4):
    mapping |= affine(f"shared.{2 * i}", 5 if i == 0 else 8, 8)
    for k in range(2):
      mapping |= affine(f"unshared.{k}.{2 * i}", 8, 6 if i == 3 else 8)
  nets = {**NETS}
  nets["style_encoder"] = {**NETS["style_encoder"], "factor_layers": 0}
  raw = {
    "style_encoder": drawn(encoder, rng),
    "discriminator": drawn(critic, rng),
    "mapping_network": drawn(mapping, rng),
  }
  for kind, section in (
    ("l2m_style_encoder", "style_encoder"),
    ("l2m_discriminator", "discriminator"),
    ("stargan2_mapping_network", "mapping_network"),
  ):
    report = convert_raw(kind, raw, monkeypatch, nets)[1]
    assert len(report.used) == len(raw[section]) and not report.dead


def resnet_keys(form):
  """ResNet-18 of width 4: torchvision's names, or a Sequential's numbers."""
  stem, first = ("conv1", "bn1") if form == "names" else ("0", "1")
  keys = {f"{stem}.weight": (4, 3, 7, 7)}

  def norm(name, width):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (width,) for leaf in leaves} | {
      f"{name}.num_batches_tracked": ()
    }

  keys |= norm(first, 4)
  for stage in range(4):
    name = f"layer{stage + 1}" if form == "names" else str(stage + 4)
    for i in range(2):
      width = 4 * 2**stage
      inputs = width // 2 if stage and i == 0 else width
      head = f"{name}.{i}"
      keys[f"{head}.conv1.weight"] = (width, inputs, 3, 3)
      keys[f"{head}.conv2.weight"] = (width, width, 3, 3)
      keys |= norm(f"{head}.bn1", width) | norm(f"{head}.bn2", width)
      if inputs != width:
        keys[f"{head}.downsample.0.weight"] = (width, inputs, 1, 1)
        keys |= norm(f"{head}.downsample.1", width)
  if form == "names":
    keys |= affine("fc", 32, 1000)
  return keys


def test_resnet_by_names_and_by_numbers(rng, monkeypatch):
  by_number = drawn(resnet_keys("numbers"), rng)
  raw = {"vgg": by_number, "generator": drawn(generator_keys(), rng)}
  arrays, report = convert_raw("resnet18", raw, monkeypatch)
  assert all(k.endswith("num_batches_tracked") for k in report.dead)
  assert str(report).startswith("100 used, 20 known and not needed, ")
  np.testing.assert_array_equal(
    arrays["params/layer3_1/conv2/kernel"],
    by_number["6.1.conv2.weight"].transpose(2, 3, 1, 0),
  )
  by_name = drawn(resnet_keys("names"), rng)
  named, report = convert_raw("resnet18", by_name, monkeypatch)
  assert {k for k in report.dead if "num_batches" not in k} == {
    "fc.weight",
    "fc.bias",
  }
  assert set(named) == set(arrays)
  nets = {"features": {"width": 4, "classes": 1000}}
  more = convert_raw("resnet18", by_name, monkeypatch, nets)[0]
  assert set(more) - set(named) == {"params/fc/kernel", "params/fc/bias"}


def test_every_key_of_the_full_size():
  """At 256 px no parameter of ours is without a key, nor the other way."""
  keys = generator_keys(256, 64, 512, 64) | attention_keys(64)
  state = {k: np.broadcast_to(np.float32(0), s) for k, s in keys.items()}
  net = TranslationGenerator()
  wanted = shapes(net, array(1, 256, 256, 3), array(1, 64))
  assert sum(v.size for v in state.values()) == 43_475_715
  report = key_report.fit(state, l2m.generator(net), wanted)[1]
  assert not report.faults and len(state) == 128
  assert sorted(report.dead)[4:] == [
    f"decode.{i}.conv1x1.weight" for i in (4, 5, 6)
  ]
  keys = encoder_keys(64, 512, size=256, base=64) | attention_keys(64)
  state = {k: np.broadcast_to(np.float32(0), s) for k, s in keys.items()}
  net = StyleEncoder()
  wanted = shapes(net, array(1, 256, 256, 3), array(1, dtype="int32"))
  assert sum(v.size for v in state.values()) == 20_962_688
  report = key_report.fit(state, l2m.style_encoder(net), wanted)[1]
  assert not report.faults and len(state) == 57 and len(report.dead) == 4


@pytest.mark.parametrize(
  ("kind", "keys", "message"),
  [
    (
      "l2m_generator",
      generator_keys(128, 128, 256),
      "config.nets.generator.image_size=128 --config.nets.generator.w_hpf=1 "
      "--config.nets.generator.channels=128 "
      "--config.nets.generator.max_channels=256",
    ),
    (
      "l2m_generator",
      generator_keys(256, 64, 128, w_hpf=0),
      "config.nets.generator.image_size=256 --config.nets.generator.w_hpf=0 ",
    ),
    (
      "l2m_generator",
      generator_keys(128),
      "channels=4 .* with --config.nets.generator.image_size=128, or twice "
      "that and --config.nets.generator.w_hpf=0",
    ),
    (
      "l2m_style_encoder",
      encoder_keys(size=128),
      "encoder.image_size=128 .*style_dim=6 .*encoder.domains=2 "
      ".*factor_layers=3",
    ),
    (
      "l2m_discriminator",
      trunk_keys("main", 32) | affine("main.7", 8, 3, 1, 1),
      "config.nets.discriminator.image_size=32 .*discriminator.domains=3",
    ),
    ("l2m_style_encoder", generator_keys(), "0 used.*another FORMAT"),
    ("l2m_generator", encoder_keys(), "0 used.*another FORMAT"),
  ],
)
def test_files_of_another_size_say_theirs(monkeypatch, kind, keys, message):
  raw = {k: np.zeros(s, np.float32) for k, s in keys.items()}
  with pytest.raises(UserError, match=message) as error:
    convert_raw(kind, raw, monkeypatch)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("kind", "keys"),
  [
    ("l2m_generator", generator_keys(128, 128, 256)),
    ("l2m_generator", generator_keys(32, 8, 16, w_hpf=0)),
    ("l2m_style_encoder", encoder_keys(size=32)),
    (
      "l2m_discriminator",
      trunk_keys("main", 32) | affine("main.7", 8, 4, 1, 1),
    ),
  ],
)
def test_the_advice_can_be_followed(tmp_path, capsys, kind, keys):
  path, out = tmp_path / "net.safetensors", tmp_path / "out.safetensors"
  state = {k: np.zeros(s, np.float32) for k, s in keys.items()}
  safetensors.numpy.save_file(state, path)
  command = [kind, str(path), f"--output={out}"]
  assert convert.main(command) == 2
  said = capsys.readouterr().err
  advice = re.findall(r"--config\.[\w.]+=\w+", said)
  if "or twice that" in said:
    advice = [f.replace("image_size=16", "image_size=32") for f in advice]
  if kind == "l2m_generator":  # no key of it says so
    advice.append("--config.nets.style_encoder.style_dim=6")
  assert convert.main([*command, *advice]) == 0, capsys.readouterr().err
  assert out.is_file()


def test_the_authors_file_needs_no_settings(tmp_path, monkeypatch):
  raw = {
    "generator": generator_keys(256, 64, 512, 64),
    "style_encoder": encoder_keys(64, 512, size=256, base=64),
    "mapping_network": {},
  }
  raw["discriminator"] = trunk_keys("main", 256, 64, 512)
  raw["discriminator"] |= affine("main.10", 512, 2, 1, 1)
  for i in range(4):
    raw["mapping_network"] |= affine(f"shared.{2 * i}", 512 if i else 16, 512)
    for k in range(2):
      name = f"unshared.{k}.{2 * i}"
      raw["mapping_network"] |= affine(name, 512, 512 if i < 3 else 64)
  zeros = {
    net: {k: np.broadcast_to(np.float32(0), s) for k, s in keys.items()}
    for net, keys in raw.items()
  }
  monkeypatch.setattr(reader, "read", lambda path: zeros)
  written = {}
  monkeypatch.setattr(
    convert, "write", lambda arrays, out, notes: written.update({out: arrays})
  )
  path = tmp_path / "100000_nets_ema.ckpt"
  path.touch()
  for kind in (
    "l2m_generator",
    "l2m_style_encoder",
    "l2m_discriminator",
    "stargan2_mapping_network",
  ):
    assert convert.main([kind, str(path), f"--output={kind}"]) == 0
  count = {k: sum(a.size for a in v.values()) for k, v in written.items()}
  assert count["l2m_generator"] == 43_295_363
  assert count["l2m_style_encoder"] == 20_954_368
  assert len(count) == 4
  # StarGAN v2's encoder has no factors.
  for key in [k for k in zeros["style_encoder"] if k.startswith("transform")]:
    del zeros["style_encoder"][key]
  command = ["l2m_style_encoder", str(path), "--output=plain"]
  assert convert.main(command) == 2
  for sizes in (
    "--config=configs/l2m_gan.py:stargan_v2",
    "--config.nets.style_encoder.factor_layers=0",
  ):
    assert convert.main([*command, sizes]) == 0


def test_a_generator_of_another_kind_is_refused(monkeypatch):
  nets = {**NETS, "generator": {"kind": "unet", "channels": 4}}
  with pytest.raises(UserError, match="kind is 'unet'; published files hold"):
    convert_raw("l2m_generator", generator_keys(), monkeypatch, nets)


@pytest.mark.shared
@pytest.mark.parametrize("section", ["generator", "style_encoder", "fan"])
def test_keys_of_the_official_nets(shared, monkeypatch, section):
  with np.load(shared / "fixtures" / "l2m__edit_pipeline.npz") as file:
    raw = {"generator": {}, "style_encoder": {}, "fan": {}}
    for key in file.files:
      head, _, rest = key.partition("/")
      if head == "state":
        group, _, name = rest.partition("/")
        raw[group][name] = file[key]
  sizes = dict(image_size=64, channels=8, max_channels=32)
  nets = {
    "generator": sizes,
    "style_encoder": {**sizes, "style_dim": 16},
    "fan": {"width": 8},
  }
  report = convert_raw(f"l2m_{section}", raw, monkeypatch, nets)[1]
  assert len(report.used) + len(report.dead) == len(raw[section])
  dead = [k for k in report.dead if "num_batches_tracked" not in k]
  assert sorted(dead) == DEAD.get(section, [])
