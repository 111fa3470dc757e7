r"""L2M-GAN: edits of attributes (a smile, glasses, bangs) by latent codes.

    python -m faceedit_jax.main --config=configs/l2m_gan.py \
      --workdir=runs/l2m_gan

trains and evaluates the embedded default: synthetic heads at 64 px, one model
for Smiling, Eyeglasses and Bangs. After it

    python -m faceedit_jax.edit --workdir=runs/l2m_gan --source=face.png \
      --aligned --attribute=+Smiling --output=out.png

Variants (`--config=configs/l2m_gan.py:VARIANT`):
  (none)        the default.
  long          the same with more people and steps. README, "Attributes", has
                the scores of all four.
  long_no_orthogonality   the ablation: the weight of the orthogonality is 0.
  long_stargan_v2         the baseline: StarGAN v2's styles and losses
                (adversarial, cycle, style, diversity) on the same data, with
                the U-Net, the labels and r1 of the embedded runs.
  celeba_hq_smiling, celeba_hq_male   the paper's setting: CelebA-HQ at 256 px,
                one attribute, batch 8, 100 k steps (StarGAN v2, the same nets:
                about 3 days on one V100). Not run: the data is downloaded by
                hand (docs/data.md).
  celeba_hq_multi         one model for Smiling, Male, Young, Bangs and
                Eyeglasses, the attributes of the paper's first figure. Not run.
  celeba_hq_smiling_official  weights of the losses as the flags of the authors'
                release have them. Not run.
  stargan_v2    StarGAN v2 on CelebA-HQ (Male, as its authors). Not run.
                Published (clovaai/stargan-v2, README): FID 13.73 from noise,
                which is what the scores measure; 23.84 from references.
  folders=NAME  the paper's setting on two folders of your own, of which the
                second is called NAME (docs/l2m_gan.md). Not run on photos.
  smoke         the default cut down to seconds, for tests.

Neither paper nor release has training code; what stands here for it:
  loss weights        those of the only published training code
                      (songquanpeng/L2M-GAN): r1 1, cycle 1, style 2,
                      perceptual 2, orthogonality 1; the flags of the authors'
                      release: all 1
  perceptual features ResNet-18 of ImageNet, 512 numbers after the mean over
                      pixels (our choice: the training code compares logits,
                      the release holds the net without its last layer)
  weight decay        1e-4 inside the gradient, as torch's Adam has it
  EMA                 0.999, parameters only
  several attributes  two domains each; heads and transformers of all domains on
                      one trunk, one decomposer (StarGAN v2's issues 30 and 31)
Deviations of the embedded default, all for a training this short:
  nets          narrow; the generator is a U-Net that adds its output to the
                picture (`kind="unet"`): what an edit leaves alone is there at
                once, and thin frames are taken away by looking at them. The
                published one, its output added too and without skips (the masks
                that open them need published weights), did not learn to take
                them away in 5,000 steps of edits
  discriminator learns which side of each attribute real pictures are on, alone
                at first (`labels`, `generator_start`; Reed et al. 2016)
  losses        cycle 5, style 1, r1 0.1 to 0.3, perceptual 0.2 in our own
                identity net; `pixel_l1` 5, the mean change of all pixels
  targets       one in five is what the picture has (published: half)
  optimiser     Muon (published: Adam)
"""

from ml_collections import ConfigDict

from configs.common import check_variant, optimizer
from configs.common import stage as stage_of

ATTRIBUTES = ("Smiling", "Eyeglasses", "Bangs")

VARIANTS = (
  "",
  "long",
  "long_no_orthogonality",
  "long_stargan_v2",
  "celeba_hq_smiling",
  "celeba_hq_male",
  "celeba_hq_multi",
  "celeba_hq_smiling_official",
  "stargan_v2",
  "folders",
  "smoke",
)

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

# Weights of the losses.
UNOFFICIAL = dict(
  adversarial=1.0,
  cycle=1.0,
  style=2.0,
  perceptual=2.0,
  orthogonality=1.0,
  r1=1.0,
)
OFFICIAL = dict(UNOFFICIAL, style=1.0, perceptual=1.0)
STARGAN_V2 = dict(
  adversarial=1.0,
  cycle=1.0,
  style=1.0,
  r1=1.0,
)  # and diversity, see `mapped`
# Deviations, for a short training of small nets.
EMBEDDED = dict(
  adversarial=1.0,
  cycle=5.0,  # published: 1
  style=1.0,  # published: 2, or 1 (OFFICIAL)
  perceptual=0.2,  # published: 2, or 1; of another net's features
  orthogonality=1.0,
  pixel_l1=5.0,  # not published
  labels=1.0,  # not published
)


def get_config(variant=""):
  """The configuration of a variant.

  Args:
    variant: one of VARIANTS, or "folders=NAME".

  Returns:
    A ConfigDict: nets by name, and the stages in order.

  Raises:
    ValueError: unknown variant.
  """
  kind, _, name = variant.partition("=")
  if kind == "folders":
    return ConfigDict(folders(name or "b"))
  check_variant(variant, VARIANTS, "configs/l2m_gan.py")
  if variant in CELEBA:
    attributes = CELEBA[variant]
    split_by = attributes[0] if len(attributes) == 1 else "celeba"
    # Of an attribute: 1,412 test pictures of each side, the others train.
    data = dict(
      source="array_record", folder="celeba_hq_256", split_by=split_by
    )
    return ConfigDict(paper(attributes, data, READS, variant))
  config = embedded("" if variant == "smoke" else variant)
  recipe = config["stage"]["gan"]["recipe"]
  if variant == "long_no_orthogonality":
    recipe["weights"]["orthogonality"] = 0.0
  if variant == "long_stargan_v2":
    own = recipe["weights"]
    recipe["weights"] = dict(STARGAN_V2, labels=own["labels"], r1=own["r1"])
    mapped(config)
    config["nets"]["mapping_network"]["width"] = 64  # published: 512
    config["stages"] = ("gan",)  # there is no perceptual term
  if variant == "smoke":
    smoke(config)
  return ConfigDict(config)


def nets(channels, max_channels, generator):
  """The nets that both settings have, around a generator."""
  trunk = dict(channels=channels, max_channels=max_channels)
  return dict(
    generator=generator,
    style_encoder=dict(trunk, style_dim=64, factor_layers=3, rectified=False),
    discriminator=dict(trunk),
  )


def gan(attributes, weights, optimizer, data, steps, **more):
  """The stage that trains the edits."""
  recipe = dict(
    name="l2m_gan",
    styles="factored",
    attributes=tuple(attributes),
    optimizer=optimizer,
    optimizers=dict(),  # of single nets, where they differ
    perceptual="identity",
    lpips_weights="",
    weights=dict(weights),
    generator_start=0,
    ema_decay=0.999,
    ema_warms_up=False,
  )
  recipe.update(more)
  return stage_of(
    recipe,
    dict(data, sampler="domains", attributes=tuple(attributes), references=0),
    steps,
  )


def mapped(config):
  """Turns a configuration into StarGAN v2's."""
  for part in config["stage"].values():
    recipe = part["recipe"]
    if recipe["name"] != "l2m_gan":
      continue
    recipe["styles"] = "mapped"
    # A hundredth of the other nets' rate.
    slow = recipe["optimizer"]["lr"] / 100
    recipe["optimizers"]["mapping_network"] = dict(lr=slow)
    weights, begin = recipe["weights"], recipe["generator_start"]
    recipe["perceptual"] = "none"
    weights["diversity"] = dict(
      start=1.0, end=0.0, begin=begin, steps=part["steps"] - begin
    )
    part["data"]["references"] = 2
  config["nets"]["mapping_network"] = dict(
    weights="", latent_dim=16, width=512, layers=4
  )


def embedded(variant):
  """Synthetic heads at 64 px."""
  long = variant.startswith("long")
  identities = 2000 if long else 700
  world = dict(
    source="synthetic_heads",
    folder="synthetic_heads_64_attributes" + ("_long" if long else ""),
    size=64,
    seed=0,
    identities=identities,
    frames=4,
    test_identities=128 if long else 64,
    validation_identities=64 if long else 0,
    pairs=0,
    swaps=0,
    balance=ATTRIBUTES,
    attributes=ATTRIBUTES,
    edits=300 if long else 96,
    num_threads=2,
  )
  steps = STEPS[variant]
  # Not published: frames are taken away by looking at them.
  unet = dict(kind="unet", channels=16, max_channels=64, halvings=3)
  made = nets(16, 128, unet)
  made["identity"] = dict(
    stages=(2, 2, 2, 2),
    widths=(16, 32, 64, 128),
    stem=16,
    embedding=128,
    input_size=40,
  )
  # Looks at a square round eyes and nose, enlarged: its stem quarters it.
  made["classifier"] = dict(
    stages=(1, 1, 1, 1), width=16, input_size=96, reach=6.0
  )

  def identity(seed, count):
    return stage_of(
      dict(
        name="identity",
        optimizer=optimizer(1e-3, count, 50, kind="muon"),
        identities=identities,
        margin=0.3,
        scale=24.0,
        jitter=0.01,
      ),
      dict(world, batch_size=48, sampler="single"),
      count,
      seed=seed,
    )

  count, labels = steps["gan"], steps["labels"]
  # A smile at 64 px changes little, and a smooth discriminator is blind to it;
  # one that is not smooth is fooled by noise. Smoother as edits are learned.
  weights = dict(
    EMBEDDED,
    # published: 1
    r1=dict(start=0.1, end=0.3, begin=labels, steps=count - labels),
  )
  stage = gan(
    ATTRIBUTES,
    weights,
    optimizer(3e-3, count, 0, kind="muon", clip=0.0, b1=0.0, b2=0.99),
    dict(world, batch_size=8, keep=0.2),  # published: 0.5
    count,
    generator_start=labels,
    ema_warms_up=True,
  )
  stage["evaluators"] = edits_by_attribute(split="attributes")
  count = steps["eval_attributes"]
  # A set of its own: a smile at 64 px takes more people to learn than an edit.
  people = dict(
    world,
    folder=f"{world['folder']}_eval",
    identities=4000 if long else 2000,
    attributes=(),
    edits=0,
  )
  classifier = stage_of(
    dict(
      name="attributes",
      attributes=ATTRIBUTES,
      optimizer=optimizer(3e-3, count, 50, kind="muon"),
      ema_decay=0.99,
      jitter=0.04,
    ),
    dict(
      people,
      batch_size=32,
      sampler="attributes",
      attributes=ATTRIBUTES,
      # Blur and noise hide faint smiles.
      photometric=dict(probability=0.5, noise=0.0, blur=0.0, grey=0.0),
    ),
    count,
    evaluators=HELD_OUT,
  )
  return dict(
    name="l2m_gan",
    seed=0,
    data_dir="data",
    tensorboard=True,
    mesh=dict(data=-1, fsdp=1),
    compute_dtype="float32",
    image_size=64,
    nets=made,
    stages=("identity", "gan"),
    # Nets, trained apart from the others, that only evaluate edits.
    eval_stages=("eval_attributes", "eval_identity"),
    stage=dict(
      identity=identity(0, steps["identity"]),
      gan=stage,
      eval_attributes=classifier,
      eval_identity=identity(1, steps["eval_identity"]),
    ),
  )


# Files in place of nets that only evaluate, and those of FID.
FILES = dict(classifier="", identity="", inception="", inception_torchvision="")
# Evaluates a classifier of attributes.
HELD_OUT = dict(held_out=dict(kind="attribute_accuracy", split="test"))


def edits_by_attribute(
  split, reads=ATTRIBUTES, counterfactuals=True, outputs=1, **files
):
  """The evaluator of attribute edits.

  Args:
    split: of the pictures that are edited.
    reads: names of what the classifier reads.
    counterfactuals: whether the split holds true outcomes.
    outputs: edits of each picture, for FID.
    **files: of FILES, in place of "".
  """
  evaluator = dict(
    kind="attributes",
    split=split,
    edits=0,  # all
    reads=reads,
    counterfactuals=counterfactuals,
    weights=dict(FILES, **files),
    fid=dict(
      true_split="train", edit_split="test", pictures=0, outputs=outputs
    ),
  )
  return dict(attributes=evaluator)


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


def paper(attributes, pictures, reads, variant="", weights="weights"):
  """CelebA-HQ at 256 px, sizes and rates of the released code.

  Args:
    attributes: names of what is edited.
    pictures: what names the set.
    reads: names of what is read in edits.
    variant: one of CELEBA.
    weights: folder of converted files.
  """
  baseline = variant == "stargan_v2"
  # 2^14 / 256 channels at first.
  made = nets(64, 512, dict(channels=64, max_channels=512, w_hpf=1.0))
  for section in made.values():
    section["weights"] = ""  # a converted file to start from
  made["fan"] = dict(
    weights=f"{weights}/l2m_fan.safetensors",
    landmarks=98,
    width=64,
    input_size=256,
  )
  made["features"] = dict(weights=f"{weights}/resnet18.safetensors")
  # These two only evaluate.
  made["identity"] = dict(
    stages=(3, 4, 14, 3),
    widths=(64, 128, 256, 512),
    stem=64,
    embedding=512,
    input_size=112,
  )
  made["classifier"] = dict(stages=(2, 2, 2, 2), width=64)
  terms = UNOFFICIAL
  if baseline:
    terms = STARGAN_V2
  elif variant.endswith("_official"):
    terms = OFFICIAL
  data = dict(
    pictures,
    batch_size=8,
    resized_crop=dict(probability=0.5, scale=(0.8, 1.0), ratio=(0.9, 1.1)),
    flip=0.5,
    num_threads=8,
  )
  steps = 100_000
  stage = gan(
    attributes,
    terms,
    optimizer(
      1e-4, kind="adam_l2", clip=0.0, b1=0.0, b2=0.99, weight_decay=1e-4
    ),
    data,
    steps,
    perceptual="features",
    alignment="celeba_hq",
  )
  stage["evaluators"] = edits_by_attribute(
    split="test",
    reads=reads,
    counterfactuals=False,
    identity=f"{weights}/arcface.safetensors",
    inception_torchvision=f"{weights}/inception_torchvision.safetensors",
    # StarGAN v2 draws ten styles for each picture.
    outputs=10 if baseline else 1,
  )
  classifier = stage_of(
    dict(
      name="attributes",
      attributes=reads,
      optimizer=optimizer(1e-3, 10_000, 500),
      ema_decay=0.999,
      jitter=0.02,
    ),
    dict(data, batch_size=64, sampler="attributes", attributes=reads),
    10_000,
    evaluators=HELD_OUT,
  )
  stage.update(preview_every=1000, checkpoint_every=5000, keep_every=10_000)
  config = dict(
    name="l2m_gan",
    seed=777,
    data_dir="data",
    tensorboard=True,
    mesh=dict(data=-1, fsdp=1),
    compute_dtype="float32",
    image_size=256,
    nets=made,
    stages=("gan",),
    eval_stages=("eval_attributes",),
    stage=dict(gan=stage, eval_attributes=classifier),
  )
  if baseline:
    mapped(config)
    made["style_encoder"]["factor_layers"] = 0  # as its files are read
  return config


def folders(attribute):
  """The paper's setting for pictures in two folders, without and with."""
  pictures = dict(
    source="domain_folder", folder="faces", size=256, alignment="celeba_hq"
  )
  return paper((attribute,), pictures, (attribute,))


def smoke(config):
  """Cuts a configuration down to seconds, for tests and first tries."""
  made = config["nets"]
  for net in ("generator", "style_encoder", "discriminator"):
    made[net].update(channels=4, max_channels=8)
  made["style_encoder"]["style_dim"] = 8
  made["identity"].update(widths=(8, 8, 8, 8), stem=8, embedding=16)
  made["classifier"].update(stages=(1, 1), width=4, input_size=32)
  for name, part in config["stage"].items():
    part.update(steps=3, log_every=1, preview_every=3, checkpoint_every=2)
    part["data"] = small(part["data"])
    recipe = part["recipe"]
    recipe["optimizer"].update(
      schedule="constant", warmup_steps=0, total_steps=0
    )
    if name in ("identity", "eval_identity"):
      recipe["identities"] = 4
    if name == "gan":
      recipe.update(generator_start=1)


def small(data):
  """The smallest set that has both sides of every attribute."""
  own = "_eval" if data["folder"].endswith("_eval") else ""
  return dict(
    data,
    folder=f"synthetic_heads_smoke_attributes{own}",
    identities=4,
    test_identities=2,
    frames=2,
    edits=6,
    **({"batch_size": 8} if "batch_size" in data else {}),
  )
