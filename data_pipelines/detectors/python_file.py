"""A detector in a Python file of the user's."""

import os
import pathlib
import runpy
from collections.abc import Callable
from typing import Any

import numpy as np


class DetectorError(ValueError):
  """A detector that cannot be used; the message says why, in one line."""


def load_file(file: str | os.PathLike) -> Callable[[np.ndarray], Any]:
  """Takes a face detector from a Python file.

  Args:
    file: defines `detect(image)`, from uint8 (h, w, 3) to the five points
      (5, 2) of a face in pixels in the order of `align.CANONICAL5`, to those
      of several (n, 5, 2), or None for no face.

  Returns:
    That function; its errors are DetectorErrors.

  Raises:
    DetectorError: there is no such file, it does not run, or defines no
      `detect`.
  """
  path = pathlib.Path(file)
  if not path.is_file():
    raise DetectorError(f"detector {path}: no such file")
  try:
    found = runpy.run_path(str(path)).get("detect")
  except Exception as error:  # the user's code may raise anything
    raise DetectorError(f"detector {path}: {_first_line(error)}") from error
  if not callable(found):
    raise DetectorError(f"detector {path}: defines no function detect(image)")

  def detect(image):
    try:
      return found(image)
    except Exception as error:
      raise DetectorError(f"detector {path}: {_first_line(error)}") from error

  return detect


def _first_line(error: Exception) -> str:
  text = (str(error).strip() or "no message").splitlines()[0]
  return f"{type(error).__name__}: {text}"
