"""L2M-GAN on CelebA-HQ as in the paper, and StarGAN v2: `celeba_hq_*`.

Sizes and rates of the two published codes; `configs/l2m_gan.py` lists what
neither the paper nor they say. Not run: the data is downloaded by hand.
"""

from configs.common import arcface, data, optimizer, run, stage

# Attributes that are read to see whether an edit changes others.
READS = ("Smiling", "Male", "Young", "Bangs", "Eyeglasses")
# Attributes of the paper's variants.
CELEBA = {
  "celeba_hq_smiling": ("Smiling",),
  "celeba_hq_smiling_official": ("Smiling",),
  "celeba_hq_male": ("Male",),
  "celeba_hq_multi": READS,
  "stargan_v2": ("Male",),
}

# Weights of the losses: defaults of songquanpeng/L2M-GAN (config.py), and flags
# of rucmlcv/L2M-GAN (main.py).
UNOFFICIAL = dict(
  adversarial=1.0,
  cycle=1.0,
  style=2.0,
  perceptual=2.0,
  orthogonality=1.0,
  r1=1.0,
)
OFFICIAL = dict(UNOFFICIAL, style=1.0, perceptual=1.0)
# What the two make of the decomposer and the domain transformers
# (models/style_transformer.py; core/model.py).
UNOFFICIAL_FACTORS = dict(factor_layers=4, rectified=True)
OFFICIAL_FACTORS = dict(factor_layers=3, rectified=False)
STARGAN_V2 = dict(
  adversarial=1.0,
  cycle=1.0,
  style=1.0,
  r1=1.0,
)  # and diversity, see `to_stargan_v2`
# Files in place of nets that only evaluate, and those of FID.
FILES = dict(classifier="", identity="", inception="", inception_torchvision="")
# Evaluates the classifier.
HELD_OUT = dict(kind="attribute_accuracy", split="test")

# How pictures are changed at random.
CROPS = dict(
  resized_crop=dict(probability=0.5, scale=(0.8, 1.0), ratio=(0.9, 1.1)),
  flip=0.5,
)


def celeba_hq(variant):
  """One of CELEBA, on CelebA-HQ as prepared (docs/data.md)."""
  attributes = CELEBA[variant]
  split_by = attributes[0] if len(attributes) == 1 else "celeba"
  # Of an attribute: 1,412 test pictures of each side, the others train.
  pictures = dict(
    kind="array_record", folder="celeba_hq_256", split_by=split_by
  )
  if variant == "stargan_v2":
    config = paper(attributes, pictures, READS, STARGAN_V2)
    to_stargan_v2(config)
    # As its files are read.
    config["nets"]["style_encoder"]["factor_layers"] = 0
    # StarGAN v2 draws ten styles for each picture.
    evaluators = config["stage"]["gan"]["evaluators"]
    evaluators["attributes"]["fid"]["outputs"] = 10
    return config
  config = paper(attributes, pictures, READS, UNOFFICIAL)
  if variant.endswith("_official"):
    to_official(config)
  return config


def to_official(config):
  """Turns the unofficial training code's setting into the authors' release.

  Args:
    config: from `paper`; changed.
  """
  nets, part = config["nets"], config["stage"]["gan"]
  nets["style_encoder"].update(OFFICIAL_FACTORS)
  # The 512 numbers before the last layer; the other code compares logits.
  nets["features"].update(
    classes=None, weights=nets["features"]["weights"].replace("_logits", "")
  )
  part["recipe"]["weights"].update(OFFICIAL)
  part["evaluators"]["attributes"]["fid"]["torchvision_rule"] = "l2m-gan"


def folders(attribute):
  """The paper's setting for pictures in two folders, without and with."""
  pictures = dict(
    kind="domain_folder",
    folder="faces",
    alignment="celeba_hq",
    broken="refuse",
  )
  return paper((attribute,), pictures, (attribute,), UNOFFICIAL)


def paper(attributes, pictures, reads, terms, weights="weights"):
  """Pictures of 256 px, sizes and rates of the unofficial training code.

  Args:
    attributes: names of what is edited.
    pictures: the source.
    reads: names of what is read in edits.
    terms: weights of the losses.
    weights: folder of converted files.
  """
  return run(
    "l2m_gan",
    256,
    nets(weights),
    ("gan",),
    dict(
      gan=gan_stage(attributes, pictures, reads, terms, weights),
      eval_attributes=classifier_stage(pictures, reads),
    ),
    seed=777,
    eval_stages=("eval_attributes",),
  )


def nets(weights):
  """The published sizes: 2^14 / 256 channels at first."""
  trunk = dict(weights="", channels=64, max_channels=512)
  return dict(
    generator=dict(trunk, w_hpf=1.0),
    style_encoder=dict(trunk, style_dim=64, **UNOFFICIAL_FACTORS),
    discriminator=dict(trunk),
    fan=dict(
      weights=f"{weights}/l2m_fan.safetensors",
      landmarks=98,
      width=64,
      input_size=256,
    ),
    features=dict(
      weights=f"{weights}/resnet18_logits.safetensors", classes=1000
    ),
    # These two only evaluate.
    identity=arcface(),
    classifier=dict(stages=(2, 2, 2, 2), width=64),
  )


def gan_stage(attributes, pictures, reads, terms, weights):
  """The stage that trains the edits."""
  attributes = tuple(attributes)
  recipe = dict(
    name="l2m_gan",
    styles="factored",
    attributes=attributes,
    optimizer=optimizer(
      1e-4, kind="adam_l2", clip=0.0, b1=0.0, b2=0.99, weight_decay=1e-4
    ),
    optimizers=dict(),  # of single nets, where they differ
    perceptual="features",
    lpips_weights="",
    weights=dict(terms),
    generator_start=0,
    ema_decay=0.999,
    ema_warms_up=False,
    alignment="celeba_hq",
  )
  evaluator = dict(
    kind="attributes",
    split="test",
    edits=0,  # all
    reads=reads,
    counterfactuals=False,
    weights=dict(
      FILES,
      identity=f"{weights}/arcface.safetensors",
      inception_torchvision=f"{weights}/inception_torchvision.safetensors",
    ),
    fid=dict(
      true_split="train",
      edit_split="test",
      pictures=0,
      outputs=1,
      torchvision_rule="stargan-v2",
    ),
  )
  return stage(
    recipe,
    data(
      pictures,
      8,
      dict(kind="domains", references=0),
      CROPS,
    ),
    100_000,
    preview_every=1000,
    checkpoint_every=5000,
    keep_period=10_000,
    evaluators=dict(attributes=evaluator),
  )


def classifier_stage(pictures, reads):
  """The stage of the net that only evaluates."""
  steps = 10_000
  return stage(
    dict(
      name="attributes",
      attributes=reads,
      optimizer=optimizer(1e-3, steps, 500),
      ema_decay=0.999,
      jitter=0.02,
    ),
    data(pictures, 64, dict(kind="attributes"), CROPS),
    steps,
    evaluators=dict(held_out=dict(HELD_OUT)),
  )


def to_stargan_v2(config, width=512):
  """Turns a configuration's styles and losses into StarGAN v2's.

  Args:
    config: of this method; its weights are StarGAN v2's already, but for the
      diversity. Changed.
    width: of the mapping network.
  """
  part = config["stage"]["gan"]
  recipe = part["recipe"]
  recipe["styles"] = "mapped"
  # A hundredth of the other nets' rate.
  slow = recipe["optimizer"]["lr"] / 100
  recipe["optimizers"]["mapping_network"] = dict(lr=slow)
  recipe["perceptual"] = "none"
  begin = recipe["generator_start"]
  recipe["weights"]["diversity"] = dict(
    start=1.0, end=0.0, begin=begin, steps=part["steps"] - begin
  )
  part["data"]["sampler"]["references"] = 2
  config["nets"]["mapping_network"] = dict(
    weights="", latent_dim=16, width=width, layers=4
  )
