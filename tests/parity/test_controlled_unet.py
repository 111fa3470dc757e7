"""The U-Net on recorded residuals of diffusers' ControlNet.

The ControlNet is not in the library yet; what it gave in the case
`sd/controlnet_unet` is added to the U-Net of the same case.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.models.diffusion.unet import UNet
from faceedit_jax.models.diffusion.unet_interface import (
  PARTS,
  Capture,
  Residuals,
)
from faceedit_jax.weights import diffusers_names
from tests.parity import harness

STEM = "sd__controlnet_unet"
pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def case(shared):
  return harness.load_case(shared / "fixtures", STEM)


def net_of(config) -> UNet:
  """Ours, by the options of the case."""
  # Those of the ControlNet alone, whose residuals are recorded.
  config.without_effect("cond_ch", "order", "scale", "guess")
  config.one_of("linear", {False: None})
  widths = config["bo"]
  kinds = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
  attends = [kinds[kind] for kind in config["down"]]
  ups = [kind.replace("Up", "Down") for kind in config["up"]]
  assert ups == config["down"][::-1]
  return UNet(
    in_channels=config["in_ch"],
    out_channels=config["in_ch"],
    channels=widths[0],
    mult=tuple(width // widths[0] for width in widths),
    res_blocks=config["lpb"],
    attention_levels=tuple(i for i, yes in enumerate(attends) if yes),
    heads=config["heads"],
    context_dim=config["ctx"],
    groups=config["groups"],
  )


def by_recorded_name(net, output, recorded) -> dict:
  """What ours gave, by the names of diffusers' modules."""
  last = len(net.mult) - 1
  out = {}
  for name in recorded:
    parts = name.split(".")
    if name.startswith("attn/mid_block"):
      value = output.cross_maps[f"middle/{parts[-2]}"]
    elif name.startswith("attn/up_blocks"):
      place = f"decoder/{last - int(parts[1])}/{parts[3]}/{parts[5]}"
      value = output.cross_maps[place]
    elif name == "conv_in":
      value = output.features["encoder/in"]
    elif name == "mid_block":
      value = output.features["middle"]
    elif parts[0] == "down_blocks":
      level = int(parts[1])
      end = "down" if level < last else str(net.res_blocks - 1)
      value = output.features[f"encoder/{level}/{end}"]
    elif parts[0] == "up_blocks" and len(parts) == 2:
      level = last - int(parts[1])
      end = "up" if level else str(net.res_blocks)
      value = output.features[f"decoder/{level}/{end}"]
    else:
      level = last - int(parts[1])
      if level in net.attention_levels:
        continue  # a residual block alone; our places have its attention too
      value = output.features[f"decoder/{level}/{parts[3]}"]
    if name.startswith("attn/"):
      out[name] = np.reshape(value, (-1, *value.shape[2:]))
    else:
      out[name] = harness.nchw(value)
  return out


@pytest.mark.parametrize(
  "group, prediction", [("unet/", "eps"), ("plain/", "eps_plain")]
)
def test_the_official_net(case, group, prediction):
  net, recorded = net_of(case.config), case.outputs()
  residuals = None
  if group == "unet/":
    skips = sorted(
      (name for name in recorded if name.startswith("cn/down_")),
      key=lambda name: int(name.removeprefix("cn/down_")),
    )
    residuals = jax.tree.map(
      lambda x: jnp.moveaxis(jnp.asarray(x), 1, -1),
      Residuals(tuple(recorded[s] for s in skips), recorded["cn/mid"]),
    )
  x = case.image("x")
  case.config.expect(batch=len(x), hw=x.shape[1], tok=case["ctx"].shape[1])
  assert not case.unread()
  t = jnp.broadcast_to(case["t"], x.shape[:1]).astype(jnp.float32)
  wanted = jax.eval_shape(net.init, jax.random.key(0), x, t, case["ctx"])
  rows = diffusers_names.table(diffusers_names.unet(net), wanted)
  keymap = diffusers_names.keymap(rows)
  variables = harness.convert(case.state("unet"), keymap)
  harness.check_structure(variables, wanted)
  capture = Capture(features=PARTS, cross_maps=PARTS, map_heads="all")

  @jax.jit
  def apply(variables, x, t, context, residuals):
    return net.apply(
      variables, x, t, context, capture=capture, residuals=residuals
    )

  output = apply(variables, x, t, case["ctx"], residuals)
  names = {n.removeprefix(group) for n in recorded if n.startswith(group)}
  got = by_recorded_name(net, output, names)
  got = {group + name: value for name, value in got.items()}
  got[prediction] = harness.nchw(output.prediction)
  left_out = {n for n in names if group + n not in got}
  assert all(n.startswith("up_blocks.1.resnets.") for n in left_out)
  for name, value in got.items():
    reference = recorded[name]
    assert value.shape == reference.shape, name
    gap = float(np.abs(value - reference).max())
    assert gap <= harness.bound(case, name, reference), (name, gap)
