r"""L2M-GAN: edits of attributes (a smile, glasses, bangs) by latent codes.

    python -m faceedit_jax.main --config=configs/l2m_gan.py \
      --workdir=runs/l2m_gan

trains and evaluates the embedded default: synthetic heads at 64 px, one model
for Smiling, Eyeglasses and Bangs. After it

    python -m faceedit_jax.edit --workdir=runs/l2m_gan --source=face.png \
      --aligned --attribute=+Smiling --output=out.png

Variants (`--config=configs/l2m_gan.py:VARIANT`):
  (none)        the default.
  long          the same with more people and steps. docs/results.md has the
                scores of all four.
  long_no_orthogonality   the ablation: the weight of the orthogonality is 0.
  long_stargan_v2         the baseline: StarGAN v2's styles and losses
                (adversarial, cycle, style, diversity) on the same data, with
                the U-Net, the labels and r1 of the embedded runs.
  published     the published generator in place of the U-Net, and after 3,000
                steps of learning to draw the published losses alone, on the
                data of `long`; without skips (w_hpf 0). Not run; about 1.9 h on
                two cores expected.
  published_skips         the same with the published skips (w_hpf 1), opened by
                masks of 68 points that the stage `landmarks` learns to find.
                Not run.
  celeba_hq_smiling, celeba_hq_male   the paper's setting: CelebA-HQ at 256 px,
                one attribute, batch 8, 100 k steps (StarGAN v2, the same nets:
                about 3 days on one V100), as the only published training code
                has it. Not run: the data is downloaded by hand (docs/data.md).
  celeba_hq_multi         one model for Smiling, Male, Young, Bangs and
                Eyeglasses, the attributes of the paper's first figure. Not run.
  celeba_hq_smiling_official  nets, weights of the losses and FID of the
                authors' release; takes their files. Not run.
  stargan_v2    StarGAN v2 on CelebA-HQ (Male, as its authors). Not run.
                Published (clovaai/stargan-v2, README): FID 13.73 from noise,
                which is what the scores measure; 23.84 from references.
  folders=NAME  the paper's setting on two folders of your own, of which the
                second is called NAME (docs/l2m_gan.md). Not run on photos.
  smoke         the default cut down to seconds, for tests; smoke=VARIANT
                another embedded one.

Neither paper nor release has training code; what stands here for it:
  two codes           songquanpeng/L2M-GAN ("unofficial"), the only published
                      training code, and rucmlcv/L2M-GAN ("official"), the
                      authors' release without it. `_official` differs in what
                      stands behind the stroke:
    loss weights      r1 1, cycle 1, orthogonality 1, style 2, perceptual 2 |
                      all 1 (the defaults of the release's flags)
    decomposer, domain transformers   four dense layers, the decomposer ends in
                      a ReLU | three layers, a linear end
    perceptual        1,000 logits of ImageNet's ResNet-18 | the 512 numbers
                      before them (the release holds the net without its last
                      layer)
    FID               StarGAN v2's here; the code's own compares other sets |
                      resized once, to 299 pixels, not to 256 before (the same
                      for pictures of 256)
    data              no crops and flips are known of it: those of the release |
                      StarGAN v2's
  weight decay        1e-4 inside the gradient, as torch's Adam has it
  EMA                 0.999, parameters only
  several attributes  two domains each; heads and transformers of all domains on
                      one trunk, one decomposer (StarGAN v2's issues 30 and 31)
Deviations of the embedded default (`configs/l2m_gan_embedded.py`, which shrinks
the paper's setting of `configs/l2m_gan_paper.py`), all for a training so short:
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
Deviations of `published` (`l2m_gan_embedded.to_published`): channels 24 to 96,
w_hpf 0, rate 5e-4 without weight decay, EMA 0.998, r1 0.1, perceptual features
of our own identity net, one target in five is what the picture has; and for the
first 3,000 steps `pixel_l1` falls from 10 to 0 while the adversarial term rises
from 0 to 1.
"""

from ml_collections import ConfigDict

from configs import l2m_gan_embedded, l2m_gan_paper
from configs.common import check_variant

VARIANTS = (
  "",
  "long",
  "long_no_orthogonality",
  "long_stargan_v2",
  "published",
  "published_skips",
  "celeba_hq_smiling",
  "celeba_hq_male",
  "celeba_hq_multi",
  "celeba_hq_smiling_official",
  "stargan_v2",
  "folders",
  "smoke",
)


def get_config(variant=""):
  """The configuration of a variant.

  Args:
    variant: one of VARIANTS, "folders=NAME", or "smoke=VARIANT".

  Returns:
    A ConfigDict: nets by name, and the stages in order.

  Raises:
    ValueError: unknown variant.
  """
  kind, _, name = variant.partition("=")
  if kind == "folders":
    return ConfigDict(l2m_gan_paper.folders(name or "b"))
  if kind == "smoke":
    check_variant(name, l2m_gan_embedded.STEPS, "configs/l2m_gan.py:smoke")
  else:
    check_variant(variant, VARIANTS, "configs/l2m_gan.py")
  if variant in l2m_gan_paper.CELEBA:
    return ConfigDict(l2m_gan_paper.celeba_hq(variant))
  paper = l2m_gan_paper.celeba_hq("celeba_hq_multi")
  if kind == "smoke":
    config = l2m_gan_embedded.shrink(paper, name)
    return ConfigDict(l2m_gan_embedded.smoke(config))
  return ConfigDict(l2m_gan_embedded.shrink(paper, variant))
