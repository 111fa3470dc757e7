"""What a file is that is no weight file, by its content, and what to do."""

import json
import pathlib
import re
from collections.abc import Sequence

_HEAD = 1 << 16  # bytes that are looked at
_AGAIN = "download the file itself again"
_SAVE = "torch.save(model.state_dict(), FILE) in its own environment writes one"
# How files begin: pattern, what it is, what to do.
_BEGINNINGS: Sequence[tuple[bytes, str, str]] = (
  (
    rb"\s*(<!doctype html|<html|<head|<script)",
    "an HTML page, which a server sends in place of a file that needs a login "
    "or a confirmation",
    _AGAIN + " (in a browser, or with the site's own tool)",
  ),
  (rb"\s*<\?xml|\s*<error", "an XML message of a server", _AGAIN),
  (
    rb"version https://git-lfs|version https://hawser",
    "a pointer of git-lfs, not the file that it points to",
    "run `git lfs pull` in its repository, or " + _AGAIN,
  ),
  (rb"/annex/objects/|\.\./\.git/annex", "a pointer of git-annex", _AGAIN),
  (rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0\0\0\0", "a picture", ""),
  (rb"II\*\0|MM\0\*|RIFF....WEBP", "a picture", ""),
  (
    rb"....ftyp(heic|heix|hevc|mif1|msf1|avif|avis)",
    "a picture (HEIC or AVIF)",
    "",
  ),
  (rb"....ftyp|RIFF....AVI |\x1aE\xdf\xa3", "a video", ""),
  (rb"%PDF", "a PDF document", ""),
  (
    rb"\x1f\x8b|BZh[1-9]|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd",
    "a packed archive (gzip, bzip2, xz, 7z, rar or zstd)",
    "unpack it and name the weight file in it",
  ),
  (
    rb".{257}ustar",
    "a tar archive",
    "unpack it (tar -xf) and name the weight file in it",
  ),
  (
    rb"\x89HDF\r\n\x1a\n",
    "an HDF5 file (Keras)",
    "wanted is the authors' file of torch or safetensors",
  ),
  (
    rb"\x08[\x01-\x14](\x12.{0,40}|:)(pytorch|onnx|tf2onnx|keras|skl|\w)",
    "an ONNX graph",
    "its nets are graphs without the authors' names; wanted is the checkpoint "
    "that it was exported from",
  ),
  (
    rb"....TFL3",
    "a TFLite model",
    "wanted is the checkpoint that it was converted from",
  ),
  (
    rb"\x08\x01\x12[\x80-\xff]|\x0a[\x02-\xff].?\x0a[\x01-\x40][\w/.-]+\x12",
    "a graph of TensorFlow",
    "wanted is the authors' file of torch or safetensors",
  ),
  (
    rb"[\x81-\x8f\xde\xdf](..|....)??([\xa1-\xbf]|\xd9.)[\w/]+"
    rb"[\x80-\x9f\xc4-\xc9\xd4-\xd9\xdc-\xdf]",
    "a msgpack file of Flax",
    "wanted is the authors' file of torch or safetensors",
  ),
  (rb"GGUF|ggml|ggjt|lmgg", "a quantised model (GGUF)", ""),
  (
    rb"\x93NUMPY",
    "a NumPy array without a name",
    "wanted are tensors by key",
  ),
)


def of_file(path: pathlib.Path) -> str:
  """What a file is, and what to do; "" where nothing is known.

  Args:
    path: of a file.

  Returns:
    Part of a line: "it is an HTML page ...; download ...".
  """
  size = path.stat().st_size
  with path.open("rb") as file:
    head = file.read(_HEAD)
    file.seek(max(0, size - 48))
    tail = file.read()
  if size >= 64 and not head.strip(b"\0"):
    return _line("nothing but zeros", "its download has not ended: " + _AGAIN)
  if tail.endswith(b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"):
    return _line(
      "an index of a TensorFlow checkpoint",
      "wanted is the authors' file of torch or safetensors",
    )
  start = head.removeprefix(b"\xef\xbb\xbf")
  for pattern, what, advice in _BEGINNINGS:
    if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
      return _line(what, advice)
  if start.lstrip()[:1] in (b"{", b"["):
    return _of_json(path, size)
  return ""


def _of_json(path: pathlib.Path, size: int) -> str:
  try:
    found = json.loads(path.read_bytes()) if size < 1 << 26 else None
  except (ValueError, RecursionError):
    found = None
  if isinstance(found, dict) and isinstance(found.get("weight_map"), dict):
    names = sorted({str(v) for v in found["weight_map"].values()})
    shown = " ".join(names[:3]) + (" ..." if len(names) > 3 else "")
    return _line(
      "the index of weights in several files",
      f"name those files one after the other instead: {shown}",
    )
  if found is None:
    return ""
  return _line("JSON, a text of settings or a message", _AGAIN)


def of_archive(names: Sequence[str]) -> str:
  """What a zip archive is; "" for one of `torch.save`.

  Args:
    names: of its members.
  """
  last = {name.split("/")[-1] for name in names}
  if "constants.pkl" in last or any("/code/" in f"/{n}" for n in names):
    return _line(
      "a TorchScript archive, a program with its weights",
      "torch.save(torch.jit.load(FILE).state_dict(), OTHER) writes what is "
      "wanted",
    )
  if "data.pkl" in last:
    return ""
  if names and all(name.endswith(".npy") for name in names):
    return _line("an .npz archive of NumPy arrays", "wanted are tensors by key")
  if "model.weights.h5" in last:
    return _line("a model of Keras", "wanted is a file of torch or safetensors")
  shown = ", ".join(repr(name)[:60] for name in names[:3])
  return _line(
    f"a zip archive of something else ({shown or 'nothing'})",
    "unpack it and name the weight file in it",
  )


def _line(what: str, advice: str) -> str:
  wanted = "wanted is a checkpoint of torch or a .safetensors file"
  return f"it is {what}; {advice or wanted}"
