"""The first stage's loss with its adaptive weight against recordings."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.losses import adversarial, perceptual, reconstruction
from tests.losses import reference

pytestmark = pytest.mark.shared
PREFIX = "state/perceptual_loss."


@pytest.mark.parametrize("kind", ["vq", "kl"])
def test_recorded_first_stage_loss(shared, kind):
  folder, name = shared / "fixtures", f"ldm__first_stage_loss_{kind}"
  z = np.load(folder / f"{name}.npz")
  config = json.loads((folder / f"{name}.json").read_text())["config"]
  x, feat = (
    jnp.moveaxis(jnp.asarray(z[f"in/{n}"]), 1, -1) for n in ("x", "feat")
  )
  padding = z["in/last"].shape[-1] // 2
  weights = reference.lpips_weights(z, PREFIX)
  target = reference.vgg_features(x, z, PREFIX)

  def decode(last):
    return jnp.tanh(reference.conv(feat, last, padding=padding))

  def likelihood(image):
    found = reference.vgg_features(image, z, PREFIX)
    learned = perceptual.lpips_distance(target, found, weights)
    pixels = reconstruction.l1(x, image)
    loss = pixels + config["pw"] * learned
    if kind == "vq":
      return jnp.mean(loss)
    # Summed over pixels and divided by the batch, with a learned variance.
    logvar = z["state/logvar"]
    return jnp.mean(loss / jnp.exp(logvar) + logvar) * x[0].size

  def generator(image):
    logits = reference.patch_logits(image, z, config["layers"])
    return adversarial.hinge_generator(logits)

  last = jnp.asarray(z["in/last"])
  image = decode(last)
  np.testing.assert_allclose(image, np.moveaxis(z["out/rec"], 1, -1), atol=1e-5)
  real = reference.patch_logits(x, z, config["layers"])
  np.testing.assert_allclose(
    real, np.moveaxis(z["out/logits"], 1, -1), atol=1e-5
  )
  close = {"rtol": 1e-4}
  np.testing.assert_allclose(
    likelihood(image), z["out/eval/g_nll_loss"], **close
  )
  np.testing.assert_allclose(generator(image), z["out/eval/g_g_loss"], **close)
  fake = reference.patch_logits(image, z, config["layers"])
  if config["dloss"] == "hinge":
    lost = adversarial.hinge_discriminator(real, fake)
  else:
    lost = 0.5 * adversarial.nonsaturating_discriminator(real, fake)
  np.testing.assert_allclose(lost, z["out/eval/d_disc_loss"], **close)
  weight = adversarial.adaptive_weight(decode, last, likelihood, generator)
  np.testing.assert_allclose(
    weight * config["dw"], z["out/eval/g_d_weight"], rtol=1e-3
  )
  if kind == "kl":
    mean, logvar = np.split(z["in/moments"], 2, axis=1)
    kl = reconstruction.kl_gaussian(jnp.asarray(mean), jnp.asarray(logvar))
    np.testing.assert_allclose(jnp.mean(kl), z["out/eval/g_kl_loss"], **close)
