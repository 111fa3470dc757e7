"""Features that frozen nets compute of each picture, cached on disk.

Where the pictures of a stage are not augmented, its frozen nets would compute
the same features in every epoch. The features that a recipe names are computed
once instead (`core.cached_features`).
"""

import copy
import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from faceedit_jax import input_pipeline
from faceedit_jax.core import batch as batch_lib
from faceedit_jax.core import cached_features, editing
from faceedit_jax.core import files as files_lib
from faceedit_jax.core.errors import UserError, WorkdirError, as_user_error
from faceedit_jax.core.progress import Progress
from faceedit_jax.core.typing import PyTree
from faceedit_jax.stages import Stage

_BATCH = 32  # pictures at a time
_GLANCED = 16  # pictures looked at to tell one set from another
_STAMP = "stamp.json"
PREPARED = "features of frozen nets:"  # how versions of annotators begin
FOLDER = "feature_cache"  # in the directory of a stage


def prepare(
  stage: Stage,
  frozen: PyTree,
  title: str,
  asked_to_stop: Callable[[], bool],
) -> bool:
  """Computes the features of a stage's pictures, as far as they are missing.

  They lie in `<stage>/feature_cache`, one `.npy` for each array, and belong to
  one config, one set of frozen weights and one set of pictures: with others the
  cache is computed anew. A call after one that was stopped resumes.

  Args:
    stage: from `stages.make_stage`.
    frozen: {net: variables} on the first device.
    title: shown by the progress bar.
    asked_to_stop: whether to leave before the next pictures.

  Returns:
    False if it was asked to stop before the end.

  Raises:
    UserError: one line.
  """
  from data_pipelines import samplers  # noqa: PLC0415

  spec, folder = (
    cached_features.feature_spec(stage.recipe),
    stage.directory / FOLDER,
  )
  _check_unchanged(stage)
  single = dataclasses.replace(stage.data, sampler=samplers.Single())
  source = input_pipeline.open_data(single, stage.data_dir, stage.seed)
  total = len(source)
  stamp = {
    "config": _relevant(stage),
    "frozen": digest(frozen),
    "pictures": [total, _glance(source)],
    "fields": {n: [list(f.shape), f.dtype] for n, f in spec.items()},
  }
  try:
    if _read_stamp(folder) != stamp:
      shutil.rmtree(folder, ignore_errors=True)
      folder.mkdir(parents=True)
      for name, field in spec.items():
        with (folder / f"{name}.npy").open("wb") as file:
          np.lib.format.write_array_header_2_0(file, _header(field, total))
      files_lib.write_json(folder / _STAMP, stamp)
    done = min(_stored(folder / f"{n}.npy", f) for n, f in spec.items())
    if done >= total:
      return True
    return _compute(stage, frozen, source, done, total, title, asked_to_stop)
  except OSError as e:
    raise WorkdirError(f"cannot write to {folder}: {e.strerror}") from e


def load(stage: Stage) -> input_pipeline.CachedFeatures:
  """Opens what `prepare` computed; nothing if the recipe caches nothing."""
  folder = stage.directory / FOLDER
  return {
    name: np.load(folder / f"{name}.npy", mmap_mode="r")
    for name in cached_features.feature_spec(stage.recipe)
  }


def check_prepared(stage: Stage, frozen: PyTree) -> None:
  """Refuses a set that stores features of other nets than the stage's.

  Args:
    stage: from `stages.make_stage`.
    frozen: {net: variables} on the first device.

  Raises:
    WorkdirError: one line.
  """
  from data_pipelines import records  # noqa: PLC0415

  source, names = stage.data.source, cached_features.prepared_nets(stage.recipe)
  folder = stage.data_dir / getattr(source, "folder", "") / source.split
  with as_user_error(f"config.stage.{stage.name}.data"):
    found = records.read_metadata(folder) if names else None
  versions = (found or {}).get("settings", {}).get("annotators", {})
  ours = [v for v in versions.values() if v.startswith(PREPARED)]
  if not ours:  # fields that others have prepared
    return
  wanted = digest({name: frozen[name] for name in names})
  if not any(wanted in version for version in ours):
    raise WorkdirError(
      f"stage {stage.name!r}: {folder} stores features that other "
      f"weights of {', '.join(names)} computed; annotate it anew into another "
      "folder, or restore those weights"
    )


def _check_unchanged(stage: Stage) -> None:
  changes = stage.data.transforms.changes()
  if changes:
    raise UserError(
      f"stage {stage.name!r} caches features of every picture, but "
      f"stage.{stage.name}.data.transforms has {', '.join(changes)}, which "
      f"change them; remove these or set stage.{stage.name}.recipe."
      "cache_features=False"
    )


def _compute(stage, frozen, source, done, total, title, asked_to_stop) -> bool:
  """Appends the features from picture `done` on."""
  from data_pipelines import loader, transforms  # noqa: PLC0415

  recipe, data = stage.recipe, stage.data
  spec, folder = recipe.feature_spec(), stage.directory / FOLDER
  done -= done % _BATCH
  size = input_pipeline.picture_size(recipe)
  prepare_one = transforms.make(data.transforms, size, ("image",))
  compute = jax.jit(recipe.compute_features)
  bar = Progress(f"{title}: features", done, total, unit="picture")
  files = {}
  with as_user_error(f"config.stage.{stage.name}.data"):
    pictures = loader.make_loader(
      source,
      prepare_one,
      batch_size=_BATCH,
      seed=stage.seed,
      start_step=done // _BATCH,
      num_threads=data.loader.num_threads,
      shuffle=False,
    )
  try:
    for name, field in spec.items():
      file = files[name] = (folder / f"{name}.npy").open("r+b")
      file.seek(_start(file.name) + done * _bytes(field))
      file.truncate()
    while done < total:
      if asked_to_stop():
        return False
      count = min(_BATCH, total - done)
      # The last batch goes on with the first pictures; they are left out.
      rows = jax.device_get(compute(frozen, next(pictures)["image"]))
      for name, field in spec.items():
        row = np.asarray(rows[name][:count], field.dtype)
        if row.shape[1:] != tuple(field.shape):
          raise ValueError(
            f"{type(recipe).__name__}.compute_features gave {name} of shape "
            f"{row.shape[1:]}, its feature_spec says {tuple(field.shape)}"
          )
        files[name].write(row.tobytes())
      done += count
      bar.update(done, {})
    return True
  finally:
    pictures.close()
    bar.close()
    for file in files.values():
      file.close()


def _relevant(stage: Stage) -> dict[str, Any]:
  """The part of a run's identity that features may depend on."""
  identity = copy.deepcopy(stage.identity)
  for name in (*editing.inference_options(stage.recipe), "optimizer"):
    identity["stage"]["recipe"].pop(name, None)
  identity["stage"]["data"]["loader"].pop("batch_size", None)
  return identity


def _header(field: batch_lib.Field, total: int) -> dict[str, Any]:
  return {
    "descr": np.lib.format.dtype_to_descr(np.dtype(field.dtype)),
    "fortran_order": False,
    "shape": (total, *field.shape),
  }


def _bytes(field: batch_lib.Field) -> int:
  """Size of one picture's array in a file."""
  return int(np.prod(field.shape)) * np.dtype(field.dtype).itemsize


def _start(path: str | pathlib.Path) -> int:
  """Where the numbers begin in an `.npy` file."""
  with open(path, "rb") as file:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_2_0(file)
    return file.tell()


def _stored(path: pathlib.Path, field: batch_lib.Field) -> int:
  """For how many pictures a file holds the array."""
  return (path.stat().st_size - _start(path)) // _bytes(field)


def _read_stamp(folder: pathlib.Path) -> Any:
  try:
    return json.loads((folder / _STAMP).read_text())
  except (OSError, ValueError):
    return None


def _glance(source: Any) -> str:
  """A hash of a few pictures: a set prepared anew shows in nearly all."""
  found = hashlib.sha256()
  for place in np.linspace(0, len(source) - 1, _GLANCED).astype(int):
    found.update(np.ascontiguousarray(source[int(place)]["image"]).tobytes())
  return found.hexdigest()


def digest(tree: PyTree) -> str:
  """A hash of all numbers of a tree, and of their names."""
  found = hashlib.sha256()
  for path, leaf in jax.tree.leaves_with_path(tree):
    found.update(jax.tree_util.keystr(path).encode())
    found.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
  return found.hexdigest()
