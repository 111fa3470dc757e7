"""Sets on disk: exact round trips, atomic shards, resuming."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from data_pipelines import records


def _example(i):
  rng = np.random.default_rng(i)
  return {
    "image": rng.integers(0, 255, (9, 9, 3), dtype=np.uint8),
    "labels": rng.integers(0, 19, (40, 40)).astype(np.uint8),
    "pose": rng.normal(size=6).astype(np.float32),
    "attributes": rng.integers(-1, 2, 40).astype(np.int8),
    "identity": np.int32(i // 3),
    "flag": np.bool_(i % 2),
    "caption": f"number {i}: ä",
    "empty": np.zeros((0, 4), np.float32),
  }


def test_a_full_disk_is_one_line_and_leaves_nothing_half(tmp_path):
  """Files may grow to 256 kB: the third of three shards is too large."""
  code = f"""
import resource, signal, sys
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from data_pipelines import records
draw = np.random.default_rng(0)
todo = records.begin({str(tmp_path)!r}, 3, {{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
try:
  for shard in todo:
    size = 400 if shard == 2 else 3
    noise = draw.integers(0, 255, (size, size, 3), dtype=np.uint8)
    records.write_shard({str(tmp_path)!r}, shard, 3, [{{"image": noise}}] * 4)
except records.RecordError as error:
  sys.exit(f"error: {{error}}")
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  assert done.returncode == 1, done.stderr
  lines = done.stderr.strip().splitlines()
  assert "cannot write there" in lines[-1] and "Traceback" not in done.stderr
  left = sorted(p.name for p in tmp_path.iterdir())
  assert not [name for name in left if name.endswith(".tmp")], left
  assert records.begin(tmp_path, 3, {}) == [2]


def _same(a, b):
  assert set(a) == set(b)
  for name, value in a.items():
    if isinstance(value, str):
      assert b[name] == value
    else:
      assert b[name].dtype == np.asarray(value).dtype
      assert np.array_equal(b[name], value)


def test_encoding_is_exact():
  _same(_example(3), records.decode(records.encode(_example(3))))


def test_only_wanted_fields():
  out = records.decode(records.encode(_example(0)), ["pose"])
  assert list(out) == ["pose"]
  with pytest.raises(records.RecordError, match="no field"):
    records.decode(records.encode(_example(0)), ["depth"])


def test_bad_bytes_and_bad_fields():
  with pytest.raises(records.RecordError, match="not a readable record"):
    records.decode(b"\x05\x00\x00\x00hello")
  with pytest.raises(records.RecordError, match="field 'x'"):
    records.encode({"x": np.array([None])})


def test_write_and_read(tmp_path):
  examples = [_example(i) for i in range(11)]
  metadata = records.write_records(tmp_path / "s", examples, 3, {"seed": 1})
  assert metadata["examples"] == 11 and len(metadata["lengths"]) == 3
  assert metadata["fields"]["image"] == ["uint8", [9, 9, 3]]
  source = records.RecordSource(tmp_path / "s")
  assert len(source) == 11
  for i in (0, 10, 4):
    _same(examples[i], source[i])
  identities = [int(e["identity"]) for e in examples]
  assert source.column("identity").tolist() == identities
  with pytest.raises(records.RecordError, match="no column 'age'"):
    source.column("age")
  with pytest.raises(IndexError):
    source[11]
  copy = pickle.loads(pickle.dumps(source))
  _same(examples[5], copy[5])
  only = records.RecordSource(tmp_path / "s", ["pose"])
  assert list(only[2]) == ["pose"]
  with pytest.raises(records.RecordError, match="no field"):
    records.RecordSource(tmp_path / "s", ["depth"])


def test_a_failed_shard_leaves_nothing_behind(tmp_path):
  path = tmp_path / "s"
  assert records.begin(path, 2, {}) == [0, 1]

  def broken():
    yield _example(0)
    raise RuntimeError("power cut")

  with pytest.raises(RuntimeError):
    records.write_shard(path, 0, 2, broken())
  assert [p.name for p in path.iterdir()] == ["metadata.json"]
  records.write_shard(path, 1, 2, [_example(1)])
  assert records.begin(path, 2, {}) == [0]
  with pytest.raises(records.RecordError, match="incomplete"):
    records.RecordSource(path)
  with pytest.raises(records.RecordError, match="shard 0 of 2 missing"):
    records.finish(path)
  (path / "shard-00000-of-00002.array_record.123.tmp").write_text("left over")
  records.write_shard(path, 0, 2, [])
  assert records.finish(path)["examples"] == 1
  assert not list(path.glob("*.tmp"))
  _same(records.RecordSource(path)[0], _example(1))
  assert records.begin(path, 2, {}) == []


def test_a_different_set_is_refused(tmp_path):
  records.write_records(tmp_path, [_example(0)], 1, {"size": 64, "seed": 0})
  with pytest.raises(records.RecordError, match="size: 64 there, 32 wanted"):
    records.begin(tmp_path, 1, {"size": 32, "seed": 0})
  with pytest.raises(records.RecordError, match="shards: 1 there, 2 wanted"):
    records.begin(tmp_path, 2, {"size": 64, "seed": 0})


def test_missing_damaged_and_foreign_sets(tmp_path):
  with pytest.raises(records.RecordError, match="no set of records"):
    records.RecordSource(tmp_path / "none")
  (tmp_path / "metadata.json").write_text("{")
  with pytest.raises(records.RecordError, match="cannot be read"):
    records.RecordSource(tmp_path)
  (tmp_path / "metadata.json").write_text(json.dumps({"format": "other"}))
  with pytest.raises(records.RecordError, match="format is 'other'"):
    records.RecordSource(tmp_path)


def test_unwritable_place(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(records.RecordError, match="cannot be written"):
    records.begin(tmp_path / "file" / "set", 1, {})


def test_no_tensorflow_is_needed(tmp_path, root):
  records.write_records(tmp_path, [_example(0)])
  code = (
    "import sys; sys.modules['tensorflow'] = None\n"
    "from data_pipelines import records, loader, sources, prepare\n"
    f"assert len(records.RecordSource({str(tmp_path)!r})[0]) == 8\n"
    "assert 'tensorflow_datasets' not in sys.modules\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_read_only_place(tmp_path, monkeypatch):
  # Said by the system, because the user running the tests may be root.
  def refuse(*args, **kwargs):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(os, "replace", refuse)
  with pytest.raises(records.RecordError, match="Permission denied") as caught:
    records.begin(tmp_path / "set", 1, {})
  assert "\n" not in str(caught.value)


def test_fields_encoded_beforehand(tmp_path):
  """They are stored as if they came as arrays."""
  example = _example(3)
  encoded = {n: records.encode_field(v) for n, v in example.items()}
  assert records.encode(encoded) == records.encode(example)
  for name, given in (("a", [example]), ("b", [encoded])):
    records.write_records(tmp_path / name, given)
  fields = [records.read_metadata(tmp_path / n)["fields"] for n in "ab"]
  assert fields[0] == fields[1]
  assert records.shard_summary(tmp_path / "b", 0, 1) == (1, fields[0])


def test_a_shard_written_bit_by_bit(tmp_path):
  records.begin(tmp_path, 1, {}, {"identity": ["ann", "ben"]})
  writer = records.ShardWriter(tmp_path, 0, 1)
  writer.add(_example(0))
  writer.abort()
  assert [p.name for p in tmp_path.iterdir()] == [records.METADATA]
  writer = records.ShardWriter(tmp_path, 0, 1)
  for i in range(5):
    writer.add(_example(i))
  assert records.begin(tmp_path, 1, {}) == [0]  # nothing appears before its end
  assert writer.close() == 5
  metadata = records.finish(tmp_path)
  assert metadata["names"] == {"identity": ["ann", "ben"]}
  source = records.RecordSource(tmp_path)
  assert source.column("identity").tolist() == [0, 0, 0, 1, 1]
  _same(source[4], _example(4))
