"""Pickles made to do harm: nothing is run or imported, little is held."""

import copyreg
import os
import pickle
import struct
import sys

import numpy as np
import pytest

from faceedit_jax import convert
from faceedit_jax.core.errors import UserError
from faceedit_jax.morphable import flame_files
from faceedit_jax.weights import parts, reader
from tests.files.hostile import MEGABYTE, little, outcome
from tests.files.torch_files import pickled, tensors, write_old, write_zip

GOOD = tensors({"weight": np.ones(3, np.float32)})


def short(text):
  return b"\x8c" + bytes([len(text)]) + text


RUN, EVIL = b"ctrap_module\nrun\n", b"ctrap_module\nEvil\n"
# What each makes stands in a dict beside a good tensor.
CALLS = {
  "reduce": RUN + b"(K\x01tR",
  "reduce of a class": EVIL + b")R",
  "by a stack": short(b"trap_module") + short(b"run") + b"\x93)R",
  "inst": b"(K\x01itrap_module\nEvil\n",
  "obj": b"(" + EVIL + b"K\x01o",
  "newobj": EVIL + b")\x81",
  "newobj_ex": EVIL + b")}\x92",
  "build": EVIL + b")\x81}X\x01\x00\x00\x00aK\x01sb",
  "build by setstate": EVIL + b")\x81" + RUN + b"b",
  "build of a name": RUN + b"}X\x01\x00\x00\x00aK\x01sb",
  "build of a dict": b"}}X\x09\x00\x00\x00__class__" + EVIL + b"sb",
  "slots": EVIL + b")\x81N}X\x01\x00\x00\x00a" + RUN + b"s\x86b",
  "reconstructor": b"ccopyreg\n_reconstructor\n("
  + EVIL
  + b"c__builtin__\nobject\nNtR",
  "reconstructor with content": b"ccopy_reg\n_reconstructor\n("
  + EVIL
  + b"c__builtin__\ndict\n}tR",
  "newobj by name": b"ccopyreg\n__newobj__\n(" + EVIL + b"tR",
  "newobj_ex by name": b"ccopyreg\n__newobj_ex__\n(" + EVIL + b")}tR",
  "getattr": b"c__builtin__\ngetattr\n(" + EVIL + b"X\x03\x00\x00\x00runtR)R",
  "map": b"c__builtin__\nmap\n(" + RUN + b"]K\x01atR",
  "partial": b"cfunctools\npartial\n(" + RUN + b"tR)R",
  "caller": b"coperator\nmethodcaller\n(X\x03\x00\x00\x00runtR(" + EVIL + b"tR",
  "defaultdict": b"ccollections\ndefaultdict\n(" + RUN + b"tR",
  "in a known call": b"ctorch._tensor\n_rebuild_from_type_v2\n("
  + RUN
  + EVIL
  + b")}tR",
  "torch's own loader": b"ctorch.storage\n_load_from_bytes\nB"
  + struct.pack("<I", len(RUN) + 5)
  + b"\x80\x02"
  + RUN
  + b")R.\x85R",
  "a name of names": b"ctrap_module\nEvil.__init__.__globals__\n)R",
  "dtype": b"cnumpy\ndtype\n(" + RUN + b"tR",
  "array of a class": b"cnumpy.core.multiarray\n_reconstruct\n("
  + EVIL
  + b"K\x00\x85C\x01btR",
}


def write(path, code, layout):
  """A file with a tensor and something hostile beside it."""
  storages = {}
  more = [] if layout == "zip" else [None]
  good = pickled({"state": GOOD}, 2, storages, *more)
  content = good[:-1] + b"X\x04\x00\x00\x00more" + code + b"s."
  if layout == "plain":
    path.write_bytes(
      pickled({"x": 1})[:-1] + b"X\x01\x00\x00\x00y" + code + b"s."
    )
    return path
  if layout == "zip":
    numbers = [
      (f"data/{key}", storage.array.tobytes())
      for key, storage in storages.values()
    ]
    return write_zip(path, content, more=numbers)
  write_old(path, content)
  keys = pickle.dumps([], 2)
  assert path.read_bytes().endswith(keys)
  numbers = b"".join(
    struct.pack("<q", storage.count) + storage.array.tobytes()
    for _, storage in storages.values()
  )
  names = [str(key) for key, _ in storages.values()]
  whole = path.read_bytes().removesuffix(keys) + pickle.dumps(names, 2)
  path.write_bytes(whole + numbers)
  return path


@pytest.mark.parametrize("layout", ["zip", "old", "plain"])
@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_imported_or_called(tmp_path, trap, name, layout):
  path = write(tmp_path / "net.pth", CALLS[name], layout)
  found = outcome(path)
  if layout == "plain":  # there is no tensor
    return
  # What is beside it does not keep a good tensor from being read.
  np.testing.assert_array_equal(found["state"]["weight"], np.ones(3))


def test_the_same_pickles_do_harm_otherwise(tmp_path, monkeypatch, trap):
  """The traps of this file snap."""
  monkeypatch.setitem(sys.modules, "trap_module", None)
  for name in ("reduce", "inst", "obj", "newobj", "getattr", "build"):
    with pytest.raises(ImportError):
      pickle.loads(CALLS[name] + b".")
  monkeypatch.delitem(sys.modules, "trap_module")


@pytest.mark.parametrize(
  "name",
  [
    "os system",
    "posix system",
    "nt system",
    "os.path os",
    "subprocess Popen",
    "builtins eval",
    "__builtin__ exec",
    "builtins __import__",
    "builtins open",
    "builtins eval.__call__",
    "io open",
    "_io FileIO",
    "shutil rmtree",
    "runpy run_path",
    "importlib import_module",
    "importlib.util spec_from_file_location",
    "ctypes CDLL",
    "socket socket",
    "webbrowser open",
    "pickle loads",
    "sys exit",
    "pip._internal main",
    "urllib.request urlopen",
    "code interact",
  ],
)
@pytest.mark.parametrize("layout", ["zip", "old", "plain"])
def test_traps_are_refused_by_name(tmp_path, name, layout):
  module, _, of = name.partition(" ")
  for code in (
    f"c{module}\n{of}\n(X\x01\x00\x00\x00xtR".encode(),
    f"(X\x01\x00\x00\x00xi{module}\n{of}\n".encode(),
    short(module.encode()) + short(of.encode()) + b"\x93",
  ):
    path = write(tmp_path / "net.pth", code, layout)
    with pytest.raises(ValueError, match="is refused: it names ") as error:
      reader.read(path)
    assert of.split(".")[0] in str(error.value)


class Reduced:
  """As Python itself pickles an object that runs something."""

  def __init__(self, command, by):
    self.command, self.by = command, by

  def __reduce__(self):
    return self._parts() if self.by == "reduce" else NotImplemented

  def __reduce_ex__(self, protocol):
    return self._parts()

  def _parts(self):
    return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("by", ["reduce", "reduce_ex"])
def test_commands(tmp_path, protocol, by):
  touched = tmp_path / "touched"
  evil = {"state_dict": {}, "hook": Reduced(f"touch {touched}", by)}
  path = tmp_path / "net.pkl"
  content = pickle.dumps(evil, protocol)
  for file in (
    path,
    write_zip(tmp_path / "net.pth", content),
    write_old(tmp_path / "old.pth", content),
  ):
    if file is path:
      path.write_bytes(content)
    with pytest.raises(ValueError, match="refused.*system"):
      reader.read(file)
  assert not touched.exists()


def test_the_registry_of_extensions_is_not_asked(tmp_path, trap):
  copyreg.add_extension("trap_module", "Evil", 200)
  try:
    for code in (b"\x82\xc8", b"\x83\xc8\x00", b"\x84\xc8\x00\x00\x00"):
      path = write(tmp_path / "net.pth", code + b")R", "zip")
      assert set(outcome(path)) == {"state"}
  finally:
    copyreg.remove_extension("trap_module", "Evil", 200)


# Streams that are no sense.
NONSENSE = {
  "memo far away": b"}r\xff\xff\xff\xff.",
  "memo of nothing": b"q\x01.",
  "memo that is not there": b"h\x01.",
  "memo by text": b"}p-1\n.",
  "memo of no number": b"}pxyz\n.",
  "huge memo": b"}p99999999999999999999\n.",
  "memoize nothing": b"\x94.",
  "no end": b"\x80\x02}",
  "only an end": b".",
  "marks": b"(" * 1000 + b".",
  "pops": b"0" * 1000 + b".",
  "mark without items": b"1.",
  "tuple without mark": b"t.",
  "tuple of nothing": b"\x87.",
  "append to a number": b"K\x01K\x02a.",
  "append to nothing": b"(K\x01e.",
  "set items of a list": b"](K\x01K\x02u.",
  "odd items": b"}(K\x01u.",
  "key of a list": b"}]K\x01s.",
  "reduce of a number": b"K\x01)R.",
  "reduce with a list": RUN + b"]R.",
  "name of numbers": b"K\x01K\x02\x93.",
  "inst without mark": b"itrap_module\nEvil\n.",
  "obj of nothing": b"(o.",
  "text of nothing": b"X\xff\xff\xff\xff.",
  "long bytes": b"\x8e" + b"\xff" * 7 + b"\x7f.",
  "long frame": b"\x80\x04\x95" + b"\xff" * 8 + b".",
  "long number": b"\x8b\xff\xff\xff\x7f.",
  "negative text": b"T\xff\xff\xff\xff.",
  "number of many digits": b"L" + b"9" * 9999 + b"L\n.",
  "no utf-8": b"X\x01\x00\x00\x00\xff.",
  "persistent text": b"Pabc\n.",
  "persistent number": b"K\x05Q.",
  "buffer": b"\x97.",
  "encode of a number": b"c_codecs\nencode\nK\x01\x85R.",
  "encode by somebody": b"c_codecs\nencode\n("
  b"X\x01\x00\x00\x00aX\x04\x00\x00\x00eviltR.",
  "itself in itself": b"]q\x00h\x00a.",
  "dict in itself": b"}q\x00X\x01\x00\x00\x00ah\x00s.",
  "object in itself": EVIL + b")\x81q\x00h\x00b.",
  "module in itself": b"cnet\nNet\n)\x81q\x00}X\x08\x00\x00\x00_modules}"
  b"X\x01\x00\x00\x00ah\x00ssb.",
  "deep tuple": b")" + b"\x85" * 100_000 + b".",
  "deep tuple as a key": b"})" + b"\x85" * 100_000 + b"K\x01s.",
  "deep tuple in a set": b"\x8f()" + b"\x85" * 100_000 + b"\x90.",
  "deep list": b"]" * 50_000 + b"a" * 49_999 + b".",
  "deep dict": b"}" + b"X\x01\x00\x00\x00a}" * 20_000 + b"s" * 20_000 + b".",
  "pairs of nothing": b"ccollections\nOrderedDict\n(]K\x01atR.",
  "dict of dicts": b"c__builtin__\ndict\n(]]]K\x01aK\x02aatR.",
  "empty": b"\x80\x02.",
}


@pytest.mark.parametrize("layout", ["zip", "old", "plain"])
@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense(tmp_path, name, layout):
  path, content = tmp_path / "net.pth", NONSENSE[name]
  if layout == "zip":
    write_zip(path, content)
  elif layout == "old":
    write_old(path, content)
  else:
    path.write_bytes(content)
  with little():
    assert isinstance(outcome(path), str)


def laughs(start, step, count):
  """`count` lists of which each holds the one before ten times."""
  code = b"]q\x00" + start
  for i in range(count):
    code += b"](" + b"h" + bytes([i])
    code += (b"h" + bytes([i])) * 9 + step + b"q" + bytes([i + 1])
  return code + b"."


BOMBS = {
  "lists of lists": laughs(b"K\x01a", b"e", 100),
  "copies of a list": b"](" + b"K\x01" * 100_000 + b"eq\x00"
  b"c__builtin__\nlist\nq\x01](" + b"h\x01h\x00\x85R" * 10_000 + b"e.",
  "copies of a dict": b"}("
  + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(50_000))
  + b"uq\x00ccollections\nOrderedDict\nq\x01]("
  + b"h\x01h\x00\x85R" * 10_000
  + b"e.",
  "copies of pairs": b"](" + b"K\x01K\x02\x86" * 50_000 + b"eq\x00"
  b"ccollections\nOrderedDict\nq\x01](" + b"h\x01h\x00\x85R" * 10_000 + b"e.",
  "copies of a text": b"X"
  + struct.pack("<I", MEGABYTE)
  + b"a" * MEGABYTE
  + b"q\x00c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x02]("
  + b"h\x01h\x00h\x02\x86R" * 10_000
  + b"e.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_grows_is_refused(tmp_path, name):
  path = tmp_path / "net.pth"
  path.write_bytes(BOMBS[name])
  with little(256 * MEGABYTE):
    assert isinstance(outcome(path), str)
  write_zip(path, BOMBS[name])
  with little(256 * MEGABYTE):
    assert isinstance(outcome(path), str)


@pytest.mark.parametrize("name", [*CALLS, *NONSENSE, *BOMBS])
def test_tables_are_read_by_the_same_means(tmp_path, trap, name):
  path = tmp_path / "generic_model.pkl"
  if name in CALLS:
    write(path, CALLS[name], "plain")
  else:
    path.write_bytes({**NONSENSE, **BOMBS}[name])
  with little(256 * MEGABYTE), pytest.raises(ValueError) as error:
    flame_files.read_model(path)
  assert "\n" not in str(error.value) and str(path) in str(error.value)
  if name in CALLS:
    assert "is refused: it names " in str(error.value)


def test_dicts_of_the_same_dicts_are_held_once(tmp_path):
  """With tensors at the bottom, where a reader must go down."""
  value = GOOD
  for _ in range(18):
    value = {"a": value, "b": value}
  path = write_zip(tmp_path / "net.pth", value)
  with little():
    found = reader.read(path)
  with little(256 * MEGABYTE):
    with pytest.raises(ValueError, match="more than 200,000 entries"):
      parts.find(found, ("",), lambda key: None, 3)


def test_long_names_in_many_places(tmp_path):
  """A short file can make many long paths."""
  value = tensors({"a." * MEGABYTE + "\n": np.ones(1)})
  for _ in range(12):
    value = {"a": value, "b": value}
  path = write_zip(tmp_path / "net.pth", value)
  with little(512 * MEGABYTE):
    found = reader.read(path)
    with pytest.raises(ValueError, match="names of more than") as error:
      parts.find(found, ("",), lambda key: None, 3)
  assert len(str(error.value)) < 500


def test_names_with_ends_of_lines(tmp_path):
  state = {"a\nb" * 1000: np.ones(1), "\r": np.ones(1)}
  path = write_zip(tmp_path / "net.pth", {"x\ny": tensors(state)})
  with pytest.raises(UserError, match="unexpected") as error:
    convert.convert("resnet18", path)
  assert "\n" not in str(error.value) and len(str(error.value)) < 2000
