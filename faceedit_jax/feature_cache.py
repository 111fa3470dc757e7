"""What frozen nets read in each picture, computed once and kept on disk.

Where the pictures of a stage are never changed on their way, its frozen nets
would say the same of them in every epoch. The arrays that a recipe names are
kept instead.
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
from faceedit_jax.core import editing
from faceedit_jax.core import files as files_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import UserError, WorkdirError, as_user_error
from faceedit_jax.core.progress import Progress
from faceedit_jax.core.typing import PyTree
from faceedit_jax.stages import Stage

_BATCH = 32  # pictures read at a time
_GLANCED = 16  # pictures looked at to tell one set from another
_STAMP = "stamp.json"
RECORD = "record of frozen nets:"  # how versions of such annotators begin


def prepare(
  stage: Stage,
  frozen: PyTree,
  title: str,
  asked_to_stop: Callable[[], bool],
) -> bool:
  """Computes the readings of a stage's pictures, as far as they are missing.

  They lie in `<stage>/readings`, one `.npy` for each array, and belong to one
  config, one set of frozen weights and one set of pictures: others begin anew.
  A call that was stopped is taken up where it was.

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

  spec, folder = stage.recipe.reading_spec(), stage.directory / "readings"
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
    return _read(stage, frozen, source, done, total, title, asked_to_stop)
  except OSError as e:
    raise WorkdirError(f"cannot write to {folder}: {e.strerror}") from e


def load(stage: Stage) -> input_pipeline.Readings:
  """Opens what `prepare` computed; nothing if the recipe wants nothing."""
  folder = stage.directory / "readings"
  return {
    name: np.load(folder / f"{name}.npy", mmap_mode="r")
    for name in stage.recipe.reading_spec()
  }


def check_recorded(stage: Stage, frozen: PyTree) -> None:
  """Refuses a set whose pictures were read by other nets than the stage's.

  Args:
    stage: from `stages.make_stage`.
    frozen: {net: variables} on the first device.

  Raises:
    WorkdirError: one line.
  """
  from data_pipelines import records  # noqa: PLC0415

  source, names = stage.data.source, stage.recipe.record_nets()
  folder = stage.data_dir / getattr(source, "folder", "") / source.split
  with as_user_error(f"config.stage.{stage.name}.data"):
    found = records.read_metadata(folder) if names else None
  versions = (found or {}).get("settings", {}).get("annotators", {})
  ours = [v for v in versions.values() if v.startswith(RECORD)]
  if not ours:  # fields that others have prepared
    return
  wanted = digest({name: frozen[name] for name in names})
  if not any(wanted in version for version in ours):
    raise WorkdirError(
      f"stage {stage.name!r}: {folder} holds what other weights of "
      f"{', '.join(names)} say of its frames; annotate it anew into another "
      "folder, or restore those weights"
    )


def _check_unchanged(stage: Stage) -> None:
  changes = stage.data.transforms.changes()
  if changes:
    raise UserError(
      f"stage {stage.name!r} reads every picture once, but "
      f"stage.{stage.name}.data.transforms has {', '.join(changes)}, which "
      f"change them; remove these or set stage.{stage.name}.recipe."
      "read_once=False"
    )


def _read(stage, frozen, source, done, total, title, asked_to_stop) -> bool:
  """Appends the readings from picture `done` on."""
  from data_pipelines import loader, transforms  # noqa: PLC0415

  recipe, data = stage.recipe, stage.data
  spec, folder = recipe.reading_spec(), stage.directory / "readings"
  done -= done % _BATCH
  size = input_pipeline.picture_size(recipe)
  prepare_one = transforms.make(data.transforms, size, ("image",))
  read = jax.jit(recipe.read)
  bar = Progress(f"{title}: readings", done, total, unit="picture")
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
      rows = jax.device_get(read(frozen, next(pictures)["image"]))
      for name, field in spec.items():
        row = np.asarray(rows[name][:count], field.dtype)
        if row.shape[1:] != tuple(field.shape):
          raise ValueError(
            f"{type(recipe).__name__}.read gave {name} of shape "
            f"{row.shape[1:]}, its reading_spec says {tuple(field.shape)}"
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
  """The part of a run's identity that readings may depend on."""
  identity = copy.deepcopy(stage.identity)
  for name in (*editing.inference_options(stage.recipe), "optimizer"):
    identity["stage"]["recipe"].pop(name, None)
  identity["stage"]["data"]["loader"].pop("batch_size", None)
  return identity


def _header(field: recipe_lib.Field, total: int) -> dict[str, Any]:
  return {
    "descr": np.lib.format.dtype_to_descr(np.dtype(field.dtype)),
    "fortran_order": False,
    "shape": (total, *field.shape),
  }


def _bytes(field: recipe_lib.Field) -> int:
  """Size of one picture's array in a file."""
  return int(np.prod(field.shape)) * np.dtype(field.dtype).itemsize


def _start(path: str | pathlib.Path) -> int:
  """Where the numbers begin in an `.npy` file."""
  with open(path, "rb") as file:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_2_0(file)
    return file.tell()


def _stored(path: pathlib.Path, field: recipe_lib.Field) -> int:
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
