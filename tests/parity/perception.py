"""Runners of the measures: LPIPS, SSIM, Frechet distance."""

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.metrics import frechet, image
from faceedit_jax.models.perception.lpips import LPIPS
from faceedit_jax.weights import perception as maps
from tests.parity.harness import Case, nchw, runner


@runner("metrics/lpips")
def lpips(case: Case) -> dict:
  kind = case.config.one_of("net", {"vgg": "vgg", "alex": "alex"})
  first = "net.slice1.0.bias"
  net = LPIPS(kind, case.state()[first].size)
  a, b = case.image("x0"), case.image("x1")
  case.config.expect(batch=len(a), hw=a.shape[1])
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


@runner("metrics/ms_ssim")
def ms_ssim(case: Case) -> dict:
  a, b = (case.image(name).astype(jnp.float32) / 255 for name in "xy")
  case.config.expect(n=len(a), hw=a.shape[1:3], ch=a.shape[3])

  # Variants that the json tells in words only: a negative for the second
  # picture, the window of 7 pixels with a deviation of 1, three scales.
  @jax.jit
  def run(a, b):
    scales = image.ms_ssim(a, b)
    return {
      "ssim": image.ssim(a, b),
      "ssim_neg": image.ssim(a, 1 - b),
      "ssim_nonneg": image.ssim(a, 1 - b, nonnegative=True),
      "ssim_win7": image.ssim(a, b, 7, 1.0),
      "ms_ssim": scales,
      "ms_ssim_mean": scales.mean(),
      "ms_w3": image.ms_ssim(a, b, weights=(0.3, 0.4, 0.3)),
    }

  window = image.gaussian_window(11, 1.5)
  return dict(run(a, b)) | {"window": window[None, None]}


@runner("metrics/fid")
def fid(case: Case) -> dict:
  a, b = (np.asarray(case[name], np.float64) for name in ("f1", "f2"))
  case.config.expect(n1=len(a), n2=len(b), D=a.shape[1])
  one, two = frechet.FeatureState.of(a), frechet.FeatureState.of(b)
  return {
    "mu1": one.mean,
    "mu2": two.mean,
    "sigma1": one.covariance,
    "sigma2": two.covariance,
    "fid": frechet.distance(one, two),
    "fid_self": frechet.distance(one, one),
    # So few vectors, as the json says, that the covariances are singular.
    "fid_rank": frechet.frechet_from_features(a[:8], b[:9]),
  }
