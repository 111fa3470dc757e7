"""L2M-GAN on synthetic heads: the paper's setting shrunk to any machine.

`configs/l2m_gan.py` lists what deviates. Nothing here is published.
"""

import copy

from configs.common import (
  constant_rates,
  data,
  optimizer,
  small_identity,
  small_identity_stage,
  stage,
)
from configs.l2m_gan_paper import (
  FILES,
  HELD_OUT,
  OFFICIAL_FACTORS,
  STARGAN_V2,
  UNOFFICIAL,
  to_stargan_v2,
)

ATTRIBUTES = ("Smiling", "Eyeglasses", "Bangs")

STEPS = {
  "": dict(
    identity=350,
    labels=2000,
    gan=4000,
    eval_attributes=2000,
    eval_identity=500,
  ),
  "long": dict(
    identity=600,
    labels=3000,
    gan=12000,
    eval_attributes=4000,
    eval_identity=1500,
  ),
}
STEPS["long_no_orthogonality"] = STEPS["long"]
# Each of its steps updates the generator twice.
STEPS["long_stargan_v2"] = dict(STEPS["long"], gan=9000)
# As many updates of the generator as `long`, and no labels.
STEPS["published"] = dict(STEPS["long"], labels=0, gan=9000)
STEPS["published_skips"] = dict(STEPS["published"], landmarks=3000)

# Variants on the larger sets.
LONG = tuple(name for name in STEPS if name)
# Steps in which the published generator learns to draw what it sees.
DRAWING = 3000

# Weights of the losses: deviations, for a short training of small nets.
EMBEDDED = dict(
  adversarial=1.0,
  cycle=5.0,  # published: 1
  style=1.0,  # published: 2, or 1 (OFFICIAL)
  perceptual=0.2,  # published: 2, or 1; of another net's features
  orthogonality=1.0,
  pixel_l1=5.0,  # not published
  labels=1.0,  # not published
)


def shrink(paper, variant):
  """Narrower nets, fewer steps, three attributes of synthetic heads at 64 px.

  Args:
    paper: the paper's setting (`l2m_gan_paper.paper`); left as it is.
    variant: one of STEPS.

  Returns:
    The config: the paper's stages and, before them, that of the identity net
    whose features stand for ImageNet's. Of the paper's nets `features` is
    left out, and but for `published_skips` `fan`, whose stage that one has.
  """
  config = copy.deepcopy(paper)
  long = variant in LONG
  world = synthetic_heads(long)
  config.update(
    seed=0,
    image_size=64,
    stages=("identity", "gan"),
    # Nets, trained apart from the others, that only evaluate edits.
    eval_stages=("eval_attributes", "eval_identity"),
  )
  shrink_nets(config["nets"])
  counts, stages = STEPS[variant], config["stage"]
  shrink_gan(stages["gan"], world, counts)
  for name, seed in (("identity", 0), ("eval_identity", 1)):
    stages[name] = small_identity_stage(world, counts[name], seed, 2)
    stages[name]["recipe"]["optimizer"]["kind"] = "muon"
  # A set of its own: a smile at 64 px takes more people to learn than an edit.
  people = dict(
    world,
    folder=f"{world['folder']}_eval",
    identities=4000 if long else 2000,
    edited_attributes=(),
    eval_edits=0,
  )
  stages["eval_attributes"] = classifier_stage(
    people, counts["eval_attributes"]
  )
  recipe = stages["gan"]["recipe"]
  if variant == "long_no_orthogonality":
    recipe["weights"]["orthogonality"] = 0.0
  if variant == "long_stargan_v2":
    own = recipe["weights"]
    recipe["weights"] = dict(STARGAN_V2, labels=own["labels"], r1=own["r1"])
    to_stargan_v2(config, width=64)
    recipe["optimizers"]["mapping_network"].update(
      recipe["optimizers"]["generator"]
    )
    config["stages"] = ("gan",)  # there is no perceptual term
  if variant.startswith("published"):
    to_published(config)
  if variant == "published_skips":
    add_skips(config, counts["landmarks"])
  return config


def synthetic_heads(long):
  """Heads with and without the attributes."""
  return dict(
    kind="synthetic_heads",
    folder="synthetic_heads_64_attributes" + ("_long" if long else ""),
    seed=0,
    identities=2000 if long else 700,
    frames=4,
    test_identities=128 if long else 64,
    validation_identities=64 if long else 0,
    eval_pairs=0,
    eval_swaps=0,
    balance=ATTRIBUTES,
    edited_attributes=ATTRIBUTES,
    eval_edits=300 if long else 96,
  )


def shrink_nets(nets):
  """Narrow nets, and a generator that adds its output to the picture."""
  del nets["fan"], nets["features"]
  # Not published: frames are taken away by looking at them.
  nets["generator"] = dict(
    kind="unet", weights="", channels=16, max_channels=64, halvings=3
  )
  for name in ("style_encoder", "discriminator"):
    nets[name].update(channels=16, max_channels=128)
  nets["style_encoder"].update(OFFICIAL_FACTORS)
  nets["identity"] = small_identity()
  # Looks at a square round eyes and nose, enlarged: its stem quarters it.
  nets["classifier"] = dict(
    stages=(1, 1, 1, 1), width=16, input_size=96, reach=6.0
  )


def shrink_gan(part, world, counts):
  """The stage of the edits, for synthetic heads and few steps."""
  steps, labels = counts["gan"], counts["labels"]
  part.update(
    data=data(
      world,
      8,
      dict(
        kind="domains",
        references=0,
        same_domain_probability=0.2,  # published: 0.5
      ),
      num_threads=2,
    ),
    steps=steps,
    preview_every=500,
    checkpoint_every=500,
  )
  del part["keep_period"]
  recipe = part["recipe"]
  # These two start after the labels; their rate falls in the second half of
  # what is left.
  late = dict(decay_start=labels + (steps - labels) // 2)
  recipe.update(
    attributes=ATTRIBUTES,
    optimizer=optimizer(3e-3, steps, 0, kind="muon", clip=0.0, b1=0.0, b2=0.99),
    optimizers=dict(generator=late, style_encoder=late),
    perceptual="identity",
    # A smile at 64 px changes little, and a smooth discriminator is blind to
    # it; one that is not smooth is fooled by noise. Smoother as edits are
    # learned.
    weights=dict(
      EMBEDDED,
      # published: 1
      r1=dict(start=0.1, end=0.3, begin=labels, steps=steps - labels),
    ),
    generator_start=labels,
    ema_warms_up=True,
    alignment="synthetic_heads",
  )
  part["evaluators"]["attributes"].update(
    split="attributes",
    reads=ATTRIBUTES,
    counterfactuals=True,
    weights=dict(FILES),
  )


def to_published(config):
  """The published generator and the published losses, in place of ours.

  The generator sees a picture through a bottleneck, so it has to learn to draw
  first: for DRAWING steps the mean change of all pixels fades out while the
  adversarial term fades in (not published).
  """
  config["nets"]["generator"] = dict(
    kind="stargan_v2",
    weights="",
    channels=24,  # published: 2^14 / 64
    max_channels=96,  # published: 512
    w_hpf=0.0,  # published: 1
  )
  recipe = config["stage"]["gan"]["recipe"]
  recipe.update(
    # published: 1e-4, and a weight decay of 1e-4
    optimizer=optimizer(5e-4, clip=0.0, b1=0.0, b2=0.99),
    optimizers=dict(),
    weights=dict(
      UNOFFICIAL,  # perceptual: of another net's features
      adversarial=dict(start=0.0, end=1.0, steps=DRAWING),
      pixel_l1=dict(start=10.0, end=0.0, steps=DRAWING),
      r1=0.1,  # published: 1
    ),
    generator_start=0,
    ema_decay=0.998,  # published: 0.999
  )


def add_skips(config, steps):
  """The published generator's skips, and the stage of their landmark net."""
  nets, stages = config["nets"], config["stage"]
  nets["generator"]["w_hpf"] = 1.0
  # Of 68 points (published: 98), trained by the stage `landmarks`.
  nets["fan"] = dict(weights="", landmarks=68, width=16, input_size=128)
  stages["landmarks"] = landmark_stage(steps)
  config["stages"] = ("landmarks", *config["stages"])


def landmark_stage(steps):
  """The stage of the net whose points open the skips, on people of its own."""
  people = dict(
    synthetic_heads(long=True),
    folder="synthetic_heads_64_landmarks",
    balance=(),
    edited_attributes=(),
    eval_edits=0,
    landmarks68=True,
  )
  return stage(
    dict(
      name="landmarks",
      optimizer=optimizer(1e-3, steps, 100),
      loss="adaptive_wing",
      sigma=1.0,
      ema_decay=0.998,
      net="fan",
    ),
    data(
      people,
      16,
      transforms=dict(
        jitter=dict(low=0.75, high=1.2, shift=0.1),
        flip=0.5,
        photometric=dict(probability=0.5),
      ),
      num_threads=2,
    ),
    steps,
    evaluators=dict(held_out=dict(kind="landmark_error", split="test")),
  )


def classifier_stage(people, steps):
  """The stage of the net that only evaluates, on more people."""
  return stage(
    dict(
      name="attributes",
      attributes=ATTRIBUTES,
      optimizer=optimizer(3e-3, steps, 50, kind="muon"),
      ema_decay=0.99,
      jitter=0.04,
    ),
    data(
      people,
      32,
      dict(kind="attributes"),
      # Blur and noise hide faint smiles.
      dict(photometric=dict(probability=0.5, noise=0.0, blur=0.0, grey=0.0)),
      num_threads=2,
    ),
    steps,
    evaluators=dict(held_out=dict(HELD_OUT)),
  )


def smoke(config):
  """The config cut down to seconds, for tests and first tries."""
  nets = config["nets"]
  for net in ("generator", "style_encoder", "discriminator"):
    nets[net].update(channels=4, max_channels=8)
  nets["style_encoder"]["style_dim"] = 8
  nets["identity"].update(widths=(8, 8, 8, 8), stem=8, embedding=16)
  nets["classifier"].update(stages=(1, 1), width=4, input_size=32)
  if "fan" in nets:
    nets["fan"].update(width=2, input_size=64)
  for name, part in config["stage"].items():
    part.update(steps=3, log_every=1, preview_every=3, checkpoint_every=2)
    part["data"]["source"] = small(part["data"]["source"])
    part["data"]["loader"]["batch_size"] = 8
    recipe = part["recipe"]
    constant_rates(recipe)
    if name in ("identity", "eval_identity"):
      recipe["identities"] = 4
    if name == "gan":
      recipe["generator_start"] = min(1, recipe["generator_start"])
      for term in ("adversarial", "pixel_l1"):
        if isinstance(recipe["weights"][term], dict):
          recipe["weights"][term]["steps"] = 2
  return config


def small(source):
  """The smallest set that has both sides of every attribute."""
  kinds = ("_eval", "_landmarks")
  own = next((k for k in kinds if source["folder"].endswith(k)), "")
  return dict(
    source,
    folder=f"synthetic_heads_smoke_attributes{own}",
    identities=4,
    test_identities=2,
    frames=2,
    eval_edits=6 if source["edited_attributes"] else 0,
  )
