"""The U-Net of the region encoder against diffusers' `UNet2DModel`.

The published encoder is that net behind one strided convolution; here with
options that no recording has.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from faceedit_jax.models.slots.region_encoder import FeatureUNet  # noqa: E402
from faceedit_jax.weights import slots as maps  # noqa: E402
from faceedit_jax.weights.keymap import convert  # noqa: E402
from tests.parity import harness  # noqa: E402
from tests.parity_live import nets  # noqa: E402


@torch.no_grad()
def test_levels_that_attend_one_way(rng):
  widths = (16, 24, 40)
  other = diffusers.UNet2DModel(
    sample_size=8,
    in_channels=16,
    out_channels=12,
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D"),
    block_out_channels=widths,
    layers_per_block=2,
    attention_head_dim=8,
    norm_num_groups=4,
  ).eval()
  stem = torch.nn.Conv2d(3, 16, 4, 4)
  generator = torch.Generator().manual_seed(0)
  for module in (other, stem):
    for parameter in module.parameters():
      drawn = torch.randn(parameter.shape, generator=generator)
      parameter.copy_(drawn * 0.1 + (parameter.ndim == 1))
  net = FeatureUNet(
    channels=16,
    mult=tuple(width / 16 for width in widths),
    res_blocks=2,
    attention_levels=(1,),
    head_channels=8,
    out_channels=12,
    patch=4,
    groups=4,
    up_attention_levels=(0,),
  )
  state = {k: v.numpy() for k, v in other.state_dict().items()}
  state |= {f"downscale_cnn.{k}": v.numpy() for k, v in stem.named_parameters()}
  image = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
  variables = convert(state, maps.lsd_unet)
  wanted = jax.eval_shape(net.init, jax.random.key(0), image)
  harness.check_structure(variables, wanted)
  reference = other(stem(nets.tensor(image)), 0).sample
  got = jax.jit(net.apply)(variables, jnp.asarray(image))
  nets.check("slot U-Net", got, nets.array(reference))
