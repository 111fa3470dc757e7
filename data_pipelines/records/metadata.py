"""What a set of records says of itself, and the names of its shards."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from data_pipelines.records.format import RecordError

FORMAT = "faceedit-records-1"
METADATA = "metadata.json"
ATTRIBUTES = "attributes"  # the vector that is indexed beside the scalars


def shard_name(index: int, shards: int) -> str:
  """File name of one shard."""
  return f"shard-{index:05d}-of-{shards:05d}.array_record"


def write_atomic(path: pathlib.Path, data: bytes) -> None:
  """Writes a file whole; the process number keeps two writers apart."""
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  try:
    temporary.write_bytes(data)
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def read_metadata(path: str | os.PathLike) -> dict[str, Any] | None:
  """The metadata of a set, or None where there is none.

  Raises:
    RecordError: the file is damaged or of another format.
  """
  file = pathlib.Path(path) / METADATA
  if not file.is_file():
    return None
  try:
    metadata = json.loads(file.read_text(encoding="utf-8"))
  except (json.JSONDecodeError, OSError) as error:
    raise RecordError(f"{file}: cannot be read ({error})") from error
  if metadata.get("format") != FORMAT:
    raise RecordError(
      f"{file}: format is {metadata.get('format')!r}, wanted {FORMAT!r}"
    )
  return metadata


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
  """One line naming the settings in which two sets differ, "" if none."""
  # A round trip through JSON, because that is how the old ones were kept.
  new = json.loads(json.dumps(dict(new)))
  names = sorted(set(old) | set(new))
  return ", ".join(
    f"{name}: {old.get(name)!r} there, {new.get(name)!r} wanted"
    for name in names
    if old.get(name) != new.get(name)
  )
