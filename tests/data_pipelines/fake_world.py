"""A world of coloured discs with the interface of the synthetic heads."""

import dataclasses

import numpy as np

from data_pipelines import align

VERSION = "fake"
ATTRIBUTE_NAMES = ("Smiling", "Bangs", "Young")
EDITED_ATTRIBUTES = ("Smiling", "Bangs")


@dataclasses.dataclass(frozen=True)
class Identity:
  index: int
  shape: np.ndarray
  hair: np.ndarray
  hat: np.ndarray
  clothes: np.ndarray
  background: np.ndarray


@dataclasses.dataclass(frozen=True)
class Frame:
  index: int
  pose: np.ndarray
  expression: np.ndarray
  light: np.ndarray
  camera: np.ndarray


def _draw(count, *key):
  return np.random.default_rng(list(key)).normal(size=count).astype(np.float32)


def sample_identity(seed, index, balance=()):
  draws = [_draw(4, seed, index, k) for k in range(5)]
  return Identity(index, *draws)


def sample_frame(seed, identity_index, frame_index, balance=()):
  key = (seed, identity_index, frame_index)
  pose, expression = _draw(6, *key, 10), _draw(16, *key, 11)
  light, camera = _draw(27, *key, 12).reshape(9, 3), _draw(3, *key, 13)
  return Frame(frame_index, pose, expression, light, camera)


def replace(base, **donors):
  return dataclasses.replace(
    base, **{name: getattr(donor, name) for name, donor in donors.items()}
  )


def counterfactual(
  identity,
  frame,
  pose_from=None,
  expression_from=None,
  light_from=None,
  hair_from=None,
  clothes_from=None,
  background_from=None,
):
  people = {
    "hair": hair_from,
    "clothes": clothes_from,
    "background": background_from,
  }
  frames = {
    "pose": pose_from,
    "expression": expression_from,
    "light": light_from,
  }
  given = [
    {k: v for k, v in d.items() if v is not None} for d in (people, frames)
  ]
  return replace(identity, **given[0]), replace(frame, **given[1])


def attributes(identity, frame):
  numbers = (frame.expression[0], identity.hair[0], identity.shape[0])
  return {n: bool(v > 0) for n, v in zip(ATTRIBUTE_NAMES, numbers, strict=True)}


def can_edit(identity, name):
  return name != "Bangs" or bool(identity.hat[0] < 0)


def has_forms(name, value):
  return name == "Smiling" or value


def attribute_counterfactual(identity, frame, name, value, draw=0):
  amount = 0.1 + draw if value else -0.1 - draw * has_forms(name, value)
  if name == "Smiling":
    expression = frame.expression.copy()
    expression[0] = amount
    return identity, dataclasses.replace(frame, expression=expression)
  hair = identity.hair.copy()
  hair[0] = amount
  return dataclasses.replace(identity, hair=hair), frame


def render_frames(identity, frames, size, landmarks68=False):
  y, x = (np.mgrid[:size, :size] + 0.5) / size
  disc = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.09
  out = []
  for frame in frames:
    numbers = np.concatenate(
      [identity.shape[:1], identity.hair[:1], frame.expression[:1]]
    )
    colour = 128 + 100 * np.tanh(numbers)
    image = np.where(disc[..., None], colour, 30 + 100 * x[..., None])
    out.append(
      {
        "image": image.astype(np.uint8),
        "regions": np.where(disc, 0, 3).astype(np.uint8),
        "labels": np.where(disc, 1, 0).astype(np.uint8),
        "shape": identity.shape,
        "albedo": identity.hair,
        "expression": frame.expression,
        "pose": frame.pose,
        "gaze": frame.pose[:2],
        "light": frame.light,
        "camera": frame.camera,
        "eg3d_camera": np.arange(25, dtype=np.float32),
        "landmarks5": align.CANONICAL5.copy(),
        "attributes": np.array(
          list(attributes(identity, frame).values()), np.int8
        ),
        "caption": "a disc",
        "identity": np.int32(identity.index),
        "frame": np.int32(frame.index),
      }
    )
    if landmarks68:
      points = np.full((68, 2), np.tanh(numbers[0]) / 4 + 0.5, np.float32)
      out[-1] |= {"landmarks68": points, "visible68": np.ones(68, np.int8)}
  return out
