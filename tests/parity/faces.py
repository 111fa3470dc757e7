"""Runners of the face recognition and face code cases."""

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.losses import angular_margin as margins
from faceedit_jax.losses.identity import identity_distance
from faceedit_jax.models.faces.estimator import DetailDecoder, Estimator
from faceedit_jax.models.faces.iresnet import IResNet, normalize
from faceedit_jax.models.faces.irse import IRSE, STAGES, portrait_crop
from faceedit_jax.weights import faces as maps
from tests.parity.harness import Case, nchw, runner

_DEPTHS = {
  "iresnet18": (2, 2, 2, 2),
  "iresnet34": (3, 4, 6, 3),
  "iresnet50": (3, 4, 14, 3),
  "iresnet100": (3, 13, 30, 3),
  "iresnet200": (6, 26, 60, 6),
}


def _captured(net, variables, x):
  def run(variables, x):
    out, extra = net.apply(
      variables,
      x,
      capture_intermediates=lambda module, name: name == "__call__",
      mutable=["intermediates"],
    )
    return out, extra["intermediates"]

  return jax.jit(run)(variables, x)


@runner("arcface/iresnet")
def iresnet(case: Case) -> dict:
  config = case.config
  stages = config.one_of("arch", _DEPTHS)
  net = IResNet(
    stages,
    tuple(width // config["div"] for width in (64, 128, 256, 512)),
    64 // config["div"],
    config["num_features"],
  )
  x = case.image("x")
  config.expect(batch=len(x))
  variables = case.variables(net, maps.iresnet, x)
  features, parts = _captured(net, variables, x)
  out = {"feat": features}
  for i, blocks in enumerate(stages, 1):
    layer = parts[f"layer{i}_{blocks - 1}"]["__call__"][0]
    out[f"layer{i}"] = nchw(layer[:, ::2, ::2])
  cosines, labels = case["cos"], case["label"].astype("int32")
  return out | {
    "arcface": margins.arcface(cosines, labels),
    "cosface": margins.cosface(cosines, labels),
    "comb": margins.combined_margin(cosines, labels),
    "comb_cos": margins.combined_margin(cosines, labels, 1.0, 0.0, 0.4, 30.0),
  }


def _irse(case: Case, group: str = "") -> IRSE:
  """The net that the shapes of a state belong to."""
  state = case.state(group)
  blocks = len({k.split(".")[1] for k in state if k.startswith("body.")})
  stages = {sum(s): s for s in STAGES.values()}[blocks]
  width = lambda i: state[f"body.{i}.res_layer.1.weight"].shape[0]  # noqa: E731
  starts = np.cumsum((0, *stages[:-1]))
  squeeze = state.get("body.0.res_layer.5.fc1.weight", ())
  modes = {"ir": None, "ir_se": width(0) // max(len(squeeze), 1)}
  affine = "output_layer.4.weight" in state
  case.config.expect(affine=affine, batch=len(case["x"]))
  return IRSE(
    stages,
    tuple(width(i) for i in starts),
    state["input_layer.1.bias"].size,
    state["output_layer.3.bias"].size,
    case.config.one_of("mode", modes),
    affine=affine,
  )


@runner("arcface/irse_backbone")
def irse(case: Case) -> dict:
  net, x = _irse(case), case.image("x")
  case.config.expect(res=x.shape[1])
  crop = portrait_crop(x)
  variables = case.variables(net, maps.irse, crop)
  raw, parts = _captured(net, variables, crop)
  other = jax.jit(net.apply)(variables, portrait_crop(case.image("y")))
  features = normalize(raw)
  distance = identity_distance(features, normalize(other))
  out = {
    "raw": raw,
    "feat": features,
    "id_loss": distance.mean(),
    "crop": nchw(crop)[:, :, ::4, ::4],
  }
  for name in case.outputs():
    if name.startswith("body"):
      block = parts[f"block_{name.removeprefix('body')}"]["__call__"][0]
      out[name] = nchw(block[:, ::2, ::2])
  return out


@runner("arcface/treb1en")
def treb1en(case: Case) -> dict:
  net = _irse(case, "backbone")
  x, labels = case.image("x"), case["label"].astype("int32")
  variables = case.variables(net, maps.irse, x, group="backbone")
  features = normalize(jax.jit(net.apply)(variables, x))
  centres = jnp.asarray(case.state("head")["kernel"].T)
  case.config.expect(classes=len(centres))

  def logits(features):
    cosines = margins.cosine_logits(features, centres)
    return margins.arcface(cosines, labels, monotone=True)

  # The record turns the first face away from its class, where the margin
  # passes pi.
  away = 0.001 * case["emb"] - 0.999 * normalize(centres)[labels]
  used = case["emb"].at[0].set(normalize(away)[0])
  return {
    "feat": features,
    "logits": logits(features),
    "emb_used": used,
    "logits_emb": logits(used),
  }


@runner("deca/encoder")
def deca_encoder(case: Case) -> dict:
  config = case.config
  names = {"tex": "albedo", "exp": "expression", "cam": "camera"}
  state = case.state()
  net = Estimator(
    outputs={names.get(k, k): v for k, v in config["n"].items()},
    stages=tuple(config["layers"]),
    width=64 // config["div"],
    hidden=state["layers.0.bias"].size,
    input_size=case["x"].shape[-1],
  )
  x = 2 * case.image("x") - 1
  config.expect(batch=len(x))
  variables = case.variables(net, maps.deca_encoder, x)
  codes, parts = _captured(net, variables, x)
  encoder = parts["encoder"]
  out = {k: codes[names.get(k, k)] for k in config["n"]}
  out["features"] = encoder["__call__"][0]
  out["param"] = parts["output_layer"]["__call__"][0]
  for i, blocks in enumerate(config["layers"], 1):
    layer = encoder[f"layer{i}_{blocks - 1}"]["__call__"][0]
    out[f"layer{i}"] = nchw(layer[:, ::4, ::4])
  return out


@runner("deca/detail_decoder")
def detail_decoder(case: Case) -> dict:
  config, state = case.config, case.state()
  indices = (0, 2, 6, 10, 14, 18)
  widths = tuple(state[f"conv_blocks.{i}.bias"].size for i in indices)
  net = DetailDecoder(widths, config["init"], config["out"], config["scale"])
  z = case["z"]
  config.expect(batch=len(z), latent=z.shape[1])
  variables = case.variables(net, maps.deca_detail_decoder, z)
  image, parts = _captured(net, variables, z)
  start = np.asarray(parts["start"]["__call__"][0])
  first = jax.nn.leaky_relu(parts["bn_1"]["__call__"][0], 0.2)
  side = config["init"]
  return {
    "img": nchw(image),
    "h0": start.reshape(-1, widths[0], side, side),
    "h1": nchw(first),
  }
