"""Small complete recipes: the pattern for new methods, and the trainer's tests.

`ToyGan` has two optimisers, a lazy regulariser, a phase that starts late, an
average and batch statistics. `ToyAutoencoder` and `ToyLatent` are two stages,
the second on the frozen net of the first.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from faceedit_jax.core import editing, optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.batch import Field
from faceedit_jax.core.recipe import Aux, Ema, Group, Phase, WeightSource

NOISE = 4
# Of the toys that edit: one photo, read as it lies in the batch.
PHOTO = (editing.EditInput("image", "photo", required=True),)


class ToyGenerator(nn.Module):
  """Noise (b, NOISE) to pictures (b, size, size, 3)."""

  size: int
  width: int = 16

  @nn.compact
  def __call__(self, z, train: bool = False):
    x = nn.Dense(self.width)(z)
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    x = nn.Dense(self.size * self.size * 3)(x)
    return jnp.tanh(x).reshape(z.shape[0], self.size, self.size, 3)


class ToyCritic(nn.Module):
  """Pictures (b, h, w, 3) to logits (b,)."""

  width: int = 16

  @nn.compact
  def __call__(self, image):
    x = nn.Dense(self.width)(image.reshape(image.shape[0], -1))
    return nn.Dense(1)(nn.leaky_relu(x, 0.2))[:, 0]


@dataclasses.dataclass(frozen=True)
class ToyGanOptions:
  lr: float = 1e-3


@dataclasses.dataclass(frozen=True)
class ToyAutoencoderOptions:
  """`prediction` changes no array's shape, and nothing else here."""

  prediction: str = "x0"


@dataclasses.dataclass(frozen=True)
class ToyLatentOptions:
  """`stage` names the autoencoder's stage."""

  stage: str = "ae"
  cache_features: bool = False


@dataclasses.dataclass(frozen=True)
class ToyGan(recipe_lib.Recipe):
  """Phases `d`, `d_r1` (every 4), `g`, and `g_mean` (from step 2 on)."""

  size: int = 8
  lr: float = 1e-3
  every: int = 4
  start: int = 2

  Options = ToyGanOptions
  edit_inputs = PHOTO
  inference_options = ()
  traced_options = ()
  alignment = "synthetic_heads"
  keeps_frame = True

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe; it has no options for its nets."""
    del nets, dtype
    return cls(size=image_size, lr=options.lr)

  @property
  def generator(self):
    return ToyGenerator(self.size)

  @property
  def critic(self):
    return ToyCritic()

  def batch_spec(self):
    return {"image": Field((self.size, self.size, 3), range=(-1.0, 1.0))}

  def init(self, rng):
    gen, disc = jax.random.split(rng)
    image = jnp.zeros((1, self.size, self.size, 3))
    return {
      "gen": self.generator.init(gen, jnp.zeros((1, NOISE))),
      "disc": self.critic.init(disc, image),
    }

  def groups(self):
    options = {"lr": self.lr, "b1": 0.5}
    return {
      "g": Group(("gen",), optim.make_tx(**options)),
      "d": Group(("disc",), optim.make_tx(**optim.lazy(options, self.every))),
    }

  def phases(self):
    return (
      Phase("d", ("d",), self.d_loss),
      Phase("d_r1", ("d",), self.r1_loss, every=self.every),
      Phase("g", ("g",), self.g_loss),
      Phase("g_mean", ("g",), self.mean_loss, start=self.start),
    )

  def ema(self):
    return {"ema": Ema(("gen",), optim.ema_warmup(0.99))}

  def fake(self, params, ctx, name):
    """Pictures from the noise stream `name`, and the new statistics."""
    z = jax.random.normal(ctx.key(name), (ctx.batch["image"].shape[0], NOISE))
    return self.generator.apply(
      {"params": params["gen"], **ctx.stats["gen"]},
      z,
      train=True,
      mutable=["batch_stats"],
    )

  def score(self, params, image):
    return self.critic.apply({"params": params["disc"]}, image)

  def d_loss(self, params, ctx):
    fake, _ = self.fake(params, ctx, "d/noise")
    real = self.score(params, ctx.batch["image"])
    loss = nn.softplus(-real).mean()
    loss = loss + nn.softplus(self.score(params, fake)).mean()
    return loss, Aux(metrics={"real": real.mean()})

  def r1_loss(self, params, ctx):
    def total(image):
      return self.score(params, image).sum()

    slope = jax.grad(total)(ctx.batch["image"])
    penalty = (slope**2).sum((1, 2, 3)).mean()
    # Lazy: the penalty runs every few steps and weighs as many times more.
    return 0.5 * self.every * penalty, Aux(metrics={"penalty": penalty})

  def g_loss(self, params, ctx):
    fake, stats = self.fake(params, ctx, "g/noise")
    loss = nn.softplus(-self.score(params, fake)).mean()
    return loss, Aux(stats={"gen": stats}, images={"fake": fake})

  def mean_loss(self, params, ctx):
    fake, stats = self.fake(params, ctx, "g/noise")
    gap = fake.mean(0) - ctx.batch["image"].mean(0)
    return (gap**2).mean(), Aux(stats={"gen": stats})

  def preview(self, variables, frozen, batch, rng):
    n = batch["image"].shape[0]
    made = self.edit(variables, frozen, {"image": batch["image"]}, rng)
    return {"fake": made["image"][:n]}

  def edit(self, variables, frozen, inputs, rng, **options):
    del frozen
    z = jax.random.normal(rng, (inputs["image"].shape[0], NOISE))
    z = z * options.get("strength", 1.0)
    return {"image": self.generator.apply(variables["gen"], z)}


class ToyEncoder(nn.Module):
  """Pictures (b, h, w, 3) to latents (b, h / 2, w / 2, channels)."""

  channels: int = 4

  @nn.compact
  def __call__(self, image):
    return nn.Conv(self.channels, (2, 2), strides=2)(image)


class ToyDecoder(nn.Module):
  """Latents (b, h, w, channels) to pictures (b, 2 h, 2 w, 3)."""

  @nn.compact
  def __call__(self, latent):
    return jnp.tanh(nn.ConvTranspose(3, (2, 2), strides=(2, 2))(latent))


@dataclasses.dataclass(frozen=True)
class ToyAutoencoder(recipe_lib.Recipe):
  """First stage: nets `enc` and `dec`, phase `recon`, deterministic."""

  size: int = 8
  channels: int = 4
  tx: optax.GradientTransformation = dataclasses.field(
    default_factory=lambda: optim.make_tx(lr=1e-2)
  )

  Options = ToyAutoencoderOptions

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe; `nets.enc.channels` is the latent's width."""
    del options, dtype
    return cls(size=image_size, channels=nets.enc.channels)

  def batch_spec(self):
    return {"image": Field((self.size, self.size, 3), range=(-1.0, 1.0))}

  def init(self, rng):
    return init_autoencoder(rng, self.size, self.channels)

  def groups(self):
    return {"ae": Group(("enc", "dec"), self.tx)}

  def phases(self):
    return (Phase("recon", ("ae",), self.recon_loss),)

  def ema(self):
    return {"ema": Ema(("enc", "dec"), 0.9)}

  def recon_loss(self, params, ctx):
    variables = {net: {"params": tree} for net, tree in params.items()}
    image = self.reconstruct(variables, ctx.batch["image"])
    loss = ((image - ctx.batch["image"]) ** 2).mean()
    return loss, Aux(metrics={"rmse": jnp.sqrt(loss)}, images={"recon": image})

  def preview(self, variables, frozen, batch, rng):
    return {"recon": self.reconstruct(variables, batch["image"])}

  def reconstruct(self, variables, image):
    latent = ToyEncoder(self.channels).apply(variables["enc"], image)
    return ToyDecoder().apply(variables["dec"], latent)


@dataclasses.dataclass(frozen=True)
class ToyLatent(recipe_lib.Recipe):
  """Second stage: net `head` denoises latents of the frozen autoencoder."""

  size: int = 8
  channels: int = 4
  stage: str = "ae"
  cache_features: bool = False

  Options = ToyLatentOptions
  edit_inputs = PHOTO
  inference_options = ()
  traced_options = ()
  alignment = "synthetic_heads"
  keeps_frame = True

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe on the autoencoder of `options.stage`."""
    del dtype
    return cls(
      size=image_size,
      channels=nets.enc.channels,
      stage=options.stage,
      cache_features=options.cache_features,
    )

  def batch_spec(self):
    image = Field((self.size, self.size, 3), range=(-1.0, 1.0))
    return {"image": image, **self.feature_spec()}

  def feature_spec(self):
    side = self.size // 2
    spec = {"latent": Field((side, side, self.channels))}
    return spec if self.cache_features else {}

  def compute_features(self, frozen, image):
    return {"latent": ToyEncoder(self.channels).apply(frozen["enc"], image)}

  @property
  def head(self):
    return nn.Conv(self.channels, (3, 3))

  def init(self, rng):
    side = self.size // 2
    return {
      "head": self.head.init(rng, jnp.zeros((1, side, side, self.channels)))
    }

  def frozen(self):
    return {
      "enc": WeightSource(stage=self.stage),
      "dec": WeightSource(stage=self.stage, ema="ema"),
    }

  def init_frozen(self, rng):
    return init_autoencoder(rng, self.size, self.channels)

  def groups(self):
    return {"h": Group(("head",), optim.make_tx("adamw", 1e-3, clip=1.0))}

  def phases(self):
    return (Phase("denoise", ("h",), self.denoise_loss),)

  def ema(self):
    return {"ema": Ema(("head",), optim.ema_warmup(0.999))}

  def denoise_loss(self, params, ctx):
    if self.cache_features:
      latent = ctx.batch["latent"]
    else:
      latent = self.compute_features(ctx.frozen, ctx.batch["image"])["latent"]
    noise = jax.random.normal(ctx.key("noise"), latent.shape)
    guess = self.head.apply({"params": params["head"]}, latent + noise)
    return ((guess - latent) ** 2).mean(), Aux()

  def edit(self, variables, frozen, inputs, rng, **options):
    del rng, options
    latent = ToyEncoder(self.channels).apply(frozen["enc"], inputs["image"])
    latent = self.head.apply(variables["head"], latent)
    return {"image": ToyDecoder().apply(frozen["dec"], latent)}


def init_autoencoder(rng, size, channels):
  """{"enc", "dec"} variables."""
  enc, dec = jax.random.split(rng)
  side = size // 2
  return {
    "enc": ToyEncoder(channels).init(enc, jnp.zeros((1, size, size, 3))),
    "dec": ToyDecoder().init(dec, jnp.zeros((1, side, side, channels))),
  }
