"""Files that are no weights: the line says what each is, and what to do."""

import gzip
import io
import json
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from faceedit_jax.files import file_kinds
from faceedit_jax.weights import reader
from tests.files.torch_files import tensors, write_zip


def archive(*members):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as made:
    for name in members:
      made.writestr(name, b"x")
  return file.getvalue()


def picture(kind):
  file = io.BytesIO()
  Image.new("RGB", (8, 8)).save(file, kind)
  return file.getvalue()


def saved(write, *values):
  file = io.BytesIO()
  write(file, *values)
  return file.getvalue()


def tar():
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode="w") as made:
    made.addfile(tarfile.TarInfo("net.pth"))
  return file.getvalue()


INDEX = {
  "metadata": {"total_size": 5},
  "weight_map": {"a": "x-00001-of-00002.safetensors", "b": "x-2.safetensors"},
}
# As their own libraries write them: the first bytes.
ONNX = b"\x08\x07\x12\x07pytorch\x1a\x051.9.0:\xd0\x05\n" + b"\0" * 40
FLAX = b"\x82\xa6params\x81\xa4conv\x81\xa6kernel\xc7\x10\x01" + b"\0" * 40
SAVED_MODEL = b"\x08\x01\x12\xbb\x9c\x01\n\x80\x01\n" + b"\0" * 40
FROZEN = b"\n0\n\x05input\x12\x0bPlaceholder" + b"\0" * 40
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40
KINDS = {
  "html": (b"<!DOCTYPE html><html><title>Google Drive</title>", "an HTML page"),
  "html with a mark": (b"\xef\xbb\xbf\n <html lang='en'>", "an HTML page"),
  "lfs": (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 17\n",
    "pointer of git-lfs.*git lfs pull",
  ),
  "xml": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "XML message"),
  "index": (json.dumps(INDEX).encode(), "the index.*x-00001-of-00002.safet"),
  "json": (b'{"error": "Repository not found"}', "JSON"),
  "png": (picture("PNG"), "a picture"),
  "jpeg": (picture("JPEG"), "a picture"),
  "gif": (picture("GIF"), "a picture"),
  "webp": (picture("WEBP"), "a picture"),
  "tiff": (picture("TIFF"), "a picture"),
  "bmp": (picture("BMP"), "a picture"),
  "heic": (HEIC, r"a picture \(HEIC"),
  "mp4": (b"\0\0\0\x20ftypisom" + b"\0" * 40, "a video"),
  "pdf": (b"%PDF-1.7\n" + b"x" * 40, "a PDF"),
  "gzip": (gzip.compress(b"x" * 100), "packed archive.*unpack it"),
  "tar": (tar(), "a tar archive.*unpack it"),
  "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 40, "HDF5"),
  "onnx": (ONNX, "an ONNX graph"),
  "flax": (FLAX, "msgpack file of Flax"),
  "saved model": (SAVED_MODEL, "graph of TensorFlow"),
  "frozen graph": (FROZEN, "graph of TensorFlow"),
  "tensorflow index": (
    b"\0\0\x01x" * 20 + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
    "index of a TensorFlow checkpoint",
  ),
  "tflite": (b"\x1c\0\0\0TFL3" + b"\0" * 40, "TFLite"),
  "gguf": (b"GGUF\x03\0\0\0" + b"\0" * 40, "GGUF"),
  "npy": (saved(np.save, np.ones(3)), "NumPy array without a name"),
  "npz": (saved(np.savez, np.ones(3)), "npz archive"),
  "zeros": (b"\0" * 1000, "nothing but zeros"),
  "zip": (archive("weights/net.pth", "readme"), "something else.*unpack"),
  "empty zip": (archive(), "something else"),
  "torchscript": (
    archive("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py"),
    "TorchScript.*state_dict",
  ),
  "keras": (archive("config.json", "model.weights.h5"), "a model of Keras"),
  "text": (
    b"Invalid username or password.",
    "is damaged or none: it is a text",
  ),
  "empty": (b"", "is empty; download"),
  "cut safetensors": (
    struct.pack("<Q", 90) + b'{"a":{"dtype"',
    r"cut short: 77 bytes are missing",
  ),
  "cut numbers": (
    struct.pack("<Q", 54)
    + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    + b"1234",
    r"cut short: 4 bytes are missing",
  ),
  "cut zip": (archive("net/data.pkl", "net/data/0")[:50], "cut short"),
  "cut pickle": (b"\x80\x02}q\x00(X\x05\x00\x00\x00ab", "cut short"),
  "no archive": (b"PK\x05\x06" + b"\0" * 18, "something else"),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
def test_what_a_file_is(tmp_path, name, suffix):
  content, message = KINDS[name]
  path = tmp_path / f"net{suffix}"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    reader.read(path)
  text = str(error.value)
  assert "\n" not in text and str(path) in text and len(text) < 500
  # What to do.
  assert any(word in text for word in ("wanted", "download", "name", "unpack"))


def test_good_files_are_of_no_such_kind(tmp_path):
  """Whatever they are called, and however small they are."""
  for protocol in (2, 4):
    path = write_zip(tmp_path / "net.pth", tensors({"a": np.ones(1)}), protocol)
    assert file_kinds.of_file(path) == ""
    assert file_kinds.of_archive(zipfile.ZipFile(path).namelist()) == ""


@pytest.mark.parametrize(
  ("value", "message"),
  [
    ({"epoch": 3, "best": 0.5}, "holds no tensors; its keys are .'best', 'ep"),
    ([1, 2], "no tensors but a list"),
    (3, "no tensors but a int"),
    ({}, "no tensors; its keys are"),
  ],
)
def test_files_of_torch_without_tensors(tmp_path, value, message):
  path = write_zip(tmp_path / "net.pth", value)
  with pytest.raises(ValueError, match=message):
    reader.read(path)


@pytest.mark.parametrize("write", ["flax", "tensorflow", "onnx"])
def test_what_the_libraries_write(tmp_path, write):
  path = tmp_path / "net.bin"
  if write == "flax":
    from flax import serialization

    tree = {"params": {"conv": {"kernel": np.ones((2, 3), np.float32)}}}
    path.write_bytes(serialization.msgpack_serialize(tree))
    message = "msgpack file of Flax"
  elif write == "onnx":
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "net", [], [])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    message = "an ONNX graph"
  else:
    graph_pb2 = pytest.importorskip("tensorflow.core.framework.graph_pb2")
    graph = graph_pb2.GraphDef()
    graph.node.add(name="input", op="Placeholder")
    path.write_bytes(graph.SerializeToString())
    message = "graph of TensorFlow"
  with pytest.raises(ValueError, match=message):
    reader.read(path)
