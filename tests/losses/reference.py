"""Nets of the recordings, rebuilt from their weights with plain functions."""

import jax
import jax.numpy as jnp


def conv(x, weight, bias=None, stride=1, padding=1):
  """Convolution with weights in the order out, in, height, width."""
  y = jax.lax.conv_general_dilated(
    x,
    jnp.asarray(weight).transpose(2, 3, 1, 0),
    (stride, stride),
    [(padding, padding)] * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  return y if bias is None else y + bias


def vgg_features(x, z, prefix):
  """Five feature maps of (b, h, w, 3) pictures; `z` holds `prefix` weights."""
  shift = z[f"{prefix}scaling_layer.shift"].reshape(-1)
  scale = z[f"{prefix}scaling_layer.scale"].reshape(-1)
  x = (x - shift) / scale
  found = []
  for block in range(1, 6):
    start = f"{prefix}net.slice{block}."
    names = {k.removesuffix(".weight") for k in z.files if k.startswith(start)}
    names = [n for n in names if n + ".weight" in z.files]
    if block > 1:
      shape = (x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1)
      x = x.reshape(shape).max((2, 4))
    for name in sorted(names, key=lambda n: int(n.rsplit(".", 1)[1])):
      x = jax.nn.relu(conv(x, z[f"{name}.weight"], z[f"{name}.bias"]))
    found.append(x)
  return found


def lpips_weights(z, prefix):
  """Channel weights of the five layers."""
  return [z[f"{prefix}lin{k}.model.1.weight"].reshape(-1) for k in range(5)]
