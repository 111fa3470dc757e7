"""Exact counterfactuals: this person with that pose, smile, light or hair."""

import jax
import numpy as np

from data_pipelines.synthetic_heads.factors import Frame, Identity, replace
from faceedit_jax.morphable import camera as cameras
from faceedit_jax.morphable import model, procedural


@jax.jit
def _face_centre(shape, expression, pose, gaze):
  head = procedural.procedural_model()
  points, _ = model.vertices(
    head, shape[None], expression[None], pose[None], gaze[None]
  )
  return cameras.face_centre(head.landmarks5, points)[0]


def face_centre(identity: Identity, frame: Frame) -> np.ndarray:
  """Between the eyes, a tenth towards the mouth; (3,) metres."""
  pose = np.concatenate([frame.pose, frame.jaw])
  return np.asarray(
    _face_centre(identity.shape, frame.expression, pose, frame.gaze)
  )


def recentre_camera(
  identity: Identity, edited: Frame, source: Frame
) -> np.ndarray:
  """Camera (3,) that keeps the edited face where the source's was.

  A new pose under the old camera would let the head jump; shifting the camera
  equals shifting the head (`morphable.camera.recentre`).
  """
  shift = face_centre(identity, source) - face_centre(identity, edited)
  scale, tx, ty = source.camera
  return np.array([scale, tx + shift[0], ty + shift[1]], np.float32)


def counterfactual(
  identity: Identity,
  frame: Frame,
  pose_from: Frame | None = None,
  expression_from: Frame | None = None,
  light_from: Frame | None = None,
  hair_from: Identity | None = None,
  clothes_from: Identity | None = None,
  background_from: Identity | None = None,
  camera: str = "source",
) -> tuple[Identity, Frame]:
  """The source with single factors of other people and frames.

  Args:
    identity, frame: the source.
    pose_from: frame whose head rotation to take.
    expression_from: frame whose expression, jaw and gaze to take.
    light_from: frame whose light to take.
    hair_from: person whose hair and hat to take.
    clothes_from: person whose clothes to take.
    background_from: person whose background to take.
    camera: "source" keeps the face at its place in the source's picture,
      "query" takes the camera of `pose_from` as it is.

  Returns:
    The identity and the frame to render.

  Raises:
    ValueError: for another `camera`, or "query" without `pose_from`.
  """
  if camera not in ("source", "query"):
    raise ValueError(f"camera={camera!r}; wanted 'source' or 'query'")
  if camera == "query" and pose_from is None:
    raise ValueError("camera='query' needs pose_from, whose camera it takes")
  people = {"clothes": clothes_from, "background": background_from}
  people |= {"hair": hair_from, "hat": hair_from}
  frames = {"pose": pose_from, "expression": expression_from}
  frames |= {"light": light_from}
  given = lambda d: {k: v for k, v in d.items() if v is not None}  # noqa: E731
  person = replace(identity, **given(people))
  edited = replace(frame, **given(frames))
  if camera == "query":
    return person, replace(edited, camera=pose_from)
  if pose_from is None and expression_from is None:
    return person, edited
  return person, replace(edited, camera=recentre_camera(person, edited, frame))
