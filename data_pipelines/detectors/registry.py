"""The detectors that can be named, and the choice among them."""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

from data_pipelines.detectors import mtcnn
from data_pipelines.detectors.finder import Finder
from data_pipelines.detectors.python_file import DetectorError, load_file

AUTO, NONE = "auto", "none"


@dataclasses.dataclass(frozen=True)
class Entry:
  """A detector of the registry.

  Attributes:
    module: that must be installed.
    make: builds the detector.
    install: what installs it.
  """

  module: str
  make: Callable[[], Any]
  install: str

  @property
  def installed(self) -> bool:
    """Whether it can be imported."""
    return importlib.util.find_spec(self.module) is not None


# The first that is installed is used where none is named.
DETECTORS: dict[str, Entry] = {
  "mtcnn": Entry("mtcnn", mtcnn.Mtcnn, "pip install 'faceedit_jax[faces]'"),
}


@dataclasses.dataclass(frozen=True)
class Chosen:
  """What finds faces.

  Attributes:
    finder: None where no detector is used.
    reason: why no other one is, in words; "" where it was asked for.
  """

  finder: Finder | None
  reason: str = ""


def choose(name: str = AUTO) -> Chosen:
  """The detector that a user names.

  Args:
    name: one of DETECTORS, a Python file (`load_file`), AUTO for the first
      that is installed, or NONE.

  Returns:
    The detector. It loads its package when it is used first.

  Raises:
    DetectorError: there is no such detector, or it is not installed.
  """
  if name == NONE:
    return Chosen(None)
  if name == AUTO:
    missing = []
    for known, entry in DETECTORS.items():
      if entry.installed:
        return Chosen(Finder(_Lazy(entry.make), known))
      missing.append(f"{known} is not installed: {entry.install}")
    return Chosen(None, "; ".join(missing))
  if name in DETECTORS:
    entry = DETECTORS[name]
    if not entry.installed:
      raise DetectorError(
        f"--detector={name} is not installed: {entry.install}"
      )
    return Chosen(Finder(_Lazy(entry.make), name))
  if not name.endswith(".py"):
    raise DetectorError(
      f"--detector={name}: no such detector; wanted {AUTO}, {NONE}, "
      f"{', '.join(DETECTORS)} or a Python file"
    )
  named = f"the detector {pathlib.PurePath(name).name}"
  return Chosen(Finder(load_file(name), named))


class _Lazy:
  """A detector that is built when it is called first."""

  def __init__(self, make: Callable[[], Any]):
    self._make, self._made = make, None
    # The class says what it wants to see.
    self.twice, self.sides = make.twice, make.sides

  def __call__(self, image):
    if self._made is None:
      self._made = self._make()
    return self._made(image)
