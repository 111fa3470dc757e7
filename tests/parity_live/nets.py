"""The nets of the live comparison: ours, and their counterparts in torch."""

import jax
import numpy as np

from faceedit_jax.models.diffusion.autoencoder import KLModel, VQModel
from faceedit_jax.models.diffusion.unet import UNet

# Levels with and without attention, and as many groups as channels allow.
AUTOENCODERS = {
  "plain": dict(
    channels=8,
    mult=(1, 2),
    res_blocks=1,
    attention_levels=(),
    z_channels=3,
    embed_dim=3,
    groups=4,
  ),
  "levels": dict(
    channels=16,
    mult=(1, 2, 2, 4),
    res_blocks=2,
    attention_levels=(1, 3),
    z_channels=4,
    embed_dim=4,
    groups=8,
  ),
}
UNETS = {
  # Stable Diffusion 1 with a level less: none attends in the last one.
  "levels": dict(
    in_channels=4,
    channels=16,
    mult=(1, 2, 4),
    res_blocks=2,
    attention_levels=(0, 1),
    heads=4,
    context_dim=24,
    groups=8,
  ),
  "options": dict(
    in_channels=6,
    out_channels=3,
    channels=16,
    mult=(1, 2),
    res_blocks=1,
    attention_levels=(1,),
    head_channels=8,
    depth=2,
    context_dim=10,
    groups=4,
    scale_shift=True,
    classes=5,
  ),
}
# Latent diffusion's VQ-f8, Stable Diffusion's KL-f8 and U-Net.
PUBLISHED = {
  "vq": dict(mult=(1, 2, 2, 4), attention_levels=(3,)),
  "kl": dict(mult=(1, 2, 4, 4), attention_levels=()),
  "unet": dict(in_channels=4, context_dim=768),
}


def section(kind: str, options: dict, codes: int = 32) -> dict:
  """Our options as the `nets` of a config."""
  if kind == "unet":
    return {"unet": options}
  more = {"codes": codes} if kind == "vq" else {}
  return {"autoencoder": {**options, **more}}


def ours(kind: str, options: dict):
  """Our net."""
  if kind == "unet":
    return UNet(**options)
  return VQModel(codes=32, **options) if kind == "vq" else KLModel(**options)


def theirs(kind: str, options: dict, **changes):
  """Their net in torch, every parameter of it random."""
  import diffusers
  import torch

  from faceedit_jax.weights.checkpoint_formats import FORMATS

  made = FORMATS[kind].diffusers
  arguments = made.options(ours(kind, options)) | changes
  torch.manual_seed(0)
  net = getattr(diffusers, made.cls)(**arguments).eval()
  with torch.no_grad():
    for name, parameter in net.named_parameters():
      if parameter.ndim > 1:
        parameter.mul_(3**0.5)  # from a third to the inverse of the fan
      else:  # biases and norms
        parameter.normal_(0.0, 0.3)
        if "norm" in name and name.endswith("weight"):
          parameter.add_(1.0)
  return net


def state(net) -> dict[str, np.ndarray]:
  """Its weights by key."""
  return {k: v.numpy() for k, v in net.state_dict().items()}


def tensor(x):
  """NHWC array to NCHW tensor."""
  import torch

  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def array(x) -> np.ndarray:
  """NCHW tensor to NHWC array."""
  return np.moveaxis(x.detach().numpy(), 1, -1)


def check(name: str, got, wanted) -> float:
  """Compares float32 outputs; returns the largest difference.

  Raises:
    AssertionError: another shape, it is above 1e-4 * max(1, max|wanted|), or
      the wanted values are too small for that bound to mean anything.
  """
  got, wanted = np.asarray(got), np.asarray(wanted)
  assert got.shape == wanted.shape and got.dtype == np.float32, name
  size = float(np.abs(wanted).max())
  bound = 1e-4 * max(1.0, size)
  error = float(np.abs(got - wanted).max())
  print(f"{name}: {error:.2e}, bound {bound:.2e}, of {size:.2e}")
  assert size > 0.05, f"{name}: nothing above {size:.3e}"
  assert error <= bound, f"{name}: {error:.3e} > {bound:.3e}"
  return error


def variables(kind: str, options: dict, weights) -> dict:
  """Our variables from their weights, every key used."""
  from faceedit_jax.weights import diffusers_names, key_report
  from faceedit_jax.weights.checkpoint_formats import FORMATS

  made = FORMATS[kind]
  net, inputs = made.net(section(kind, options))
  wanted = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  rows = diffusers_names.table(made.diffusers.naming(net), wanted)
  assert diffusers_names.recognised(weights)
  arrays, report = key_report.fit(weights, diffusers_names.keymap(rows), wanted)
  assert not report.faults and len(report.used) == len(weights) == len(rows)
  import flax.traverse_util

  return flax.traverse_util.unflatten_dict(arrays, sep="/")
