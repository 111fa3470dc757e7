"""Command line: trains or evaluates the stages of a config, names slots.

  python -m faceedit_jax.main --config=configs/FILE.py[:VARIANT] --workdir=DIR

Any value of the config can be changed: --config.stage.NAME.steps=10.
"""

import sys
from collections.abc import Sequence

from absl import app, flags, logging

from faceedit_jax.core import huge_pages
from faceedit_jax.core.errors import UserError, as_user_error

_CONFIG = flags.DEFINE_string(
  "config", None, "config file, with :variant if wanted: configs/x.py:smoke"
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "directory of checkpoints, metrics and previews"
)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "evaluate", "name_slots"],
  "what to do with the stages; name_slots shows what each slot of a trained "
  "stage attends to, and names it",
)
_SLOT_NAMES = flags.DEFINE_list(
  "slot_names",
  [],
  "with --mode=name_slots: the region of each slot, in the order of the sheet",
)
_STAGE = flags.DEFINE_string(
  "stage", None, "one stage only; by default all that are not finished"
)
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "directory of prepared data, instead of config.data_dir"
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed",
  False,
  "one of several processes; where JAX cannot find the others, set "
  "COORDINATOR=host:port, NUM_PROCESSES and PROCESS_ID",
)

_overrides: list[str] = []


def join_overrides(argv: Sequence[str]) -> list[str]:
  """Writes "--config.key value" as "--config.key=value"."""
  joined: list[str] = []
  rest = iter(argv)
  for argument in rest:
    if argument.startswith("--config.") and "=" not in argument:
      argument = f"{argument}={next(rest, '')}"
    joined.append(argument)
  return joined


def run(overrides: Sequence[str]) -> int:
  """Does what the flags say.

  Args:
    overrides: "stage.NAME.steps=10" texts for the config.

  Returns:
    Exit code: 0, also when a signal to stop came and the state was saved.

  Raises:
    UserError: one line.
  """
  for flag in (_CONFIG, _WORKDIR):
    if not flag.value:
      raise UserError(
        f"--{flag.name} is missing: {flags.FLAGS[flag.name].help}"
      )
  from faceedit_jax.core import config as config_lib  # noqa: PLC0415

  with as_user_error("--config"):
    config = config_lib.load(_CONFIG.value)
    config = config_lib.override(config, overrides)
  # JAX counts devices at its first use, so the processes join before that.
  from faceedit_jax.core import distributed  # noqa: PLC0415

  if _DISTRIBUTED.value:
    distributed.initialize()
  # Seconds to import.
  from faceedit_jax import name_slots, stages, train  # noqa: PLC0415
  from faceedit_jax.core import compile_cache  # noqa: PLC0415

  compile_cache.enable()

  data_dir = _DATA_DIR.value or config.get("data_dir") or "data"
  for flag, value in (("workdir", _WORKDIR.value), ("data_dir", data_dir)):
    if "://" in value:
      raise UserError(
        f"--{flag}={value}: wanted a folder; mount the bucket and give the "
        "path where it is mounted"
      )
  if _MODE.value == "name_slots":
    name_slots.run(
      config, _WORKDIR.value, _STAGE.value, data_dir, _SLOT_NAMES.value
    )
    return 0
  if _SLOT_NAMES.value:
    raise UserError("--slot_names needs --mode=name_slots")
  names = stages.pick_stages(config, _STAGE.value)
  if _MODE.value == "evaluate":
    names += stages.eval_stages(config)
  # Built before the data are drawn: a mistake in any stage shows at once.
  made = [
    stages.make_stage(config, name, _WORKDIR.value, data_dir) for name in names
  ]
  prepare_data(made, data_dir)
  train.run(config, _WORKDIR.value, _MODE.value, _STAGE.value, data_dir)
  return 0


def prepare_data(made: Sequence["stages.Stage"], data_dir: str) -> None:
  """Draws the embedded data set where a stage needs it and it is not there.

  The first process draws; the others wait for it.
  """
  import jax  # noqa: PLC0415

  from data_pipelines import prepare, sources  # noqa: PLC0415
  from faceedit_jax.core import distributed  # noqa: PLC0415

  found = {
    f"config.stage.{stage.name}.data": stage.data.source
    for stage in made
    if isinstance(stage.data.source, sources.SyntheticHeads)
  }
  if not found:
    return
  if jax.process_index() == 0:
    for where, source in found.items():
      with as_user_error(where):
        prepare.ensure(source, data_dir)
  distributed.barrier("data")


def _main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    _fail(UserError(f"unknown argument {argv[1]!r}; options start with --"))
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # libraries are chatty
    # Failed saves are raised to us and reported in one line.
    handler = logging.get_absl_handler()
    handler.addFilter(lambda entry: "orbax" not in entry.pathname)
  try:
    code = run(_overrides)
  except UserError as error:
    _fail(error)
  sys.exit(code)


def _fail(error: UserError) -> None:
  """One line on standard error; the whole story with --verbosity=1."""
  logging.debug("details", exc_info=error)
  print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
  sys.exit(2)


def _parse(argv: Sequence[str]) -> list[str]:
  from faceedit_jax.core import config as config_lib  # noqa: PLC0415

  _overrides[:], rest = config_lib.split_args(join_overrides(argv))
  try:
    return flags.FLAGS(rest)
  except flags.Error as error:
    _fail(UserError(str(error)))


def _excepthook(kind, error, trace) -> None:
  """Keeps silent about the echoes of a failed save, which is reported once."""
  if kind is RuntimeError and str(error) == "Event loop is closed":
    return
  sys.__excepthook__(kind, error, trace)


def main() -> None:
  """Entry point."""
  sys.excepthook = _excepthook
  app.run(_main, flags_parser=_parse)


if __name__ == "__main__":
  huge_pages.restart()
  main()
