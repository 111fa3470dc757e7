"""L2M-GAN: edits of attributes by moving part of a picture's style code.

Trains generator, style encoder (with decomposer and domain transformers) and
discriminator against one another (L2M-GAN), and holds the edit. With
`styles="mapped"` the same nets learn StarGAN v2, the system it is built on.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import editing, optim
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.faces import perceptual_distance as perceptual_lib
from faceedit_jax.recipes.l2m_gan import losses as losses_lib
from faceedit_jax.recipes.l2m_gan import nets as nets_lib
from faceedit_jax.recipes.l2m_gan import options as options_lib
from faceedit_jax.recipes.l2m_gan import words as attribute_words

REFERENCE = "attribute_from"


@dataclasses.dataclass(frozen=True)
class L2MGANRecipe(recipe_lib.Recipe):
  """Nets `generator`, `style_encoder`, `discriminator` (, `mapping_network`).

  Phases `d` and `g`; of mapped styles `d_latent`, `d_reference`, `g_latent`
  and `g_reference`; before them `labels`, see `L2MGANOptions.generator_start`.

  Attributes:
    losses: the trained nets, with what is asked of them.
    options: see there.
    image_size: side of the pictures in pixels.
    txs: {net: its optimiser}.
  """

  losses: losses_lib.TranslationLosses
  options: options_lib.L2MGANOptions
  image_size: int
  txs: Mapping[str, optax.GradientTransformation]

  Options = options_lib.L2MGANOptions
  inference_options = ()
  traced_options = ("strength", "strengths")
  edit_inputs = (
    editing.EditInput("source", "photo", required=True),
    editing.EditInput(REFERENCE, "photo"),
  )
  keeps_frame = True

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    """Builds the recipe from all of `nets` and the stage's options."""
    attributes = options.attributes
    built = nets_lib.TranslationNets.from_config(
      nets, options.styles, 2 * len(attributes), image_size, dtype
    )
    own = options.optimizers
    unknown = sorted(set(own) - set(built.trained))
    if unknown:
      raise ValueError(
        f"recipe.optimizers has {unknown}; the nets are "
        + ", ".join(built.trained)
      )
    perceptual = perceptual_lib.from_config(
      nets, options.perceptual, options.lpips_weights, dtype
    )
    return cls(
      losses=losses_lib.TranslationLosses(
        nets=built,
        perceptual=perceptual,
        attributes=attributes,
        weights=options.weights,
      ),
      options=options,
      image_size=image_size,
      txs={
        net: options.optimizer.changed(
          own.get(net, {}), f"recipe.optimizers.{net}"
        ).make()
        for net in built.trained
      },
    )

  @property
  def nets(self) -> nets_lib.TranslationNets:
    return self.losses.nets

  @property
  def attributes(self) -> tuple[str, ...]:
    return self.options.attributes

  @property
  def alignment(self) -> str:
    return self.options.alignment

  # What the trainer asks for.

  def batch_spec(self):
    size = self.image_size
    picture = batch_lib.Field((size, size, 3), "float32", (-1.0, 1.0))
    domain = batch_lib.Field((), "int32", (0, 2 * len(self.attributes) - 1))
    spec = {"image": picture, "domain": domain, "target": domain}
    if self.nets.mapped:
      spec |= {"reference_image": picture, "second_reference_image": picture}
    if self.options.weights.uses("labels"):
      count = len(self.attributes)
      spec["attributes"] = batch_lib.Field((count,), "int32", (0, 1))
    if self.losses.perceptual.reads_points:
      spec["landmarks5"] = batch_lib.Field((5, 2), "float32")
    return spec

  def init(self, rng):
    return self.nets.init(rng)

  def init_from(self):
    return {
      net: recipe_lib.WeightSource(path=path)
      for net, path in self.nets.starts.items()
    }

  def frozen(self):
    return {**self.losses.perceptual.frozen(), **self.nets.frozen()}

  def loss_nets(self):
    return tuple(self.losses.perceptual.frozen())

  def init_frozen(self, rng):
    scale = self.losses.perceptual.init_frozen(rng, self.image_size)
    return {**scale, **self.nets.init_frozen(rng)}

  def init_unsourced(self, rng):
    del rng
    return {}  # every frozen net is trained, or read from a file

  def groups(self):
    return {net: recipe_lib.Group((net,), tx) for net, tx in self.txs.items()}

  def phases(self):
    learners = {"transformed": ("generator", "style_encoder")}
    if self.nets.mapped:
      # The encoder and the mapping network learn from noise alone.
      learners = {
        "latent": ("generator", "mapping_network", "style_encoder"),
        "reference": ("generator",),
      }
    made = []
    for side, loss in (
      ("d", self.losses.discriminator_loss),
      ("g", self.losses.generator_loss),
    ):
      for kind, groups in learners.items():
        made.append(
          recipe_lib.Phase(
            side if kind == "transformed" else f"{side}_{kind}",
            ("discriminator",) if side == "d" else groups,
            functools.partial(loss, kind=kind),
            start=self.options.generator_start,
          )
        )
    if self.options.generator_start:
      alone = recipe_lib.Phase(
        "labels",
        ("discriminator",),
        self.losses.labels_loss,
        stop=self.options.generator_start,
      )
      made.append(alone)
    return tuple(made)

  def ema(self):
    nets = tuple(net for net in self.txs if net != "discriminator")
    decay = self.options.ema_decay
    if self.options.ema_warms_up:
      decay = optim.ema_warmup(decay)
    return {"ema": recipe_lib.Ema(nets, decay)}

  # Looking and editing.

  def preview(self, variables, frozen, batch, rng):
    """The pictures, redrawn as they are, and with each attribute edited."""
    image, domain = batch["image"], batch["domain"]
    own = self.nets.own_style(variables, image, domain)
    rows = {
      "picture": image,
      "as_it_is": self.nets.generate(variables, frozen, image, own),
    }
    for index, name in enumerate(self.attributes):
      for value, word in ((True, "with"), (False, "without")):
        has = self._has(variables, image, index, value)
        # The batch says it of one attribute of each picture, or of all.
        has = jnp.where(domain // 2 == index, domain % 2, has)
        if "attributes" in batch:
          has = batch["attributes"][:, index]
        rows[f"{word}_{name}"] = self._edit(
          variables, frozen, {"source": image}, rng, ((index, value),), has, 1.0
        )
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
    has: bool | str = "auto",
  ):
    """Gives attributes to pictures, or takes them away.

    Args:
      variables: {"generator", "style_encoder", "discriminator"
        (, "mapping_network")}.
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
      has: whether the source has the first attribute. "auto": the
        discriminator reads it where it has learned the attributes' labels
        (weight `labels`); otherwise it is taken to be the opposite of what is
        wanted. Further attributes of a sequence are always told so.

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
    if has is not True and has is not False and has != "auto":
      raise ValueError(f"has is {has!r}; it must be true, false or auto")
    steps = (
      attribute_words.parse_strength(strength),
      *attribute_words.parse_strengths(strengths),
    )
    # A loop: the nets are compiled once, however long the strip is.
    first, *rest = jax.lax.map(
      functools.partial(
        self._edit,
        variables,
        frozen,
        inputs,
        rng,
        wanted,
        None if has == "auto" else has,
      ),
      jnp.stack([jnp.asarray(s, jnp.float32) for s in steps]),
    )
    out = {"image": first}
    if rest:
      out["strip"] = jnp.concatenate(rest, axis=2)
    return out

  def _has(self, variables, image, index, wanted):
    """Whether pictures have an attribute (b,), as far as that can be told."""
    if not self.options.weights.uses("labels"):
      return jnp.full(image.shape[:1], not wanted)
    logits = self.nets.discriminate(variables, image)
    return logits[:, 2 * index + 1] > logits[:, 2 * index]

  def _edit(self, variables, frozen, inputs, rng, wanted, has, strength):
    """One strength; `has` (b,), bool or None, is about the first attribute."""
    image, reference = inputs["source"], inputs.get(REFERENCE)
    count = image.shape[0]
    for at, (index, value) in enumerate(wanted):
      had = has if at == 0 else None
      if had is None:
        had = self._has(variables, image, index, value)
      domain, target = (
        2 * index + jnp.broadcast_to(jnp.asarray(side, jnp.int32), (count,))
        for side in (had, value)
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
          codes = codes._replace(transformed=related)
        style = codes.edited(strength)
      # Clipped each time: a sequence is the same as edits of edits.
      image = jnp.clip(
        self.nets.generate(variables, frozen, image, style), -1.0, 1.0
      )
    return image
