"""Colour profiles made from their numbers, as cameras and scanners embed them.

The format is ICC.1:2022; the primaries are adapted to D50.
"""

import struct

import numpy as np

_D50 = (0.9642, 1.0, 0.8249)
DISPLAY_P3 = (
  (0.51512, 0.24120, -0.00105),
  (0.29198, 0.69225, 0.04189),
  (0.15710, 0.06657, 0.78407),
)
ADOBE_RGB = (
  (0.60974, 0.31111, 0.01947),
  (0.20528, 0.62567, 0.06087),
  (0.14919, 0.06322, 0.74457),
)
SRGB = (
  (0.43607, 0.22249, 0.01392),
  (0.38515, 0.71687, 0.09708),
  (0.14307, 0.06061, 0.71410),
)


def _fixed(*numbers):
  return b"".join(struct.pack(">i", round(n * 65536)) for n in numbers)


def _xyz(values):
  return b"XYZ \0\0\0\0" + _fixed(*values)


def _text(words):
  data = words.encode() + b"\0"
  size = struct.pack(">I", len(data))
  return b"desc\0\0\0\0" + size + data + b"\0" * 78


def srgb_curve():
  """The piecewise curve of sRGB and Display P3."""
  numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
  return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(*numbers)


def gamma(value):
  return b"para\0\0\0\0" + struct.pack(">HH", 0, 0) + _fixed(value)


def _profile(space, kind, pcs, tags):
  tags = {b"wtpt": _xyz(_D50), b"desc": _text("made for a test"), **tags}
  table, body = b"", b""
  offset = 128 + 4 + 12 * len(tags)
  for name, data in tags.items():
    data += b"\0" * (-len(data) % 4)
    table += name + struct.pack(">II", offset + len(body), len(data))
    body += data
  head = struct.pack(">I", offset + len(body)) + b"\0\0\0\0\x04\x20\0\0"
  head += kind + space + pcs + b"\0" * 12 + b"acsp" + b"\0" * 28
  head += _fixed(*_D50)
  return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def rgb(primaries, curve):
  """A display's profile; `primaries` are three XYZ."""
  names = (b"rXYZ", b"gXYZ", b"bXYZ")
  tags = {n: _xyz(v) for n, v in zip(names, primaries, strict=True)}
  tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
  return _profile(b"RGB ", b"mntr", b"XYZ ", tags)


def gray(curve):
  """A profile of one channel."""
  return _profile(b"GRAY", b"mntr", b"XYZ ", {b"kTRC": curve})


def cmyk():
  """A printer's profile: 16 mixtures of full inks, between them mixed."""
  inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1)
  inks = inks.reshape(-1, 4)
  lightness = 255 * (1 - 0.9 * inks[:, 3]) * (1 - 0.25 * inks[:, :3].sum(1))
  a = 128 + 60 * (inks[:, 1] - inks[:, 0]) * (1 - inks[:, 3])
  b = 128 + 60 * (inks[:, 2] - inks[:, 1]) * (1 - inks[:, 3])
  nodes = np.stack([lightness, a, b], -1).round().astype(np.uint8)
  ramp = bytes(range(256))
  table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + _fixed(*np.eye(3).ravel())
  table += 4 * ramp + nodes.tobytes() + 3 * ramp
  return _profile(b"CMYK", b"prtr", b"Lab ", {b"A2B0": table})


def display_p3():
  return rgb(DISPLAY_P3, srgb_curve())


def adobe_rgb():
  return rgb(ADOBE_RGB, gamma(563 / 256))


def linear(values):
  """Values of sRGB's or Display P3's curve, 0 to 1, as amounts of light."""
  values = np.asarray(values, np.float64)
  low = values / 12.92
  return np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, low)


def as_srgb(light, primaries):
  """uint8 sRGB of light (..., 3) in other primaries."""
  xyz = np.asarray(light) @ np.asarray(primaries)
  light = np.clip(xyz @ np.linalg.inv(np.asarray(SRGB)), 0, 1)
  high = 1.055 * light ** (1 / 2.4) - 0.055
  values = np.where(light > 0.0031308, high, 12.92 * light)
  return np.round(255 * values).astype(np.uint8)
