"""Tensors, archives and headers that lie: no harm, and little memory."""

import json
import struct
import zipfile

import numpy as np
import pytest

from tests.files.hostile import MEGABYTE, little, outcome
from tests.files.torch_files import (
  Call,
  Global,
  New,
  Storage,
  pickled,
  tensor,
  tensors,
  write_old,
  write_zip,
)

GOOD = tensors({"weight": np.ones(3, np.float32)})
NUMBERS = np.arange(6, dtype=np.float32)
BIG = 1 << 61
LIES = {
  "more than there is": tensor(NUMBERS, Storage(NUMBERS, 7)),
  "far more": tensor(NUMBERS, Storage(NUMBERS, BIG)),
  "a negative count": tensor(NUMBERS, Storage(NUMBERS, -1)),
  "a count of no number": tensor(NUMBERS, Storage(NUMBERS, 6.0)),
  "a count of text": tensor(NUMBERS, Storage(NUMBERS, "6")),
  "a wider type": tensor(NUMBERS, Storage(NUMBERS, 6, "DoubleStorage")),
  "an unknown type": tensor(NUMBERS, Storage(NUMBERS, 6, "EvilStorage")),
  "objects": tensor(NUMBERS, Storage(NUMBERS, 6, "ObjectStorage")),
  "a size too large": tensor(NUMBERS, size=(7,)),
  "a huge size": tensor(NUMBERS, size=(BIG, BIG), stride=(0, 0)),
  "an expanded one": tensor(NUMBERS, size=(1 << 20, 1 << 20), stride=(0, 0)),
  "a negative size": tensor(NUMBERS, size=(-1,)),
  "a size that overflows": tensor(NUMBERS, size=(1 << 63, 2), stride=(1, 1)),
  "a size of text": tensor(NUMBERS, size=("6",)),
  "a size of no tuple": tensor(NUMBERS, size=6),
  "a size of truths": tensor(NUMBERS, size=(True,)),
  "a stride too large": tensor(NUMBERS, size=(2,), stride=(6,)),
  "a huge stride": tensor(NUMBERS, size=(2,), stride=(BIG,)),
  "a negative stride": tensor(NUMBERS, size=(2,), stride=(-1,)),
  "fewer strides": tensor(NUMBERS, size=(2, 3), stride=(3,)),
  "an offset": tensor(NUMBERS, offset=1),
  "a huge offset": tensor(NUMBERS, offset=1 << 70),
  "a negative offset": tensor(NUMBERS, offset=-1),
  "an offset of text": tensor(NUMBERS, offset="0"),
  "a hundred axes": tensor(NUMBERS, size=(1,) * 100, stride=(1,) * 100),
  "no storage": Call("torch._utils", "_rebuild_tensor_v2", 1, 0, (6,), (1,)),
  "no arguments": Call("torch._utils", "_rebuild_tensor_v2"),
  "a type of nothing": Call(
    "torch._tensor", "_rebuild_from_type_v2", 1, 2, (3,), 4
  ),
  "a wrong type": Call(
    "torch._utils",
    "_rebuild_tensor_v3",
    Storage(NUMBERS),
    0,
    (6,),
    (1,),
    False,
    None,
    Global("torch", "object"),
  ),
}


@pytest.mark.parametrize("write_file", [write_zip, write_old])
@pytest.mark.parametrize("name", LIES)
def test_tensors_that_lie(tmp_path, name, write_file):
  try:
    path = write_file(tmp_path / "net.pth", {"a": LIES[name]})
  except struct.error:  # the older layout has no room for such a lie
    return
  with little():
    assert isinstance(outcome(path), str)


def numpy_array(dtype, data, shape=(2,), state=(3, "<", None)):
  kind = Call("numpy", "dtype", dtype, False, True, state=state)
  return Call(
    "numpy.core.multiarray",
    "_reconstruct",
    Global("numpy", "ndarray"),
    (0,),
    b"b",
    state=(1, shape, kind, False, data),
  )


ARRAYS = {
  "objects": numpy_array("O", [1, 2]),
  "objects as bytes": numpy_array("O8", b"\0" * 16),
  "objects by another name": numpy_array("|O", b"\0" * 16),
  "objects in records": numpy_array("f8,O", b"\0" * 32),
  "records": numpy_array("V8", b"\0" * 16),
  "many records": numpy_array("2000000000f8", b""),
  "dates": numpy_array("M8[ns]", b"\0" * 16),
  "texts": numpy_array("U1000000000", b"\0" * 16),
  "no type": numpy_array(5, b"\0" * 16),
  "a name as a type": numpy_array(Global("trap_module", "Evil"), b"\0" * 16),
  "too few": numpy_array("f8", b"\0" * 8),
  "too many": numpy_array("f8", b"\0" * 24),
  "a huge shape": numpy_array("f8", b"\0" * 16, (BIG, BIG)),
  "a negative shape": numpy_array("f8", b"\0" * 16, (-2,)),
  "negative twice": numpy_array("f8", b"\0" * 16, (-2, -1)),
  "a shape of text": numpy_array("f8", b"\0" * 16, ("2",)),
  "no state": numpy_array("f8", b"\0" * 16, state=None),
  "no numbers": numpy_array("f8", None),
  "an odd type": numpy_array("f3", b"\0" * 6),
  "a type with code": numpy_array("f8);import os", b"\0" * 16),
  "state of nothing": New("numpy", "ndarray", state=1),
  "buffer": Call("numpy.core.numeric", "_frombuffer", b"ab", 1, (2,), "C"),
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_numpy(tmp_path, trap, name, protocol):
  value = {"more": ARRAYS[name], "state": GOOD}
  path = write_zip(tmp_path / "net.pth", value, protocol)
  with little():
    found = outcome(path)
  # Of objects and the like there is no array; what lies is refused.
  if name in ("no state",):
    assert set(found) == {"more", "state"}
  else:
    assert isinstance(found, str) or set(found) == {"state"}
  if name.startswith("objects"):
    assert set(found) == {"state"}


def test_names_of_members_lead_nowhere(tmp_path, monkeypatch):
  folder = tmp_path / "a" / "b"
  folder.mkdir(parents=True)
  monkeypatch.chdir(folder)
  path = folder / "net.pth"
  evil = [
    "../../../up",
    "/tmp/evil_absolute",
    "data/../../x",
    "C:\\x",
    "\\\\h\\x",
  ]
  write_zip(path, {"a": GOOD}, more=[(name, b"x") for name in evil])
  before = sorted(tmp_path.rglob("*"))
  assert set(outcome(path)) == {"a"}
  for key in ("../../../etc/passwd", "/etc/passwd", "0/../0", "", ".", "0\0"):
    storage = Storage(NUMBERS)
    bad = pickled({"a": tensor(NUMBERS, storage)}).replace(
      b"X\x01\x00\x00\x000", b"X" + struct.pack("<I", len(key)) + key.encode()
    )
    write_zip(path, bad, more=[("data/0", NUMBERS.tobytes())])
    assert isinstance(outcome(path), str)
  assert sorted(tmp_path.rglob("*")) == before


def test_packed_bombs(tmp_path):
  """Zeros that are packed a thousand times smaller."""
  path = tmp_path / "net.pth"
  zeros = np.zeros(20 * MEGABYTE, np.float32)
  write_zip(path, {"a": tensor(zeros)}, packing=zipfile.ZIP_DEFLATED)
  assert path.stat().st_size < MEGABYTE
  del zeros
  with little():
    assert "cannot be weights" in outcome(path)
  code = b"N0" * (40 * MEGABYTE)
  write_zip(path, code + b"N.", packing=zipfile.ZIP_DEFLATED)
  del code
  with little():
    assert "cannot be weights" in outcome(path)


def directory(path):
  """The content of an archive and where its directory begins."""
  content = path.read_bytes()
  end = content.rindex(b"PK\x05\x06")
  return content, struct.unpack("<I", content[end + 16 : end + 20])[0]


@pytest.mark.parametrize(
  ("at", "value"),
  [
    (42, 0xFFFFFFF0),  # where the member begins
    (42, 1),
    (42, 30),
    (24, 0xFFFFFFF0),  # how large it is
    (20, 0xFFFFFFF0),  # how large it is packed
    (24, 7),
    (8, 1),  # a password
    (10, 99),  # a packer that is not there
    (28, 0xFFFF),  # how long its name is
    (30, 0xFFFF),
    (16, 0x12345678),  # the sum of its bytes, which torch does not check
  ],
)
def test_directories_that_lie(tmp_path, at, value):
  path = write_zip(tmp_path / "net.pth", {"a": tensor(NUMBERS)})
  content, start = directory(path)
  position = start
  for _ in range(3):  # data.pkl, byteorder, data/0
    whole = bytearray(content)
    size = 2 if at in (8, 10, 28, 30) else 4
    whole[position + at : position + at + size] = value.to_bytes(size, "little")
    path.write_bytes(whole)
    with little():
      found = outcome(path)
    if isinstance(found, dict):
      assert found["a"].shape == (6,)
    lengths = struct.unpack("<HHH", content[position + 28 : position + 34])
    position += 46 + sum(lengths)


def header(value, data=b"", size=None):
  text = value if isinstance(value, bytes) else json.dumps(value).encode()
  return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(dtype="F32", shape=(1,), begin=0, end=4):
  return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


SAFETENSORS = {
  "a header of the largest size": header(b"{}", size=(1 << 64) - 1),
  "a header of half of it": header(b"{}", size=1 << 63),
  "a header larger than the file": header(b"{}", size=99_000_000),
  "no header": struct.pack("<Q", 0),
  "half a length": b"\x02\0\0\0",
  "no json": header(b"{nothing"),
  "json that is no object": header(b"[1,2]"),
  "deep json": header(b'{"a":' * 100_000),
  "no utf-8": header(b'{"\xff":1}'),
  "an entry of a number": header({"a": 1}),
  "metadata of numbers": header({"__metadata__": {"a": 1}}),
  "an unknown type": header({"a": entry("F128")}, b"1234"),
  "a type of objects": header({"a": entry("O")}, b"1234"),
  "a gap": header({"a": entry(begin=4, end=8)}, b"12345678"),
  "an overlap": header({"a": entry(), "b": entry()}, b"1234"),
  "a partial overlap": header(
    {"a": entry(shape=(2,), end=8), "b": entry(begin=4, end=8)}, b"12345678"
  ),
  "beyond the end": header({"a": entry(shape=(2,), end=8)}, b"1234"),
  "far beyond": header({"a": entry(shape=(BIG,), end=4 * BIG)}, b"1234"),
  "backwards": header({"a": entry(begin=4, end=0)}, b"1234"),
  "negative": header({"a": entry(begin=-4, end=0)}, b"1234"),
  "a negative shape": header({"a": entry(shape=(-1,))}, b"1234"),
  "another shape": header({"a": entry(shape=(2,))}, b"1234"),
  "a shape that overflows": header({"a": entry(shape=(BIG, BIG))}, b"1234"),
  "one that overflows to nothing": header(
    {"a": entry(shape=(1 << 32, 1 << 32), end=0)}
  ),
  "a hundred axes": header({"a": entry(shape=(1,) * 100)}, b"1234"),
  "more than it says": header({"a": entry()}, b"12345678"),
  "a type of four bits": header({"a": entry("F4", (2,), 0, 1)}, b"1"),
}


@pytest.mark.parametrize("name", SAFETENSORS)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_headers_of_safetensors(tmp_path, name, suffix):
  path = tmp_path / f"net{suffix}"
  path.write_bytes(SAFETENSORS[name])
  with little():
    assert isinstance(outcome(path), str)


def test_nothing_of_a_huge_axis_is_held(tmp_path):
  path = tmp_path / "net.safetensors"
  path.write_bytes(header({"a": entry(shape=(0, BIG), end=0)}))
  with little():
    outcome(path)
