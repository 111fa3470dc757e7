"""Runner of the losses that train the first stages."""

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.losses import adversarial, reconstruction
from faceedit_jax.models.gan.patch_discriminator import PatchDiscriminator
from faceedit_jax.models.perception.lpips import LPIPS
from faceedit_jax.weights import perception as maps
from tests.parity.harness import Case, nchw, runner

# Steps at which the losses were recorded, before and after `disc_start`.
STEPS = {"pre": 5, "eval": 20, "train": 20}


def _vanilla(real, fake):
  return 0.5 * adversarial.nonsaturating_discriminator(real, fake)


@runner("ldm/first_stage_loss")
def first_stage_loss(case: Case) -> dict:
  config = case.config
  kind = config.one_of("kind", {"kl": "kl", "vq": "vq"})
  discriminator_loss = config.one_of(
    "dloss", {"hinge": adversarial.hinge_discriminator, "vanilla": _vanilla}
  )
  x, features = case.image("x"), case.image("feat")
  config.expect(batch=len(x), hw=x.shape[1])
  # The other kind's weight, and the start of a number that the state holds.
  config.without_effect("klw" if kind == "vq" else "cw", "use_logvar")
  last = jnp.transpose(case["last"], (2, 3, 1, 0))
  discriminator = PatchDiscriminator(config["ndf"], config["layers"])
  discriminator_variables = case.variables(
    discriminator, maps.patch_discriminator, x, prefix="discriminator."
  )
  state = case.state(prefix="perceptual_loss.")
  distance = LPIPS("vgg", state["net.slice1.0.bias"].size)
  distance_variables = case.variables(
    distance, maps.lpips, x, x, prefix="perceptual_loss."
  )
  recorded = case.outputs()
  out = _run(
    (discriminator_variables, distance_variables, last),
    (x, features, _latent_terms(case, kind)),
    (discriminator, distance, discriminator_loss, kind, config),
    sorted({n.split("/")[0] for n in recorded if "/" in n}),
  )
  out["rec"], out["logits"] = nchw(out["rec"]), nchw(out["logits"])
  out["p_loss"] = np.reshape(out["p_loss"], (-1, 1, 1, 1))
  if "p_loss" not in recorded:
    del out["p_loss"]
  return out


def _latent_terms(case: Case, kind: str) -> dict:
  """What the loss adds for the latent, by its logged names."""
  if kind == "vq":
    return {"quant_loss": case["codebook"].mean()}
  mean, logvar = jnp.split(case["moments"], 2, 1)
  logvar = jnp.clip(logvar, -30, 20)
  kl = reconstruction.kl_gaussian(mean, logvar).mean()
  return {"kl_loss": kl, "logvar": jnp.asarray(case.state()["logvar"])}


def _run(weights, inputs, parts, modes) -> dict:
  discriminator, distance, discriminator_loss, kind, config = parts

  def decode(last, features):
    layers = ("NHWC", "HWIO", "NHWC")
    picture = jax.lax.conv_general_dilated(
      features, last, (1, 1), "SAME", dimension_numbers=layers
    )
    return jnp.tanh(picture)

  def run(weights, inputs):
    discriminator_variables, distance_variables, last = weights
    x, features, latent = inputs
    picture = decode(last, features)

    def logits(image, train):
      if not train:
        return discriminator.apply(discriminator_variables, image)
      return discriminator.apply(
        discriminator_variables, image, train=True, mutable=["batch_stats"]
      )[0]

    def learned(image):
      return distance.apply(distance_variables, x, image)

    def pixels(image):
      return (
        jnp.abs(x - image) + config["pw"] * learned(image)[:, None, None, None]
      )

    def likelihood(image):
      if kind == "vq":
        return pixels(image).mean()
      logvar = latent["logvar"]
      lost = pixels(image) / jnp.exp(logvar) + logvar
      return lost.sum() / x.shape[0]

    out = {
      "rec": picture,
      "logits": logits(x, False),
      "p_loss": learned(picture),
    }
    for mode in modes:
      train = mode == "train"

      def generator(image, train=train):
        return adversarial.hinge_generator(logits(image, train))

      weight = config["dw"] * adversarial.adaptive_weight(
        lambda last: decode(last, features), last, likelihood, generator
      )
      factor = float(STEPS[mode] >= config["disc_start"])
      real, fake = logits(x, train), logits(picture, train)
      discriminated = factor * discriminator_loss(real, fake)
      nll, gan = likelihood(picture), generator(picture)
      total = nll + weight * factor * gan
      if kind == "vq":
        total += config["cw"] * latent["quant_loss"]
        # Not measured, and logged as 0, where it has no weight.
        extra = {"p_loss": learned(picture).mean() * (config["pw"] > 0)}
      else:
        total += config["klw"] * latent["kl_loss"]
        extra = {}
      logged = {
        "g_loss_total": total,
        "g_total_loss": total,
        "g_nll_loss": nll,
        "g_rec_loss": pixels(picture).mean(),
        "g_d_weight": weight,
        "g_disc_factor": factor,
        "g_g_loss": gan,
        **{f"g_{name}": value for name, value in (latent | extra).items()},
        "d_loss_total": discriminated,
        "d_disc_loss": discriminated,
        "d_logits_real": real.mean(),
        "d_logits_fake": fake.mean(),
      }
      out |= {f"{mode}/{name}": value for name, value in logged.items()}
    return out

  return dict(jax.jit(run)(weights, inputs))
