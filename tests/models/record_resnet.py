"""Records what torchvision's ResNet-18 says.

Needs torch and torchvision.

  python -m tests.models.record_resnet

Written for torchvision 0.28.0 with torch 2.13.0.
"""

import json
import pathlib

import numpy as np
import torch
from torchvision import models

from tests.models import hashed_weights

SIZE, CLASSES = 67, 12
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PATH = pathlib.Path(__file__).with_name("resnet_reference.npz")


def main() -> None:
  net = models.resnet18(num_classes=CLASSES).eval()
  state = {
    key: hashed_weights.weight(key, tuple(value.shape))
    for key, value in net.state_dict().items()
    if not key.endswith("num_batches_tracked")
  }
  tensors = {key: torch.from_numpy(value) for key, value in state.items()}
  assert not net.load_state_dict(tensors, strict=False).unexpected_keys
  pictures = (hashed_weights.pictures(SIZE) + 1) / 2
  pictures = (pictures - np.float32(MEAN)) / np.float32(DEVIATION)
  out = {}
  net.avgpool.register_forward_hook(
    lambda _, __, y: out.update(features=y[:, :, 0, 0])
  )
  with torch.no_grad():
    out["logits"] = net(torch.from_numpy(pictures).permute(0, 3, 1, 2))
  shapes = json.dumps({key: value.shape for key, value in state.items()})
  found = {name: value.numpy() for name, value in out.items()}
  np.savez_compressed(PATH, shapes=shapes, **found)
  print({name: (v.shape, v.std()) for name, v in found.items()})


if __name__ == "__main__":
  main()
