"""The losses of L2M-GAN, and with mapped styles those of StarGAN v2.

Formulas of songquanpeng/L2M-GAN, solver/, and clovaai/stargan-v2,
core/solver.py.
"""

import dataclasses

import jax
import jax.numpy as jnp

from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import perceptual_distance
from faceedit_jax.losses import adversarial, reconstruction, style_codes
from faceedit_jax.nn import style as style_lib
from faceedit_jax.recipes.l2m_gan import nets as nets_lib
from faceedit_jax.recipes.l2m_gan import options as options_lib


@dataclasses.dataclass(frozen=True)
class TranslationLosses:
  """What discriminator and generator learn from a batch.

  Attributes:
    nets: what is trained, and the net that finds masks.
    perceptual: what the perceptual term is measured in.
    attributes: attribute a makes the domains 2 a (without) and 2 a + 1 (with).
    weights: of the terms.
  """

  nets: nets_lib.TranslationNets
  perceptual: perceptual_distance.Perceptual
  attributes: tuple[str, ...]
  weights: options_lib.LossWeights

  def new_styles(self, variables, ctx, kind):
    """The styles to translate to: two where they are mapped, else one.

    Args:
      variables: {net: variables}.
      ctx: see `core.recipe.Ctx`.
      kind: "transformed" (L2M-GAN); of mapped styles "latent" or "reference".

    Returns:
      (styles, the parts of the pictures' own style or None).
    """
    batch = ctx.batch
    target = batch["target"]
    if kind == "transformed":
      codes = self.nets.encode(
        variables, batch["image"], batch["domain"], target=target
      )
      return (codes.edited(),), codes
    if kind == "latent":
      noises = self.noises(ctx)
      return tuple(self.nets.map(variables, z, target) for z in noises), None
    names = ("reference_image", "second_reference_image")
    return tuple(
      self.nets.own_style(variables, batch[n], target) for n in names
    ), None

  def noises(self, ctx):
    """Two draws of noise for every picture."""
    shape = (len(ctx.batch["target"]), self.nets.latent_dim)
    return [jax.random.normal(ctx.key(f"latent_{i}"), shape) for i in range(2)]

  def _weight(self, term, ctx):
    return recipe_lib.at(getattr(self.weights, term), ctx.step)

  def discriminator_loss(self, params, ctx, kind):
    """Real and translated pictures against their domains' logits."""
    batch = ctx.batch
    variables = variables_of(params)
    style = self.new_styles(variables, ctx, kind)[0][0]
    fake = jax.lax.stop_gradient(
      self.nets.generate(variables, ctx.frozen, batch["image"], style)
    )
    every = self.nets.discriminate(variables, batch["image"])
    real_logits = style_lib.pick(every, batch["domain"])
    fake_logits = self.nets.discriminate(variables, fake, batch["target"])
    loss = adversarial.bce(real_logits, 1.0) + adversarial.bce(fake_logits, 0.0)
    metrics = {"real": real_logits.mean(), "fake": fake_logits.mean()}
    if self.weights.uses("labels"):
      metrics["labels"] = self._labels(every, batch["attributes"])
      loss = loss + self._weight("labels", ctx) * metrics["labels"]
    metrics["r1"] = self._r1(variables, batch)
    loss = loss + self._weight("r1", ctx) * metrics["r1"]
    return loss, recipe_lib.Aux(metrics=metrics)

  def _labels(self, logits, attributes):
    """Real pictures count as real on their side of every attribute, and as
    not real on the other (matching-aware, Reed et al. 2016)."""
    side = 2.0 * attributes[..., None] - 1
    logits = logits.reshape(*attributes.shape, 2)
    return jax.nn.softplus(-logits * side * jnp.array([-1.0, 1.0])).mean()

  def labels_loss(self, params, ctx):
    """The discriminator's labels alone, while nothing is translated yet."""
    batch, variables = ctx.batch, variables_of(params)
    logits = self.nets.discriminate(variables, batch["image"])
    pairs = logits.reshape(*batch["attributes"].shape, 2)
    right = (pairs[..., 1] > pairs[..., 0]) == (batch["attributes"] > 0)
    loss = self._labels(logits, batch["attributes"])
    metrics = {
      f"accuracy_{name}": right[:, at].mean()
      for at, name in enumerate(self.attributes)
    }
    metrics["r1"] = self._r1(variables, batch)
    loss = loss + self._weight("r1", ctx) * metrics["r1"]
    return loss, recipe_lib.Aux(metrics=metrics)

  def _r1(self, variables, batch):
    """The gradient penalty on real pictures."""
    return adversarial.r1_penalty(
      lambda image: self.nets.discriminate(variables, image, batch["domain"]),
      batch["image"],
    ).mean()

  def generator_loss(self, params, ctx, kind):
    """All that is asked of a translation, each term under its name."""
    batch, frozen = ctx.batch, ctx.frozen
    image, domain, target = batch["image"], batch["domain"], batch["target"]
    variables = variables_of(params)
    styles, codes = self.new_styles(variables, ctx, kind)
    fake = self.nets.generate(variables, frozen, image, styles[0])
    own = (
      codes.style if codes else self.nets.own_style(variables, image, domain)
    )
    terms = {
      "adversarial": adversarial.bce(
        self.nets.discriminate(variables, fake, target), 1.0
      ),
      "cycle": reconstruction.l1(
        self.nets.generate(variables, frozen, fake, own), image
      ).mean(),
      "style": reconstruction.l1(
        self.nets.own_style(variables, fake, target), styles[0]
      ).mean(),
    }
    if self.weights.uses("perceptual"):
      terms["perceptual"] = self.perceptual.distance(
        frozen, image, fake, batch.get("landmarks5")
      ).mean()
    if self.weights.uses("pixel_l1"):
      terms["pixel_l1"] = reconstruction.l1(fake, image).mean()
    if codes:
      terms["orthogonality"] = style_codes.factor_orthogonality(
        codes.unrelated, codes.related, codes.transformed
      ).mean()
    elif self.weights.uses("diversity"):
      other = self.nets.generate(variables, frozen, image, styles[1])
      # To be made large.
      terms["diversity"] = -style_codes.diversity(fake, other).mean()
    loss = sum(self._weight(term, ctx) * v for term, v in terms.items())
    change = jnp.abs(fake - image).mean((1, 2, 3))
    moves = domain != target
    # Some targets are what is there: told apart from real edits.
    terms["change"] = (change * moves).sum() / jnp.maximum(moves.sum(), 1)
    terms["no_change"] = (change * ~moves).sum() / jnp.maximum(
      (~moves).sum(), 1
    )
    return loss, recipe_lib.Aux(metrics=terms)


def variables_of(params):
  """{net: variables} of {net: parameters}."""
  return {net: {"params": tree} for net, tree in params.items()}
