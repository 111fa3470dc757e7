"""The files of FLAME's authors: read as they are, converted, broken."""

import io
import pickle

import jax
import numpy as np
import pytest
import safetensors.numpy

from faceedit_jax import convert
from faceedit_jax.core.errors import UserError
from faceedit_jax.faces import face_reader
from faceedit_jax.morphable import flame, flame_files
from tests.morphable.test_model import generated_arrays

TRIANGLES = 60


class Name:
  """A name of another library, as a pickle holds it."""

  def __init__(self, module, name):
    self.line = f"c{module}\n{name}\n".encode()

  def __call__(self):
    """Pickles only let callables be called."""


class Call:
  """What a name gives for arguments."""

  def __init__(self, module, name, *arguments):
    self.parts = Name(module, name), arguments

  def __reduce__(self):
    return self.parts


class Storage:
  """Numbers that torch refers to inside of its own files."""

  def __init__(self, array):
    self.array = np.ascontiguousarray(array)


class Pickler(pickle._Pickler):
  """Writes names of libraries that need not be there."""

  dispatch = dict(pickle._Pickler.dispatch)

  def save_name(self, name):
    self.write(name.line)

  dispatch[Name] = save_name

  def persistent_id(self, value):
    if not isinstance(value, Storage):
      return None
    kind = {"i": "LongStorage", "f": "DoubleStorage"}[value.array.dtype.kind]
    return "storage", Name("torch", kind), "7", "cpu", value.array.size, None


def write_pickle(file, value):
  Pickler(file, protocol=2).dump(value)


def tensor(array, offset=0):
  """An array as torch puts a tensor into a pickle of others."""
  file = io.BytesIO()
  for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
    pickle.dump(part, file, protocol=2)
  write_pickle(file, Storage(array))
  pickle.dump(["7"], file, protocol=2)
  file.write(array.size.to_bytes(8, "little") + array.tobytes())
  storage = Call("torch.storage", "_load_from_bytes", file.getvalue())
  stride = tuple(s // array.itemsize for s in array.strides)
  hooks = Call("collections", "OrderedDict")
  return Call(
    "torch._utils",
    "_rebuild_tensor_v2",
    *(storage, offset, array.shape, stride, False, hooks),
  )


def landmark_fields(rng):
  out = {}
  for part, shape in (
    ("static", (51,)),
    ("dynamic", (79, 17)),
    ("full", (1, 68)),
  ):
    out[f"{part}_lmk_faces_idx"] = rng.integers(0, TRIANGLES, shape)
    weights = rng.uniform(size=(*shape, 3))
    out[f"{part}_lmk_bary_coords"] = weights / weights.sum(-1, keepdims=True)
  return out


def write_npy(path, value):
  """What `np.save` writes for a dict, by our own pickler."""
  with path.open("wb") as file:
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    whole = np.empty((), object)
    whole[()] = value
    write_pickle(file, whole)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """{option of `nets.morphable`: path}, and what the landmark file holds."""
  rng = np.random.default_rng(0)
  folder = tmp_path_factory.mktemp("flame")
  arrays = generated_arrays()
  arrays["shapedirs"] = rng.normal(size=(*arrays["v_template"].shape, 360))
  arrays["f"] = rng.integers(0, len(arrays["v_template"]), (TRIANGLES, 3))
  sparse = np.where(arrays["J_regressor"] > 0.02, arrays["J_regressor"], 0.0)
  arrays["J_regressor"] = sparse
  columns, rows = np.nonzero(sparse.T)
  state = {
    "_shape": sparse.shape,
    "indptr": np.searchsorted(columns, np.arange(sparse.shape[1] + 1)),
    "indices": rows,
    "data": sparse[rows, columns],
  }
  content = dict(arrays, bs_type="lrotmin")
  content["J_regressor"] = Object("scipy.sparse.csc", "csc_matrix", state)
  content["shapedirs"] = Object("chumpy.ch", "Ch", {"x": arrays["shapedirs"]})
  path = folder / "generic_model.pkl"
  with path.open("wb") as file:
    write_pickle(file, content)
  albedo = folder / "FLAME_texture.npz"
  np.savez(
    albedo,
    mean=rng.uniform(0, 255, (8, 8, 3)),
    tex_dir=rng.normal(size=(8, 8, 3, 60)),
    vt=rng.uniform(size=(70, 2)),
    ft=rng.integers(0, 70, (TRIANGLES, 3)),
    valid_pixel_ids=np.arange(9),
  )
  fields = landmark_fields(rng)
  stored = dict(fields)
  for name in ("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"):
    stored[name] = tensor(fields[name])
  landmarks = folder / "landmark_embedding.npy"
  write_npy(landmarks, stored)
  paths = {
    "path": path,
    "albedo_path": albedo,
    "landmark_path": landmarks,
  }
  return paths, arrays, fields


class Object:
  """An object of another library with a state."""

  def __init__(self, module, name, state):
    self.parts = (Name(module, name), (), state)

  def __reduce__(self):
    return self.parts


def load(paths):
  make = face_reader.morphable_maker(
    "flame", **{name: str(path) for name, path in paths.items()}
  )
  return make()["params"]


def test_files_as_they_are(files):
  paths, arrays, fields = files
  read = flame_files.read_model(paths["path"])
  assert set(read) == set(flame_files.MODEL)
  for name, value in read.items():
    np.testing.assert_allclose(value, arrays[name], err_msg=name)
  read = flame_files.read_landmarks(paths["landmark_path"])
  assert set(read) == set(fields) == set(flame_files.LANDMARKS)
  for name, value in read.items():
    np.testing.assert_allclose(
      value, np.squeeze(fields[name]), rtol=1e-6, err_msg=name
    )
  m = load(paths)
  assert m.albedo_basis.shape == (50, 4, 4, 3)
  ids = fields["full_lmk_faces_idx"][0]
  np.testing.assert_array_equal(m.landmarks68.vertices, arrays["f"][ids])
  assert m.uv.shape == (70, 2) and m.uv_faces.shape == (TRIANGLES, 3)


def test_converted_files_give_the_same(files, tmp_path, capsys):
  paths, _, _ = files
  kinds = {
    "path": ("flame", 7, "1 known"),
    "albedo_path": ("flame_albedo", 4, "1 known"),
    "landmark_path": ("flame_landmarks", 6, "0 known"),
  }
  converted = {}
  for option, (kind, used, left) in kinds.items():
    converted[option] = tmp_path / f"{kind}.safetensors"
    command = [kind, str(paths[option]), f"--output={converted[option]}"]
    assert convert.main(command) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert f"{used} used" in out and left in out
  a, b = load(paths), load(converted)
  assert a.parents == b.parents
  jax.tree.map(np.testing.assert_array_equal, a, b)
  # A second conversion changes nothing.
  again = convert.convert("flame", converted["path"], {})[0]
  first = safetensors.numpy.load_file(converted["path"])
  for name, value in first.items():
    np.testing.assert_array_equal(again[name], value)


def one_line(match, paths):
  with pytest.raises(UserError, match=match) as error:
    load(paths)
  text = str(error.value)
  assert "\n" not in text and text.startswith("nets.morphable: "), text


@pytest.mark.parametrize("option", ["path", "albedo_path", "landmark_path"])
def test_files_that_cannot_be_read(files, tmp_path, option):
  paths = files[0]
  whole = paths[option]
  broken = tmp_path / whole.name
  for content, message in (
    (None, "does not exist"),
    (b"", "is empty"),
    (b"no such thing", "is damaged"),
    (whole.read_bytes()[:-300], "is damaged"),
  ):
    if content is not None:
      broken.write_bytes(content)
    one_line(message, {**paths, option: broken})
  one_line("is a folder", {**paths, option: tmp_path})
  other = tmp_path / "model.txt"
  other.write_bytes(whole.read_bytes())
  one_line("ends in '.txt'", {**paths, option: other})
  converted = tmp_path / "x.safetensors"
  converted.write_bytes(b"\x10\x00\x00")
  one_line("is damaged", {**paths, option: converted})
  safetensors.numpy.save_file({"a": np.ones(3)}, converted)
  one_line("lacks|wanted mean and tex_dir", {**paths, option: converted})


@pytest.mark.parametrize("option", ["path", "albedo_path", "landmark_path"])
def test_cut_and_altered_files_are_one_line(files, tmp_path, option):
  """Wherever it is cut; and where it is altered nothing but a ValueError."""
  whole = files[0][option].read_bytes()
  read = {
    "path": flame_files.read_model,
    "albedo_path": flame_files.read_albedo,
    "landmark_path": flame_files.read_landmarks,
  }[option]
  broken = tmp_path / files[0][option].name
  for cut in np.linspace(1, len(whole) - 2, 40).astype(int):
    broken.write_bytes(whole[:cut])
    with pytest.raises(ValueError, match="damaged") as error:
      read(broken)
    assert "\n" not in str(error.value)
  rng = np.random.default_rng(1)
  caught = 0
  for _ in range(60):
    altered = bytearray(whole)
    for at in rng.integers(0, min(len(whole), 3000), 4):
      altered[at] = rng.integers(256)
    broken.write_bytes(altered)
    try:
      read(broken)
    except ValueError as error:
      caught += 1
      assert "\n" not in str(error)
  assert caught > 10


class Evil:
  """Prints when it is unpickled the ordinary way."""

  def __reduce__(self):
    return print, ("must not run",)


def test_pickles_that_name_code_are_refused(files, tmp_path, capsys):
  paths, arrays, fields = files
  path = tmp_path / "evil.pkl"
  path.write_bytes(pickle.dumps({**arrays, "more": Evil()}, protocol=2))
  one_line("is refused.*print", {**paths, "path": path})
  assert convert.main(["flame", str(path), "--output=x.safetensors"]) == 2
  error = capsys.readouterr()
  assert "refused" in error.err and error.err.count("\n") == 1
  path = tmp_path / "evil.npy"
  np.save(path, {**fields, "more": Evil()})
  one_line("is refused.*print", {**paths, "landmark_path": path})
  # Inside of a tensor's bytes as well.
  inner = Call("torch.storage", "_load_from_bytes", pickle.dumps(Evil()))
  write_npy(path, {**fields, "more": inner})
  one_line("is refused.*print", {**paths, "landmark_path": path})
  path = tmp_path / "evil.npz"
  np.savez(path, mean=np.array(Evil(), object), tex_dir=np.ones((1, 1)))
  one_line("is damaged", {**paths, "albedo_path": path})
  assert "must not run" not in capsys.readouterr().out + error.out


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(offset=1), "beyond its storage"),
    (dict(offset=-1), "impossible shape"),
  ],
)
def test_tensors_that_lie(files, tmp_path, change, message):
  paths, _, fields = files
  path = tmp_path / "landmark_embedding.npy"
  name = "dynamic_lmk_faces_idx"
  write_npy(path, {**fields, name: tensor(fields[name], **change)})
  one_line(f"damaged.*{message}", {**paths, "landmark_path": path})


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(f=None), r"lacks \['f'\]"),
    (dict(f=np.full((3, 3), 99)), "f has indices 99 to 99, wanted them below"),
    (dict(posedirs=np.ones((40, 3, 27))), r"posedirs has shape \(40, 3, 27\)"),
    (dict(weights=np.ones((39, 5))), r"weights has shape \(39, 5\)"),
    (dict(v_template="text"), r"\['v_template'\] are no arrays of numbers"),
    (dict(kintree_table=np.full((2, 5), 7)), "kintree_table has indices 7"),
    (
      dict(shapedirs=np.ones((40, 3, 20))),
      r"got \(20, 0\) identity and expression components",
    ),
  ],
)
def test_models_that_do_not_fit(files, tmp_path, change, message):
  paths, arrays, _ = files
  content = {k: v for k, v in {**arrays, **change}.items() if v is not None}
  path = tmp_path / "generic_model.pkl"
  path.write_bytes(pickle.dumps(content, protocol=2))
  one_line(message, {**paths, "path": path})


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(tex_dir=np.ones((8, 8, 3, 20))), "got 20 components, wanted 50"),
    (dict(mean=np.ones((8, 7, 3))), "168 values are no square"),
    (dict(tex_dir=np.ones((4, 4, 3, 60))), r"a basis of shape \(4, 4, 3, 60\)"),
    (dict(ft=np.full((TRIANGLES, 3), 70)), "ft has indices 70 to 70"),
    (dict(ft=np.zeros((5, 3), int)), "lays out 5 triangles"),
  ],
)
def test_albedo_that_does_not_fit(files, tmp_path, change, message):
  paths = files[0]
  with np.load(paths["albedo_path"]) as data:
    content = {**data, **change}
  path = tmp_path / "FLAME_texture.npz"
  np.savez(path, **content)
  one_line(message, {**paths, "albedo_path": path})


def test_landmarks_of_another_head(files, tmp_path):
  paths, _, fields = files
  path = tmp_path / "landmark_embedding.npz"
  for name, index in (
    ("full_lmk_faces_idx", 9000),
    ("dynamic_lmk_faces_idx", TRIANGLES),
    ("static_lmk_faces_idx", -1),
  ):
    other = np.full_like(fields[name], index)
    np.savez(path, **{**fields, name: other})
    broken = {**paths, "landmark_path": path}
    one_line(f"{name} names triangles {index}", broken)
  np.savez(path, **{**fields, "full_lmk_faces_idx": np.zeros((1, 67), int)})
  one_line(r"idx has shape \(1, 67\)", {**paths, "landmark_path": path})
  # Without any the rest still loads; the face's middle is then not known.
  m = flame.load_flame(paths["path"], paths["albedo_path"])
  assert not len(m.landmarks68.vertices)


def test_no_path_is_said_so(files):
  one_line("no path is given", {**files[0], "path": ""})
