"""Runners of the perceptual distance and patch discriminator cases."""

import jax
import numpy as np

from faceedit_jax.models.lpips import LPIPS
from faceedit_jax.models.patch_discriminator import PatchDiscriminator
from faceedit_jax.weights import perception as maps
from tests.parity.harness import Case, nchw, runner


@runner("metrics/lpips")
def lpips(case: Case) -> dict:
  kind = case.config["net"]
  first = "net.slice1.0.bias"
  net = LPIPS(kind, case.state()[first].size)
  a, b = case.image("x0"), case.image("x1")
  variables = case.variables(net, maps.lpips, a, b)

  @jax.jit
  def run(variables, a, b):
    def apply(*args, **kwargs):
      return net.apply(variables, *args, **kwargs)

    unit = [(x + 1) / 2 for x in (a, b)]
    return {
      "d": apply(a, b),
      "d_norm": apply(*(2 * x - 1 for x in unit)),
      "spatial": apply(a, b, spatial=True),
      "res": apply(a, b, method="layers"),
      "feat": apply(a, method="features"),
    }

  found = run(variables, a, b)
  out = {name: found[name][:, None, None, None] for name in ("d", "d_norm")}
  out["spatial"] = found["spatial"][:, None]
  for k, layer in enumerate(found["res"]):
    out[f"res{k}"] = layer.mean((1, 2))[:, None, None, None]
  for k, features in enumerate(found["feat"]):
    out[f"feat{k}"] = nchw(features[:1, ::2, ::2])
  return out


@runner("ldm/first_stage_loss")
def first_stage_networks(case: Case) -> dict:
  config = case.config
  x = case.image("x")
  net = PatchDiscriminator(config["ndf"], config["layers"])
  variables = case.variables(
    net, maps.patch_discriminator, x, prefix="discriminator."
  )
  out = {"logits": nchw(jax.jit(net.apply)(variables, x))}
  recorded = case.outputs()
  if "p_loss" in recorded:
    state = case.state(prefix="perceptual_loss.")
    distance = LPIPS("vgg", state["net.slice1.0.bias"].size)
    y = np.moveaxis(recorded["rec"], 1, -1)
    variables = case.variables(
      distance, maps.lpips, x, jax.numpy.asarray(y), prefix="perceptual_loss."
    )
    values = jax.jit(distance.apply)(variables, x, y)
    out["p_loss"] = values[:, None, None, None]
  return out
