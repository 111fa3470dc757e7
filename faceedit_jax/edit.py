"""Edits pictures with a trained stage, from the command line and from Python.

  python -m faceedit_jax.edit --workdir=DIR --source=a.jpg --<query>=b.jpg \
    --output=out.png

From Python: `Editor.from_workdir(DIR).edit(source=..., <query>=...)`. Which
queries and settings there are is up to the recipe; any other option is
answered with a list of them.
"""

import argparse
import ast
import csv
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm
from absl import logging

from data_pipelines import images
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.editing import find_face
from faceedit_jax.editing.editor import SOURCE, Editor, EditResult

__all__ = ["EditResult", "Editor", "main", "run"]

OUTPUT = "output"
_PAIRS_BATCH = 8


class _Parser(argparse.ArgumentParser):
  """Raises its errors as UserErrors."""

  def error(self, message):
    raise UserError(message)


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog="python -m faceedit_jax.edit",
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    description=(
      "Edits pictures with a trained stage.\n\n"
      "--<query>=FILE gives another picture to take something from, and\n"
      "--<setting>=VALUE a setting of the recipe's edit; their names depend "
      "on\nthe recipe: an unknown one is answered with the list."
    ),
  )
  add = parser.add_argument
  add("--workdir", help="directory of a run of faceedit_jax.main")
  add("--source", help="picture to edit")
  add("--output", help="file to write; with --pairs: folder of the outputs")
  add(
    "--pairs",
    help="CSV file with columns source, output and any query or setting",
  )
  add("--config", help="config file; by default what the run has recorded")
  add("--stage", help="stage to edit with; by default the last that edits")
  add("--landmarks", help="file of five face points per picture, in pixels")
  add("--detector", help="Python file with detect(image) -> five points")
  add("--aligned", action="store_true", help="pictures are already framed")
  add(
    "--paste_back",
    action="store_true",
    help="put the edit back into the source picture",
  )
  add(
    "--sheet",
    action="store_true",
    help="also write OUTPUT_sheet.png with all pictures side by side",
  )
  add("--seed", type=int, default=0, help="of the sampling noise")
  add("--batch_size", type=int, help=f"with --pairs ({_PAIRS_BATCH})")
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


def _value(text: str) -> Any:
  """A setting as what it reads as, else as the text that it is.

  Args:
    text: a Python literal such as 0.8, true or 0,0.5,1; FIRST:LAST:COUNT for
      so many evenly spaced numbers; or any text.
  """
  parts = text.split(":")
  try:
    if len(parts) == 3 and int(parts[2]) > 1:
      numbers = np.linspace(float(parts[0]), float(parts[1]), int(parts[2]))
      return tuple(numbers.round(6).tolist())
    return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text


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
    images.write_image(path, picture)
    if result.strip is not None:
      beside = path.with_name(f"{path.stem}_strip.png")
      images.write_image(beside, result.strip_sheet())
      written += f" and {beside}"
    if sheet:
      images.write_image(
        path.with_name(f"{path.stem}_sheet.png"), result.sheet()
      )
  return written


def read_pairs(
  path: pathlib.Path,
  queries: Sequence[str],
  knobs: Sequence[str],
  folder: pathlib.Path | None,
) -> list[tuple[int, dict[str, Any], pathlib.Path | UserError]]:
  """Reads a list of edits.

  Args:
    path: CSV file with a header: source, output and any query or setting.
    queries: names of pictures that may be columns.
    knobs: names of settings that may be columns.
    folder: where outputs go; the file's own folder when None.

  Returns:
    [(line, {input: file, setting: value}, output file or what is wrong with
    the line)]. Files are relative to the folder of the CSV file.

  Raises:
    UserError: one line: there is no such file, or its header is wrong.
  """
  with as_user_error(f"--pairs={path}"):
    text = path.read_text(encoding="utf-8-sig")
  reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
  columns = [name.strip() for name in reader.fieldnames or ()]
  reader.fieldnames = columns
  wanted = (SOURCE, OUTPUT, *queries, *knobs)
  unknown = [name for name in columns if name not in wanted]
  missing = [name for name in (SOURCE, OUTPUT) if name not in columns]
  if unknown or missing:
    raise UserError(
      f"{path} line 1: columns {columns}, wanted {SOURCE}, {OUTPUT} and any of "
      f"{[*queries, *knobs]}"
    )
  rows, taken = [], {}
  for row in reader:
    line = reader.line_num
    spare = row.pop(None, None)
    row = {k: v.strip() for k, v in row.items() if v and v.strip()}
    lacking = [name for name in (SOURCE, OUTPUT) if name not in row]
    output: pathlib.Path | UserError
    if spare or lacking:
      problem = f"lacks {lacking[0]}" if lacking else "has too many columns"
      rows.append((line, {}, UserError(problem)))
      continue
    output = (folder or path.parent) / row.pop(OUTPUT)
    if output in taken:
      error = UserError(f"{OUTPUT} {output} is that of line {taken[output]}")
      rows.append((line, {}, error))
      continue
    taken[output] = line
    made = {
      name: _value(text) if name in knobs else str(path.parent / text)
      for name, text in row.items()
    }
    rows.append((line, made, output))
  if not rows:
    raise UserError(f"{path} lists no edits")
  return rows


def _run_pairs(
  editor: Editor, options: argparse.Namespace, knobs: dict[str, Any]
) -> int:
  """Edits a list; bad lines are named, the others done."""
  path = pathlib.Path(options.pairs)
  folder = pathlib.Path(options.output) if options.output else None
  rows = read_pairs(path, editor.queries, editor.knobs or (), folder)
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
    (row for _, row, _ in good), **_shared(options), **knobs
  )
  bar = tqdm.tqdm(total=len(good), unit="edit", disable=None)
  for (line, _, output), result in zip(good, results, strict=True):
    try:
      if isinstance(result, UserError):
        raise result
      _write(output, result, options.sheet)
    except UserError as error:
      fail(line, error)
    bar.update()
  bar.close()
  written = f"{len(rows) - failed} of {len(rows)} edits written"
  print(f"{written}, {failed} failed" if failed else written, flush=True)
  return 1 if failed else 0


def _shared(options: argparse.Namespace) -> dict[str, Any]:
  return {
    "seed": options.seed,
    "landmarks": options.landmarks,
    "aligned": options.aligned,
    "paste_back": options.paste_back,
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
  options, extra = _parser().parse_known_args(rest)
  given = _split(extra)
  if not options.workdir:
    raise UserError("--workdir is missing: directory of a run to edit with")
  if bool(options.pairs) == bool(options.source):
    raise UserError("wanted either --source and --output, or --pairs")
  if options.source:
    if not options.output:
      raise UserError("--output is missing: the picture to write")
    check_output(pathlib.Path(options.output))
  config = None
  if options.config:
    with as_user_error("--config"):
      config = config_lib.override(config_lib.load(options.config), overrides)
  elif overrides:
    raise UserError("--config.KEY=VALUE needs --config=FILE")
  batch_size = 1 if options.source else options.batch_size or _PAIRS_BATCH
  detector = None
  if options.detector:
    detector = find_face.load_detector(options.detector)
  editor = Editor.from_workdir(
    options.workdir,
    config,
    options.stage,
    batch_size=batch_size,
    detector=detector,
  )
  knobs = {k: _value(v) for k, v in given.items() if k not in editor.queries}
  editor.check_knobs(knobs)
  if options.pairs:
    queries = [name for name in given if name in editor.queries]
    if queries:
      raise UserError(
        f"--{queries[0]} goes with --source; with --pairs it is a column"
      )
    return _run_pairs(editor, options, knobs)
  queries = {k: v for k, v in given.items() if k in editor.queries}
  result = editor.edit(options.source, **_shared(options), **queries, **knobs)
  written = _write(pathlib.Path(options.output), result, options.sheet)
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
