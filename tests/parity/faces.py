"""Runners of the face recognition and face code cases."""

import jax
import numpy as np

from faceedit_jax.models.estimator import DetailDecoder, Estimator
from faceedit_jax.models.iresnet import IResNet
from faceedit_jax.weights import faces as maps
from tests.parity.harness import Case, nchw, runner

_DEPTHS = {
  "iresnet18": (2, 2, 2, 2),
  "iresnet34": (3, 4, 6, 3),
  "iresnet50": (3, 4, 14, 3),
  "iresnet100": (3, 13, 30, 3),
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
  stages = _DEPTHS[config["arch"]]
  net = IResNet(
    stages,
    tuple(width // config["div"] for width in (64, 128, 256, 512)),
    64 // config["div"],
    config["num_features"],
  )
  x = case.image("x")
  variables = case.variables(net, maps.iresnet, x)
  features, parts = _captured(net, variables, x)
  out = {"feat": features}
  for i, blocks in enumerate(stages, 1):
    layer = parts[f"layer{i}_{blocks - 1}"]["__call__"][0]
    out[f"layer{i}"] = nchw(layer[:, ::2, ::2])
  return out


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
