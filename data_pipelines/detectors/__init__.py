"""Finds faces in photos of any size: which detector, which way up, which face.

A detector is a function from uint8 (h, w, 3) to the faces it sees (`faces_of`
lists the accepted forms). `Finder` turns one into a search over the four ways a
photo may lie, and `choose` makes a finder from what a user names. A new
detector is a file here, with a line in `registry.DETECTORS`.
"""

from data_pipelines.detectors.choice import LARGEST, Choice, choice_of
from data_pipelines.detectors.face import Face, faces_of, largest_first
from data_pipelines.detectors.finder import Finder, Found, as_finder
from data_pipelines.detectors.python_file import DetectorError, load_file
from data_pipelines.detectors.registry import (
  AUTO,
  DETECTORS,
  NONE,
  Chosen,
  choose,
)

__all__ = [
  "AUTO",
  "DETECTORS",
  "LARGEST",
  "NONE",
  "Choice",
  "Chosen",
  "DetectorError",
  "Face",
  "Finder",
  "Found",
  "as_finder",
  "choice_of",
  "choose",
  "faces_of",
  "largest_first",
  "load_file",
]
