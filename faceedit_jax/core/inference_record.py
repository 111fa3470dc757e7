"""Options of a trained stage that were found after its training.

They lie beside its checkpoints in `inference.json`, so that whoever uses the
stage finds them; what a config says itself goes before them.
"""

import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from faceedit_jax.core import files
from faceedit_jax.core.errors import UserError

NAME = "inference.json"


def write(
  directory: str | os.PathLike, options: Mapping[str, Any], source: str
) -> pathlib.Path:
  """Keeps options beside a stage; those recorded before stay.

  Args:
    directory: of the stage.
    options: {option: JSON value}.
    source: where they come from, in words.

  Returns:
    The file.

  Raises:
    WorkdirError: it cannot be written.
  """
  path = pathlib.Path(directory) / NAME
  kept = read(directory)
  kept |= {k: {"value": v, "source": source} for k, v in options.items()}
  files.write_json(path, kept)
  return path


def read(directory: str | os.PathLike) -> dict[str, dict[str, Any]]:
  """{option: {"value", "source"}} kept beside a stage.

  Raises:
    UserError: one line for a file that `write` has not written.
  """
  path = pathlib.Path(directory) / NAME
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    return {}
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read: {error}; remove it") from error
  good = isinstance(found, dict) and all(
    isinstance(entry, dict) and "value" in entry for entry in found.values()
  )
  if not good:
    raise UserError(f"{path} holds no recorded options; remove it")
  return found


def fill(
  options: Mapping[str, Any],
  directory: str | os.PathLike,
  known: Collection[str],
) -> dict[str, Any]:
  """Options with what was recorded where the config leaves them empty.

  Args:
    options: of a config.
    directory: of the stage.
    known: names of options that may be recorded.

  Raises:
    UserError: as `read`.
  """
  recorded = {
    name: entry["value"]
    for name, entry in read(directory).items()
    if name in known and not options.get(name)
  }
  return {**options, **recorded}
