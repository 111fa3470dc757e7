"""L2M-GAN: edits of attributes by moving part of a picture's style code.

Trains generator, style encoder (with decomposer and domain transformers) and
discriminator against one another (L2M-GAN section 3), and holds the edit. With
`styles="mapped"` the same nets learn StarGAN v2, the system it is built on.
Formulas of songquanpeng/L2M-GAN, solver/, and clovaai/stargan-v2,
core/solver.py.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import config as config_lib
from faceedit_jax.core import optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.losses import adversarial, reconstruction, style_codes
from faceedit_jax.models import domain_discriminator as discriminator_lib
from faceedit_jax.models import fan as fan_lib
from faceedit_jax.models import landmark_masks
from faceedit_jax.models import mapping_network as mapping_lib
from faceedit_jax.models import style_encoder as encoder_lib
from faceedit_jax.models import translation_generator as generator_lib
from faceedit_jax.nn import style as style_lib
from faceedit_jax.recipes import attribute_scores, attribute_words
from faceedit_jax.recipes import perceptual as perceptual_lib

STYLES = ("factored", "mapped")
# Terms of the losses, each with a weight: a number or a ramp over the steps.
TERMS = (
  "adversarial",
  "cycle",
  "style",
  "perceptual",
  "orthogonality",
  "diversity",
  "stay",
  "own",
  "r1",
  "labels",
)
REFERENCE = "attribute_from"


@dataclasses.dataclass(frozen=True)
class L2MGANRecipe(recipe_lib.Recipe):
  """Nets `generator`, `style_encoder`, `discriminator` (, `mapping_network`).

  Phases `d` and `g`; of mapped styles `d_latent`, `d_reference`, `g_latent`
  and `g_reference`; `r1` where the gradient penalty is lazy.

  Attributes:
    generator: picture and style to a picture.
    style_encoder: picture to style codes.
    discriminator: a logit for each domain.
    mapping_network: noise to styles; None for factored styles.
    latent_dim: numbers of that noise.
    fan: finds the points whose masks open the generator's skips; None: no
      masks.
    fan_weights: file of its weights.
    perceptual: what the perceptual term is measured in.
    attributes: attribute a makes the domains 2 a (without) and 2 a + 1 (with).
    image_size: side of the pictures in pixels.
    txs: {net: its optimiser}.
    weights: {term: weight}, of TERMS; numbers or functions of the step.
    r1_every: steps between gradient penalties.
    generator_start: step from which on there are translations; before, the
      discriminator learns the labels alone.
    ema_decay: of all nets but the discriminator.
    ema_warms_up: whether the average starts short; see `optim.ema_warmup`.
    starts: {net: file that it starts from}.
    evaluator: scores the edits; None: nothing does.
  """

  generator: generator_lib.TranslationGenerator
  style_encoder: encoder_lib.StyleEncoder
  discriminator: discriminator_lib.DomainDiscriminator
  mapping_network: mapping_lib.MappingNetwork | None
  latent_dim: int
  fan: fan_lib.FAN | None
  fan_weights: str
  perceptual: perceptual_lib.Perceptual
  attributes: tuple[str, ...]
  image_size: int
  txs: Mapping[str, optax.GradientTransformation]
  weights: Mapping[str, Any]
  r1_every: int = 1
  generator_start: int = 0
  ema_decay: float = 0.999
  ema_warms_up: bool = False
  starts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  evaluator: Any = None

  edit_options = ("evaluation",)
  sliders = ("strength", "strengths")

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe from all of `nets` and the stage's options."""
    styles = options.styles
    if styles not in STYLES:
      raise ValueError(
        f"recipe.styles is {styles!r}; it must be one of "
        + ", ".join(map(repr, STYLES))
      )
    attributes = tuple(options.attributes)
    if options.generator_start and not options.weights.get("labels", 0.0):
      raise ValueError(
        f"recipe.generator_start is {options.generator_start}, but "
        "recipe.weights.labels is 0: nothing would be learned before"
      )
    if not attributes or len(set(attributes)) != len(attributes):
      raise ValueError(
        f"recipe.attributes is {attributes}; wanted one name or several, each "
        "once"
      )
    weights = options.weights.to_dict()
    unknown = sorted(set(weights) - set(TERMS))
    if unknown:
      raise ValueError(
        f"recipe.weights has {unknown}; the terms are {', '.join(TERMS)}"
      )
    if options.r1_every < 1:
      raise ValueError(
        f"recipe.r1_every is {options.r1_every}; it must be 1 or more"
      )
    mapped = styles == "mapped"
    shared = {"image_size": image_size, "dtype": dtype}
    domains = 2 * len(attributes)

    def fields(net):
      return config_lib.module_fields(nets[net])

    encoder = fields("style_encoder")
    if mapped:
      encoder["factor_layers"] = 0
    mapping, latent_dim = None, 0
    if mapped:
      section = fields("mapping_network")
      latent_dim = section.pop("latent_dim")
      mapping = mapping_lib.MappingNetwork(
        domains=domains, style_dim=encoder["style_dim"], **section
      )
    fan, fan_weights = None, ""
    if nets.generator.w_hpf and "fan" in nets:
      fan = fan_lib.FAN(dtype=dtype, **fields("fan"))
      fan_weights = nets.fan.get("weights", "")
    trained = ["generator", "style_encoder", "discriminator"]
    trained += ["mapping_network"] * mapped
    own = options.get("optimizers", {})
    unknown = sorted(set(own) - set(trained))
    if unknown:
      raise ValueError(
        f"recipe.optimizers has {unknown}; the nets are {', '.join(trained)}"
      )
    return cls(
      generator=generator_lib.TranslationGenerator(
        **shared, **fields("generator")
      ),
      style_encoder=encoder_lib.StyleEncoder(
        **shared, domains=domains, **encoder
      ),
      discriminator=discriminator_lib.DomainDiscriminator(
        **shared, domains=domains, **fields("discriminator")
      ),
      mapping_network=mapping,
      latent_dim=latent_dim,
      fan=fan,
      fan_weights=fan_weights,
      perceptual=perceptual_lib.from_config(nets, options, dtype),
      attributes=attributes,
      image_size=image_size,
      txs={
        net: optim.make_tx(**{**options.optimizer, **own.get(net, {})})
        for net in trained
      },
      weights={term: optim.make_ramp(value) for term, value in weights.items()},
      r1_every=options.r1_every,
      generator_start=options.generator_start,
      ema_decay=options.ema_decay,
      ema_warms_up=options.ema_warms_up,
      starts={
        net: nets[net]["weights"]
        for net in trained
        if nets[net].get("weights", "")
      },
      # The record of a run, which editing reads, holds no nets that score.
      evaluator=attribute_scores.from_config(
        options.evaluation, nets, attributes, image_size, dtype
      )
      if options.get("evaluation") and {"classifier", "identity"} <= set(nets)
      else None,
    )

  # What the trainer asks for.

  @property
  def mapped(self) -> bool:
    """Whether styles come from noise or references (StarGAN v2)."""
    return self.mapping_network is not None

  def batch_spec(self):
    size = self.image_size
    picture = recipe_lib.Field((size, size, 3), "float32", (-1.0, 1.0))
    domain = recipe_lib.Field((), "int32", (0, 2 * len(self.attributes) - 1))
    spec = {"image": picture, "domain": domain, "target": domain}
    if self.mapped:
      spec |= {"reference_image": picture, "second_reference_image": picture}
    if self._uses("labels"):
      count = len(self.attributes)
      spec["attributes"] = recipe_lib.Field((count,), "int32", (0, 1))
    if self.perceptual.reads_points:
      spec["landmarks5"] = recipe_lib.Field((5, 2), "float32")
    return spec

  def init(self, rng):
    picture = jnp.zeros((1,) + (self.image_size,) * 2 + (3,))
    domain = jnp.zeros((1,), jnp.int32)
    style = jnp.zeros((1, self.style_encoder.style_dim))
    inputs = {
      "generator": (self.generator, picture, style),
      "style_encoder": (self.style_encoder, picture, domain),
      "discriminator": (self.discriminator, picture, domain),
    }
    if self.mapped:
      noise = jnp.zeros((1, self.latent_dim))
      inputs["mapping_network"] = (self.mapping_network, noise, domain)
    keys = jax.random.split(rng, len(inputs))
    return {
      name: net.init(key, *arguments)
      for key, (name, (net, *arguments)) in zip(
        keys, inputs.items(), strict=True
      )
    }

  def init_from(self):
    return {
      net: recipe_lib.WeightSource(path=path)
      for net, path in self.starts.items()
    }

  def frozen(self):
    sources = dict(self.perceptual.frozen())
    if self.fan is not None:
      sources["fan"] = (
        recipe_lib.WeightSource(path=self.fan_weights)
        if self.fan_weights
        else recipe_lib.WeightSource(stage="fan")
      )
    return sources

  def init_frozen(self, rng):
    nets = dict(self.perceptual.init_frozen(rng, self.image_size))
    if self.fan is not None:
      picture = jnp.zeros((1,) + (self.image_size,) * 2 + (3,))
      nets["fan"] = self.fan.init(rng, picture)
    return nets

  def groups(self):
    return {net: recipe_lib.Group((net,), tx) for net, tx in self.txs.items()}

  def phases(self):
    judge = ("discriminator",)
    phases = []
    if self.mapped:
      # The encoder and the mapping network learn from noise alone.
      draw = ("generator", "mapping_network", "style_encoder")
      for name, groups in (("latent", draw), ("reference", ("generator",))):
        phases.append((f"d_{name}", judge, self.judge_loss, name))
        phases.append((f"g_{name}", groups, self.translate_loss, name))
      phases.sort(key=lambda phase: phase[0])  # both judgements first
    else:
      draw = ("generator", "style_encoder")
      phases.append(("d", judge, self.judge_loss, "moved"))
      phases.append(("g", draw, self.translate_loss, "moved"))
    made = [
      recipe_lib.Phase(
        name,
        groups,
        functools.partial(loss, kind=kind),
        start=self.generator_start,
      )
      for name, groups, loss, kind in phases
    ]
    if self.generator_start:
      made.append(
        recipe_lib.Phase(
          "labels", judge, self.labels_loss, stop=self.generator_start
        )
      )
    if self._lazy:
      made.insert(
        0,
        recipe_lib.Phase(
          "r1",
          judge,
          self.r1_loss,
          every=self.r1_every,
        ),
      )
    return tuple(made)

  @property
  def _lazy(self) -> bool:
    return self.r1_every > 1

  def ema(self):
    nets = tuple(net for net in self.txs if net != "discriminator")
    decay = self.ema_decay
    if self.ema_warms_up:
      decay = optim.ema_warmup(decay)
    return {"ema": recipe_lib.Ema(nets, decay)}

  def evaluators(self):
    return {self.evaluator.name: self.evaluator} if self.evaluator else {}

  # The pieces.

  def _encode(self, variables, image, domain, **more):
    net = {"params": variables["style_encoder"]["params"]}
    return self.style_encoder.apply(net, image, domain, **more)

  def _draw(self, variables, frozen, image, style):
    """Redraws pictures (b, s, s, 3) in styles (b, d)."""
    net = {"params": variables["generator"]["params"]}
    return self.generator.apply(net, image, style, self._masks(frozen, image))

  def _masks(self, frozen, image):
    if self.fan is None:
      return None
    return landmark_masks.face_masks(self.fan.apply(frozen["fan"], image))

  def _judge(self, params, image, domain=None):
    net = {"params": params["discriminator"]}
    return self.discriminator.apply(net, image, domain)

  def _map(self, variables, noise, domain):
    net = {"params": variables["mapping_network"]["params"]}
    return self.mapping_network.apply(net, noise, domain)

  def _own(self, variables, image, domain):
    """The pictures' own styles (b, d)."""
    found = self._encode(variables, image, domain)
    return found if self.mapped else found.style

  def _new_styles(self, variables, ctx, kind):
    """The styles to move to: two of them where they are mapped, else one, and
    the parts of the pictures' own style or None."""
    batch = ctx.batch
    target = batch["target"]
    if kind == "moved":
      codes = self._encode(
        variables, batch["image"], batch["domain"], target=target
      )
      return (codes.edited(),), codes
    if kind == "latent":
      shape = (len(target), self.latent_dim)
      noises = [
        jax.random.normal(ctx.key(f"latent_{i}"), shape) for i in range(2)
      ]
      return tuple(self._map(variables, z, target) for z in noises), None
    names = ("reference_image", "second_reference_image")
    return tuple(self._own(variables, batch[n], target) for n in names), None

  # Training, L2M-GAN section 3.3.

  def _weight(self, term, ctx):
    return recipe_lib.at(self.weights.get(term, 0.0), ctx.step)

  def _uses(self, term) -> bool:
    """Whether a term's weight is ever anything but 0."""
    weight = self.weights.get(term, 0.0)
    return callable(weight) or weight != 0

  def judge_loss(self, params, ctx, kind):
    """Real and translated pictures against their domains' logits."""
    batch = ctx.batch
    variables = {net: {"params": tree} for net, tree in params.items()}
    style = self._new_styles(variables, ctx, kind)[0][0]
    fake = jax.lax.stop_gradient(
      self._draw(variables, ctx.frozen, batch["image"], style)
    )
    every = self._judge(params, batch["image"])
    real_logits = style_lib.pick(every, batch["domain"])
    fake_logits = self._judge(params, fake, batch["target"])
    loss = adversarial.bce(real_logits, 1.0) + adversarial.bce(fake_logits, 0.0)
    metrics = {"real": real_logits.mean(), "fake": fake_logits.mean()}
    if self._uses("labels"):
      metrics["labels"] = self._labels(every, batch["attributes"])
      loss = loss + self._weight("labels", ctx) * metrics["labels"]
    if not self._lazy:
      penalty, aux = self.r1_loss(params, ctx)
      loss, metrics = loss + penalty, metrics | dict(aux.metrics)
    return loss, recipe_lib.Aux(metrics=metrics)

  def _labels(self, logits, attributes):
    """Real pictures count as real on their side of every attribute, and as
    not real on the other (matching-aware, Reed et al. 2016)."""
    side = 2.0 * attributes[..., None] - 1
    logits = logits.reshape(*attributes.shape, 2)
    return jax.nn.softplus(-logits * side * jnp.array([-1.0, 1.0])).mean()

  def labels_loss(self, params, ctx):
    """The discriminator's labels alone, while nothing is translated yet."""
    batch = ctx.batch
    logits = self._judge(params, batch["image"])
    pairs = logits.reshape(*batch["attributes"].shape, 2)
    right = (pairs[..., 1] > pairs[..., 0]) == (batch["attributes"] > 0)
    loss = self._labels(logits, batch["attributes"])
    metrics = {
      f"accuracy_{name}": right[:, at].mean()
      for at, name in enumerate(self.attributes)
    }
    if not self._lazy:
      penalty, aux = self.r1_loss(params, ctx)
      loss, metrics = loss + penalty, metrics | dict(aux.metrics)
    return loss, recipe_lib.Aux(metrics=metrics)

  def r1_loss(self, params, ctx):
    """The gradient penalty on real pictures, as often as it is skipped."""
    batch = ctx.batch
    penalty = adversarial.r1_penalty(
      lambda image: self._judge(params, image, batch["domain"]), batch["image"]
    ).mean()
    weight = self._weight("r1", ctx) * self.r1_every
    return weight * penalty, recipe_lib.Aux(metrics={"r1": penalty})

  def translate_loss(self, params, ctx, kind):
    """All that is asked of a translation, each term under its name."""
    batch, frozen = ctx.batch, ctx.frozen
    image, domain, target = batch["image"], batch["domain"], batch["target"]
    variables = {net: {"params": tree} for net, tree in params.items()}
    styles, codes = self._new_styles(variables, ctx, kind)
    fake = self._draw(variables, frozen, image, styles[0])
    own = codes.style if codes else self._own(variables, image, domain)
    terms = {
      "adversarial": adversarial.bce(self._judge(params, fake, target), 1.0),
      "cycle": reconstruction.l1(
        self._draw(variables, frozen, fake, own), image
      ).mean(),
      "style": reconstruction.l1(
        self._own(variables, fake, target), styles[0]
      ).mean(),
    }
    if self._uses("perceptual"):
      terms["perceptual"] = self.perceptual.distance(
        frozen, image, fake, batch.get("landmarks5")
      ).mean()
    if self._uses("stay"):
      terms["stay"] = reconstruction.l1(fake, image).mean()
    if self._uses("own"):
      terms["own"] = reconstruction.l1(
        self._draw(variables, frozen, image, own), image
      ).mean()
    if codes:
      terms["orthogonality"] = style_codes.factor_orthogonality(
        codes.unrelated, codes.related, codes.moved
      ).mean()
    elif self._uses("diversity"):
      other = self._draw(variables, frozen, image, styles[1])
      # To be made large.
      terms["diversity"] = -style_codes.diversity(fake, other).mean()
    loss = sum(self._weight(term, ctx) * v for term, v in terms.items())
    change = jnp.abs(fake - image).mean((1, 2, 3))
    moves = domain != target
    # Half of the targets are what is there: told apart from real edits.
    terms["change"] = (change * moves).sum() / jnp.maximum(moves.sum(), 1)
    terms["no_change"] = (change * ~moves).sum() / jnp.maximum(
      (~moves).sum(), 1
    )
    return loss, recipe_lib.Aux(metrics=terms)

  # Looking and editing.

  def preview(self, variables, frozen, batch, rng):
    """The pictures, redrawn as they are, and with each attribute edited."""
    image, domain = batch["image"], batch["domain"]
    own = self._own(variables, image, domain)
    rows = {
      "picture": image,
      "as_it_is": self._draw(variables, frozen, image, own),
    }
    for name in self.attributes:
      for sign, word in (("+", "with"), ("-", "without")):
        made = self.edit(
          variables, frozen, {"source": image}, rng, attribute=sign + name
        )
        rows[f"{word}_{name}"] = made["image"]
    return rows

  @property
  def queries(self) -> tuple[str, ...]:
    """Names of the pictures that `edit` takes beside the source."""
    return (REFERENCE,)

  def edit(
    self,
    variables,
    frozen,
    inputs,
    rng,
    *,
    attribute: str = "",
    strength: float = 1.0,
    strengths: Sequence[float] = (),
    has: bool | None = None,
  ):
    """Gives attributes to pictures, or takes them away.

    Args:
      variables: {"generator", "style_encoder" (, "mapping_network")}.
      frozen: {"fan"} where the generator has skips.
      inputs: "source" (b, s, s, 3) in [-1, 1]; "attribute_from" (b, s, s, 3):
        pictures whose form of the (only) attribute is taken over; "row" (b,)
        int32 names each picture's noise where styles are mapped.
      rng: key of that noise.
      attribute: "Smiling" or "+Smiling" gives it, "-Smiling" takes it away;
        several, comma separated, follow one another. The first one, given,
        when empty.
      strength: 0 is the picture's own style, 1 the target's; others lie on
        the line through both (section 3.2: interpolation, extrapolation).
      strengths: a strip shows these.
      has: whether the source has the first attribute; None: it has the
        opposite of what is wanted.

    Returns:
      "image" (b, s, s, 3) in [-1, 1]; with `strengths` also "strip"
      (b, s, n s, 3).

    Raises:
      ValueError: one line: an unknown attribute, a reference for several, or
        a setting of another kind.
    """
    wanted = attribute_words.parse_edits(
      attribute or self.attributes[0], self.attributes
    )
    reference = inputs.get(REFERENCE)
    if reference is not None and len(wanted) > 1:
      raise ValueError(
        f"{REFERENCE} goes with one attribute, got {len(wanted)} in "
        f"{attribute!r}; edit one after another"
      )
    if has not in (None, True, False):
      raise ValueError(f"has is {has!r}; it must be true, false or none")
    steps = (
      attribute_words.parse_strength(strength),
      *attribute_words.parse_strengths(strengths),
    )
    # A loop: the nets are compiled once, however long the strip is.
    first, *rest = jax.lax.map(
      functools.partial(
        self._edit, variables, frozen, inputs, rng, wanted, has
      ),
      jnp.stack([jnp.asarray(s, jnp.float32) for s in steps]),
    )
    out = {"image": first}
    if rest:
      out["strip"] = jnp.concatenate(rest, axis=2)
    return out

  def _edit(self, variables, frozen, inputs, rng, wanted, has, strength):
    image, reference = inputs["source"], inputs.get(REFERENCE)
    count = image.shape[0]
    for at, (index, value) in enumerate(wanted):
      had = has if at == 0 and has is not None else not value
      domain, target = (
        jnp.full((count,), 2 * index + side, jnp.int32)
        for side in (int(had), int(value))
      )
      if self.mapped:
        own = self._own(variables, image, domain)
        if reference is None:
          rows = inputs.get("row", jnp.arange(count))
          noise = jax.vmap(
            lambda row, at=at: jax.random.normal(
              jax.random.fold_in(jax.random.fold_in(rng, at), row),
              (self.latent_dim,),
            )
          )(rows)
          new = self._map(variables, noise, target)
        else:
          new = self._own(variables, reference, target)
        style = own + strength * (new - own)
      else:
        codes = self._encode(variables, image, domain, target=target)
        if reference is not None:
          related = self._encode(variables, reference, target).related
          codes = codes._replace(moved=related)
        style = codes.edited(strength)
      # Clipped each time: a sequence is the same as edits of edits.
      image = jnp.clip(self._draw(variables, frozen, image, style), -1.0, 1.0)
    return image

  def edit_spec(self):
    """Inputs of an exported edit."""
    return {"source": self.batch_spec()["image"]}
