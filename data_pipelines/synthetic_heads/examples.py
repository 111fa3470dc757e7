"""Puts one drawn picture and its exact codes together as an example."""

import numpy as np

from data_pipelines.synthetic_heads import albedo_model, labels
from data_pipelines.synthetic_heads.factors import Frame, Identity

EXAMPLE_FIELDS = (
  "image",
  "regions",
  "labels",
  "shape",
  "albedo",
  "expression",
  "pose",
  "gaze",
  "light",
  "camera",
  "landmarks5",
  "identity",
  "frame",
  "attributes",
  "caption",
  "eg3d_camera",
)
# Where they are asked for (`render_frames(..., landmarks68=True)`).
POINTS68_FIELDS = ("landmarks68", "visible68")


def example(identity: Identity, frame: Frame, drawn: dict) -> dict:
  """One example.

  Args:
    identity, frame: what was drawn.
    drawn: image, labels, regions, landmarks5, eg3d_camera and extra fields.

  Returns:
    dict of EXAMPLE_FIELDS: image (s, s, 3), regions, labels (s, s) uint8;
    shape (40,), albedo (50,), expression (16,), pose (6,), gaze (2,), light
    (9, 3), camera (3,), landmarks5 (5, 2), eg3d_camera (25,) float32; identity,
    frame int32; attributes (A,) int8; caption str; and the extra fields, of
    POINTS68_FIELDS landmarks68 (68, 2) float32 in unit coordinates, hidden
    points too, and visible68 (68,) int8, 1 where nothing hides a point.
  """
  has = labels.attributes(identity, frame)
  pose = np.concatenate([frame.pose, frame.jaw]).astype(np.float32)
  return {
    **drawn,
    "landmarks5": np.asarray(drawn["landmarks5"], np.float32),
    "shape": identity.shape,
    "albedo": albedo_model.albedo_code(identity),
    "expression": frame.expression,
    "pose": pose,
    "gaze": frame.gaze,
    "light": frame.light["harmonics"],
    "camera": frame.camera,
    "identity": np.int32(identity.index),
    "frame": np.int32(frame.index),
    "attributes": np.array([has[n] for n in labels.ATTRIBUTE_NAMES], np.int8),
    "caption": labels.caption(identity, frame),
  }
