"""Key maps: layouts, unknown keys, clashes."""

import numpy as np
import pytest

from faceedit_jax.weights import faces, ldm, perception, slots
from faceedit_jax.weights.keymap import Target, convert


def test_layouts():
  state = {
    "conv1.weight": np.arange(24.0).reshape(2, 3, 2, 2),
    "bn1.weight": np.ones(2),
    "bn1.running_var": np.full(2, 3.0),
    "bn1.num_batches_tracked": np.array(7),
    "fc.weight": np.arange(6.0).reshape(2, 3),
  }
  out = convert(state, faces.iresnet)
  kernel = out["params"]["conv1"]["kernel"]
  assert kernel.shape == (2, 2, 3, 2)
  assert kernel[1, 0, 2, 1] == state["conv1.weight"][1, 2, 1, 0]
  assert out["params"]["fc"]["kernel"].shape == (3, 2)
  assert out["params"]["bn1"] == {"scale": pytest.approx(np.ones(2))}
  assert out["batch_stats"]["bn1"]["var"][0] == 3


@pytest.mark.parametrize(
  ("keymap", "key", "target"),
  [
    (
      ldm.autoencoder,
      "encoder.down.2.block.1.nin_shortcut.weight",
      Target(("encoder", "down_2_block_1", "shortcut", "kernel"), "conv"),
    ),
    (
      ldm.autoencoder,
      "quantize.embedding.weight",
      Target(("quantizer", "embedding")),
    ),
    (ldm.autoencoder, "loss.logvar", None),
    (
      ldm.unet(),
      "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight",
      Target(("input_4_attn", "block_0", "attn2", "to_k", "kernel"), "linear"),
    ),
    (
      ldm.unet(),
      "output_blocks.5.2.conv.bias",
      Target(("output_5_up", "bias")),
    ),
    (
      slots.lsd,
      "slot_attn.gru.weight_hh",
      Target(("head", "attention", "gru", "hh", "kernel"), "linear"),
    ),
    (slots.lsd, "slot_attn.pos.pe", None),
    (
      faces.deca_detail_decoder,
      "conv_blocks.19.running_mean",
      Target(("bn_5", "mean"), "same", "batch_stats"),
    ),
    (
      perception.patch_discriminator,
      "main.6.weight",
      Target(("norm_2", "scale")),
    ),
    (perception.lpips, "lins.0.model.1.weight", None),
  ],
)
def test_targets(keymap, key, target):
  assert keymap(key) == target


@pytest.mark.parametrize(
  "keymap", [ldm.autoencoder, ldm.unet(), slots.lsd_head, faces.iresnet]
)
def test_unknown_key(keymap):
  with pytest.raises(KeyError, match="nonsense"):
    keymap("nonsense.weight")


def test_two_keys_with_one_target():
  state = {"a": np.ones(1), "b": np.ones(1)}
  with pytest.raises(ValueError, match="share"):
    convert(state, lambda key: Target(("x",)))
