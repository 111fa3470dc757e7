"""L2M-GAN: edits of attributes by moving part of a picture's style code.

Trains generator, style encoder (with decomposer and domain transformers) and
discriminator against one another (L2M-GAN), and holds the edit. With
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

from data_pipelines import align
from faceedit_jax.core import editing, optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.evaluators import attributes as attribute_evaluator
from faceedit_jax.faces import perceptual_distance as perceptual_lib
from faceedit_jax.losses import adversarial, reconstruction, style_codes
from faceedit_jax.nn import style as style_lib
from faceedit_jax.recipes.l2m_gan import nets as nets_lib
from faceedit_jax.recipes.l2m_gan import words as attribute_words

# Terms of the losses, each with a weight: a number or a ramp over the steps.
TERMS = (
  "adversarial",
  "cycle",
  "style",
  "perceptual",
  "orthogonality",
  "diversity",
  "stay",
  "r1",
  "labels",
)
REFERENCE = "attribute_from"


@dataclasses.dataclass(frozen=True)
class L2MGANRecipe(recipe_lib.Recipe):
  """Nets `generator`, `style_encoder`, `discriminator` (, `mapping_network`).

  Phases `d` and `g`; of mapped styles `d_latent`, `d_reference`, `g_latent`
  and `g_reference`; before them `labels`, see `generator_start`.

  Attributes:
    nets: what is trained, and the net that finds masks.
    perceptual: what the perceptual term is measured in.
    attributes: attribute a makes the domains 2 a (without) and 2 a + 1 (with).
    image_size: side of the pictures in pixels.
    txs: {net: its optimiser}.
    weights: {term: weight}, of TERMS; numbers or functions of the step.
    generator_start: step from which on there are translations; before, the
      discriminator learns the labels alone.
    ema_decay: of all nets but the discriminator.
    ema_warms_up: whether the average starts short; see `optim.ema_warmup`.
    evaluator: scores the edits; None: nothing does.
    alignment: see `core.editing.Editable`.
  """

  nets: nets_lib.TranslationNets
  perceptual: perceptual_lib.Perceptual
  attributes: tuple[str, ...]
  image_size: int
  txs: Mapping[str, optax.GradientTransformation]
  weights: Mapping[str, Any]
  generator_start: int = 0
  ema_decay: float = 0.999
  ema_warms_up: bool = False
  evaluator: Any = None
  alignment: str = "synthetic_heads"

  inference_options = ("evaluation",)
  traced_options = ("strength", "strengths")
  edit_inputs = (
    editing.EditInput("source", "photo", required=True),
    editing.EditInput(REFERENCE, "photo"),
  )
  keeps_frame = True

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe from all of `nets` and the stage's options."""
    attributes = tuple(options.attributes)
    alignment = options.get("alignment", cls.alignment)
    align.template(alignment)  # there is one
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
    built = nets_lib.TranslationNets.from_config(
      nets, options.styles, 2 * len(attributes), image_size, dtype
    )
    own = options.get("optimizers", {})
    unknown = sorted(set(own) - set(built.trained))
    if unknown:
      raise ValueError(
        f"recipe.optimizers has {unknown}; the nets are "
        + ", ".join(built.trained)
      )
    return cls(
      nets=built,
      perceptual=perceptual_lib.from_config(nets, options, dtype),
      attributes=attributes,
      image_size=image_size,
      txs={
        net: optim.make_tx(**{**options.optimizer, **own.get(net, {})})
        for net in built.trained
      },
      weights={term: optim.make_ramp(value) for term, value in weights.items()},
      generator_start=options.generator_start,
      ema_decay=options.ema_decay,
      ema_warms_up=options.ema_warms_up,
      # The record of a run, which editing reads, holds no nets that score.
      evaluator=attribute_evaluator.from_config(
        options.evaluation, nets, attributes, image_size, dtype
      )
      if options.get("evaluation") and {"classifier", "identity"} <= set(nets)
      else None,
      alignment=alignment,
    )

  # What the trainer asks for.

  def batch_spec(self):
    size = self.image_size
    picture = recipe_lib.Field((size, size, 3), "float32", (-1.0, 1.0))
    domain = recipe_lib.Field((), "int32", (0, 2 * len(self.attributes) - 1))
    spec = {"image": picture, "domain": domain, "target": domain}
    if self.nets.mapped:
      spec |= {"reference_image": picture, "second_reference_image": picture}
    if self._uses("labels"):
      count = len(self.attributes)
      spec["attributes"] = recipe_lib.Field((count,), "int32", (0, 1))
    if self.perceptual.reads_points:
      spec["landmarks5"] = recipe_lib.Field((5, 2), "float32")
    return spec

  def init(self, rng):
    return self.nets.init(rng)

  def init_from(self):
    return {
      net: recipe_lib.WeightSource(path=path)
      for net, path in self.nets.starts.items()
    }

  def frozen(self):
    return {**self.perceptual.frozen(), **self.nets.frozen()}

  def loss_nets(self):
    return tuple(self.perceptual.frozen())

  def init_frozen(self, rng):
    scale = self.perceptual.init_frozen(rng, self.image_size)
    return {**scale, **self.nets.init_frozen(rng)}

  def groups(self):
    return {net: recipe_lib.Group((net,), tx) for net, tx in self.txs.items()}

  def phases(self):
    learners = {"moved": ("generator", "style_encoder")}
    if self.nets.mapped:
      # The encoder and the mapping network learn from noise alone.
      learners = {
        "latent": ("generator", "mapping_network", "style_encoder"),
        "reference": ("generator",),
      }
    made = []
    for side, loss in (("d", self.judge_loss), ("g", self.translate_loss)):
      for kind, groups in learners.items():
        made.append(
          recipe_lib.Phase(
            side if kind == "moved" else f"{side}_{kind}",
            ("discriminator",) if side == "d" else groups,
            functools.partial(loss, kind=kind),
            start=self.generator_start,
          )
        )
    if self.generator_start:
      alone = recipe_lib.Phase(
        "labels",
        ("discriminator",),
        self.labels_loss,
        stop=self.generator_start,
      )
      made.append(alone)
    return tuple(made)

  def ema(self):
    nets = tuple(net for net in self.txs if net != "discriminator")
    decay = self.ema_decay
    if self.ema_warms_up:
      decay = optim.ema_warmup(decay)
    return {"ema": recipe_lib.Ema(nets, decay)}

  def evaluators(self):
    return {self.evaluator.name: self.evaluator} if self.evaluator else {}

  def _new_styles(self, variables, ctx, kind):
    """The styles to move to: two of them where they are mapped, else one, and
    the parts of the pictures' own style or None."""
    batch = ctx.batch
    target = batch["target"]
    if kind == "moved":
      codes = self.nets.encode(
        variables, batch["image"], batch["domain"], target=target
      )
      return (codes.edited(),), codes
    if kind == "latent":
      noises = self._noises(ctx)
      return tuple(self.nets.map(variables, z, target) for z in noises), None
    names = ("reference_image", "second_reference_image")
    return tuple(
      self.nets.own_style(variables, batch[n], target) for n in names
    ), None

  def _noises(self, ctx):
    """Two draws of noise for every picture."""
    shape = (len(ctx.batch["target"]), self.nets.latent_dim)
    return [jax.random.normal(ctx.key(f"latent_{i}"), shape) for i in range(2)]

  # Training.

  def _weight(self, term, ctx):
    return recipe_lib.at(self.weights.get(term, 0.0), ctx.step)

  def _uses(self, term) -> bool:
    """Whether a term's weight is ever anything but 0."""
    weight = self.weights.get(term, 0.0)
    return callable(weight) or weight != 0

  def judge_loss(self, params, ctx, kind):
    """Real and translated pictures against their domains' logits."""
    batch = ctx.batch
    variables = _variables(params)
    style = self._new_styles(variables, ctx, kind)[0][0]
    fake = jax.lax.stop_gradient(
      self.nets.draw(variables, ctx.frozen, batch["image"], style)
    )
    every = self.nets.judge(variables, batch["image"])
    real_logits = style_lib.pick(every, batch["domain"])
    fake_logits = self.nets.judge(variables, fake, batch["target"])
    loss = adversarial.bce(real_logits, 1.0) + adversarial.bce(fake_logits, 0.0)
    metrics = {"real": real_logits.mean(), "fake": fake_logits.mean()}
    if self._uses("labels"):
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
    batch, variables = ctx.batch, _variables(params)
    logits = self.nets.judge(variables, batch["image"])
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
      lambda image: self.nets.judge(variables, image, batch["domain"]),
      batch["image"],
    ).mean()

  def translate_loss(self, params, ctx, kind):
    """All that is asked of a translation, each term under its name."""
    batch, frozen = ctx.batch, ctx.frozen
    image, domain, target = batch["image"], batch["domain"], batch["target"]
    variables = _variables(params)
    styles, codes = self._new_styles(variables, ctx, kind)
    fake = self.nets.draw(variables, frozen, image, styles[0])
    own = (
      codes.style if codes else self.nets.own_style(variables, image, domain)
    )
    terms = {
      "adversarial": adversarial.bce(
        self.nets.judge(variables, fake, target), 1.0
      ),
      "cycle": reconstruction.l1(
        self.nets.draw(variables, frozen, fake, own), image
      ).mean(),
      "style": reconstruction.l1(
        self.nets.own_style(variables, fake, target), styles[0]
      ).mean(),
    }
    if self._uses("perceptual"):
      terms["perceptual"] = self.perceptual.distance(
        frozen, image, fake, batch.get("landmarks5")
      ).mean()
    if self._uses("stay"):
      terms["stay"] = reconstruction.l1(fake, image).mean()
    if codes:
      terms["orthogonality"] = style_codes.factor_orthogonality(
        codes.unrelated, codes.related, codes.moved
      ).mean()
    elif self._uses("diversity"):
      other = self.nets.draw(variables, frozen, image, styles[1])
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

  # Looking and editing.

  def preview(self, variables, frozen, batch, rng):
    """The pictures, redrawn as they are, and with each attribute edited."""
    image, domain = batch["image"], batch["domain"]
    own = self.nets.own_style(variables, image, domain)
    rows = {
      "picture": image,
      "as_it_is": self.nets.draw(variables, frozen, image, own),
    }
    for name in self.attributes:
      for sign, word in (("+", "with"), ("-", "without")):
        made = self.edit(
          variables, frozen, {"source": image}, rng, attribute=sign + name
        )
        rows[f"{word}_{name}"] = made["image"]
    return rows

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
        the line through both.
      strengths: a strip shows these.
      has: whether the source has the first attribute; None: it has the
        opposite of what is wanted.

    Returns:
      "image" (b, s, s, 3) in [-1, 1]; with `strengths` also "strip"
      (b, s, n s, 3).

    Raises:
      ValueError: one line: an unknown attribute, a reference for several, or
        an option of another kind.
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
      if self.nets.mapped:
        own = self.nets.own_style(variables, image, domain)
        if reference is None:
          rows = inputs.get("row", jnp.arange(count))
          noise = jax.vmap(
            lambda row, at=at: jax.random.normal(
              jax.random.fold_in(jax.random.fold_in(rng, at), row),
              (self.nets.latent_dim,),
            )
          )(rows)
          new = self.nets.map(variables, noise, target)
        else:
          new = self.nets.own_style(variables, reference, target)
        style = own + strength * (new - own)
      else:
        codes = self.nets.encode(variables, image, domain, target=target)
        if reference is not None:
          related = self.nets.encode(variables, reference, target).related
          codes = codes._replace(moved=related)
        style = codes.edited(strength)
      # Clipped each time: a sequence is the same as edits of edits.
      image = jnp.clip(
        self.nets.draw(variables, frozen, image, style), -1.0, 1.0
      )
    return image


def _variables(params):
  """{net: variables} of {net: parameters}."""
  return {net: {"params": tree} for net, tree in params.items()}
