"""L2M-GAN: training of attribute edits on images."""

from configs import difffae

from ml_collections import ConfigDict


ATTRIBUTES = ("Smiling", "Eyeglasses", "Bangs")


def get_config(variant=""):
  config = embedded(variant)
  return ConfigDict(config)


def embedded(variant):
  long = variant != ""
  world = dict(
    source="synthetic_heads",
    folder="synthetic_heads_64_attributes" + ("_long" if long else ""),
    size=64,
    seed=0,
    identities=2000 if long else 700,
    frames=4,
    balance=ATTRIBUTES,
    validation_identities=64,
    test_identities=128,
    pairs=0,
    swaps=0,
    num_threads=2,
  )
  width, cap = 16, 32
  nets = dict(
    generator=dict(channels=width, max_channels=cap, w_hpf=0.0),
    style_encoder=dict(
      channels=width, max_channels=128, style_dim=64, factor_layers=3
    ),
    discriminator=dict(channels=width, max_channels=128),
    mapping_network=dict(latent_dim=16, width=64, layers=4),
    identity=dict(
      stages=(2, 2, 2, 2),
      widths=(16, 32, 64, 128),
      stem=16,
      embedding=128,
      input_size=40,
    ),
  )
  gan = difffae.stage(
    dict(
      name="l2m_gan",
      styles="factored",
      attributes=ATTRIBUTES,
      optimizer=dict(kind="muon", lr=5e-3, b1=0.0, b2=0.99),
      optimizers=dict(discriminator=dict(kind="adam", lr=1e-3)),
      perceptual="none",
      weights=dict(
        adversarial=1.0,
        cycle=5.0,
        style=1.0,
        perceptual=0.0,
        orthogonality=1.0,
        diversity=0.0,
        stay=5.0,
        own=0.0,
        r1=1.0,
      ),
      r1_every=8,
      ema_decay=0.999,
      ema_warms_up=True,
    ),
    dict(
      world,
      batch_size=8,
      sampler="domains",
      attributes=ATTRIBUTES,
      references=0,
    ),
    3000,
    log_every=25,
    preview_every=250,
    checkpoint_every=500,
  )
  return dict(
    name="l2m_gan",
    seed=0,
    data_dir="data",
    tensorboard=False,
    mesh=dict(data=-1, fsdp=1),
    compute_dtype="float32",
    image_size=64,
    nets=nets,
    stages=("gan",),
    stage=dict(gan=gan),
  )
