"""DiffFAE on VoxCeleb1 as in the paper: the variants `voxceleb*`.

Appendix tables 4 and 5 and section 5.1; `configs/difffae.py` lists what the
paper leaves open. Not run: the data and most of the weights are licence-gated.
"""

from configs import difffae
from configs.common import optimizer


def make(variant):
  """The configuration of a variant `voxceleb*`, as nested dicts."""
  if variant == "voxceleb_smoke":
    return smoke_paper()
  size, _, kind = variant.removeprefix("voxceleb").partition("_")
  return paper(int(size), kind or "deca")


def paper(size, kind="deca", weights="weights"):
  """VoxCeleb1 as in the paper: appendix tables 4 and 5, section 5.1.

  Args:
    size: side of the pictures, 256 or 512.
    kind: who reads the 3D codes: "deca", as in the paper, or "synthetic", our
      own estimator, for which no licence-gated file is needed.
    weights: folder of converted and licence-gated files.
  """
  world = difffae.embedded("synthetic128")
  config = difffae.embedded("")
  config.update(image_size=size, compute_dtype="bfloat16")
  nets, stages = config["nets"], config["stage"]
  published = kind == "deca"
  if published:
    nets["locator"] = world["nets"]["estimator"]
    nets["locator_head"] = world["nets"]["morphable"]
    nets["morphable"] = dict(
      kind="flame",
      path=f"{weights}/generic_model.pkl",
      texture=256,
      albedo_path=f"{weights}/FLAME_albedo_from_BFM.npz",
      landmark_path=f"{weights}/landmark_embedding.npy",
      template_path=f"{weights}/head_template.obj",
    )
    nets["estimator"] = dict(
      kind="deca",
      weights=f"{weights}/deca.safetensors",
      outputs=dict(
        shape=100, albedo=50, expression=50, pose=6, camera=3, light=27
      ),
      stages=(3, 4, 6, 3),
      width=64,
      hidden=1024,
      input_size=224,
    )
    # Wrinkles in texture space; the paper says "detailed texture". Without
    # this section the smooth mesh is lit.
    nets["detail"] = dict(
      encoder_weights=f"{weights}/deca_detail_encoder.safetensors",
      decoder_weights=f"{weights}/deca_detail_decoder.safetensors",
      mask_path=f"{weights}/uv_face_eye_mask.png",
      fixed_path=f"{weights}/fixed_displacement_256.npy",
      size=128,
      widths=(128, 128, 64, 64, 32, 16),
    )
    nets["identity"] = dict(
      weights=f"{weights}/arcface.safetensors",
      stages=(3, 4, 14, 3),
      widths=(64, 128, 256, 512),
      stem=64,
      embedding=512,
      input_size=112,
    )
  else:
    nets["morphable"] = world["nets"]["morphable"]
    nets["estimator"] = dict(world["nets"]["estimator"], kind="synthetic")
    nets["identity"] = dict(
      stages=(3, 4, 14, 3),
      widths=(64, 128, 256, 512),
      stem=64,
      embedding=512,
      input_size=112,
    )
  nets["autoencoder"] = dict(
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
  )
  nets["discriminator"] = dict(channels=64, layers=2)
  nets["region_encoder"] = dict(
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
  )
  # Open in the paper: its decoder. Latents as target, at their own size.
  nets["region_decoder"] = dict(
    target="latent",
    out_channels=4,
    grid=(8, 8),
    features=(64,) * (2 if size == 256 else 3) + (64,),
    strides=(2,) * (2 if size == 256 else 3) + (1,),
    kernel=5,
    position="linear",
  )
  nets["unet"] = dict(
    weights="",  # a published U-Net to start from
    in_channels=8,
    out_channels=4,
    channels=320,
    mult=(1, 2, 4, 4),
    res_blocks=2,
    attention_levels=(0, 1, 2),
    heads=8,
    context_dim=192,
    condition_dim=512,
    adain="residual",
    groups=32,
    # How it is computed; see `models.unet.UNet`.
    remat="none",
    attention_kernel="auto",
  )
  denoiser = stages["denoiser"]
  denoiser["steps"] = 100_000
  denoiser["data"]["batch_size"] = 16
  denoiser["recipe"].update(
    optimizer=optimizer(1e-4, clip=0.0),
    timesteps=dict(antithetic=False, power=1.0),
    prediction="eps",
    region_prior_weight=0.0,
    latent_scale=1.0,
    read_once=False,  # 34 kB for each frame of 256 px
    # What the prepared set holds of each frame. Identity vectors of a net
    # that is trained on that very set come later than the set.
    recorded=("codes", "person_vector") if published else ("codes",),
    ema_decay=0.9999,
    sampling_steps=50,
    ddim_spacing="ldm",
    camera_from="query",
  )
  first = stages["first_stage"]
  first["steps"] = 200_000
  first["recipe"].update(
    optimizer=optimizer(4.5e-6 * 10, clip=0.0, b1=0.5, b2=0.9),
    disc_optimizer=optimizer(4.5e-6 * 10, clip=0.0, b1=0.5, b2=0.9),
    perceptual="lpips" if published else "estimator",
    lpips_weights=f"{weights}/lpips_vgg.safetensors" if published else "",
    perceptual_weight=1.0,
    adversarial_weight=0.6,
    adversarial_start=1,
    ema_decay=0.9999,
  )
  first["data"]["batch_size"] = 10
  region = stages["region_encoder"]
  region["steps"] = 200_000
  region["data"]["batch_size"] = 128
  region["recipe"].update(
    optimizer=optimizer(1e-4),
    ema_decay=0.9999,
    region_prior_weight=0.0,
    # No labelled regions: a guess until the previews `slot_0` and so on show
    # the truth; then say it in the denoiser's `slot_names`.
    slot_names=("face", "hair", "clothes", "background"),
  )
  identity = stages["identity"]
  identity["steps"] = 100_000
  identity["recipe"].update(
    optimizer=optimizer(1e-3, 100_000, 1000),
    identities=1251,  # of VoxCeleb1, held-out people included
    margin=0.5,
    scale=64.0,
  )
  identity["data"]["batch_size"] = 128
  # Our own estimator learns on synthetic heads, whatever it reads later.
  reading = dict(world["stage"]["estimator"], image_size=world["image_size"])
  own = "locator" if published else "estimator"
  if published:
    reading["recipe"].update(net="locator", morphable="locator_head")
  names = ("first_stage", "region_encoder", "denoiser")
  order = (own, *names) if published else (own, "identity", *names)
  config["stages"] = order
  config["stage"] = {name: stages[name] for name in order if name != own}
  for part in config["stage"].values():
    part["data"] = dict(
      source="array_record",
      folder="voxceleb1",
      size=size,
      batch_size=part["data"]["batch_size"],
      sampler=part["data"]["sampler"],
      limit=0,
      num_threads=8,
    )
    part["preview_every"] = part["checkpoint_every"] = 5000
    part["evaluate"] = part is denoiser
  config["stage"][own] = reading
  config["eval_stages"] = ()
  denoiser["evaluators"] = evaluators(published)
  return config


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
  )
  return dict(reenactment=reenactment)


def smoke_paper():
  """The paper's path with FLAME, DECA and ArcFace, cut down to seconds."""
  config = paper(64, weights="rehearsal/weights")
  difffae.smoke(config)
  config.update(compute_dtype="float32")
  nets, stages = config["nets"], config["stage"]
  nets["morphable"]["landmark_path"] = (
    "rehearsal/weights/landmark_embedding.npz"
  )
  nets["morphable"]["codes"] = dict(shape=8, expression=4, albedo=3)
  nets["estimator"]["outputs"] = dict(
    shape=8, albedo=3, expression=4, pose=6, camera=3, light=27
  )
  nets["detail"].update(size=8, widths=(8, 8, 8))
  nets["autoencoder"].update(mult=(1, 2), attention_levels=(1,))
  nets["unet"].update(mult=(1, 2), attention_levels=(0, 1))
  nets["region_encoder"].update(mult=(1, 2), patch=2)
  nets["region_decoder"].update(
    grid=(8, 8), features=(8, 8, 8), strides=(2, 2, 1)
  )
  # LPIPS has one size only, and that is large.
  stages["first_stage"]["recipe"].update(perceptual="none", lpips_weights="")
  for name, part in stages.items():
    part["image_size"] = 64
    part["data"]["size"] = 64
    if name != "locator":
      part["data"]["folder"] = "voxceleb_smoke"
  # Enough for points that lie on the face.
  stages["locator"].update(steps=150, log_every=50)
  stages["locator"]["recipe"]["optimizer"]["lr"] = 1e-2
  stages["denoiser"]["evaluators"]["reenactment"].update(
    pairs=8,
    weights=dict(
      inception="rehearsal/weights/inception.safetensors",
      face="rehearsal/weights/deep3d.safetensors",
      identity="",
    ),
    standard_points="rehearsal/weights/similarity_Lm3D_all.mat",
  )
  return config
