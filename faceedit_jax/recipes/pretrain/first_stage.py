"""Trains the VQ autoencoder in whose latents the diffusion runs.

Esser et al. (VQGAN) section 3.2 with latent-diffusion's settings: L1 +
perceptual + codebook + adaptively weighted patch-adversarial loss. DiffFAE
section 5.4 retrains this stage on faces.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import optim
from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import face_nets
from faceedit_jax.faces import perceptual_distance as perceptual_lib
from faceedit_jax.losses import adversarial
from faceedit_jax.models.diffusion import autoencoder as autoencoder_lib
from faceedit_jax.models.gan import patch_discriminator


@dataclasses.dataclass(frozen=True)
class FirstStageOptions:
  """Section `recipe` of a stage that trains the autoencoder.

  Attributes:
    optimizer: of the autoencoder, see `optim.make_tx`.
    disc_optimizer: of the discriminator.
    perceptual: what the perceptual distance is measured in, see
      `faces.perceptual_distance`.
    lpips_weights: file of its net, for "lpips".
    perceptual_weight: of that distance.
    codebook_weight: of the codebook's loss.
    adversarial_weight: of the adversarial term, beside its adaptive weight.
    adversarial_start: step from which on there is that term.
    rendering_share: share of the pictures that are shown as the rendering of
      their 3D reading, which a denoiser will encode with this net too; 0 in
      the papers.
    rendering_ground: what such a rendering shows where no head is.
    ema_decay: of the autoencoder's average.
  """

  optimizer: optim.OptimizerOptions
  disc_optimizer: optim.OptimizerOptions
  perceptual: perceptual_lib.Kind
  lpips_weights: str = ""
  perceptual_weight: optim.Weight = 1.0
  codebook_weight: optim.Weight = 1.0
  adversarial_weight: optim.Weight = 0.6
  adversarial_start: int = 0
  rendering_share: float = 0.0
  rendering_ground: face_nets.Ground = "black"
  ema_decay: float = 0.999

  def __post_init__(self):
    if not 0 <= self.rendering_share <= 1:
      raise ValueError(
        f"rendering_share is {self.rendering_share}, wanted 0 to 1"
      )


@dataclasses.dataclass(frozen=True)
class FirstStageRecipe(recipe_lib.Recipe):
  """Nets `autoencoder` and `discriminator`.

  Phase `reconstruct` until `adversarial_start`; from then on `compete`, the
  same loss with the adversarial term, and `discriminate`.
  """

  net: autoencoder_lib.VQModel
  discriminator: patch_discriminator.PatchDiscriminator
  perceptual: perceptual_lib.Perceptual
  image_size: int
  tx: optax.GradientTransformation
  disc_tx: optax.GradientTransformation
  options: FirstStageOptions
  weights: str = ""  # file that the autoencoder starts from
  face: face_nets.FaceNets | None = None  # reads and renders faces

  Options = FirstStageOptions

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe from `nets.autoencoder`, `nets.discriminator`."""
    return cls(
      net=build_autoencoder(nets.autoencoder, dtype),
      discriminator=options_lib.build_net(
        patch_discriminator.PatchDiscriminator,
        nets.discriminator,
        "config.nets.discriminator",
        dtype=dtype,
      ),
      perceptual=perceptual_lib.from_config(
        nets, options.perceptual, options.lpips_weights, dtype
      ),
      image_size=image_size,
      tx=options.optimizer.make(),
      disc_tx=options.disc_optimizer.make(),
      options=options,
      weights=nets.autoencoder.get("weights", ""),
      face=_face(nets, options, image_size, dtype),
    )

  def batch_spec(self):
    size = self.image_size
    return {"image": batch_lib.Field((size, size, 3), "float32", (-1.0, 1.0))}

  def init(self, rng):
    size = self.image_size
    picture = jnp.zeros((1, size, size, 3))
    return {
      "autoencoder": init_autoencoder(self.net, rng, picture),
      "discriminator": self.discriminator.init(
        jax.random.fold_in(rng, 1), picture
      ),
    }

  def frozen(self):
    sources = {} if self.face is None else dict(self.face.sources)
    return sources | self.perceptual.frozen()

  def init_frozen(self, rng):
    nets = {} if self.face is None else self.face.init(rng, self.image_size)
    return nets | self.perceptual.init_frozen(rng, self.image_size)

  def init_from(self):
    if not self.weights:
      return {}
    # The spread of the latents is measured on the pictures of this training.
    source = recipe_lib.WeightSource(path=self.weights, collections=("params",))
    return {"autoencoder": source}

  def groups(self):
    return {
      "autoencoder": recipe_lib.Group(("autoencoder",), self.tx),
      "discriminator": recipe_lib.Group(("discriminator",), self.disc_tx),
    }

  def phases(self):
    start = self.options.adversarial_start
    compete = recipe_lib.Phase(
      "compete",
      ("autoencoder",),
      functools.partial(self.autoencode_loss, compete=True),
      start=start,
    )
    discriminate = recipe_lib.Phase(
      "discriminate", ("discriminator",), self.discriminator_loss, start=start
    )
    if not start:
      return compete, discriminate
    # A phase of its own: before the start nothing of it is computed.
    alone = recipe_lib.Phase(
      "reconstruct", ("autoencoder",), self.autoencode_loss, stop=start
    )
    return alone, compete, discriminate

  def ema(self):
    decay = optim.ema_warmup(self.options.ema_decay)
    return {"ema": recipe_lib.Ema(("autoencoder",), decay)}

  def pictures(self, ctx):
    """The batch's pictures (b, s, s, 3), a share of them as renderings."""
    image = ctx.batch["image"]
    if self.face is None:
      return image
    reader = self.face.reader
    drawn = reader.render(ctx.frozen, reader.codes(ctx.frozen, image))["image"]
    # One stream: every phase of a step sees the same pictures.
    chosen = jax.random.bernoulli(
      ctx.key("renderings"),
      self.options.rendering_share,
      (image.shape[0], 1, 1, 1),
    )
    return jax.lax.stop_gradient(jnp.where(chosen, drawn, image))

  def autoencode_loss(self, params, ctx, compete: bool = False):
    """Reconstruction and codebook, and the adversarial term if it is due."""
    image = self.pictures(ctx)
    variables = {"params": params["autoencoder"]}

    def run(method, *args):
      return self.net.apply(variables, *args, method=method)

    latent = run("encode", image)
    quantised, codebook, indices = run("quantize", latent)
    features = run("decode_features", quantised)
    recon = run("decode_last", features)

    def fidelity(picture):
      pixel = jnp.abs(image - picture)
      distance = self.perceptual.distance(ctx.frozen, image, picture)
      weight = recipe_lib.at(self.options.perceptual_weight, ctx.step)
      return pixel.mean() + weight * distance.mean()

    def realism(picture):
      return adversarial.hinge_generator(
        self._discriminate(params, ctx, picture)[0]
      )

    rec = fidelity(recon)
    loss = (
      rec + recipe_lib.at(self.options.codebook_weight, ctx.step) * codebook
    )
    used = jnp.zeros((self.net.codes,)).at[indices.reshape(-1)].set(1.0)
    spread = ctx.stats["autoencoder"]["latent"]
    count = jnp.minimum(spread["count"] + 1.0, 500.0)
    square = spread["square"] + (
      jnp.square(jax.lax.stop_gradient(latent)).mean() - spread["square"]
    ) / jnp.maximum(count, 1.0)
    metrics = {
      "l1": jnp.abs(image - recon).mean(),
      "rec": rec,
      "codebook": codebook,
      "codes_used": used.mean(),
      "latent_std": jnp.sqrt(square),
    }
    if compete:
      weight = self._adaptive_weight(variables, features, fidelity, realism)
      weight = weight * recipe_lib.at(self.options.adversarial_weight, ctx.step)
      gen = realism(recon)
      loss = loss + weight * gen
      metrics.update(adversarial=gen, adversarial_weight=weight)
    stats = {"autoencoder": {"latent": {"count": count, "square": square}}}
    return loss, recipe_lib.Aux(metrics=metrics, stats=stats)

  def _discriminate(self, params, ctx, picture):
    """Logits of the discriminator and its updated statistics."""
    variables = {
      "params": params["discriminator"],
      **ctx.stats["discriminator"],
    }
    return self.discriminator.apply(
      variables, picture, train=True, mutable=["batch_stats"]
    )

  def _adaptive_weight(self, variables, features, fidelity, realism):
    """VQGAN eq. 7, taken at the decoder's last convolution."""
    variables = jax.lax.stop_gradient(variables)
    features = jax.lax.stop_gradient(features)
    decoder = variables["params"]["decoder"]

    def last(kernel):
      conv = {**decoder["conv_out"], "kernel": kernel}
      params = {
        **variables["params"],
        "decoder": {**decoder, "conv_out": conv},
      }
      return self.net.apply({"params": params}, features, method="decode_last")

    return adversarial.adaptive_weight(
      last, decoder["conv_out"]["kernel"], fidelity, realism
    )

  def discriminator_loss(self, params, ctx):
    image = self.pictures(ctx)
    variables = {"params": params["autoencoder"]}
    fake = jax.lax.stop_gradient(self.net.apply(variables, image).image)
    real_logits, _ = self._discriminate(params, ctx, image)
    fake_logits, updated = self._discriminate(params, ctx, fake)
    loss = adversarial.hinge_discriminator(real_logits, fake_logits)
    metrics = {"real": real_logits.mean(), "fake": fake_logits.mean()}
    return loss, recipe_lib.Aux(
      metrics=metrics, stats={"discriminator": dict(updated)}
    )

  def preview(self, variables, frozen, batch, rng):
    """Pictures and their reconstructions, and renderings likewise."""
    del rng
    net = {"params": variables["autoencoder"]["params"]}
    shown = {"picture": batch["image"]}
    if self.face is not None:
      reader = self.face.reader
      codes = reader.codes(frozen, batch["image"])
      shown["rendering"] = reader.render(frozen, codes)["image"]
    for name, picture in list(shown.items()):
      made = self.net.apply(net, picture).image
      shown["reconstruction" if name == "picture" else f"{name}_made"] = made
    return shown


def _face(nets, options, image_size, dtype):
  """Who renders the faces of the pictures, if somebody is to."""
  if not options.rendering_share:
    return None
  made = face_nets.from_config(nets, dtype, image_size, identity=False)
  return made.on_ground(options.rendering_ground)


def build_autoencoder(spec, dtype):
  """The autoencoder, from `nets.autoencoder`."""
  return options_lib.build_net(
    autoencoder_lib.VQModel, spec, "config.nets.autoencoder", dtype=dtype
  )


def init_autoencoder(net, rng, picture) -> dict[str, Any]:
  """Variables of the net and the running spread of its latents.

  The diffusion scales the latents by that spread; see `latent_scale`.
  """
  spread = {"count": jnp.zeros(()), "square": jnp.ones(())}
  return {**net.init(rng, picture), "latent": spread}


def latent_scale(autoencoder: dict[str, Any]):
  """1 / standard deviation of the latents, from the trained stage."""
  square = autoencoder["latent"]["square"]
  return jax.lax.rsqrt(jnp.maximum(square, 1e-8))
