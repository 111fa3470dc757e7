"""DiffFAE: pose, expression and light of one face onto another.

Command, embedded default (synthetic heads, 64 px, any machine):
  python -m faceedit_jax.main --config=configs/difffae.py \
    --workdir=runs/difffae

Variants (`configs/difffae.py:NAME`):
  (none)        synthetic heads at 64 px, f4 autoencoder, narrow nets. Made for
                25 minutes on 2 cores; docs/results.md has what was timed.
  long          three times the people, eight to twenty-three times the steps
                (with Adam), small maps as wide as the paper's multiples make
                them; docs/results.md has its time and scores.
  replace       the default with AdaIN as published (eq. 4): an instance norm in
                place of the group norm, and three levels in the denoiser, not
                four, so that its smallest maps have 4 x 4. Not run.
  tokens2, tokens4, tokens8
                the default with so many tokens and without the region prior,
                all alike: the ablation of section 5.3. Not run.
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
  sampling            DDIM, 50 steps, eta 0, spaced as in latent diffusion; 20
                      for the look at the end of a training and in `long`. On
                      the embedded default 2 steps, from the last timestep on:
                      spaced the other way they would begin at timestep 501,
                      where training still sees a third of the signal. PSNR
                      alone would choose 1 or 2, for it rewards blur: tables
                      show 1, 2, 8, 20 and 50 (`evaluators.*.steps`) with the
                      sharpness of each
  slot init           one learned vector per slot, so that the order is fixed
  AdaIN, where        eq. 4 in every residual block of the U-Net, in place of
                      the second GroupNorm; the time is added after it, as an
                      instance norm would take it away. Its scale and bias begin
                      with those of the norm in latent diffusion's file
  identity, how large the embedding times sqrt(d), unit variance per feature: of
                      a unit vector in 512 dimensions a feature is 0.04, where
                      the SiLU of eq. 5 is a straight line; in a trained run of
                      the default another person's token changed pixels by 0.025
  U-Net's start       "finetuning of LDM" (section 4.3): which file is open, and
                      none is shipped. `nets.unet.weights` names one; without it
                      the run says so
  renderings          on black, encoded by a first stage that was trained on
                      pictures alone. Remedies, both off: a share of its
                      pictures are renderings (`first_stage.recipe.
                      rendering_share`), or renderings lie on grey
                      (`rendering_ground` of first_stage and denoiser)
  slots, which is which
                      nothing says it beforehand: swaps are refused until
                      `--mode=name_slots` has named the slots
  loss weighting      none (eq. 1); `weighting="min_snr"` or "p2" are options
  attention loss      mean over pixels and tokens, masks without gradient
  EMA                 0.9999 with warm-up (0.999 on the embedded default)
  latent scale        1 / spread of the latents on the embedded default; 1 in
                      the paper's setting, as for latent diffusion's VQ models
  region decoder      not described; a spatial broadcast decoder to 32 x 32 or
                      64 x 64 latents. The embedded default paints 16 x 16
                      pixels, with a learned vector per place (published: a
                      linear map of coordinates), which learns shapes sooner
Deviations of the embedded default (`configs/difffae_embedded.py`, which shrinks
the paper's setting of `configs/difffae_paper.py`): widths, inputs and step
counts are reduced; the autoencoder's factor is 4 at 64 px (paper: 8) so that
latents keep 16 x 16.
The codebook starts wide, with the commitment weight of the VQ-VAE paper
(published: within 1 / codes, "legacy" weight), for a training this short.
The two convolutions round the latent start orthogonal in every variant
(published: as any other convolution); see `models/diffusion/autoencoder.py`.
The identity modulates x (1 + scale) + bias after the second GroupNorm, which
stays (paper: eq. 4, an instance norm in its place), since the four levels end
in maps of 2 x 2; and it is a unit vector. Neither has been compared with the
published choice (variant `replace`; `identity_variance="feature"`).
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

from configs import difffae_embedded, difffae_paper
from configs.common import check_variant

VARIANTS = (
  "",
  "long",
  "replace",
  "tokens2",
  "tokens4",
  "tokens8",
  "synthetic128",
  "voxceleb256",
  "voxceleb512",
  "voxceleb256_synthetic",
  "smoke",
  "voxceleb_smoke",
)


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
  if variant == "voxceleb_smoke":
    config = difffae_paper.paper(64, weights="rehearsal/weights")
    return ConfigDict(difffae_embedded.smoke_paper(config))
  if variant.startswith("voxceleb"):
    size, _, reader = variant.removeprefix("voxceleb").partition("_")
    return ConfigDict(difffae_paper.paper(int(size), reader or "deca"))
  # From the variant of the paper's setting whose nets are all our own.
  config = difffae_paper.paper(256, "synthetic")
  if variant == "smoke":
    config = difffae_embedded.shrink(config, "")
    return ConfigDict(difffae_embedded.smoke(config))
  if variant == "replace":
    config = difffae_embedded.shrink(config, "")
    return ConfigDict(difffae_embedded.replace_norm(config))
  if variant.startswith("tokens"):
    config = difffae_embedded.shrink(config, "")
    count = int(variant.removeprefix("tokens"))
    return ConfigDict(difffae_embedded.tokens(config, count))
  return ConfigDict(difffae_embedded.shrink(config, variant))
