"""Keeps the list of clips and frames left out: `skipped.json`."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from data_pipelines import records

FILE = "skipped.json"


class Skipped:
  """What was left out of a set, over all runs and splits.

  Attributes:
    clips: {clip: why}.
    frames: {clip: {"skipped": how many frames, "frames": of how many, "first":
      why the first}}.

  Args:
    output: folder of the set.

  Raises:
    RecordError: a file from before cannot be read.
  """

  def __init__(self, output: pathlib.Path):
    path = self._path = output / FILE
    self.clips: dict[str, str] = {}
    self.frames: dict[str, dict[str, Any]] = {}
    if path.is_file():
      try:
        content = json.loads(path.read_text(encoding="utf-8"))
        self.clips.update(content["clips"])
        self.frames.update(content["frames"])
      except (OSError, ValueError, KeyError, TypeError) as error:
        raise records.RecordError(
          f"{path}: cannot be read ({error}); remove it, or the whole set"
        ) from error

  def replace(
    self,
    paths: Iterable[str],
    clips: Mapping[str, str] | None = None,
    frames: Mapping[str, dict[str, Any]] | None = None,
  ) -> None:
    """Forgets what was said of some clips and says it anew."""
    for path in paths:
      self.clips.pop(path, None)
      self.frames.pop(path, None)
    self.clips.update(clips or {})
    self.frames.update(frames or {})

  def first(self) -> tuple[str, str]:
    """The first clip left out, and why."""
    return min(self.clips.items())

  def save(self) -> None:
    """Writes the file whole."""
    content = {
      "clips": dict(sorted(self.clips.items())),
      "frames": dict(sorted(self.frames.items())),
    }
    with records.writing(self._path.parent):
      text = json.dumps(content, indent=1, ensure_ascii=False)
      records.write_atomic(self._path, text.encode())
