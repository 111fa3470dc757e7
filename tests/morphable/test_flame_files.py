"""Reading FLAME's and ICT-FaceKit's files."""

import collections
import pickle
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.morphable import flame_files, ict, load, model
from tests.morphable.test_model import generated_arrays


def fake_class(monkeypatch, module, name, attributes):
  """A class that pickles under another library's name."""
  made = types.ModuleType(module)
  kind = type(name, (), {"__module__": module})
  setattr(made, name, kind)
  monkeypatch.setitem(sys.modules, module, made)
  parts = module.split(".")
  for k in range(1, len(parts)):
    parent = ".".join(parts[:k])
    monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
  stub = kind()
  stub.__dict__.update(attributes)
  return stub


def test_pickle_with_chumpy_and_sparse_arrays(tmp_path, monkeypatch):
  arrays = generated_arrays()
  dense = arrays["J_regressor"] * (arrays["J_regressor"] > 0.02)
  rows, columns = np.nonzero(dense.T)[::-1]
  content = dict(arrays)
  content["v_template"] = fake_class(
    monkeypatch, "chumpy.ch", "Ch", {"x": arrays["v_template"]}
  )
  content["J_regressor"] = fake_class(
    monkeypatch,
    "scipy.sparse.csc",
    "csc_matrix",
    {
      "_shape": dense.shape,
      "indptr": np.searchsorted(columns, np.arange(dense.shape[1] + 1)),
      "indices": rows,
      "data": dense[rows, columns],
    },
  )
  path = tmp_path / "model.pkl"
  path.write_bytes(pickle.dumps(content, protocol=2))
  read = flame_files.read_model(path)
  np.testing.assert_array_equal(read["v_template"], arrays["v_template"])
  np.testing.assert_allclose(read["J_regressor"], dense)
  m = load("flame", str(path), n_shape=10, n_expression=5)
  assert m.shapedirs.shape == (40, 3, 15)
  np.testing.assert_allclose(
    m.shapedirs[..., 10:], arrays["shapedirs"][..., 300:305], rtol=1e-6
  )


class Evil:
  def __reduce__(self):
    return (print, ("must not run",))


def test_pickle_that_names_code_is_refused(tmp_path, capsys):
  path = tmp_path / "evil.pkl"
  path.write_bytes(pickle.dumps({"f": Evil()}, protocol=2))
  with pytest.raises(ValueError, match="refused.*print"):
    flame_files.read_model(path)
  path.write_bytes(pickle.dumps(collections.Counter("aab"), protocol=2))
  with pytest.raises(ValueError, match="refused.*Counter"):
    flame_files.read_model(path)
  assert "must not run" not in capsys.readouterr().out


def test_missing_file_and_missing_fields(tmp_path):
  with pytest.raises(ValueError, match="nowhere.pkl"):
    flame_files.read_model(tmp_path / "nowhere.pkl")
  path = tmp_path / "short.pkl"
  path.write_bytes(pickle.dumps({"f": np.zeros(3)}, protocol=2))
  with pytest.raises(ValueError, match="lacks.*v_template"):
    flame_files.read_model(path)


@pytest.mark.parametrize("kind", ["flame", "bfm"])
def test_albedo_files(tmp_path, kind):
  rng = np.random.default_rng(0)
  mean = rng.uniform(size=(8, 8, 3))
  basis = rng.normal(size=(8, 8, 3, 6))
  path = tmp_path / "albedo.npz"
  if kind == "flame":
    np.savez(path, mean=mean * 255, tex_dir=basis * 255)
  else:
    np.savez(path, MU=mean.reshape(1, -1), PC=basis.reshape(-1, 6))
  found = flame_files.read_albedo(path, 4)
  got_mean, got_basis = found["mean"], found["basis"]
  np.testing.assert_allclose(got_mean[1, 2], mean[2, 4, ::-1], rtol=1e-6)
  np.testing.assert_allclose(
    got_basis[3, 0, 1], basis[0, 2, ::-1, 3], rtol=1e-6
  )
  np.savez(path, other=mean)
  with pytest.raises(ValueError, match="wanted mean and tex_dir"):
    flame_files.read_albedo(path)


def check_ict(m):
  assert m.n_expression >= 1
  joints = np.asarray(m.j_regressor @ m.v_template)
  np.testing.assert_allclose(np.asarray(m.weights).sum(1), 1, atol=1e-5)
  # Eyes left and right of the midline, the neck below and behind the jaw.
  assert joints[3, 0] > 0.02 and joints[4, 0] < -0.02
  assert joints[1, 1] < joints[2, 1] < joints[3, 1] + 0.01
  zero = {k: jnp.zeros((1, *s)) for k, s in m.code_sizes.items()}
  pose = jnp.zeros((1, 6)).at[0, 1].set(0.4)
  points, _ = model.vertices(
    m, zero["shape"], zero["expression"], pose, zero["gaze"]
  )
  nose = model.landmarks(m.landmarks5, points)[0, 2]
  assert nose[0] > 0.02


def test_ict_adapter_on_a_generated_mesh(tmp_path):
  head = load("procedural", texture_size=64)
  count = len(head.v_template)
  rng = np.random.default_rng(0)
  np.savez(
    tmp_path / "small.npz",
    vertices=np.asarray(head.v_template, np.float32) * 110 + [0, 3, 1],
    identity=rng.normal(size=(4, count, 3)).astype(np.float16) * 0.1,
    expression=rng.normal(size=(2, count, 3)).astype(np.float16) * 0.1,
    faces=np.asarray(head.faces),
    uv=np.zeros((count, 2), np.float32),
    uv_faces=np.asarray(head.faces),
    landmarks68=np.asarray(head.landmarks68.vertices)[:, 0],
  )
  m = ict.load_ict(tmp_path, "small.npz", n_shape=3)
  assert (m.n_shape, m.n_expression) == (3, 2)
  check_ict(m)
  agree = (m.weights.argmax(1) == head.weights.argmax(1)).mean()
  assert agree > 0.99
  with pytest.raises(ValueError, match="lower n_shape"):
    ict.load_ict(tmp_path, "small.npz", n_shape=5)
  with pytest.raises(FileNotFoundError, match="none.npz"):
    ict.load_ict(tmp_path, "none.npz")


@pytest.mark.shared
def test_ict_facekit(shared):
  m = load("ict", str(shared / "data" / "ict_facekit_mit"), n_shape=10)
  assert m.n_expression == 57
  check_ict(m)


def test_unknown_kind():
  with pytest.raises(ValueError, match="wanted procedural, flame or ict"):
    load("smpl")
