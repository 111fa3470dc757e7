"""Edits with a trained stage, from the command line.

  python -m faceedit_jax.edit --workdir=DIR --source=a.jpg \
    --<input>=FILE --<option>=VALUE --output=out.png

Which inputs and options there are is up to the recipe: `--workdir=DIR --help`
lists them. From Python: `faceedit_jax.editing.Editor`.
"""

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tqdm
from absl import logging

from data_pipelines import detectors, images
from faceedit_jax import load_trained
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import editing as protocols
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.editing import alignment, lists
from faceedit_jax.editing import inputs as inputs_lib
from faceedit_jax.editing import options as options_lib
from faceedit_jax.editing.editor import Editor
from faceedit_jax.editing.result import EditResult

_LIST_BATCH = 8


class _Parser(argparse.ArgumentParser):
  """Raises its errors as UserErrors."""

  def error(self, message):
    raise UserError(message)


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog="python -m faceedit_jax.edit",
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    add_help=False,
    description=(
      "Edits with a trained stage.\n\n"
      "--<input>=VALUE gives an input of the edit, and --<option>=VALUE an\n"
      "option; their names depend on the recipe."
    ),
  )
  add = parser.add_argument
  add("--workdir", help="directory of a run of faceedit_jax.main")
  add("--output", help="file to write; with --pairs: folder of the outputs")
  add(
    "--pairs",
    help="CSV file: columns output, the required inputs, any other or option",
  )
  add("--config", help="config file; by default what the run has recorded")
  add("--stage", help="stage to edit with; by default the last that edits")
  add("--landmarks", help="file of five face points per picture, in pixels")
  add(
    "--detector",
    default=detectors.AUTO,
    help=(
      f"{', '.join(detectors.DETECTORS)}, {alignment.NET} for the run's own "
      "net, or a Python file with detect(image) -> five points"
    ),
  )
  add(
    "--face",
    help="which face of the source: largest, N (1 is the largest) or X,Y",
  )
  add("--aligned", action="store_true", help="pictures are already framed")
  add(
    "--paste_back",
    action="store_true",
    help="put the edit back into the source photo; written as sRGB",
  )
  add(
    "--sheet",
    action="store_true",
    help="also write OUTPUT_sheet.png with all pictures side by side",
  )
  add("--seed", type=int, default=0, help="of the sampling noise")
  add(
    "--help",
    action="store_true",
    help="this; with --workdir also the inputs and options of its edit",
  )
  add("--batch_size", type=int, help=f"with --pairs ({_LIST_BATCH})")
  return parser


def _split(extra: Sequence[str]) -> dict[str, str]:
  """{name: text} of "--name=text" and "--name text"."""
  found: dict[str, str] = {}
  rest = iter(extra)
  for argument in rest:
    if not argument.startswith("--"):
      raise UserError(f"unknown argument {argument!r}; options start with --")
    name, equals, value = argument[2:].partition("=")
    found[name] = value if equals else next(rest, "")
    if not found[name] or (not equals and found[name].startswith("--")):
      raise UserError(f"--{name} has no value")
  return found


def check_output(path: pathlib.Path) -> None:
  """Proves that a picture can be written, before any work is done for it.

  Raises:
    UserError: one line: the suffix, or what keeps it from being written.
  """
  if path.suffix.lower() not in images.SUFFIXES:
    raise UserError(
      f"output {path}: unknown picture suffix {path.suffix!r}, wanted one of "
      f"{' '.join(images.SUFFIXES)}"
    )
  if path.is_dir():
    raise UserError(f"output {path}: is a folder, wanted a picture file")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".probe"):
      pass
  except OSError as error:
    raise UserError(
      f"output {path}: cannot be written ({error.strerror or error})"
    ) from error


def _write(path: pathlib.Path, result: EditResult, sheet: bool) -> str:
  """Writes the edit, its strip and the sheet, each whole or not at all.

  Returns:
    The names of the edit and of the strip, where there is one.
  """
  picture = result.image if result.pasted is None else result.pasted
  written = str(path)
  with as_user_error():
    images.write_image(path, picture, tagged=result.pasted is not None)
    if result.strip is not None:
      beside = path.with_name(f"{path.stem}_strip.png")
      images.write_image(beside, result.strip_sheet())
      written += f" and {beside}"
    if sheet:
      images.write_image(
        path.with_name(f"{path.stem}_sheet.png"), result.sheet()
      )
  return written


def _help(
  parser: argparse.ArgumentParser,
  workdir: str | None,
  config: Mapping[str, Any] | None,
  stage: str | None,
) -> str:
  """How to use the command, and what the edit of a run takes."""
  text = parser.format_help()
  if not workdir:
    return text
  built = load_trained.find_stage(workdir, config, stage)[1]
  recipe = protocols.editable(built.recipe)
  lines = [
    f"  --{item.field:<21} {item.kind}: {inputs_lib.describe(item)}"
    for item in recipe.edit_inputs
  ]
  names = options_lib.names(recipe) or ()
  options = " ".join(f"--{name}" for name in names) or "none"
  lines = "\n".join(lines)
  return (
    f"{text}\ninputs of stage {built.name!r} ({type(recipe).__name__}):\n"
    f"{lines}\n\noptions of its edit:\n  {options}\n"
  )


def _run_list(
  editor: Editor, given: argparse.Namespace, options: dict[str, Any]
) -> int:
  """Makes the edits of a list; bad lines are named, the others done."""
  path = pathlib.Path(given.pairs)
  folder = pathlib.Path(given.output) if given.output else None
  rows = lists.read_list(
    path,
    editor.inputs,
    editor.options or (),
    folder,
    options_lib.lists(editor.recipe),
  )
  failed = 0

  def fail(line, error):
    nonlocal failed
    failed += 1
    text = " ".join(str(error).split())
    tqdm.tqdm.write(f"error: {path} line {line}: {text}", file=sys.stderr)

  good = []
  for line, row, output in rows:
    try:
      if isinstance(output, UserError):
        raise output
      check_output(output)
      good.append((line, row, output))
    except UserError as error:
      fail(line, error)
  results = editor.edit_many(
    (row for _, row, _ in good), **_shared(given), **options
  )
  bar = tqdm.tqdm(total=len(good), unit="edit", disable=None)
  searched = 0  # photos whose face was looked for
  for line, _, output in good:
    result = next(results)
    try:
      if isinstance(result, UserError):
        raise result
      _write(output, result, given.sheet)
      searched += len(result.faces)
      for field, found in result.faces.items():
        if found.turn or len(found.faces) > 1:
          said = f"{path} line {line}: {field}: {found.describe()}"
          tqdm.tqdm.write(said, file=sys.stdout)
    except UserError as error:
      fail(line, error)
    del result  # with paste_back as large as its photo
    bar.update()
  bar.close()
  if searched and editor.why_net:
    print(f"faces were found by the run's own net ({editor.why_net})")
  written = f"{len(rows) - failed} of {len(rows)} edits written"
  print(f"{written}, {failed} failed" if failed else written, flush=True)
  return 1 if failed else 0


def _shared(given: argparse.Namespace) -> dict[str, Any]:
  return {
    "seed": given.seed,
    "landmarks": given.landmarks,
    "aligned": given.aligned,
    "paste_back": given.paste_back,
    "face": given.face,
  }


def run(argv: Sequence[str]) -> int:
  """Does what a command line says.

  Args:
    argv: arguments without the program's name.

  Returns:
    Exit code: 0, or 1 when some lines of --pairs failed.

  Raises:
    UserError: one line.
  """
  overrides, rest = config_lib.split_args(argv)
  parser = _parser()
  given, extra = parser.parse_known_args(rest)
  config = None
  if given.config:
    with as_user_error("--config"):
      config = config_lib.override(config_lib.load(given.config), overrides)
  elif overrides:
    raise UserError("--config.KEY=VALUE needs --config=FILE")
  if given.help:
    print(_help(parser, given.workdir, config, given.stage), flush=True)
    return 0
  named = _split(extra)
  if not given.workdir:
    raise UserError("--workdir is missing: directory of a run to edit with")
  if not given.pairs:
    if not given.output:
      raise UserError("--output is missing: the picture to write")
    check_output(pathlib.Path(given.output))
  with as_user_error():
    given.face = detectors.choice_of(given.face or "largest", "--face")
    detector = alignment.choose(given.detector)
  editor = Editor.from_workdir(
    given.workdir,
    config,
    given.stage,
    batch_size=given.batch_size or _LIST_BATCH if given.pairs else 1,
    detector=detector,
  )
  fields = {item.field for item in editor.inputs}
  inputs = {name: text for name, text in named.items() if name in fields}
  options = {
    name: lists.option_value(text)
    for name, text in named.items()
    if name not in fields
  }
  editor.check_options(options)
  if given.pairs:
    if inputs:
      raise UserError(
        f"--{next(iter(inputs))}: with --pairs it is a column of the list"
      )
    return _run_list(editor, given, options)
  result = editor.edit(**_shared(given), **inputs, **options)
  written = _write(pathlib.Path(given.output), result, given.sheet)
  why = f" ({editor.why_net})" if editor.why_net else ""
  for field, found in result.faces.items():
    print(f"{field}: {found.describe()}{why}")
  print(f"wrote {written}", flush=True)
  return 0


def main(argv: Sequence[str] | None = None) -> int:
  """Entry point; a UserError is one line and exit code 2."""
  logging.set_verbosity(logging.WARNING)  # libraries are chatty
  try:
    return run(sys.argv[1:] if argv is None else argv)
  except UserError as error:
    text = " ".join(str(error).split())
    print(f"error: {text}", file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
  sys.exit(main())
