"""Sets of examples on disk: array_record shards that need no TensorFlow.

A set is a folder with one `metadata.json`, and per shard one `.array_record`
file and one `.npz` with its integer scalars (identity, frame, ...) and its
attributes. Shards appear whole or not at all, so an interrupted run continues
with the missing ones.
"""

from data_pipelines.records.format import (
  Encoded,
  RecordError,
  decode,
  encode,
  encode_field,
)
from data_pipelines.records.metadata import (
  ATTRIBUTES,
  METADATA,
  difference,
  read_metadata,
  shard_name,
  write_atomic,
)
from data_pipelines.records.sets import begin, finish, write_records
from data_pipelines.records.shards import (
  ShardWriter,
  shard_summary,
  write_shard,
  writing,
)
from data_pipelines.records.source import RecordSource

__all__ = [
  "ATTRIBUTES",
  "METADATA",
  "Encoded",
  "RecordError",
  "RecordSource",
  "ShardWriter",
  "begin",
  "decode",
  "difference",
  "encode",
  "encode_field",
  "finish",
  "read_metadata",
  "shard_name",
  "shard_summary",
  "write_atomic",
  "write_records",
  "write_shard",
  "writing",
]
