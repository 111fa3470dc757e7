"""Begins and finishes a set; an interrupted one continues where it was."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.records.format import Example, RecordError
from data_pipelines.records.metadata import (
  FORMAT,
  METADATA,
  difference,
  read_metadata,
  shard_name,
  write_atomic,
)
from data_pipelines.records.shards import shard_summary, write_shard, writing


def begin(
  path: str | os.PathLike,
  shards: int,
  settings: Mapping[str, Any],
  names: Mapping[str, Sequence[str]] | None = None,
) -> list[int]:
  """Starts or continues a set.

  Args:
    path: the set's folder; made if missing.
    shards: number of shards.
    settings: what the examples depend on; JSON values.
    names: {integer field: what its numbers stand for}, kept in the metadata.

  Returns:
    The shards still to be written; empty if the set is complete.

  Raises:
    RecordError: another set lies there, or the folder cannot be written.
  """
  path = pathlib.Path(path)
  metadata = read_metadata(path)
  if metadata is not None:
    text = difference(metadata["settings"], settings)
    if text or metadata["shards"] != shards:
      text = text or f"shards: {metadata['shards']} there, {shards} wanted"
      raise RecordError(
        f"{path}: a different set lies there ({text}); choose another folder "
        "or remove this one"
      )
    if metadata["complete"]:
      return []
  else:
    metadata = {
      "format": FORMAT,
      "complete": False,
      "shards": shards,
      "settings": dict(settings),
    }
    if names is not None:
      metadata["names"] = {name: list(all_) for name, all_ in names.items()}
    try:
      path.mkdir(parents=True, exist_ok=True)
      write_atomic(path / METADATA, json.dumps(metadata, indent=1).encode())
    except OSError as error:
      raise RecordError(
        f"{path}: cannot be written ({error.strerror or error}); choose "
        "another folder with --data_dir"
      ) from error
  return [
    i for i in range(shards) if not (path / shard_name(i, shards)).exists()
  ]


def finish(path: str | os.PathLike) -> dict[str, Any]:
  """Marks a set complete once every shard is there.

  Returns:
    The metadata: format, complete, shards, settings, examples, lengths, fields
    {name: [dtype, shape]}, and names if `begin` was given some.

  Raises:
    RecordError: shards are missing.
  """
  path = pathlib.Path(path)
  metadata = read_metadata(path)
  if metadata is None:
    raise RecordError(f"{path}: no set was started there")
  if metadata["complete"]:
    return metadata
  lengths, fields = [], {}
  for index in range(metadata["shards"]):
    final = path / shard_name(index, metadata["shards"])
    if not final.exists():
      raise RecordError(
        f"{path}: shard {index} of {metadata['shards']} missing"
      )
    length, found = shard_summary(path, index, metadata["shards"])
    lengths.append(length)
    fields.update(found)
  metadata.update(
    complete=True, examples=sum(lengths), lengths=lengths, fields=fields
  )
  with writing(path):
    write_atomic(path / METADATA, json.dumps(metadata, indent=1).encode())
  for leftover in path.glob("*.tmp"):
    leftover.unlink(missing_ok=True)
  return metadata


def write_records(
  path: str | os.PathLike,
  examples: Iterable[Example],
  shards: int = 1,
  settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Writes a small set in one go; shard i takes every `shards`-th block.

  Args:
    path: the set's folder.
    examples: all examples; they are collected before writing.
    shards: number of shards.
    settings: noted in the metadata.

  Returns:
    The metadata, see `finish`.
  """
  examples = list(examples)
  todo = begin(path, shards, settings or {})
  bounds = np.linspace(0, len(examples), shards + 1).astype(int)
  for index in todo:
    part = examples[bounds[index] : bounds[index + 1]]
    write_shard(path, index, shards, part)
  return finish(path)
