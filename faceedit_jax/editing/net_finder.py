"""Finds the face that is meant with a run's own net, whichever way it lies.

The rule: the photo stays as it is where it has a face that is plausible
(`plausible`) as it stands; otherwise the turn wins in which a plausible face
has the highest score.
"""

import dataclasses

import numpy as np

from data_pipelines import align
from data_pipelines.detectors import (
  LARGEST,
  Choice,
  Face,
  Found,
  largest_first,
)
from data_pipelines.detectors.finder import (
  NO_FACE,
  TURNS,
  turned,
  turned_back,
)
from faceedit_jax.editing import find_face, plausible


@dataclasses.dataclass(frozen=True)
class NetFinder:
  """See the module.

  Attributes:
    read: reads the points of faces in squares.
    size: side of these squares in pixels.
    least: logit that a face must exceed.
    name: of the net, for messages.
  """

  read: find_face.Reader
  size: int
  least: float = 0.0
  name: str = "the run's own net"

  def find(self, image: np.ndarray, choice: Choice = LARGEST) -> Found:
    """Finds a face.

    Args:
      image: uint8 (h, w, 3) of any size.
      choice: which face, if there are several. With the largest the search
        ends where it is sure, and counts the faces seen until then.

    Raises:
      AlignError: there is no face, or not the one that is meant.
    """
    best: tuple[float, int, list[Face]] | None = None
    doubts: list[tuple[float, str]] = []
    for turn in TURNS:
      lying = turned(image, turn)
      try:
        faces = find_face.find_all(
          self.read, lying, self.size, choice != LARGEST
        )
      except align.AlignError as error:
        doubts.append((-np.inf, str(error)))
        continue
      good = self._plausible(lying, faces, doubts)
      if good and (best is None or good[0].score > best[0]):
        back = [turned_back(face, image.shape[:2], turn) for face in good]
        best = (good[0].score, turn, back)
      if best is not None and not turn:
        break
    if best is None:
      raise align.AlignError(max(doubts)[1])
    ordered = largest_first(best[2])
    return Found(tuple(ordered), choice.pick(ordered), best[1], self.name)

  def _plausible(
    self,
    image: np.ndarray,
    faces: list[Face],
    doubts: list[tuple[float, str]],
  ) -> list[Face]:
    """Those that are faces as they stand, the surest first; notes the rest."""
    good = []
    for face in faces:
      said = f"{NO_FACE} (best score {face.score:.1f}"
      if not face.score > self.least:
        doubts.append((face.score, f"{said})"))
        continue
      doubt = plausible.examine(self.read, image, face, self.size).doubt()
      if doubt:
        doubts.append((face.score, f"{said}, but {doubt})"))
      else:
        good.append(face)
    return good
