"""DiffFAE on VoxCeleb1 as in the paper: the variants `voxceleb*`.

Appendix tables 4 and 5 and section 5.1; `configs/difffae.py` lists what the
paper leaves open. Not run: the data and most of the weights are licence-gated.
"""

from configs.common import arcface, data, optimizer, run, stage

# Sampling steps that tables compare.
STEPS = (1, 2, 8, 20, 50)


def paper(size, reader="deca", weights="weights"):
  """VoxCeleb1 as in the paper: appendix tables 4 and 5, section 5.1.

  Args:
    size: side of the pictures, 256 or 512.
    reader: who reads the 3D codes: "deca", as in the paper, or "synthetic", our
      own estimator, for which no licence-gated file is needed.
    weights: folder of converted and licence-gated files.
  """
  published = reader == "deca"
  if published:
    # Our own estimator only finds the faces, on a head of its own.
    read = dict(
      locator=own_estimator(),
      locator_head=own_head(),
      **published_readers(weights),
    )
    stages = ("locator", "first_stage", "region_encoder", "denoiser")
  else:
    read = dict(
      morphable=own_head(),
      estimator=dict(own_estimator(), kind="synthetic"),
      identity=arcface(),
    )
    stages = ("estimator", "identity", "first_stage", "region_encoder")
    stages = (*stages, "denoiser")
  made = dict(
    first_stage=first_stage(published, weights),
    region_encoder=region_encoder(),
    denoiser=denoiser(published),
  )
  if published:
    own = dict(net="locator", morphable="locator_head")
    made["locator"] = estimator_stage(**own)
  else:
    made["estimator"] = estimator_stage()
    made["identity"] = identity_stage()
  return run(
    "difffae",
    size,
    dict(read, **nets(size)),
    stages,
    made,
    compute_dtype="bfloat16",
  )


def published_readers(weights):
  """FLAME, DECA with its wrinkles, and ArcFace."""
  return dict(
    morphable=dict(
      kind="flame",
      path=f"{weights}/generic_model.pkl",
      texture=256,
      albedo_path=f"{weights}/FLAME_albedo_from_BFM.npz",
      landmark_path=f"{weights}/landmark_embedding.npy",
      template_path=f"{weights}/head_template.obj",
    ),
    estimator=dict(
      kind="deca",
      weights=f"{weights}/deca.safetensors",
      outputs=dict(
        shape=100, albedo=50, expression=50, pose=6, camera=3, light=27
      ),
      stages=(3, 4, 6, 3),
      width=64,
      hidden=1024,
      input_size=224,
    ),
    # Wrinkles in texture space; the paper says "detailed texture". Without
    # this section the smooth mesh is lit.
    detail=dict(
      encoder_weights=f"{weights}/deca_detail_encoder.safetensors",
      decoder_weights=f"{weights}/deca_detail_decoder.safetensors",
      mask_path=f"{weights}/uv_face_eye_mask.png",
      fixed_path=f"{weights}/fixed_displacement_256.npy",
      size=128,
      widths=(128, 128, 64, 64, 32, 16),
    ),
    identity=arcface(weights=f"{weights}/arcface.safetensors"),
  )


def own_head():
  """The head that synthetic pictures show."""
  return dict(
    kind="procedural",
    path="",
    texture=128,
    albedo_path="",
    landmark_path="",
  )


def own_estimator():
  """Our own estimator, of that head's codes."""
  return dict(
    outputs=dict(
      shape=40, albedo=50, expression=16, pose=6, camera=3, light=27
    ),
    stages=(3, 4, 6, 3),
    width=32,
    hidden=512,
    # Larger than the pictures, which the trunk halves five times: after 800
    # steps of 32 the smile's correlation was 0.10 at 64 and 0.68 at 96
    # (512 held-out pictures, one core, this loss without loose crops).
    input_size=192,
    # The square round the face is about half as wide as the picture.
    close=4.0,
  )


def nets(size):
  """Autoencoder, slots and denoiser: appendix table 4."""
  doublings = 2 if size == 256 else 3
  return dict(
    autoencoder=dict(
      weights="",  # a published first stage to start from
      channels=128,
      mult=(1, 2, 2, 4),
      res_blocks=2,
      attention_levels=(3,),
      z_channels=4,
      embed_dim=4,
      codes=16384,
      legacy=True,
      spread=0.0,
      groups=32,
    ),
    discriminator=dict(channels=64, layers=2),
    region_encoder=dict(
      channels=64,
      mult=(1, 1, 2, 4),
      res_blocks=2,
      # Table 4: "Number of Heads 8"; read as latent slot diffusion's entry of
      # that place, channels of a head.
      head_channels=8,
      out_channels=192,
      slots=4,
      slot_size=192,
      token_size=192,
      mlp_size=192,
      iterations=3,
      stem="patchify",
      patch=8,
      groups=16,
    ),
    # Open in the paper: its decoder. Latents as target, at their own size.
    region_decoder=dict(
      target="latent",
      out_channels=4,
      grid=(8, 8),
      features=(64,) * doublings + (64,),
      strides=(2,) * doublings + (1,),
      kernel=5,
      position="linear",
    ),
    unet=dict(
      # A published U-Net to start from: section 4.3, "finetuning of LDM".
      weights="",
      in_channels=8,
      out_channels=4,
      channels=320,
      mult=(1, 2, 4, 4),
      res_blocks=2,
      attention_levels=(0, 1, 2),
      heads=8,
      context_dim=192,
      condition_dim=512,
      adain="replace",  # eq. 4; "residual" keeps the group norm
      groups=32,
      # How it is computed; see `models.unet.UNet`.
      remat="none",
      attention_kernel="auto",
    ),
  )


def voxceleb(batch_size, sampler):
  """Pictures of VoxCeleb1, as prepared (docs/voxceleb.md)."""
  pictures = dict(kind="array_record", folder="voxceleb1")
  return data(pictures, batch_size, dict(kind=sampler))


def voxceleb_stage(recipe, data, steps, **more):
  """A stage on VoxCeleb1: long, so seldom looked at."""
  rare = dict(preview_every=5000, checkpoint_every=5000, evaluate=False)
  return stage(recipe, data, steps, **dict(rare, **more))


def estimator_stage(**nets):
  """Our own estimator, which learns on synthetic heads, whatever it reads."""
  steps = 12800
  return stage(
    dict(
      name="estimator",
      optimizer=optimizer(2e-3, steps, 100),
      points_weight=5.0,
      face_weight=0.5,
      close_share=0.75,
      **nets,
    ),
    data(
      dict(
        kind="synthetic_heads",
        folder="synthetic_heads_128",
        seed=0,
        identities=4000,
        frames=8,
        test_identities=0,
        eval_pairs=256,
        eval_swaps=64,
        balance=(),
      ),
      16,
      transforms=dict(
        # What else can be no face: see `Faceless.kinds`.
        faceless=dict(probability=0.1, kinds=("crop",)),
        # Where the face lies must not tell its pose: an edited face keeps the
        # place of the source, and photos are aligned by their eyes and mouth.
        jitter=dict(low=0.85, high=1.2, shift=0.15),
        random_crop=dict(probability=0.25, low=0.75, high=2.2, shift=0.25),
        photometric=dict(probability=0.4),
      ),
      num_threads=4,
    ),
    steps,
    seed=1,
    image_size=128,
  )


def identity_stage():
  """An ArcFace of our own, where the published one is not to be had."""
  return voxceleb_stage(
    dict(
      name="identity",
      optimizer=optimizer(1e-3, 100_000, 1000),
      identities=1251,  # of VoxCeleb1, held-out people included
      margin=0.5,
      scale=64.0,
      jitter=0.01,
    ),
    voxceleb(128, "single"),
    100_000,
  )


def first_stage(published, weights):
  """The autoencoder; rates per picture as in latent diffusion."""
  rate = optimizer(4.5e-6 * 10, clip=0.0, b1=0.5, b2=0.9)
  return voxceleb_stage(
    dict(
      name="first_stage",
      optimizer=rate,
      disc_optimizer=dict(rate),
      perceptual="lpips" if published else "estimator",
      lpips_weights=f"{weights}/lpips_vgg.safetensors" if published else "",
      perceptual_weight=1.0,
      codebook_weight=1.0,
      adversarial_weight=0.6,
      adversarial_start=1,
      # Remedies for renderings, which this net encodes too (see difffae.py).
      rendering_share=0.0,
      rendering_ground="black",
      ema_decay=0.9999,
    ),
    voxceleb(10, "single"),
    200_000,
  )


def region_encoder():
  """The slots, before the denoiser trains them further."""
  return voxceleb_stage(
    dict(
      name="region_encoder",
      optimizer=optimizer(1e-4),
      ema_decay=0.9999,
      region_prior_weight=0.0,
      # Nothing names the slots, and swaps are refused, until
      # `--mode=name_slots` has.
      labelled=False,
      slot_names=(),
    ),
    voxceleb(128, "single"),
    200_000,
  )


def denoiser(published):
  """The denoiser: appendix table 5."""
  return voxceleb_stage(
    dict(
      name="difffae",
      optimizer=optimizer(1e-4, clip=0.0),
      schedule=dict(kind="linear", steps=1000, start=0.0015, end=0.0195),
      timesteps=dict(antithetic=False, power=1.0),
      prediction="eps",
      weighting="simple",
      consistency_weight=0.1,
      region_prior_weight=0.0,
      source_condition="slots",
      identity_token=True,
      # Of unit variance per feature; a unit vector is next to nothing.
      identity_variance="feature",
      slot_names=(),  # as `--mode=name_slots` records
      rendering_ground="black",
      latent_scale=1.0,
      cache_features=False,  # 34 kB for each frame of 256 px
      # What the prepared set holds of each frame. Identity vectors of a net
      # that is trained on that very set come later than the set.
      prepared_features=("codes", "person_vector") if published else ("codes",),
      ema_decay=0.9999,
      sampler="ddim",
      sampling_steps=50,
      ddim_spacing="ldm",
      camera_from="query",
    ),
    voxceleb(16, "pairs"),
    100_000,
    evaluate=True,
    evaluators=evaluators(published),
  )


def evaluators(published):
  """Table 1, on pairs of held-out people: true outcomes exist for no real set.

  Open in the paper: how many pairs, and every tool.
  """
  reenactment = dict(
    kind="reenactment",
    split="test",
    pairs=5000,
    pair_seed=0,
    people="same",
    # Files of the published nets that measure; "" leaves their columns out.
    weights=dict(inception="", face="", identity=""),
    standard_points="",  # similarity_Lm3D_all.mat, for `face`
    readers="frozen",
    estimator_name="DECA" if published else "own",
    identity_name="" if published else "own",
    fid_rule="pytorch-fid",
    fid_reference="",
    # The look at the end of a training, and rows of the whole table.
    quick_steps=20,
    steps=STEPS,
    steps_pairs=1000,
  )
  # Figures 1, 3 and 12: only the pose, only the expression, only the light.
  single_factor = dict(
    kind="single_factor",
    truths="none",
    split="test",
    pairs=1000,
    pair_seed=0,
    people="other",
    readers="frozen",
    quick=0,
  )
  return dict(reenactment=reenactment, single_factor=single_factor)
