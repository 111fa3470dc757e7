"""MTCNN (Zhang et al. 2016), as the package `mtcnn` runs it on TensorFlow.

Code and weights are under the MIT licence, and the wheel carries both. It gives
the five points that alignment needs. Other packages of the field either fetch
their weights when they run, or give fewer points; docs/editing.md compares.
"""

import importlib.resources
import os

import numpy as np

from data_pipelines.detectors.face import Face

_WEIGHTS = "mtcnn.assets.weights"
# The package's names of the points, sides as seen in the picture.
_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


class Mtcnn:
  """Faces by MTCNN.

  Attributes:
    twice: what it sees counts where it sees it in the mirror image as well.
    sides: of the pictures that it is shown, see `Finder`. It finds faces from
      20 pixels on, and reads points from 48 x 48 pixels.
  """

  twice = True
  sides = (200, 480)

  def __init__(self):
    """Loads the package and its weights."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf  # only where a face is looked for
    from mtcnn import MTCNN
    from mtcnn.stages import StageONet, StagePNet, StageRNet

    # The accelerators are JAX's.
    tf.config.set_visible_devices([], "GPU")
    folder = importlib.resources.files(_WEIGHTS)
    # By their whole paths: bare names are looked up in the current folder
    # first, and are pickles.
    stages = [
      make(weights=str(folder / f"{name}.lz4"))
      for make, name in (
        (StagePNet, "pnet"),
        (StageRNet, "rnet"),
        (StageONet, "onet"),
      )
    ]
    self._detector = MTCNN(stages=stages, device="CPU:0")

  def __call__(self, image: np.ndarray) -> list[Face]:
    """Faces in uint8 (h, w, 3), with their probabilities."""
    # By names and in whole pixels, which are finer than the net reads. Its
    # arrays are not laid out as the package says.
    return [
      Face(
        np.array([found["keypoints"][name] for name in _POINTS], np.float64),
        float(found["confidence"]),
      )
      for found in self._detector.detect_faces(image)
    ]
