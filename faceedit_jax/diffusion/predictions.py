"""Conversions between what a diffusion net may predict: eps, x0 or v.

All functions are elementwise; `a` and `s` are the signal and noise scales of
the noisy input, broadcastable to it. `v = a * eps - s * x0` (progressive
distillation, appendix D).
"""

from typing import Literal, get_args

from faceedit_jax.core.typing import Array

Kind = Literal["eps", "x0", "v"]
KINDS = get_args(Kind)


def _check(kind: str) -> None:
  if kind not in KINDS:
    raise ValueError(f"prediction kind {kind!r} is not one of {KINDS}")


def to_x0(prediction: Array, x: Array, a, s, kind: str) -> Array:
  """Estimate of the clean example from a prediction of the given kind."""
  _check(kind)
  if kind == "eps":
    return (x - s * prediction) / a
  if kind == "v":
    return a * x - s * prediction
  return prediction


def to_eps(prediction: Array, x: Array, a, s, kind: str) -> Array:
  """Estimate of the noise from a prediction of the given kind."""
  _check(kind)
  if kind == "x0":
    return (x - a * prediction) / s
  if kind == "v":
    return s * x + a * prediction
  return prediction


def target(x0: Array, noise: Array, a, s, kind: str) -> Array:
  """What a net of the given kind should predict at `a * x0 + s * noise`."""
  _check(kind)
  if kind == "eps":
    return noise
  if kind == "v":
    return a * noise - s * x0
  return x0


def convert(
  prediction: Array, x: Array, a, s, source: str, destination: str
) -> Array:
  """Turns a prediction of one kind into another kind at the same input."""
  _check(destination)
  if source == destination:
    return prediction
  x0 = to_x0(prediction, x, a, s, source)
  eps = to_eps(prediction, x, a, s, source)
  return target(x0, eps, a, s, destination)
