"""DiffFAE: pose, expression and light of one face onto another.

Command, embedded default (synthetic heads, 64 px, any machine):
  python -m faceedit_jax.main --config=configs/difffae.py \
    --workdir=runs/difffae

Variants (`configs/difffae.py:NAME`):
  (none)        synthetic heads at 64 px, f4 autoencoder, narrow nets. Made for
                25 minutes on 2 cores; README, "Measured", has what was timed.
  long          three times the people, eight to twenty-three times the steps
                (with Adam), small maps as wide as the paper's multiples make
                them; README, "Measured", has its time and scores.
  synthetic128  the same world at 128 px with wider nets, for one GPU. Not run.
  voxceleb256   the paper's setting at 256 px (appendix tables 4 and 5). Not
                run: the data is licence-gated. Paper: batch 16, 100 k steps,
                34 h on 4 A100; FID 31.83, CSIM 0.9458.
  voxceleb512   the same at 512 px (64 x 64 latents). Not run.
  voxceleb256_synthetic  the same with our own estimator and identity net in
                place of DECA and ArcFace. Not run.
  smoke         the default cut down to seconds, for tests.
  voxceleb_smoke  the paper's path cut down likewise (docs/voxceleb.md).

Values that the paper leaves open, and what stands here:
  noise schedule      0.0015 -> 0.0195, squared ("linear" of latent diffusion)
  sampling            DDIM, 50 steps, eta 0, spaced as in latent diffusion. On
                      the embedded default 2 steps, from the last timestep on:
                      spaced the other way they would begin at timestep 501,
                      where training still sees a third of the signal
  slot init           one learned vector per slot, so that the order is fixed
  AdaIN               residual (1 + scale) x + bias after the second GroupNorm
  attention loss      mean over pixels and tokens, masks without gradient
  EMA                 0.9999 with warm-up (0.999 on the embedded default)
  latent scale        1 / spread of the latents on the embedded default; 1 in
                      the paper's setting, as for latent diffusion's VQ models
  region decoder      not described; a spatial broadcast decoder to 32 x 32 or
                      64 x 64 latents. The embedded default paints 16 x 16
                      pixels, with a learned vector per place (published: a
                      linear map of coordinates), which learns shapes sooner
Deviations of the embedded default: widths, inputs and step counts are reduced;
the autoencoder's factor is 4 at 64 px (paper: 8) so that latents keep 16 x 16.
The codebook starts wide, with the commitment weight of the VQ-VAE paper
(published: within 1 / codes, "legacy" weight), for a training this short.
The two convolutions round the latent start orthogonal in every variant
(published: as any other convolution); see `models/diffusion/autoencoder.py`.
The denoiser predicts v instead of the noise (paper). Chosen for short
trainings without a comparison: an error of the noise counts 1 / sqrt(abar_T),
here 84, times in the estimate of the picture at the last step, one of v once.
The default without a name trains on late timesteps more often than on early
ones (`timesteps`; latent diffusion: all alike), since its two sampling steps
are late ones.
The denoiser's attention has heads of 32 features (paper: 40), hence one at this
width.
A loss pulls the slot masks towards regions that the pictures' 3D reading and
colours suggest, in pre-training and after it (`region_prior_weight`; paper:
slots find their regions unaided). No labelled region is used.
The perceptual loss reads our own estimator's features (paper: LPIPS), since no
LPIPS weights ship with the library.
The default trains all nets but the region encoder with Muon (paper: Adam), for
it needs fewer steps: after 1,800 the estimator read the heads of 512 unseen
pictures 6.1 degrees off, with Adam 11.3 (expressions 0.58 and 1.04 mm, light
0.104 and 0.141; one training each).
"""

from ml_collections import ConfigDict

from configs.common import check_variant, optimizer, stage

VARIANTS = (
  "",
  "long",
  "synthetic128",
  "voxceleb256",
  "voxceleb512",
  "voxceleb256_synthetic",
  "smoke",
  "voxceleb_smoke",
)

# Steps of every stage of the synthetic variants.
STEPS = {
  # Why the estimator gets so many of the default's steps: with 1,000, 2,400
  # and 16,000 of them, and 800, 700 and 800 of the denoiser, the first 64
  # pairs had a PSNR of 16.84, 17.10 and 18.32 (copy of the source 16.66; all
  # with Adam, 4320473 on other stages of f3f6ee0, one training each, the last
  # estimator that of `long`).
  "": dict(
    estimator=1500,
    identity=350,
    first_stage=220,
    region_encoder=200,
    denoiser=680,
    eval_estimator=1500,
    eval_identity=500,
  ),
  "long": dict(
    estimator=16000,
    identity=3000,
    first_stage=5000,
    region_encoder=1600,
    denoiser=14000,
    eval_estimator=16000,
    eval_identity=2000,
  ),
  "synthetic128": dict(
    estimator=12800,
    identity=4800,
    first_stage=6000,
    region_encoder=6000,
    denoiser=12000,
    eval_estimator=12800,
    eval_identity=4800,
  ),
}


def get_config(variant=""):
  """The configuration of a variant.

  Args:
    variant: one of VARIANTS.

  Returns:
    A ConfigDict: nets by name, and the stages in order.

  Raises:
    ValueError: unknown variant.
  """
  check_variant(variant, VARIANTS, "configs/difffae.py")
  if variant.startswith("voxceleb"):
    from configs import difffae_paper  # noqa: PLC0415  (it builds on this)

    return ConfigDict(difffae_paper.make(variant))
  config = embedded(variant if variant in STEPS else "")
  if variant == "smoke":
    smoke(config)
  return ConfigDict(config)


def embedded(variant):
  """Synthetic heads, at 64 or 128 px."""
  large = variant == "synthetic128"
  size = 128 if large else 64
  # For its 25 minutes the default narrows the small maps: the paper's
  # multiples give the denoiser 9.1 M parameters, these 3.6 M. Their effect on
  # the edits was not compared.
  short = not variant
  identities = {"": 500, "long": 1500, "synthetic128": 4000}[variant]
  world = dict(
    source="synthetic_heads",
    folder=f"synthetic_heads_{size}" + ("_long" if variant == "long" else ""),
    size=size,
    seed=0,
    identities=identities,
    frames=8,
    test_identities=0,
    pairs=256,
    swaps=64,
    balance=(),
    limit=0,
    num_threads=4,
  )
  loose = dict(probability=0.25, low=0.75, high=2.2, shift=0.25)
  # Where the face lies must not tell its pose: an edited face keeps the place
  # of the source, and photos are aligned by their eyes and mouth.
  jitter = dict(low=0.85, high=1.2, shift=0.15)
  colour = dict(probability=0.4)
  wide = 2 if large else 1
  nets = dict(
    morphable=dict(
      kind="procedural",
      path="",
      texture=64 * wide,
      albedo_path="",
      landmark_path="",
    ),
    estimator=dict(
      outputs=dict(
        shape=40, albedo=50, expression=16, pose=6, camera=3, light=27
      ),
      stages=(3, 4, 6, 3),
      width=16 * wide,
      hidden=256 * wide,
      # Larger than the pictures, which the trunk halves five times: after 800
      # steps of 32 the smile's correlation was 0.10 at 64 and 0.68 at 96
      # (512 held-out pictures, one core, this loss without loose crops).
      input_size=96 * wide,
      # The square round the face is about half as wide as the picture.
      close=4.0,
    ),
    identity=dict(
      stages=(2, 2, 2, 2),
      widths=tuple(w * wide for w in (16, 32, 64, 128)),
      stem=16 * wide,
      embedding=128 * wide,
      input_size=40 * wide,
    ),
    autoencoder=dict(
      channels=16 * wide,
      mult=(1, 2, 4) if not large else (1, 2, 2, 4),
      res_blocks=2,
      attention_levels=(2,) if not large else (3,),
      z_channels=4,
      embed_dim=4,
      codes=4096,
      legacy=False,
      spread=1.0,
      groups=8,
    ),
    discriminator=dict(channels=16 * wide, layers=2),
    region_encoder=dict(
      channels=32 * wide,
      mult=(1, 1, 2, 2) if short else (1, 1, 2, 4),
      res_blocks=2,
      head_channels=8,
      out_channels=64 * wide,
      slots=4,
      slot_size=64 * wide,
      token_size=64 * wide,
      mlp_size=64 * wide,
      iterations=3,
      stem="patchify",
      patch=4 * wide,
      groups=8,
    ),
    region_decoder=dict(
      target="pixel",
      out_channels=3,
      grid=(8, 8),
      features=(32 if short else 64 * wide,) * 4,
      strides=(1, 2, 1, 1),
      kernel=3,
      position="learned",
    ),
    unet=dict(
      in_channels=8,
      out_channels=4,
      channels=32 * wide,
      mult=(1, 2, 2, 2) if short else (1, 2, 4, 4),
      res_blocks=2,
      attention_levels=(0, 1, 2),
      heads=wide,
      context_dim=64 * wide,
      condition_dim=128 * wide,
      adain="residual",
      groups=8,
      # How it is computed; see `models.unet.UNet`.
      remat="none",
      attention_kernel="auto",
    ),
  )
  counts = STEPS[variant]
  kind = "muon" if short else "adam"

  def estimator(seed, steps):
    return stage(
      dict(
        name="estimator",
        optimizer=optimizer(2e-3, steps, 100, kind=kind),
        # The square that codes are read from lies round the points. With 15
        # in place of 5 the default read poses 6.1 degrees off instead of 7.6
        # (1,350 steps, 512 unseen pictures, one training each).
        points_weight=15.0 if short else 5.0,
        face_weight=0.5,
        close_share=0.75,
      ),
      dict(
        world,
        batch_size=16,
        sampler="single",
        faceless=dict(probability=0.1),
        jitter=jitter,
        random_crop=loose,
        photometric=colour,
      ),
      steps,
      seed=seed,
    )

  def identity(seed, steps):
    return stage(
      dict(
        name="identity",
        optimizer=optimizer(1e-3, steps, 50, kind=kind),
        identities=identities,
        margin=0.3,
        scale=24.0,
        jitter=0.01,
      ),
      dict(world, batch_size=48, sampler="single"),
      steps,
      seed=seed,
    )

  def first_stage():
    steps = counts["first_stage"]
    return stage(
      dict(
        name="first_stage",
        optimizer=optimizer(1e-3, steps, 50, kind=kind, b2=0.99),
        disc_optimizer=optimizer(3e-4, b1=0.5, b2=0.9),
        perceptual="estimator",
        lpips_weights="",
        perceptual_weight=0.5,
        codebook_weight=1.0,
        adversarial_weight=0.2,
        adversarial_start=steps * 3 // 4,
        ema_decay=0.995,
      ),
      dict(world, batch_size=8, sampler="single"),
      steps,
    )

  def region_encoder():
    steps = counts["region_encoder"]
    return stage(
      dict(
        name="region_encoder",
        optimizer=optimizer(1e-3, steps, 100),
        ema_decay=0.995,
        region_prior_weight=0.1,
        slot_names=(),  # read from labelled regions
      ),
      dict(world, batch_size=16, sampler="single"),
      steps,
    )

  def denoiser():
    steps = counts["denoiser"]
    power = 3.0 if short else 1.0
    return stage(
      dict(
        name="difffae",
        optimizer=optimizer(3e-3 if short else 7e-4, steps, 100, kind=kind),
        schedule=dict(kind="linear", steps=1000, start=0.0015, end=0.0195),
        # With 800 steps and Adam the default gave edits a PSNR of 16.84, with
        # uniform timesteps 16.60 (the first 64 pairs, one training each at
        # c44a726 on stages of f3f6ee0, an estimator of 1,000 steps; copy of the
        # source 16.66).
        timesteps=dict(antithetic=power != 1, power=power),
        prediction="v",
        consistency_weight=0.1,
        region_prior_weight=0.1,
        source_condition="slots",
        identity_token=True,
        slot_names=(),  # as counted by region_encoder
        latent_scale=0.0,
        read_once=True,
        ema_decay=0.999,
        sampler="ddim",
        sampling_steps=2,
        ddim_spacing="trailing",
        camera_from="source",
      ),
      dict(world, batch_size=16 if large else 8, sampler="pairs"),
      steps,
      evaluators=dict(
        counterfactual=dict(kind="counterfactual", pairs=256, swaps=64)
      ),
    )

  return dict(
    name="difffae",
    seed=0,
    data_dir="data",
    tensorboard=True,
    mesh=dict(data=-1, fsdp=1),
    compute_dtype="float32" if not large else "bfloat16",
    image_size=size,
    nets=nets,
    stages=(
      "estimator",
      "identity",
      "first_stage",
      "region_encoder",
      "denoiser",
    ),
    # Second nets, trained with another seed, that only evaluate edits.
    eval_stages=("eval_estimator", "eval_identity"),
    stage=dict(
      estimator=estimator(1, counts["estimator"]),
      identity=identity(0, counts["identity"]),
      first_stage=first_stage(),
      region_encoder=region_encoder(),
      denoiser=denoiser(),
      eval_estimator=estimator(0, counts["eval_estimator"]),
      eval_identity=identity(1, counts["eval_identity"]),
    ),
  )


def smoke(config):
  """Cuts a configuration down to seconds, for tests and first tries."""
  nets = config["nets"]
  for name in ("estimator", "locator"):
    if name in nets:
      nets[name].update(width=8, stages=(1, 1, 1, 1), hidden=16, input_size=64)
  nets["identity"].update(
    stages=(2, 2, 2, 2), widths=(8, 8, 8, 8), stem=8, embedding=16
  )
  nets["identity"]["input_size"] = 40
  nets["autoencoder"].update(channels=8, codes=64, res_blocks=1)
  nets["region_encoder"].update(
    channels=8, out_channels=16, slot_size=16, token_size=16, mlp_size=16
  )
  nets["region_encoder"].update(res_blocks=1, groups=4)
  nets["region_decoder"].update(features=(8, 8, 8, 8))
  nets["unet"].update(
    channels=8, res_blocks=1, heads=2, context_dim=16, condition_dim=16
  )
  nets["unet"]["groups"] = 4
  nets["autoencoder"]["groups"] = 4
  for name in ("morphable", "locator_head"):
    if name in nets:
      nets[name]["texture"] = 16
  for name, part in config["stage"].items():
    part.update(steps=3, log_every=1, preview_every=3, checkpoint_every=2)
    part["data"]["batch_size"] = 8
    if part["data"]["source"] == "synthetic_heads":
      part["data"].update(
        folder="synthetic_heads_smoke",
        identities=4,
        frames=2,
        pairs=2,
        swaps=2,
      )
    for key in ("optimizer", "disc_optimizer"):
      if key in part["recipe"]:
        part["recipe"][key].update(
          schedule="constant", warmup_steps=0, total_steps=0
        )
    if name in ("identity", "eval_identity"):
      part["recipe"]["identities"] = 4
  config["stage"]["first_stage"]["recipe"]["adversarial_start"] = 1
  denoiser = config["stage"]["denoiser"]
  denoiser["recipe"]["sampling_steps"] = 2
  if "counterfactual" in denoiser["evaluators"]:
    denoiser["evaluators"]["counterfactual"].update(pairs=2, swaps=2)
