"""Reads and checks the files of FLAME's and DECA's authors.

Each may also be a `.safetensors` file that `faceedit_jax.convert` made of it.
FLAME is licensed by its authors; the files come from the user.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from faceedit_jax.morphable import pickles

Arrays = dict[str, np.ndarray]
MODEL = (
  "v_template",
  "shapedirs",
  "posedirs",
  "J_regressor",
  "weights",
  "kintree_table",
  "f",
)
LANDMARKS = tuple(
  f"{part}_lmk_{field}"
  for part in ("static", "dynamic", "full")
  for field in ("faces_idx", "bary_coords")
)
# Mean and basis, and texture layout: FLAME's, the BFM's, converted.
_ALBEDO = (("mean", "tex_dir"), ("MU", "PC"), ("mean", "basis"))
_LAYOUT = (("vt", "ft"), ("uv", "uv_faces"))
_PICKLES, _NPY = (".pkl", ".pickle"), ".npy"


@contextlib.contextmanager
def _opened(path: str | pathlib.Path, what: str) -> Iterator[Mapping[str, Any]]:
  """The content of a file by name; an `.npz` reads what is asked for.

  Raises:
    ValueError: one line: no such file, a damaged or dangerous one.
  """
  if not str(path):
    raise ValueError(f"{what}: no path is given")
  path = pathlib.Path(path).expanduser()
  if path.is_dir():
    raise ValueError(f"{what} {path} is a folder; wanted a file in it")
  if not path.is_file():
    raise ValueError(f"{what} {path} does not exist")
  if not path.stat().st_size:
    raise ValueError(f"{what} {path} is empty")
  known = (*_PICKLES, _NPY, ".npz", ".safetensors")
  if path.suffix not in known:
    raise ValueError(
      f"{what} {path} ends in {path.suffix!r}; wanted one of {', '.join(known)}"
    )
  with contextlib.ExitStack() as stack:
    try:
      if path.suffix == ".npz":
        data = stack.enter_context(np.load(path, allow_pickle=False))
      elif path.suffix == ".safetensors":
        data = safetensors.numpy.load_file(path)
      else:
        file = stack.enter_context(path.open("rb"))
        data = _unpickled(file, path.suffix == _NPY)
    except pickles.Refused as e:
      raise ValueError(f"{what} {path} is refused: {e}") from e
    except Exception as e:  # a damaged pickle may raise anything
      raise ValueError(_damaged(what, path, e)) from e
    if not isinstance(data, Mapping):
      raise ValueError(f"{what} {path} holds no arrays by name")
    yield data


def _damaged(what: str, path: Any, error: Exception) -> str:
  text = " ".join(str(error).split()) or type(error).__name__
  return f"{what} {path} is damaged: {text:.120}"


def _unpickled(file, in_npy: bool) -> Any:
  """A pickle, or the one that a `.npy` file of one object holds."""
  if not in_npy:
    return pickles.load(file)
  version = np.lib.format.read_magic(file)
  read = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }[version]
  shape, _, dtype = read(file)
  if shape or not dtype.hasobject:
    return None
  return pickles.load(file)


def _pick(
  data: Mapping[str, Any], names: tuple[str, ...], what: str, path: Any
) -> Arrays:
  """Some arrays of a file."""
  missing = [name for name in names if name not in data]
  if missing:
    raise ValueError(
      f"{what} {path} lacks {missing[:5]}; it has {sorted(map(str, data))[:20]}"
    )
  try:
    picked = {name: np.asarray(pickles.dense(data[name])) for name in names}
  except Exception as e:  # cut archives, and any stub with a wrong state
    raise ValueError(_damaged(what, path, e)) from e
  odd = [
    name for name, array in picked.items() if array.dtype.kind not in "fiu"
  ]
  if odd:
    raise ValueError(f"{what} {path}: {odd[:5]} are no arrays of numbers")
  return picked


def _check_shapes(
  arrays: Arrays, wanted: Mapping[str, tuple], what: str, path: Any
) -> None:
  """Compares shapes; None stands for any number."""
  for name, shape in wanted.items():
    got = arrays[name].shape
    fits = len(got) == len(shape) and all(
      w is None or g == w for g, w in zip(got, shape, strict=True)
    )
    if not fits:
      text = ", ".join("any" if w is None else str(w) for w in shape)
      raise ValueError(
        f"{what} {path}: {name} has shape {got}, wanted ({text})"
      )


def _check_indices(
  index: np.ndarray, count: int, name: str, what: str, path: Any
) -> None:
  if index.size and not 0 <= index.min() <= index.max() < count:
    raise ValueError(
      f"{what} {path}: {name} has indices {index.min()} to {index.max()}, "
      f"wanted them below {count}"
    )


def read_model(path: str | pathlib.Path) -> Arrays:
  """The arrays of a FLAME model.

  Args:
    path: `generic_model.pkl` or a variant of it.

  Returns:
    The arrays by the file's own names (MODEL); J_regressor dense.

  Raises:
    ValueError: one line: no such file, a dangerous or damaged one, or fields
      that are missing or do not belong together.
  """
  what = "FLAME file"
  with _opened(path, what) as data:
    arrays = _pick(data, MODEL, what, path)
  vertices = (*arrays["v_template"].shape, 0)[0]
  joints = (*arrays["kintree_table"].shape, 0, 0)[1]
  shapes = {
    "v_template": (vertices, 3),
    "shapedirs": (vertices, 3, None),
    "posedirs": (vertices, 3, 9 * (joints - 1)),
    "J_regressor": (joints, vertices),
    "weights": (vertices, joints),
    "kintree_table": (2, joints),
    "f": (None, 3),
  }
  _check_shapes(arrays, shapes, what, path)
  _check_indices(arrays["f"], vertices, "f", what, path)
  parents = arrays["kintree_table"][0, 1:]
  _check_indices(parents, joints, "kintree_table", what, path)
  return arrays


def read_albedo(path: str | pathlib.Path, n_albedo: int | None = 50) -> Arrays:
  """Mean and basis of a FLAME or BFM albedo file, as DECA uses them.

  Args:
    path: npz with `mean` and `tex_dir` (FLAME, 0..255) or `MU` and `PC`
      (BFM converted to FLAME, 0..1); channels are stored BGR.
    n_albedo: components to keep; None for all.

  Returns:
    "mean" (t, t, 3) and "basis" (n_albedo, t, t, 3), float32 RGB at half the
    stored side: DECA resizes 512 to 256 by taking the nearest texel. Where the
    file holds its texture layout also "uv" (Vt, 2) and "uv_faces" (F, 3).

  Raises:
    ValueError: one line: no such file, a damaged one, or another content.
  """
  what = "albedo file"
  with _opened(path, what) as data:
    names = next((k for k in _ALBEDO if set(k) <= set(data)), None)
    if names is None:
      raise ValueError(
        f"{what} {path}: got {sorted(data)[:20]}, wanted mean and tex_dir "
        "(FLAME) or MU and PC (BFM)"
      )
    arrays = _pick(data, names, what, path)
    layout = next((k for k in _LAYOUT if set(k) <= set(data)), ())
    found = _pick(data, layout, what, path)
  mean, basis = (arrays[name] for name in names)
  if names[1] != "basis":
    mean, basis = _as_deca(mean, basis, n_albedo, what, path)
    if names[1] == "tex_dir":
      mean, basis = mean / 255.0, basis / 255.0
  else:
    basis = basis[:n_albedo]
    _check_shapes(arrays, {"mean": (None, None, 3)}, what, path)
    _check_shapes(arrays, {"basis": (None, *mean.shape)}, what, path)
  if n_albedo is not None and len(basis) < n_albedo:
    raise ValueError(
      f"{what} {path}: got {len(basis)} components, wanted {n_albedo}; lower "
      "n_albedo"
    )
  out = {"mean": mean, "basis": basis}
  out = {k: np.ascontiguousarray(v, np.float32) for k, v in out.items()}
  if layout:
    out["uv"] = found[layout[0]].astype(np.float32)
    out["uv_faces"] = found[layout[1]].astype(np.int32)
    _check_shapes(out, {"uv": (None, 2), "uv_faces": (None, 3)}, what, path)
    _check_indices(out["uv_faces"], len(out["uv"]), layout[1], what, path)
  return out


def _as_deca(mean, basis, n_albedo, what, path):
  """RGB at half the side, components first."""
  side = round((mean.size / 3) ** 0.5)
  if not mean.size or side * side * 3 != mean.size:
    raise ValueError(f"{what} {path}: {mean.size} values are no square")
  if basis.ndim < 2 or basis.size != mean.size * basis.shape[-1]:
    raise ValueError(
      f"{what} {path}: a basis of shape {basis.shape} for {mean.size} values"
    )
  mean = mean.reshape(side, side, 3)
  basis = basis.reshape(side, side, 3, -1)[..., :n_albedo]
  halve = np.arange(side // 2) * 2
  pick = np.ix_(halve, halve)
  return mean[pick][..., ::-1], np.moveaxis(basis[pick][:, :, ::-1], -1, 0)


def read_landmarks(path: str | pathlib.Path) -> Arrays:
  """The fields of DECA's landmark embedding.

  Args:
    path: `landmark_embedding.npy`, or an `.npz` with its fields.

  Returns:
    LANDMARKS: indices of triangles and weights of their corners, of 51 points
    inside the contour, of 17 contour points at 79 yaws, and of all 68 points
    of the frontal face. An `.npz` need not hold more than the last.

  Raises:
    ValueError: one line: no such file, a dangerous or damaged one, or another
      content.
  """
  what = "landmark file"
  points = {"static": (51,), "dynamic": (79, 17), "full": (68,)}
  with _opened(path, what) as data:
    some = pathlib.Path(path).suffix == ".npz"
    names = [n for n in LANDMARKS if n in data or not some or "full" in n]
    found = _pick(data, tuple(names), what, path)
  arrays = {}
  for part, shape in points.items():
    index, weights = f"{part}_lmk_faces_idx", f"{part}_lmk_bary_coords"
    if index in found and weights in found:
      # The file has an axis of one in front of some.
      lead = (1,) * (found[index].ndim - len(shape))
      _check_shapes(
        found, {index: lead + shape, weights: lead + shape + (3,)}, what, path
      )
      arrays[index] = found[index].reshape(shape).astype(np.int32)
      arrays[weights] = found[weights].reshape(*shape, 3).astype(np.float32)
  return arrays


# What `faceedit_jax.convert` makes of each file, by kind.
READERS: Mapping[str, tuple[str, Callable[[Any], Arrays]]] = {
  "flame": ("FLAME's generic_model.pkl", read_model),
  "flame_albedo": (
    "FLAME_texture.npz or FLAME_albedo_from_BFM.npz, as DECA uses it",
    lambda path: read_albedo(path, None),
  ),
  "flame_landmarks": ("DECA's landmark_embedding.npy", read_landmarks),
}


def unread(path: str | pathlib.Path) -> list[str]:
  """What a file of READERS holds that none of them reads."""
  read = {*MODEL, *LANDMARKS, *sum(_ALBEDO + _LAYOUT, ())}
  with _opened(path, "file") as data:
    return sorted(set(map(str, data)) - read)
