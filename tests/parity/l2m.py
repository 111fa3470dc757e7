"""Runners of the nets and losses that translate pictures between domains."""

import jax
import jax.numpy as jnp

from faceedit_jax.losses.adversarial import r1_penalty
from faceedit_jax.models.faces.fan import FAN
from faceedit_jax.models.faces.landmark_masks import enlarged, face_masks, peaks
from faceedit_jax.models.gan.domain_discriminator import DomainDiscriminator
from faceedit_jax.models.gan.domain_mapping_network import MappingNetwork
from faceedit_jax.models.gan.style_encoder import StyleEncoder
from faceedit_jax.models.gan.translation_generator import TranslationGenerator
from faceedit_jax.weights import l2m as maps
from faceedit_jax.weights.keymap import convert
from tests.parity.harness import Case, check_structure, nchw, runner


def captured(net, variables, *args):
  """Results of a net, and what its modules gave."""

  def run(variables, *args):
    out, extra = net.apply(
      variables,
      *args,
      capture_intermediates=lambda module, name: name == "__call__",
      mutable=["intermediates"],
    )
    return out, extra["intermediates"]

  return jax.jit(run)(variables, *args)


def inner(parts, *path):
  """What a module gave."""
  for name in path:
    parts = parts[name]
  return parts["__call__"][0]


def sizes(case: Case, max_channels: str = "max_conv_dim") -> dict:
  """The fields that the nets share."""
  config = case.config
  picture = case["x"]
  config.expect(batch=len(picture), img_size=picture.shape[-1])
  return {
    "image_size": config["img_size"],
    "channels": config["base"],
    "max_channels": config[max_channels],
  }


def labels(case: Case, name: str) -> jax.Array:
  return case[name].astype(jnp.int32)


def make_generator(case: Case, group: str = "", **names):
  side = case.config["img_size"]
  net = TranslationGenerator(
    **sizes(case, **names),
    w_hpf=float(case.config["w_hpf"]),
    # The official code has them in pixels.
    skip_sides=tuple(s / side for s in (32, 64, 128) if s <= side),
  )
  style = jnp.zeros((1, case.config["style_dim"]))
  variables = case.variables(
    net, maps.generator(net), jnp.zeros((1, side, side, 3)), style, group=group
  )
  return net, variables


def make_masks(recorded: jax.Array) -> jax.Array:
  """(2, b, 1, h, w) as ours."""
  return jnp.transpose(recorded[:, :, 0], (1, 2, 3, 0))


def mask_outputs(masks) -> dict:
  return {f"mask{i}": nchw(masks)[:, i : i + 1] for i in range(2)}


@runner("l2m/generator")
def generator(case: Case) -> dict:
  net, variables = make_generator(case)
  args = [case.image("x"), case["s"]]
  masks = make_masks(case["masks"]) if case.has("masks") else None
  image, parts = captured(net, variables, *args, masks)
  out = {"image": nchw(image)}
  if masks is not None:
    out["image_nomask"] = nchw(jax.jit(net.apply)(variables, *args))
  for name in case.outputs():
    if name.startswith("trace/"):
      module = name.removeprefix("trace/").replace(".", "_")
      out[name] = nchw(inner(parts, module))
  return out


def make_style_encoder(case: Case, *groups: str, layers: int = 3, **names):
  """The encoder of one or more groups of weights, 0 layers: no factors."""
  config = case.config
  net = StyleEncoder(
    **sizes(case, **names),
    style_dim=config["style_dim"],
    domains=config["num_domains"],
    factor_layers=layers,
    # Of the official form three layers and none of them rectified at its end.
    rectified=layers == 4,
  )
  state = {}
  for group in groups or ("",):
    state |= case.state(group)
  ours = convert(state, maps.style_encoder(net))
  side = config["img_size"]
  args = jnp.zeros((1, side, side, 3)), jnp.zeros(1, jnp.int32)
  check_structure(ours, jax.eval_shape(net.init, jax.random.key(0), *args))
  return net, ours


def code_outputs(codes) -> dict:
  return {
    "s": codes.style,
    "s_un": codes.unrelated,
    "s_re": codes.related,
    "s_re_trg": codes.transformed,
  }


@runner("l2m/style_encoder")
def style_encoder(case: Case) -> dict:
  net, variables = make_style_encoder(case)
  args = case.image("x"), labels(case, "y"), labels(case, "y_trg")
  codes, parts = captured(net, variables, *args)
  out = code_outputs(codes) | {"shared": inner(parts, "trunk")}
  for name in case.outputs():
    if name.startswith("shared."):
      block = f"block_{int(name.removeprefix('shared.')) - 1}"
      out[name] = nchw(inner(parts, "trunk", block))
  return out


def make_discriminator(case: Case, group: str = "", **names):
  net = DomainDiscriminator(
    **sizes(case, **names), domains=case.config["num_domains"]
  )
  side = case.config["img_size"]
  x = jnp.zeros((1, side, side, 3))
  return net, case.variables(net, maps.discriminator(net), x, group=group)


@runner("l2m/discriminator")
def discriminator(case: Case) -> dict:
  net, variables = make_discriminator(case)

  @jax.jit
  def run(variables, x, y):
    def logit(x):
      return net.apply(variables, x, y)

    return {
      "logit": logit(x),
      "all": net.apply(variables, x),
      "grad_x": jax.grad(lambda x: logit(x).sum())(x),
      "r1": r1_penalty(logit, x).mean(),
    }

  out = dict(run(variables, case.image("x"), labels(case, "y")))
  return out | {"grad_x": nchw(out["grad_x"])}


@runner("l2m/stargan2_mapping_network")
def mapping_network(case: Case) -> dict:
  net, variables = make_mapping(case)
  case.config.expect(batch=len(case["z"]))
  style, parts = captured(net, variables, case["z"], labels(case, "y"))
  return {"s": style, "h": inner(parts, "shared")}


def make_mapping(case: Case, group: str = ""):
  config, state = case.config, case.state(group)
  layers = len({k for k in state if k.startswith("shared.")}) // 2
  net = MappingNetwork(
    config["style_dim"],
    config["num_domains"],
    state["shared.0.bias"].size,
    layers,
  )
  z = jnp.zeros((1, config["latent_dim"]))
  y = jnp.zeros(1, jnp.int32)
  return net, case.variables(net, maps.mapping_network(net), z, y, group=group)


def make_fan(case: Case, group: str = ""):
  state = case.state(group)
  net = FAN(state["l0.bias"].size - 1, state["bn1.bias"].size)
  variables = case.variables(
    net, maps.fan, jnp.zeros((1, 64, 64, 3)), group=group
  )
  return net, variables


@runner("l2m/fan_wing")
def fan(case: Case) -> dict:
  net, variables = make_fan(case)
  x = case.image("x")
  case.config.expect(
    num_landmarks=net.landmarks, in_size=x.shape[1], batch=len(x)
  )
  heatmaps, parts = captured(net, variables, x)
  points = heatmaps[..., :-1]
  side = net.input_size
  out = {
    "raw": nchw(heatmaps),
    "landmark256": side / heatmaps.shape[1] * peaks(points),
    **mask_outputs(jax.jit(face_masks)(heatmaps)),
  }
  names = {"m0": "hourglass", "top_m_0": "top"}
  for name in set(case.outputs()) - set(out):
    trace = nchw(inner(parts, names.get(name, name)))
    out[name] = trace[:, :, ::4, ::4]
  return out


@runner("l2m/fan_preprocess")
def fan_preprocess(case: Case) -> dict:
  heatmaps = case.image("heatmaps")
  case.config.expect(n=len(heatmaps))
  case.config.without_effect("seed")
  return {
    "up": nchw(enlarged(heatmaps))[:, ::7, ::4, ::4],
    "peaks": peaks(heatmaps),
    **mask_outputs(jax.jit(face_masks)(heatmaps)),
  }


@runner("l2m/edit_pipeline")
def edit_pipeline(case: Case) -> dict:
  encoder, encoder_weights = make_style_encoder(case, "style_encoder")
  generator, drawer_weights = make_generator(case, "generator")
  finder, finder_weights = make_fan(case, "fan")

  @jax.jit
  def run(weights, x, reference, y, y_trg):
    def masks(x):
      return face_masks(finder.apply(weights[2], x))

    def codes(x, y):
      return encoder.apply(weights[0], x, y, y_trg)

    def generate(x, style, masks):
      return generator.apply(weights[1], x, style, masks)

    first, own, others = masks(x), codes(x, y), codes(reference, y_trg)
    edited = generate(x, own.edited(), first)
    second = masks(edited)
    pictures = {
      "edited": edited,
      "edited_degree": generate(x, own.edited(case.config["degree"]), first),
      "rec": generate(edited, own.style, second),
      "reference": generate(x, own.unrelated + others.related, first),
    }
    return pictures, (first, second), own, others

  weights = encoder_weights, drawer_weights, finder_weights
  pictures, masks, own, others = run(
    weights,
    case.image("x"),
    case.image("x_ref"),
    labels(case, "y"),
    labels(case, "y_trg"),
  )
  return {
    **{name: nchw(picture) for name, picture in pictures.items()},
    **mask_outputs(masks[0]),
    **code_outputs(own),
    "ref_s_re": others.related,
    "edited_mask1_sub": mask_outputs(masks[1])["mask1"][:, :, ::4, ::4],
  }
