"""Runners of the slot-attention cases."""

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.models.broadcast_decoder import BroadcastDecoder
from faceedit_jax.models.region_encoder import FeatureUNet, SlotHead
from faceedit_jax.models.slot_attention import SlotAttention
from faceedit_jax.models.unet import UNet
from faceedit_jax.weights import ldm as ldm_maps
from faceedit_jax.weights import slots as maps
from tests.parity.harness import Case, check_structure, nchw, runner
from tests.parity.ldm import attention_maps, unet_options


@runner("slot/slotdiffusion_slot_attention")
def slotdiffusion_attention(case: Case) -> dict:
  config = case.config

  def net(iterations):
    return SlotAttention(
      config["slot_size"],
      config["mlp"],
      iterations,
      eps=config["eps"],
      eps_place="attention",
    )

  inputs, slots = case["inputs"], case["slots"]
  variables = case.variables(
    net(1), maps.slotdiffusion_attention, inputs, slots
  )
  out = {}
  for iterations in range(1, config["iters"] + 1):
    ours, attention = net(iterations).apply(variables, inputs, slots)
    mask = np.swapaxes(attention[:, 0], 1, 2)
    last = iterations == config["iters"]
    suffix = "" if last else f"_it{iterations}"
    out[f"slots{suffix}"], out[f"mask{suffix}"] = ours, mask
  small = net(1).apply(variables, 0.01 * inputs, 0.01 * slots)
  out["slots_small"] = small[0]
  out["mask_small"] = np.swapaxes(small[1][:, 0], 1, 2)
  return out


@runner("slot/savi_slot_attention")
def savi_attention(case: Case) -> dict:
  config = case.config

  def net(iterations):
    return SlotAttention(
      config["slot_size"],
      config["mlp"],
      iterations,
      heads=config["heads"],
      qkv_size=config["qkv"],
      eps=1e-8,
      eps_place="sum",
      project_out=config["heads"] > 1,
      norm_eps=1e-6,
    )

  inputs, slots = case["inputs"], case["slots"]
  variables = maps.savi_attention(case.state())
  wanted = jax.eval_shape(net(1).init, jax.random.key(0), inputs, slots)
  check_structure(variables, wanted)
  out, attention = {}, []
  for iterations in range(1, config["iters"] + 1):
    ours, probabilities = net(iterations).apply(variables, inputs, slots)
    attention.append(np.swapaxes(probabilities, 2, 3))
    last = iterations == config["iters"]
    out["slots" if last else f"slots_it{iterations}"] = ours
  out["attn"] = np.stack(attention)
  out["slots_small"] = net(1).apply(variables, 0.01 * inputs, 0.01 * slots)[0]
  return out


@runner("slot/lsd_slot_encoder")
def lsd_encoder(case: Case) -> dict:
  config = case.config
  base = config["bo"][0]
  unet = FeatureUNet(
    channels=base,
    mult=tuple(width // base for width in config["bo"]),
    res_blocks=config["lpb"],
    attention_levels=tuple(
      i for i, kind in enumerate(config["down"]) if kind.startswith("Attn")
    ),
    head_channels=config["hd"],
    out_channels=config["inp"],
    patch=config["size"] // config["res"],
    groups=config["groups"],
  )
  head = SlotHead(
    config["slots"],
    config["slot_size"],
    config["out"],
    config["mlp"],
    config["iters"],
    config["heads"],
    "learned" if config["learn"] else "gaussian",
  )
  image = case.image("img")
  noise = None if config["learn"] else case["slot_noise"]
  unet_variables = case.variables(
    unet, maps.lsd_unet, image, group="unet_encoder"
  )
  features = jax.jit(unet.apply)(unet_variables, image)
  head_variables = case.variables(
    head, maps.lsd_head, features, noise, group="slot_attn"
  )
  tokens, masks = jax.jit(head.apply)(head_variables, features, noise)
  batch, frames = config["batch"], config["T"]
  split = lambda x: np.reshape(x, (batch, frames, *x.shape[1:]))  # noqa: E731
  recorded = case.outputs()["attn"]
  out = {"feat": split(nchw(features)), "slots": split(tokens)}
  flat = np.reshape(masks, (*masks.shape[:1], -1, config["slots"]))
  if recorded.shape[2] == 1:
    out["attn"] = split(flat)[:, :, None]
  return out


@runner("slot/savi_broadcast_decoder")
def savi_decoder(case: Case) -> dict:
  config = case.config
  net = BroadcastDecoder(
    grid=tuple(config["res"]),
    features=tuple(config["feat"]),
    strides=tuple(config["strides"]),
    kernel=config["ks"],
    early_fusion=config["early"],
  )
  slots = case["slots"]
  frames = slots.shape[:2]
  slots = slots.reshape(-1, *slots.shape[2:])
  variables = case.variables(net, maps.savi_decoder, slots)
  result = jax.jit(net.apply)(variables, slots)
  split = lambda x: np.reshape(x, (*frames, *x.shape[1:]))  # noqa: E731
  masks = np.moveaxis(np.asarray(result.masks), -1, 1)[..., None]
  out = {
    "rgb": split(result.image),
    "alphas": split(masks),
    "segmentations": split(masks.argmax(1)),
    "rgb_slots": split(result.parts),
    "rgb_masked": split(masks * result.parts),
  }
  if config["early"]:
    # Parts are merged before the last layer: there is no picture of each.
    del out["rgb_slots"], out["rgb_masked"]
  recorded = case.outputs()
  return {k: v for k, v in out.items() if k in recorded}


@runner("slot/slotdiffusion_unet")
def slotdiffusion_unet(case: Case) -> dict:
  config = case.config
  net = UNet(
    in_channels=config["ch"],
    out_channels=config["ch"],
    context_dim=config["slot_size"],
    **unet_options(config),
  )
  recorded = case.outputs()
  t, slots = case["t"], case["slots"]
  x = jnp.moveaxis(jnp.asarray(recorded["x_t"]), 1, -1)
  variables = case.variables(
    net, ldm_maps.unet(), x, t, slots, prefix="model.diffusion_model."
  )
  prediction, found = jax.jit(net.apply, static_argnames="maps")(
    variables, x, t, slots, maps="heads"
  )
  prediction = nchw(prediction)
  target = case["noise"] if config["pred"] == "eps" else case["x0"]
  out = {"pred": prediction, "loss": np.square(prediction - target).mean()}
  return out | attention_maps(found, recorded)
