"""Records what pytorch-fid's Inception and torchvision's own say.

Needs torch and torchvision.

  python -m tests.models.record_inception

Written for torchvision 0.28.0 with torch 2.13.0. All channels but those of
the picture are divided by `DIVIDE`, so that the test is quick.
"""

import functools
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.models import inception as torchvision_inception

from tests.models import hashed_weights

DIVIDE, SIZE, CLASSES = 8, 139, 12
TRACED = ("Mixed_5d", "Mixed_6a", "Mixed_6e", "Mixed_7a", "Mixed_7b")
PATH = pathlib.Path(__file__).with_name("inception_reference.npz")


def narrow(divide):
  """torchvision's convolution with a share of the channels."""

  class Narrow(torchvision_inception.BasicConv2d):
    def __init__(self, channels, features, **options):
      channels = channels if channels == 3 else channels // divide
      super().__init__(channels, features // divide, **options)

  return Narrow


def build(divide, classes):
  """torchvision's inception_v3 changed in the three places, eval mode."""
  conv = narrow(divide)
  blocks = [
    functools.partial(getattr(torchvision_inception, name), conv_block=conv)
    for name in [f"Inception{letter}" for letter in "ABCDE"] + ["InceptionAux"]
  ]
  net = torchvision_inception.Inception3(
    num_classes=classes,
    aux_logits=False,
    inception_blocks=[conv, *blocks],
    init_weights=False,
  )
  net.fc = torch.nn.Linear(2048 // divide, classes)
  return net.eval()


def run_own(net, pictures):
  """Features and logits as torchvision's own code has them."""
  out = {}
  hook = net.avgpool.register_forward_hook(
    lambda _, __, y: out.update(own_features=y[:, :, 0, 0])
  )
  with torch.no_grad():
    out["own_logits"] = net(torch.from_numpy(pictures).permute(0, 3, 1, 2))
  hook.remove()
  return {name: value.numpy() for name, value in out.items()}


def run(net, pictures, traced=()):
  """Features, logits and traced outputs (b, h, w, c) with the new pooling."""
  out = {}

  def average(x, kernel_size, stride, padding):
    return F.avg_pool2d(
      x, kernel_size, stride, padding, count_include_pad=False
    )

  def maximum(x, kernel_size, stride, padding):
    return F.max_pool2d(x, kernel_size, stride, padding)

  class Functions:
    """`F` as the blocks see it."""

    pool = staticmethod(average)

    def __getattr__(self, name):
      return self.pool if name == "avg_pool2d" else getattr(F, name)

  functions = Functions()
  torchvision_inception.F = functions

  def before_last(*_):
    functions.pool = maximum

  net.Mixed_7c.register_forward_pre_hook(before_last)
  for name in traced:
    getattr(net, name).register_forward_hook(
      lambda _, __, y, name=name: out.update({name: y.permute(0, 2, 3, 1)})
    )
  net.avgpool.register_forward_hook(
    lambda _, __, y: out.update(features=y[:, :, 0, 0])
  )
  with torch.no_grad():
    out["logits"] = net(torch.from_numpy(pictures).permute(0, 3, 1, 2))
  torchvision_inception.F = F
  return {name: value.numpy() for name, value in out.items()}


def load(net):
  """Puts the weights of `hashed_weights` in; returns them."""
  state = {
    key: hashed_weights.weight(key, tuple(value.shape))
    for key, value in net.state_dict().items()
    if not key.endswith("num_batches_tracked")
  }
  tensors = {key: torch.from_numpy(value) for key, value in state.items()}
  lacking, unknown = net.load_state_dict(tensors, strict=False)
  assert not unknown
  assert all(key.endswith("num_batches_tracked") for key in lacking)
  return state


def main() -> None:
  net = build(DIVIDE, CLASSES)
  state = load(net)
  pictures = hashed_weights.pictures(SIZE)
  own = run_own(net, pictures)
  out = own | run(net, pictures, TRACED)
  shapes = json.dumps({key: value.shape for key, value in state.items()})
  traced = {name: out[name][..., ::8] for name in TRACED}
  np.savez_compressed(PATH, shapes=shapes, **{**out, **traced})
  print({name: (v.shape, v.std()) for name, v in out.items()})


if __name__ == "__main__":
  main()
