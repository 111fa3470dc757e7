"""Valid files with changed bytes: a result or one line, and little memory.

The seed is fixed, and so is the number of files; FACEEDIT_FUZZ=N tries N times
as many.
"""

import contextlib
import os
import struct

import hypothesis
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from faceedit_jax import convert
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.weights import ldm, parts, reader
from tests.files.hostile import little
from tests.files.torch_files import (
  Call,
  New,
  Storage,
  pickled,
  tensor,
  tensors,
  write_old,
  write_zip,
)

TIMES = int(os.environ.get("FACEEDIT_FUZZ", "1"))
SETTINGS = dict(
  deadline=None,
  derandomize=True,
  database=None,
  phases=[hypothesis.Phase.generate],  # no minutes for a smaller example
  suppress_health_check=list(hypothesis.HealthCheck),
)
IDENTITY = dict(
  stages=(1, 1, 1, 1), widths=(4, 4, 4, 4), stem=4, embedding=6, input_size=16
)
UNET = dict(
  channels=8,
  mult=(1,),
  res_blocks=1,
  attention_levels=(),
  context_dim=5,
  condition_dim=6,
  groups=4,
)
DISCRIMINATOR = dict(image_size=8, channels=4, max_channels=8)
STATE = {
  "model.conv_in.weight": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
  "model.conv_in.bias": np.ones(2, np.float16),
  "model_ema.conv_inbias": np.zeros(2, np.float32),
  "steps": np.array(5),
}
# Numbers that lengths, offsets and indices are changed to.
NUMBERS = [0, 1, 2, 7, 8, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
OPCODES = b"().0123NKJMGIFTUXBCcRoi\x81\x92\x93bstuael}]qhrjpgQP\x85\x86\x87"
OPCODES += b"\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x94\x95\x96\x97\x98\x80"


def bytes_of(write, folder, *args):
  path = folder / "seed"
  write(path, *args)
  return path.read_bytes()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
  """Valid files by kind."""
  folder = tmp_path_factory.mktemp("seeds")
  storage = Storage(np.arange(20, dtype=np.float32))
  value = {
    "state_dict": tensors(STATE),
    "view": tensor(storage.array, storage, 3, (2, 3), (5, 1)),
    "options": New("argparse", "Namespace", state={"lr": 0.1, "a": [1, (2,)]}),
    "log": Call("collections", "defaultdict", entries=[("x", 1)]),
    "array": Call(
      "numpy.core.multiarray",
      "_reconstruct",
      None,
      (0,),
      b"b",
      state=(
        1,
        (2,),
        Call("numpy", "dtype", "f4", state=(3, "<")),
        False,
        b"abcd" * 2,
      ),
    ),
  }
  made = {
    f"{name} {protocol}": bytes_of(write, folder, value, protocol)
    for name, write in (("zip", write_zip), ("old", write_old))
    for protocol in (2, 4)
  }
  made["plain 0"] = pickled({"a": [1, "b", {"c": (None, 2.5)}]}, 0)
  made["safetensors"] = bytes_of(
    lambda path, state: safetensors.numpy.save_file(state, path), folder, STATE
  )
  return made


def mutate(data, content, marks):
  """Some changes to the bytes of a file."""
  content = bytearray(content)
  for _ in range(data.draw(st.integers(1, 6))):
    at = data.draw(st.integers(0, len(content)))
    if marks and data.draw(st.booleans()):  # where a pickle or a header lies
      start, end = data.draw(st.sampled_from(marks))
      at = min(data.draw(st.integers(start, end)), len(content))
    kind = data.draw(st.integers(0, 6))
    if kind == 0:
      content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
    elif kind == 1:
      content[at : at + 1] = bytes([data.draw(st.sampled_from(OPCODES))])
    elif kind == 2:
      content[at:at] = bytes([data.draw(st.sampled_from(OPCODES))])
    elif kind == 3:
      del content[at : at + data.draw(st.integers(1, 40))]
    elif kind == 4:
      number = data.draw(st.sampled_from(NUMBERS))
      form = data.draw(st.sampled_from(["<I", ">I", "<Q", ">Q"]))
      content[at : at + struct.calcsize(form)] = struct.pack(form, number)
    elif kind == 5:
      other = data.draw(st.integers(0, len(content)))
      size = data.draw(st.integers(1, 64))
      content[at:at] = content[other : other + size]
    else:
      del content[at:]
  return bytes(content)


def marks_of(content):
  """Where the parts lie that say what the rest is."""
  found = []
  if content[:2] == b"PK":
    begin = content.index(b"\x80")  # of the pickle
    found += [
      (begin, begin + 900),
      (content.rindex(b"PK\x01\x02") - 400, 1 << 20),
    ]
  elif content[:1] == b"\x80":
    found.append((0, 1200))
  return [*found, (0, 400)]


def one_line(path):
  """What `convert` does with a file, without a net; in little memory."""
  with little(), contextlib.suppress(UserError), as_user_error("convert"):
    raw = reader.read_all([path])
    part = parts.find(raw, ("", "x."), _known, 2, None, ldm.dotted_unet)
    assert part.total < 10_000
    for value in part.state.values():
      assert not value.dtype.hasobject
      value.reshape(-1)[-1:].tolist()


def _known(key):
  return key.replace(".", "/") if key.startswith("conv_in.") else None


@pytest.mark.parametrize(
  "name", ["zip 2", "zip 4", "old 2", "old 4", "plain 0", "safetensors"]
)
def test_changed_files(tmp_path, seeds, name):
  path, content = tmp_path / "net.pth", seeds[name]
  marks = marks_of(content)
  path.write_bytes(content)
  one_line(path)

  @hypothesis.settings(max_examples=250 * TIMES, **SETTINGS)
  @hypothesis.given(st.data())
  def changed(data):
    path.write_bytes(mutate(data, content, marks))
    one_line(path)

  changed()


def test_changed_headers_of_safetensors(tmp_path):
  """Valid JSON with other values, which random bytes rarely are."""
  path = tmp_path / "net.ckpt"
  number = st.sampled_from([-1, 0, 1, 4, 8, 1 << 31, 1 << 63, 0.5, None, "4"])
  entry = st.fixed_dictionaries(
    {
      "dtype": st.sampled_from(["F32", "BF16", "I64", "F4", "BOOL", "x", 1]),
      "shape": st.lists(number, max_size=3) | number,
      "data_offsets": st.lists(number, min_size=1, max_size=3),
    }
  )
  headers = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), entry)

  @hypothesis.settings(max_examples=250 * TIMES, **SETTINGS)
  @hypothesis.given(
    headers, st.integers(0, 24), st.sampled_from([0, 0, 0, 1, -1])
  )
  def changed(header, size, off):
    text = repr(header).replace("'", '"').replace("None", "null").encode()
    length = struct.pack("<Q", max(0, len(text) + off))
    path.write_bytes(length + text + b"\0" * size)
    one_line(path)

  changed()


def test_pickles_of_random_opcodes(tmp_path):
  path = tmp_path / "net.pkl"
  piece = st.sampled_from(
    [bytes([code]) for code in OPCODES]
    + [b"K\x01", b"X\x01\x00\x00\x00a", b"q\x00", b"h\x00", b"\x8c\x01b"]
    + [b"cnumpy\ndtype\n", b"ccollections\nOrderedDict\n", b"cx\ny\n"]
    + [b"cnumpy.core.multiarray\n_reconstruct\n", b"C\x02ab"]
    + [b"ctorch._utils\n_rebuild_tensor_v2\n", b"c__builtin__\nset\n"]
    + [b"ccopyreg\n_reconstructor\n", b"c_codecs\nencode\n"]
  )

  @hypothesis.settings(max_examples=500 * TIMES, **SETTINGS)
  @hypothesis.given(st.lists(piece, max_size=60), st.booleans())
  def random(pieces, archived):
    content = b"\x80\x04" + b"".join(pieces) + b"."
    if archived:
      write_zip(path, content)
    else:
      path.write_bytes(content)
    one_line(path)

  random()


def test_names_of_any_text(tmp_path):
  """Keys that no net has, in averages and elsewhere."""
  path = tmp_path / "net.pth"
  key = st.text(max_size=12) | st.sampled_from(
    [
      "model_ema",
      "model_ema.",
      ".",
      "..",
      "ema",
      "conv_in.weight",
      "module.",
      "",
    ]
  )
  keys = st.recursive(
    st.just(0),
    lambda inner: st.dictionaries(key, inner, max_size=3),
    max_leaves=10,
  )

  def filled(tree):
    if not isinstance(tree, dict):
      return tensor(np.ones(2, np.float32))
    return {k: filled(v) for k, v in tree.items()}

  @hypothesis.settings(max_examples=150 * TIMES, **SETTINGS)
  @hypothesis.given(keys)
  def named(tree):
    try:
      write_zip(path, filled(tree))
    except UnicodeEncodeError:  # a half of a pair, which no file can hold
      return
    one_line(path)

  named()


@pytest.mark.parametrize("form", ["arcface", "l2m_discriminator", "unet"])
def test_tensors_of_any_shape_under_the_right_names(tmp_path, form):
  """All that a net's names can hold is one line too."""
  names = {
    "arcface": ["fc.weight", "bn1.weight", "conv1.weight", "layer1.0.bn1.bias"],
    "l2m_discriminator": [
      "main.0.weight",
      "main.5.bias",
      "main.1.conv1.weight",
    ],
    "unet": ["out.2.weight", "input_blocks.0.0.weight", "time_embed.0.bias"],
  }[form]
  path = tmp_path / "net.safetensors"
  types = st.sampled_from(["float32", "float16", "int64", "bool", "complex64"])
  shape = st.lists(st.sampled_from([0, 1, 2, 5]), max_size=6)
  tree = st.dictionaries(st.sampled_from(names), st.tuples(shape, types))
  nets = {"identity": IDENTITY, "unet": UNET, "discriminator": DISCRIMINATOR}

  @hypothesis.settings(max_examples=15 * TIMES, **SETTINGS)
  @hypothesis.given(tree, st.sampled_from(["", "module.", "model_ema."]))
  def odd(tree, prefix):
    state = {prefix + k: np.ones(*made) for k, made in tree.items()}
    safetensors.numpy.save_file(state, path)
    with pytest.raises(UserError, match="does not fit this net") as error:
      convert.convert(form, path, nets)
    assert "\n" not in str(error.value)

  odd()
