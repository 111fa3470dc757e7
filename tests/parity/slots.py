"""Runners of the slot-attention cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax import diffusion
from faceedit_jax.models.diffusion.unet import UNet
from faceedit_jax.models.slots.broadcast_decoder import BroadcastDecoder
from faceedit_jax.models.slots.region_encoder import FeatureUNet, SlotHead
from faceedit_jax.models.slots.slot_attention import SlotAttention
from faceedit_jax.models.slots.slot_autoencoder import (
  SlotAutoencoder,
  SlotEncoder,
)
from faceedit_jax.nn.layers import resize
from faceedit_jax.weights import ldm as ldm_maps
from faceedit_jax.weights import slots as maps
from faceedit_jax.weights.keymap import convert
from tests.parity.harness import Case, check_structure, nchw, runner
from tests.parity.ldm import ALL_MAPS, attention_maps, unet_options
from tests.parity.options import Options
from tests.parity.schedules import check_buffers, make_schedule, predicted_kind

NORMS = {"": "none", "bn": "batch", "gn": "group", "in": "instance"}


def _expect_tokens(config: Options, inputs, slots) -> None:
  """Reads what the arrays of a slot attention say of themselves."""
  config.expect(
    batch=len(inputs),
    n=inputs.shape[1],
    inputs=inputs.shape[2],
    in_f=inputs.shape[2],
    slots=slots.shape[1],
  )


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

  last = config["iters"]
  inputs, slots = case["inputs"], case["slots"]
  _expect_tokens(config, inputs, slots)
  variables = case.variables(
    net(1), maps.slotdiffusion_attention, inputs, slots
  )

  @jax.jit
  def run(variables, inputs, slots):
    out = {}
    for iterations in range(1, last + 1):
      ours, attention = net(iterations).apply(variables, inputs, slots)
      suffix = "" if iterations == last else f"_it{iterations}"
      out[f"slots{suffix}"] = ours
      out[f"mask{suffix}"] = attention[:, 0].swapaxes(1, 2)
    _, extra = net(last).apply(
      variables, inputs, slots, capture_intermediates=True
    )
    queries = extra["intermediates"]["project_q"]["__call__"]
    out |= {f"q_it{i}": value for i, value in enumerate(queries)}
    small = net(1).apply(variables, 0.01 * inputs, 0.01 * slots)
    out["slots_small"] = small[0]
    out["mask_small"] = small[1][:, 0].swapaxes(1, 2)
    return out

  return run(variables, inputs, slots)


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
      eps=config.spelled("epsilon", "eps", default=1e-8),
      eps_place="sum",
      project_out=config["heads"] > 1,
      norm_eps=1e-6,
    )

  last = config["iters"]
  inputs, slots = case["inputs"], case["slots"]
  _expect_tokens(config, inputs, slots)
  variables = maps.savi_attention(case.state())
  wanted = jax.eval_shape(net(1).init, jax.random.key(0), inputs, slots)
  check_structure(variables, wanted)

  @jax.jit
  def run(variables, inputs, slots):
    out, attention = {}, []
    for iterations in range(1, last + 1):
      ours, probabilities = net(iterations).apply(variables, inputs, slots)
      attention.append(probabilities.swapaxes(2, 3))
      out["slots" if iterations == last else f"slots_it{iterations}"] = ours
    out["attn"] = jnp.stack(attention)
    small = net(1).apply(variables, 0.01 * inputs, 0.01 * slots)
    return out | {"slots_small": small[0]}

  return run(variables, inputs, slots)


def _attention_levels(config: Options, side: str) -> tuple[int, ...]:
  """Levels with self-attention, finest first, on the way down or up."""
  plain, attends = f"{side}Block2D", f"Attn{side}Block2D"
  kinds = list(config[side.lower()])
  if strange := set(kinds) - {plain, attends}:
    raise NotImplementedError(
      f"option {side.lower()!r}: our net knows {plain} and {attends}, not "
      f"{sorted(strange)}"
    )
  kinds = kinds if side == "Down" else kinds[::-1]
  return tuple(i for i, kind in enumerate(kinds) if kind == attends)


@runner("slot/lsd_slot_encoder")
def lsd_encoder(case: Case) -> dict:
  config = case.config
  base = config["bo"][0]
  batch, frames, side = config["batch"], config["T"], config["res"]
  unet = FeatureUNet(
    channels=base,
    mult=tuple(width / base for width in config["bo"]),
    res_blocks=config["lpb"],
    attention_levels=_attention_levels(config, "Down"),
    head_channels=config["hd"],
    out_channels=config["inp"],
    patch=config["size"] // side,
    groups=config["groups"],
    up_attention_levels=_attention_levels(config, "Up"),
  )
  head = SlotHead(
    config["slots"],
    config["slot_size"],
    config["out"],
    config["mlp"],
    config["iters"],
    config["heads"],
    "learned" if config["learn"] else "gaussian",
    eps=config.spelled("epsilon", "eps", default=1e-8),
  )
  # Of the last iteration it takes the gradient alone to the learned start.
  config.spelled("bi_level", default=False)
  image = case.image("img")
  assert len(image) == batch * frames, (image.shape, batch, frames)
  config.expect(size=image.shape[1])
  noise = None if config["learn"] else case["slot_noise"]
  features = jnp.zeros((batch, frames, side, side, config["inp"]))
  weights = (
    case.variables(unet, maps.lsd_unet, image, group="unet_encoder"),
    case.variables(head, maps.lsd_head, features, noise, group="slot_attn"),
  )

  @jax.jit
  def run(weights, image, noise):
    found = unet.apply(weights[0], image)
    (tokens, _), extra = head.apply(
      weights[1],
      found.reshape(features.shape),
      noise,
      capture_intermediates=lambda module, _: module.name == "attention",
    )
    calls = extra["intermediates"]["attention"]["__call__"]  # one a frame
    return {
      "feat": jnp.moveaxis(found.reshape(features.shape), -1, 2),
      "slots": tokens,
      "attn": jnp.stack([probabilities for _, probabilities in calls], 1),
    }

  return run(weights, image, noise)


POSITIONS = {
  "linear": "linear",
  "fourier": "fourier",
  "gaussian_fourier": "gaussian",
  "discrete_1d": "columns",
}


@runner("slot/savi_broadcast_decoder")
def savi_decoder(case: Case) -> dict:
  config = case.config
  joins = {"project_add": "add", "concat": "concat"}
  net = BroadcastDecoder(
    grid=tuple(config["res"]),
    features=tuple(config["feat"]),
    strides=tuple(config["strides"]),
    kernel=config["ks"],
    position=config.one_of("pe", POSITIONS),
    join=joins[config.spelled("update_type", "update", default="project_add")],
    bases=config["bases"],
    early_fusion=config["early"],
  )
  slots = case["slots"]
  batch, clip, count, size = slots.shape
  config.expect(batch=batch, T=clip, slots=count, slot_size=size)
  slots = slots.reshape(-1, count, size)
  keymap = functools.partial(maps.savi_decoder, position=net.position)
  variables = case.variables(net, keymap, slots)
  result = jax.jit(net.apply)(variables, slots)
  masks = np.moveaxis(np.asarray(result.masks), -1, 1)[..., None]
  out = {
    "rgb": result.image,
    "rgb_combined": result.image,
    "alphas": masks,
    "segmentations": masks.argmax(1),
    # Merged early, there is no picture of each slot, only the merged one.
    "rgb_slots": result.image if net.early_fusion else result.parts,
  }
  if not net.early_fusion:
    out["rgb_masked"] = masks * result.parts
  out = {k: np.reshape(v, (batch, clip, *v.shape[1:])) for k, v in out.items()}
  return case.recorded(out)


def _slot_schedule(case: Case, prefix: str) -> diffusion.Schedule:
  """The schedule of a case, which its buffers must agree with."""
  config = case.config
  state = case.state(prefix=prefix)
  schedule = make_schedule(
    config,
    config.spelled("timesteps", "T", default=len(state["alphas_bar"])),
    config.spelled("linear_start", "ls", default=0.0015),
    config.spelled("linear_end", "le", default=0.0195),
  )
  check_buffers(state, schedule)
  return schedule


def _slot_unet(config) -> UNet:
  """The U-Net of SlotDiffusion, which attends to slots."""
  return UNet(
    in_channels=config["ch"],
    out_channels=config["ch"],
    context_dim=config["slot_size"],
    **unet_options(config),
  )


def _denoising(net, schedule, kind, variables, x0, noise, t, slots):
  """Noisy picture, prediction, maps and mean loss."""
  x_t = schedule.q_sample(x0, noise, t)
  output = net.apply(variables, x_t, t, slots, capture=ALL_MAPS)
  prediction = output.prediction
  losses = diffusion.diffusion_loss(prediction, x0, noise, t, schedule, kind)
  return x_t, prediction, output.cross_maps, losses.mean()


@runner("slot/slotdiffusion_unet")
def slotdiffusion_unet(case: Case) -> dict:
  config = case.config
  kind = predicted_kind(config)
  net = _slot_unet(config)
  schedule = _slot_schedule(case, "")
  x0, noise = case.image("x0"), case.image("noise")
  t, slots = case["t"], case["slots"]
  config.expect(batch=len(x0), hw=x0.shape[1], slots=slots.shape[1])
  variables = case.variables(
    net, ldm_maps.unet(), x0, t, slots, prefix="model.diffusion_model."
  )

  @jax.jit
  def run(variables, *inputs):
    return _denoising(net, schedule, kind, variables, *inputs)

  x_t, prediction, found, loss = run(variables, x0, noise, t, slots)
  out = {"x_t": nchw(x_t), "pred": nchw(prediction), "loss": loss}
  return out | attention_maps(found, case.outputs())


def _slot_encoder(config: Options, image) -> SlotEncoder:
  """The CNN and slot attention of SlotDiffusion."""
  config.expect(batch=len(image), res=image.shape[1:3], hw=image.shape[1])
  if config["enc_ch"][0] != image.shape[3]:
    raise NotImplementedError(
      f"option 'enc_ch' is {config['enc_ch']}, but pictures of "
      f"{image.shape[3]} channels are recorded"
    )
  return SlotEncoder(
    slots=config["slots"],
    slot_size=config["slot_size"],
    mlp_size=config["mlp"],
    iterations=config["iters"],
    eps=config.spelled("eps", default=1e-6),
    widths=tuple(config["enc_ch"][1:]),
    out_channels=config["enc_out"],
    kernel=config.get("enc_ks", 5),
    stride=2 if config["res"][0] > 64 else 1,
    norm=config.one_of("enc_norm", NORMS) if "enc_norm" in config else "none",
  )


@runner("slot/slotdiffusion_encode")
def slotdiffusion_encode(case: Case) -> dict:
  config = case.config
  kind = predicted_kind(config)
  image, noise, t = case.image("img"), case.image("noise"), case["t"]
  encoder, unet = _slot_encoder(config, image), _slot_unet(config)
  schedule = _slot_schedule(case, "dm_decoder.")
  state = case.state()
  ours = {k: v for k, v in state.items() if not k.startswith("dm_decoder.")}
  weights = (
    convert(ours, maps.slotdiffusion_encoder),
    case.variables(
      unet,
      ldm_maps.unet(),
      image,
      t,
      jnp.zeros((len(image), config["slots"], config["slot_size"])),
      prefix="dm_decoder.model.diffusion_model.",
    ),
  )
  wanted = jax.eval_shape(encoder.init, jax.random.key(0), image)
  check_structure(weights[0], wanted)

  @jax.jit
  def run(weights, image, noise, t):
    slots, masks = encoder.apply(weights[0], image)
    masks = resize(masks, *image.shape[1:3], antialias=False)
    *_, loss = _denoising(
      unet, schedule, kind, weights[1], image, noise, t, slots
    )
    return {"slots": slots, "masks": jnp.moveaxis(masks, -1, 1), "loss": loss}

  return run(weights, image, noise, t)


@runner("slot/slotdiffusion_sa_model")
def slotdiffusion_autoencoder(case: Case) -> dict:
  config, image = case.config, case.image("img")
  height, width = config["dec_res"]
  # Strides of 2 until the picture's size is reached.
  strides = [
    2 if height * 2**i < config["res"][0] else 1
    for i in range(len(config["dec_ch"]) - 1)
  ]
  if config["dec_ch"][0] != config["slot_size"]:
    raise NotImplementedError("option 'dec_ch' begins with another slot size")
  net = SlotAutoencoder(
    _slot_encoder(config, image),
    BroadcastDecoder(
      grid=(height, width),
      features=tuple(config["dec_ch"][1:]),
      strides=tuple(strides),
      kernel=config["dec_ks"],
      position="corners",
      trailing=True,
      norm=config.one_of("dec_norm", NORMS),
    ),
  )
  variables = convert(
    maps.split_readout(case.state()), maps.slotdiffusion_autoencoder
  )
  wanted = jax.eval_shape(net.init, jax.random.key(0), image)
  check_structure(variables, wanted)

  @jax.jit
  def run(variables, image):
    found = net.apply(variables, image)
    picture, masks, parts = found.picture
    features = net.apply(
      variables, image, method=lambda m, x: m.encoder.features(x)
    )
    return {
      "recon_img": jnp.moveaxis(picture, -1, 1),
      "recons": jnp.moveaxis(parts, -1, 2),
      "masks": jnp.moveaxis(masks, -1, 1)[:, :, None],
      "slots": found.slots,
      "enc": features.reshape(len(image), -1, features.shape[-1]),
      "loss": jnp.square(picture - image).mean(),
    }

  return run(variables, image)
