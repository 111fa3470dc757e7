"""Freezes `recipe.edit` into a bundle that runs without this library's nets.

  python -m faceedit_jax.export --workdir=DIR --out=DIR

A bundle is a folder: `weights.safetensors` (all nets), `edit.jax` (the program
for CPU, CUDA and TPU, any batch size) and `manifest.json`. The program expires
with JAX's compatibility window; weights and config are the archive.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.flax
from jax import export as jax_export

from faceedit_jax import __version__
from faceedit_jax.core import options as core_options
from faceedit_jax.core.batch import Field
from faceedit_jax.core.editing import (
  Editable,
  EditInput,
  check_edit,
  editable,
)
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.core.typing import Array, Variables

FORMAT = 2
PLATFORMS = ("cpu", "cuda", "tpu")
_PROGRAM, _WEIGHTS, _MANIFEST = (
  "edit.jax",
  "weights.safetensors",
  "manifest.json",
)


class _Recorder(dict):
  """A dict that remembers which of its entries were read."""

  def __init__(self, *args):
    super().__init__(*args)
    self.read: set[str] = set()

  def __getitem__(self, name):
    self.read.add(name)
    return super().__getitem__(name)

  def get(self, name, default=None):
    return self[name] if name in self else default

  def items(self):
    self.read.update(self)
    return super().items()

  def values(self):
    self.read.update(self)
    return super().values()


def flatten(tree: Any) -> dict[str, Array]:
  """Leaves by "/"-joined path, as they are named in the weight file."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }


def export_edit(
  recipe: Editable,
  variables: Mapping[str, Variables],
  frozen: Mapping[str, Variables],
  out: str | pathlib.Path,
  *,
  image_size: int,
  inputs: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
  platforms: Sequence[str] = PLATFORMS,
  batch: int | None = None,
  info: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes a bundle.

  Args:
    recipe: whose `edit` to freeze.
    variables: {net: variables} of the trained nets.
    frozen: {net: variables} of the frozen nets.
    out: folder of the bundle, created.
    image_size: side of the run's pictures in pixels.
    inputs: fields of the recipe's `edit_inputs` that the program takes; by
      default the required ones and those that others may stand in for. What
      the edit never reads is left out.
    options: options of `edit`, fixed in the program.
    platforms: where the program can run.
    batch: a fixed batch size; any size when None.
    info: JSON values for the manifest, e.g. the config.

  Returns:
    The folder.

  Raises:
    ValueError: a platform is unknown, or the edit returns no "image".
    UserError: the recipe edits nothing, or has no such input or option.
  """
  unknown = [p for p in platforms if p not in PLATFORMS]
  if unknown or not platforms:
    raise ValueError(
      f"platforms {list(platforms)} must be some of {list(PLATFORMS)}"
    )
  # Loading a bundle must not load what edits and trains.
  from faceedit_jax.editing import options as options_lib

  options = dict(options or {})
  recipe = editable(recipe)
  options_lib.check(recipe, options)
  tree = {"variables": dict(variables), "frozen": dict(frozen)}
  flat, structure = flatten(tree), jax.tree.structure(tree)
  names = list(flat)

  def edit(weights, arrays, seed):
    nets = jax.tree.unflatten(structure, [weights[name] for name in names])
    key = jax.random.key(seed)
    nets = nets["variables"], nets["frozen"]
    return dict(recipe.edit(*nets, arrays, key, **options))

  abstract = {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for name, leaf in flat.items()
  }
  seed = jax.ShapeDtypeStruct((), jnp.uint32)
  declared = _chosen(recipe, inputs, variables)
  fields = {item.field: item.spec(image_size) for item in declared}
  fields = _read_fields(edit, abstract, fields, seed)
  size = batch or jax_export.symbolic_shape("b")[0]
  arrays = {
    name: jax.ShapeDtypeStruct((size, *field.shape), jnp.dtype(field.dtype))
    for name, field in fields.items()
  }
  made = jax_export.export(jax.jit(edit), platforms=list(platforms))(
    abstract, arrays, seed
  )
  outputs = jax.tree.unflatten(made.out_tree, made.out_avals)
  if "image" not in outputs:
    raise ValueError(
      f"{type(recipe).__name__}.edit returned {sorted(outputs)}, wanted an "
      "'image' among them"
    )
  out = pathlib.Path(out)
  out.mkdir(parents=True, exist_ok=True)
  host = {name: jnp.asarray(leaf) for name, leaf in flat.items()}
  safetensors.flax.save_file(host, out / _WEIGHTS)
  program = bytes(made.serialize())
  (out / _PROGRAM).write_bytes(program)
  manifest = {
    "format": FORMAT,
    "library": __version__,
    "jax": jax.__version__,
    "recipe": type(recipe).__name__,
    "platforms": list(platforms),
    "batch": batch,
    "inputs": {
      item.field: _describe(arrays[item.field], item, fields[item.field])
      for item in declared
      if item.field in fields
    },
    "outputs": {k: _describe(v) for k, v in outputs.items()},
    "options": {k: repr(v) for k, v in options.items()},
    "parameters": sum(int(np.prod(v.shape)) for v in flat.values()),
    "sha256": {
      _PROGRAM: hashlib.sha256(program).hexdigest(),
      _WEIGHTS: _digest(out / _WEIGHTS),
    },
    "info": dict(info or {}),
  }
  text = json.dumps(manifest, indent=2, sort_keys=True, default=str)
  (out / _MANIFEST).write_text(text + "\n")
  return out


def _read_fields(edit, weights, fields, seed) -> dict[str, Field]:
  """The fields that an edit reads, found by tracing it once."""
  arrays = {
    name: jax.ShapeDtypeStruct((2, *field.shape), jnp.dtype(field.dtype))
    for name, field in fields.items()
  }
  seen: set[str] = set()

  def watched(weights, arrays, seed):
    recorder = _Recorder(arrays)
    made = edit(weights, recorder, seed)
    seen.update(recorder.read)
    return made

  jax.eval_shape(watched, weights, arrays, seed)
  return {name: field for name, field in fields.items() if name in seen}


def _chosen(
  recipe: Editable,
  names: Sequence[str] | None,
  variables: Mapping[str, Variables],
) -> list[EditInput]:
  """The inputs that a program takes."""
  declared = {item.field: item for item in recipe.edit_inputs}
  if names is None:
    usual = [i for i in declared.values() if i.required or i.default]
    return [i for i in usual if i.required or _can(recipe, variables, i.field)]
  check_edit(recipe, variables, names)
  for name in names:
    if name not in declared:
      near = core_options.nearest(name, declared)
      raise UserError(f"{type(recipe).__name__} has no input {name!r}{near}")
  lacking = [i.field for i in declared.values() if i.required]
  lacking = [field for field in lacking if field not in names]
  if lacking:
    raise UserError(f"the inputs lack {lacking[0]!r}, which edits need")
  return [item for item in declared.values() if item.field in names]


def _can(recipe, variables, field) -> bool:
  """Whether the trained nets can do with an input."""
  try:
    check_edit(recipe, variables, (field,))
  except UserError:
    return False
  return True


def _describe(
  value: Any, item: EditInput | None = None, field: Field | None = None
) -> dict[str, Any]:
  """An input or output of the program, for the manifest."""
  shape = [d if isinstance(d, int) else str(d) for d in value.shape]
  described = {"shape": shape, "dtype": str(value.dtype)}
  if item is not None:
    described |= {"kind": item.kind, "required": item.required}
    if item.default:
      described["default"] = item.default
  if field is not None and field.range is not None:
    described["range"] = list(field.range)
  return described


def _digest(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
  """A loaded bundle; call it with arrays.

  Attributes:
    manifest: what `manifest.json` says.
    weights: {path: array} on the default device.
    program: the deserialised program.
  """

  manifest: Mapping[str, Any]
  weights: Mapping[str, Array]
  program: jax_export.Exported

  def __call__(
    self, inputs: Mapping[str, Any], seed: int = 0
  ) -> dict[str, Array]:
    """Runs the edit.

    Args:
      inputs: {name: array (b, ...)} as the manifest lists them; one with a
        default may be left out, and others are ignored.
      seed: of the edit's noise.

    Returns:
      {"image": (b, h, w, 3) in [-1, 1], ...}.

    Raises:
      UserError: an input is missing or has another shape or dtype.
    """
    arrays, size = {}, self.manifest["batch"]
    for name, wanted in self.manifest["inputs"].items():
      value = inputs.get(name, inputs.get(wanted.get("default", "")))
      if value is None:
        raise UserError(
          f"the bundle needs {sorted(self.manifest['inputs'])}, got "
          f"{sorted(inputs)}"
        )
      shape = np.shape(value)
      size = (shape[0] if shape else 0) if size is None else size
      expected = (size, *wanted["shape"][1:])
      if shape != expected or str(value.dtype) != wanted["dtype"]:
        raise UserError(
          f"input {name!r} is {value.dtype}{list(shape)}, the bundle wants "
          f"{wanted['dtype']}{list(expected)}"
        )
      arrays[name] = jnp.asarray(value)
    return self._compiled(self.weights, arrays, jnp.uint32(seed))

  @functools.cached_property
  def _compiled(self):
    # One jit object keeps the executable of every batch size seen so far.
    return jax.jit(self.program.call)


def load_bundle(folder: str | pathlib.Path) -> Bundle:
  """Loads a bundle and checks that it is whole and fits this machine.

  Raises:
    UserError: a file is missing or damaged, the format is newer, or the
      program was not made for this platform.
  """
  folder = pathlib.Path(folder)
  for name in (_MANIFEST, _PROGRAM, _WEIGHTS):
    if not (folder / name).is_file():
      raise UserError(f"{folder} is no bundle: it has no {name}")
  manifest = json.loads((folder / _MANIFEST).read_text())
  if manifest.get("format") != FORMAT:
    raise UserError(
      f"{folder} has bundle format {manifest.get('format')}, this version "
      f"reads {FORMAT}; export it again"
    )
  for name, digest in manifest["sha256"].items():
    if _digest(folder / name) != digest:
      raise UserError(f"{folder / name} is damaged; copy or export it again")
  platform = jax.default_backend()
  platform = "cuda" if platform == "gpu" else platform
  if platform not in manifest["platforms"]:
    raise UserError(
      f"{folder} was exported for {manifest['platforms']}, this machine runs "
      f"on {platform!r}; export it again with --platforms={platform}"
    )
  with as_user_error(str(folder / _PROGRAM)):
    program = jax_export.deserialize((folder / _PROGRAM).read_bytes())
  weights = safetensors.flax.load_file(folder / _WEIGHTS)
  return Bundle(manifest, weights, program)


def export_stage(
  config: Mapping[str, Any] | None,
  workdir: str | pathlib.Path,
  out: str | pathlib.Path,
  *,
  stage: str | None = None,
  ema: str | None = None,
  inputs: Sequence[str] | None = None,
  platforms: Sequence[str] = PLATFORMS,
  batch: int | None = None,
  options: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Exports the newest checkpoint of a stage, the last one by default.

  Args:
    config: the whole config; what the run has recorded when None.
    workdir: directory of all stages.
    out: folder of the bundle.
    stage: which stage.
    ema: average to export; the recipe's main one when None, "" for the raw
      parameters.
    inputs: see `export_edit`.
    platforms: see `export_edit`.
    batch: see `export_edit`.
    options: see `export_edit`.
  """
  from faceedit_jax import load_trained

  made = load_trained.load(workdir, config, stage, ema)
  try:
    return export_edit(
      made.recipe,
      made.variables,
      made.frozen,
      out,
      image_size=made.image_size,
      inputs=inputs,
      options=options,
      platforms=platforms,
      batch=batch,
      info=made.info,
    )
  except TypeError as error:  # an option that the recipe cannot use
    raise UserError(f"edit with {dict(options or {})}: {error}") from error


def _options(text: str) -> dict[str, Any]:
  """The options of a command line."""
  try:
    options = json.loads(text)
  except json.JSONDecodeError:
    options = None
  if not isinstance(options, dict):
    raise UserError(
      f'--options: wanted JSON like {{"NAME": VALUE}}, got {text}'
    )
  return options


def main(arguments: Sequence[str] | None = None) -> int:
  """Entry point of the command line; returns the exit code."""
  from faceedit_jax.core import config as config_lib

  parser = argparse.ArgumentParser(
    prog="python -m faceedit_jax.export",
    description="Export a trained stage's edit as a bundle.",
  )
  parser.add_argument(
    "--config", help="config file[:variant]; what the run recorded by default"
  )
  parser.add_argument("--workdir", required=True, help="of the training run")
  parser.add_argument("--out", required=True, help="folder of the bundle")
  parser.add_argument("--stage", help="the last one by default")
  parser.add_argument("--ema", help="average to export; '' for raw parameters")
  parser.add_argument(
    "--inputs",
    default="",
    help="inputs that the bundle takes, comma separated",
  )
  parser.add_argument("--platforms", default=",".join(PLATFORMS))
  parser.add_argument("--batch", type=int, help="any size by default")
  parser.add_argument(
    "--options", default="{}", help='options of edit, as JSON: {"steps": 20}'
  )
  arguments = sys.argv[1:] if arguments is None else arguments
  overrides, arguments = config_lib.split_args(arguments)
  given = parser.parse_args(arguments)
  try:
    with as_user_error("export"):
      config = None
      if given.config:
        config = config_lib.override(config_lib.load(given.config), overrides)
      elif overrides:
        raise UserError(f"--config.{overrides[0]} needs --config")
      out = export_stage(
        config,
        given.workdir,
        given.out,
        stage=given.stage,
        ema=given.ema,
        inputs=[n for n in given.inputs.split(",") if n] or None,
        platforms=[p for p in given.platforms.split(",") if p],
        batch=given.batch,
        options=_options(given.options),
      )
  except UserError as error:
    text = " ".join(str(error).split())
    print(f"error: {text}", file=sys.stderr, flush=True)
    return 2
  print(f"wrote {out}", flush=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
